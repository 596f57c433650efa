"""What a window of an account sums to, kept up as the window moves on: no store has to be asked again."""

from __future__ import annotations

from bisect import bisect_left, bisect_right, insort
from collections.abc import Callable, Iterable
from itertools import islice
from typing import Final

from agentbudget.ledger.records import NOTHING, Units, minus, plus

Period = tuple[int, Units, Units]
"""(start, held, posted)"""
NEVER: Final = 2**63 - 1
"""Later than every period."""


class Tally:
    """The sum of the periods that begin at ``since`` or later; it only moves forward. Of those before, it keeps what
    it was told of (`reach_back`), as far behind ``since`` as was needed so far."""

    __slots__ = ("_begins", "_behind", "_periods", "_since", "_sound", "_starts", "_total")

    def __init__(self, since_ns: int, periods: Iterable[Period]) -> None:
        self._since = self._begins = since_ns
        self._behind = 0
        self._periods = {start: plus(held, posted) for start, held, posted in periods}
        self._starts = sorted(self._periods)
        self._total = self._sum(0, len(self._starts))
        self._sound = True
        """False in the middle of a change: an interrupt may have left it there."""

    def _sum(self, first: int, end: int) -> Units:
        total, periods = NOTHING, self._periods
        for start in self._starts[first:end]:
            total = plus(total, periods[start])
        return total

    def used(self, since_ns: int) -> Units | None:
        """What is held and posted from then on; None if that is before what is known."""
        if since_ns != self._since or not self._sound:
            if since_ns < self._since or not self._sound:
                return None
            self._sound, starts = False, self._starts
            gone = self._sum(bisect_left(starts, self._since), bisect_left(starts, since_ns))
            self._total, self._since = plus(self._total, minus(gone)), since_ns
            self._begins = max(self._begins, since_ns - self._behind)
            dropped = bisect_left(starts, self._begins)
            for start in starts[:dropped]:
                del self._periods[start]
            del starts[:dropped]
            self._sound = True
        return self._total

    def oldest(self, since_ns: int) -> int | None:
        """The first of the periods that it keeps, from `since_ns` on, in which anything is held or posted."""
        for start in islice(self._starts, bisect_left(self._starts, since_ns), None):
            if self._periods[start] != NOTHING:
                return start
        return None

    def most(self, start_ns: int, length_ns: int) -> Units | None:
        """The most, in each unit, that is held and posted in any time of this length that the period from `start_ns`
        on is in; None if it begins before what is known."""
        first_ns, starts = start_ns - length_ns, self._starts
        if first_ns < self._begins or not self._sound:
            return None
        first, after = bisect_left(starts, first_ns), bisect_right(starts, start_ns)
        if start_ns < self._since:
            used = self._sum(first, after)
        else:  # from the total: little begins between two moments that are near each other
            since = bisect_left(starts, self._since)
            used = plus(self._total, self._sum(first, since))
            used = plus(used, minus(plus(self._sum(since, first), self._sum(after, len(starts)))))
        most = used
        for start in starts[after : bisect_right(starts, start_ns + length_ns)]:
            used = plus(used, self._periods[start])
            while starts[first] < start - length_ns:
                used = plus(used, minus(self._periods[starts[first]]))
                first += 1
            most = max(most[0], used[0]), max(most[1], used[1]), max(most[2], used[2])
        return most

    def lacks(self, first_ns: int, length_ns: int) -> int | None:
        """Up to when it should be told of the periods from `first_ns` on: where it begins, if that is later and no more
        than a length away from what it sums; else None."""
        near = self._since - length_ns <= first_ns < self._begins
        return self._begins if near and self._sound else None

    def reach_back(self, first_ns: int, periods: Iterable[Period]) -> None:
        """Know the periods from `first_ns` on, up to where it began, and from now on as far back."""
        self._sound = False
        self._periods.update((start, plus(held, posted)) for start, held, posted in periods)
        self._starts = sorted(self._periods)
        self._behind = max(self._behind, self._since - first_ns)
        self._begins, self._sound = first_ns, True

    def add(self, start_ns: int, held: Units, posted: Units) -> None:
        """Count a change in the period that begins at `start_ns`."""
        if start_ns < self._begins:
            return
        change = plus(held, posted)
        if start_ns >= self._since:
            self._total = plus(self._total, change)
        before = self._periods.get(start_ns)
        if before is None:
            insort(self._starts, start_ns)
            self._periods[start_ns] = change
        else:
            self._periods[start_ns] = plus(before, change)


class Tallies:
    """The tallies of the windows that were asked for. ``periods`` gives those of a window from one moment on, before
    another. Whoever undoes a change clears them."""

    def __init__(self, periods: Callable[[str, str, int, int], list[Period]]) -> None:
        self._read = periods
        self._kept: dict[tuple[str, str], Tally] = {}

    def __len__(self) -> int:
        return len(self._kept)

    def used(self, account: str, window: str, since_ns: int) -> Units:
        """See `Transaction.used`."""
        tally = self._kept.get((account, window))
        used = None if tally is None else tally.used(since_ns)
        if used is None:
            tally = self._kept[account, window] = Tally(since_ns, self._read(account, window, since_ns, NEVER))
            used = tally.used(since_ns) or NOTHING
        return used

    def oldest(self, account: str, window: str, since_ns: int) -> int | None:
        """See `Transaction.oldest`."""
        self.used(account, window, since_ns)
        return self._kept[account, window].oldest(since_ns)

    def most(self, account: str, window: str, start_ns: int, length_ns: int) -> Units:
        """See `Transaction.most`."""
        tally, first_ns = self._kept.get((account, window)), start_ns - length_ns
        if tally is not None:
            until_ns = tally.lacks(first_ns, length_ns)
            if until_ns is not None:
                tally.reach_back(first_ns, self._read(account, window, first_ns, until_ns))
            most = tally.most(start_ns, length_ns)
            if most is not None:
                return most
        return most_in(self._read(account, window, first_ns, start_ns + length_ns + 1), start_ns, length_ns)

    def add(self, account: str, window: str, start_ns: int, held: Units, posted: Units) -> None:
        """Count a change."""
        tally = self._kept.get((account, window))
        if tally is not None:
            tally.add(start_ns, held, posted)

    def drop(self, account: str, window: str) -> None:
        """Forget a window."""
        self._kept.pop((account, window), None)

    def clear(self) -> None:
        """Forget all of them."""
        self._kept.clear()


class Tallied:
    """What a `Transaction` answers from tallies."""

    _tallies: Tallies

    def used(self, account: str, window: str, since_ns: int) -> Units:
        return self._tallies.used(account, window, since_ns)

    def oldest(self, account: str, window: str, since_ns: int) -> int | None:
        return self._tallies.oldest(account, window, since_ns)

    def most(self, account: str, window: str, start_ns: int, length_ns: int) -> Units:
        return self._tallies.most(account, window, start_ns, length_ns)


def most_in(periods: Iterable[Period], start_ns: int, length_ns: int) -> Units:
    """`Tally.most` of these periods, which are all that can count."""
    return Tally(start_ns - length_ns, periods).most(start_ns, length_ns) or NOTHING
