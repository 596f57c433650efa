"""What a window of an account sums to, kept up as the window moves on: no store has to be asked again."""

from __future__ import annotations

from bisect import bisect_left, insort
from collections.abc import Iterable

from agentbudget.ledger.records import NOTHING, Units, minus, plus


class Tally:
    """The sum of the periods that begin at ``since`` or later; it only moves forward."""

    __slots__ = ("_periods", "_since", "_starts", "_total")

    def __init__(self, since_ns: int, periods: Iterable[tuple[int, Units, Units]]) -> None:
        self._since = since_ns
        self._periods = {start: plus(held, posted) for start, held, posted in periods}
        self._starts = sorted(self._periods)
        self._total = NOTHING
        for used in self._periods.values():
            self._total = plus(self._total, used)

    def used(self, since_ns: int) -> Units | None:
        """What is held and posted from then on; None if that is before what is known."""
        if since_ns != self._since:
            if since_ns < self._since:
                return None
            gone = bisect_left(self._starts, since_ns)
            for start in self._starts[:gone]:
                self._total = plus(self._total, minus(self._periods.pop(start)))
            del self._starts[:gone]
            self._since = since_ns
        return self._total

    def add(self, start_ns: int, held: Units, posted: Units) -> None:
        """Count a change in the period that begins at `start_ns`."""
        if start_ns < self._since:
            return
        change = plus(held, posted)
        self._total = plus(self._total, change)
        before = self._periods.get(start_ns)
        if before is None:
            insort(self._starts, start_ns)
            self._periods[start_ns] = change
        else:
            self._periods[start_ns] = plus(before, change)
