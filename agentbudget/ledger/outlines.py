"""Holds that others made, as the entries that tell of them: few are ever asked for by whoever follows the journal."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Sequence
from typing import Final, NamedTuple

from agentbudget.ledger.records import EMPTY, Detail, EntryKind, HoldState
from agentbudget.ledger.sql import Row

ENDS: Final[dict[EntryKind, HoldState]] = {"settle": "settled", "void": "voided"}
"""The entries that end a hold and may be written before the tables follow."""


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

    def row(self, owner: str) -> Row:
        """The hold in the order of `rows.PLAIN_FIELDS`."""
        began, sent, ended = self
        tag = detail_of(began).get("tag") or None
        if ended is None:
            how, end = ("open", int(sent is not None)), (None, None, None, 0, None)
        else:
            how = (ENDS[ended[2]], int(sent is not None))
            end = (*ended[8:11], int(bool(detail_of(ended).get("presumed"))), ended[0])
        return (began[0], began[3], *began[5:8], *how, owner, tag, *end)


class Outlines:
    """What entries said of others' holds. They are kept as they come, and put together when somebody asks: most are in
    the tables before."""

    def __init__(self) -> None:
        self._lines: list[Row] = []
        self._ended: dict[str, bool] = {}
        """The holds, and whether their end is known."""

    def __len__(self) -> int:
        return len(self._ended)

    def __contains__(self, hold_id: str) -> bool:
        return hold_id in self._ended

    def keep(self, lines: Sequence[Row]) -> bool:
        """Keep what entries say; False, and nothing is kept, where that takes more."""
        known, news = self._ended, dict[str, bool]()
        for line in lines:
            kind, subject = line[2], line[3]
            if kind == "reserve":
                news[subject] = False
            elif (kind in ENDS or kind == "sent") and news.get(subject, known.get(subject)) is False:
                news[subject] = kind != "sent"
            else:
                return False
        known.update(news)
        self._lines += lines
        return True

    def pop(self, hold_id: str) -> Outline | None:
        """Hand one out, to be kept elsewhere."""
        if self._ended.pop(hold_id, None) is None:
            return None
        found = _put_together(line for line in self._lines if line[3] == hold_id)
        self._lines = [line for line in self._lines if line[3] != hold_id]
        return found[hold_id]

    def pop_all(self) -> list[tuple[str, Outline]]:
        """Hand out all of them."""
        found = list(_put_together(self._lines).items())
        self.clear()
        return found

    def since(self, applied: int) -> Iterator[Outline]:
        """Those that changed after an entry."""
        return (outline for outline in _put_together(self._lines).values() if outline.last > applied)

    def rebase(self, applied: int) -> None:
        """Drop what has ended by that entry: whoever asks for it finds it in the tables."""
        gone = {line[3] for line in self._lines if line[2] in ENDS and line[0] <= applied}
        self._lines = [line for line in self._lines if line[3] not in gone]
        for hold_id in gone:
            del self._ended[hold_id]

    def clear(self) -> None:
        self._lines.clear()
        self._ended.clear()


def _put_together(lines: Iterable[Row]) -> dict[str, Outline]:
    found: dict[str, Outline] = {}
    for line in lines:
        kind, subject = line[2], line[3]
        if kind == "reserve":
            found[subject] = Outline(line)
        elif kind == "sent":
            found[subject] = Outline(found[subject].opened, line)
        else:
            before = found[subject]
            found[subject] = Outline(before.opened, before.sent, line)
    return found


def detail_of(line: Row) -> Detail:
    """What goes with an entry."""
    return EMPTY if line[11] == "{}" else json.loads(line[11])
