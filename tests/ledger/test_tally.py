"""What a window sums to, kept up: always what its periods say."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from agentbudget.ledger.records import NOTHING, Units, plus
from agentbudget.ledger.tally import Tally

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
