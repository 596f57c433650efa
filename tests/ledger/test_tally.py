"""What a window sums to, kept up: always what its periods say."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from agentbudget.ledger.records import NOTHING, Units, plus
from agentbudget.ledger.tally import Tallies, Tally

starts = st.integers(0, 20)
change = st.tuples(starts, st.integers(-5, 5), st.integers(0, 5))


def summed(periods: list[tuple[int, Units, Units]], since: int) -> Units:
    total = NOTHING
    for start, held, posted in periods:
        if start >= since:
            total = plus(total, plus(held, posted))
    return total


@given(
    begun=st.dictionaries(starts, st.integers(0, 5)),
    steps=st.lists(st.one_of(change, starts)),
    first=starts,
)
def test_it_sums_what_began_since(begun: dict[int, int], steps: list[tuple[int, int, int] | int], first: int) -> None:
    known = [(start, (usd, 0, 1), NOTHING) for start, usd in begun.items()]
    tally, since = Tally(first, [period for period in known if period[0] >= first]), first
    for step in steps:
        if isinstance(step, int):
            used = tally.used(step)
            assert used == (None if step < since else summed(known, step))
            since = max(since, step)
        else:
            start, usd, calls = step
            known.append((start, (usd, 0, 0), (0, 0, calls)))
            tally.add(start, (usd, 0, 0), (0, 0, calls))
    assert tally.used(since) == summed(known, since)


def read(known: list[tuple[int, Units, Units]], since: int, until: int) -> list[tuple[int, Units, Units]]:
    """The periods as a store has them: one for each start."""
    found: dict[int, Units] = {}
    for start, held, posted in known:
        if since <= start < until:
            found[start] = plus(found.get(start, NOTHING), plus(held, posted))
    return [(start, used, NOTHING) for start, used in sorted(found.items())]


def most(known: list[tuple[int, Units, Units]], start: int, length: int) -> Units:
    """Every time that begins before and ends after, one by one."""
    times = [read(known, end - length, end + 1) for end in range(start, start + length + 1)]
    sums = [summed(periods, -100) for periods in times]
    return (max(usd for usd, _, _ in sums), max(tokens for _, tokens, _ in sums), max(calls for _, _, calls in sums))


asked = st.tuples(st.sampled_from(["used", "most", "oldest"]), starts)
added = st.tuples(st.just("add"), starts, st.integers(0, 5), st.integers(0, 5))


@given(
    known=st.lists(st.tuples(starts, st.integers(0, 5), st.integers(0, 5))),
    steps=st.lists(st.one_of(asked, added), max_size=30),
    length=st.integers(1, 8),
)
def test_whatever_was_asked_before_the_answers_are_those_of_the_periods(
    known: list[tuple[int, int, int]], steps: list[tuple[str, int] | tuple[str, int, int, int]], length: int
) -> None:
    kept: list[tuple[int, Units, Units]] = [(start, (usd, 0, 1), (0, 0, calls)) for start, usd, calls in known]
    tallies = Tallies(lambda _account, _window, since, until: read(kept, since, until))
    for step in steps:
        if len(step) == 4:
            _, start, usd, calls = step
            kept.append((start, (usd, 0, 0), (0, 0, calls)))
            tallies.add("a", "day", start, (usd, 0, 0), (0, 0, calls))
        elif step[0] == "used":
            assert tallies.used("a", "day", step[1]) == summed(kept, step[1])
        elif step[0] == "most":
            assert tallies.most("a", "day", step[1], length) == most(kept, step[1], length)
        else:
            counted = [start for start, used, _ in read(kept, step[1], 100) if used != NOTHING]
            assert tallies.oldest("a", "day", step[1]) == (counted[0] if counted else None)


def test_a_hold_that_is_extended_again_and_again_is_read_of_once() -> None:
    reads: list[tuple[int, int]] = []

    def periods(_account: str, _window: str, since: int, until: int) -> list[tuple[int, Units, Units]]:
        reads.append((since, until))
        return []

    tallies = Tallies(periods)
    for now in range(1000, 1050):
        tallies.used("a", "100s", now - 100)
        tallies.most("a", "100s", now - 7, 100)
    assert len(reads) == 2
