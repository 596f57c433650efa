"""Holds that others made, as the entries that tell of them: few are ever asked for by whoever follows the journal."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final, NamedTuple

from agentbudget.ledger.sql import Row

_ENDS: Final = frozenset({"settle", "void"})


class Outline(NamedTuple):
    """The entries of a hold on accounts: of its opening, of its sending, of its end."""

    opened: Row
    sent: Row | None = None
    ended: Row | None = None

    @property
    def last(self) -> int:
        """The entry that last changed it."""
        seq: int = (self.ended or self.sent or self.opened)[0]
        return seq


class Outlines:
    """What entries said of others' holds, by id."""

    def __init__(self) -> None:
        self._known: dict[str, Outline] = {}

    def __len__(self) -> int:
        return len(self._known)

    def __contains__(self, hold_id: str) -> bool:
        return hold_id in self._known

    def take(self, line: Row) -> bool:
        """Keep what an entry says; False where that takes more than to keep it."""
        kind, subject = line[2], line[3]
        if kind == "reserve":
            self._known[subject] = Outline(line)
            return True
        before = self._known.get(subject)
        if before is None or before.ended is not None:
            return False
        if kind in _ENDS:
            self._known[subject] = Outline(before.opened, before.sent, line)
            return True
        if kind == "sent":
            self._known[subject] = Outline(before.opened, line)
            return True
        return False

    def pop(self, hold_id: str) -> Outline | None:
        """Hand one out, to be kept elsewhere."""
        return self._known.pop(hold_id, None)

    def pop_all(self) -> list[tuple[str, Outline]]:
        """Hand out all of them."""
        found = list(self._known.items())
        self._known.clear()
        return found

    def since(self, applied: int) -> Iterator[Outline]:
        """Those that changed after an entry."""
        return (outline for outline in self._known.values() if outline.last > applied)

    def rebase(self, applied: int) -> None:
        """Drop what has ended by that entry: whoever asks for it finds it in the tables."""
        self._known = {i: o for i, o in self._known.items() if o.ended is None or o.ended[0] > applied}

    def clear(self) -> None:
        self._known.clear()
