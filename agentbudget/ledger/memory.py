"""The ledger's rows in memory: for tests, notebooks, budgets that need not outlive the process, and leased blocks."""

from __future__ import annotations

import json
import threading
import time
from bisect import bisect_left
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from itertools import islice
from types import TracebackType
from typing import Any, Final, cast

from agentbudget.errors import Mistake, StoreUnavailable
from agentbudget.forks import watch
from agentbudget.ledger.interrupts import owned, refuse_inside
from agentbudget.ledger.records import (
    NOTHING,
    Account,
    Detail,
    Entry,
    EntryKind,
    HoldRecord,
    Units,
    new_tuple,
    plus,
)
from agentbudget.ledger.store import GENESIS, canonical, chain_hash, targets_text
from agentbudget.ledger.tally import NEVER, Tallied, Tallies

Periods = dict[int, tuple[Units, Units]]
Line = tuple[int, EntryKind, str, tuple[str, ...], Units, Units, str]
"""An entry before it is read: (at_ns, kind, subject, targets, held, posted, detail as JSON)."""

_GONE: Final = object()
_LINE: Final = 11
"""The places of an entry in the journal: at_ns, kind, subject, targets, three of held, three of posted, detail."""
_FIELDS: Final = len(HoldRecord._fields)


class MemoryStore:
    """A `Store` in dictionaries, safe for threads."""

    location = "memory"
    interruptible = False

    def __init__(self) -> None:
        self._tx: MemoryTransaction | None = MemoryTransaction()
        watch(self)

    def write(self) -> MemoryTransaction:
        if self._tx is None:
            raise StoreUnavailable(
                "a ledger in memory ends where its process forks, or both would spend its budget: keep it in a file",
                location=self.location,
            )
        return self._tx

    read = write

    def glance(self, account: str) -> Account | None:
        return self.write().account(account)

    def close(self) -> None:
        """Nothing to close."""

    def before_fork(self) -> None:
        """Nothing to do: a child gets nothing of it."""

    def after_fork(self, *, child: bool) -> None:
        if child:
            self._tx = None


class MemoryTransaction(Tallied):
    """The rows, and a note of what to put back should the block raise. One thread at a time is inside.

    The hash of an entry is computed when the journal is first read: here nobody else could change a line before.
    """

    now_ns = staticmethod(time.time_ns)

    def __init__(self) -> None:
        self._lock = threading.RLock()
        self._inside = False
        self._undo: list[tuple[dict[Any, Any] | None, Any, Any]] = []
        """What was before, newest last: (rows, key, value); (None, None, the journal's length) when it began. To
        clear it is to commit."""
        self._accounts: dict[str, Account] = {}
        self._holds: dict[str, HoldRecord | int] = {}
        """Holds; of those that have ended, where on the shelf they begin."""
        self._periods: dict[tuple[str, str], Periods] = {}
        self._marks: dict[str, int] = {}
        self._leases: dict[str, int] = {}
        # One value after the other. As tuples, of which there would be as many as there were holds, they would give the
        # garbage collector a tenth of all the work.
        self._shelf: list[Any] = []
        self._lines: list[Any] = []
        self._hashes: list[bytes] = []
        # Where to look; what an undone transaction left in them is passed over when they are read.
        self._starts: defaultdict[tuple[str, str], list[int]] = defaultdict(list)
        self._within: defaultdict[str, dict[str, None]] = defaultdict(dict)
        self._tagged: defaultdict[str, dict[str, None]] = defaultdict(dict)
        self._open: dict[str, None] = {}
        self._tallies = Tallies(self.period)

    def __enter__(self) -> MemoryTransaction:
        try:
            self._lock.acquire()
            if self._inside or self._undo:
                self._interrupted()
            self._inside = True
            self._undo.append((None, None, len(self._lines)))
        except Mistake:
            raise  # the transaction around goes on
        except BaseException:
            while owned(self._lock):
                self._inside = False
                self._lock.release()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            if kind is not None:
                self._roll_back()
            self._undo.clear()
        finally:
            self._inside = False
            self._lock.release()

    def _roll_back(self) -> None:
        """Put back what was there before. Each change is forgotten when it is undone, so that this can go on where
        an interrupt broke it off."""
        undo = self._undo
        if len(undo) > 1:
            self._tallies.clear()
        while undo:
            rows, key, before = undo[-1]
            if rows is None:
                del self._lines[before:], self._hashes[before // _LINE :]
            elif before is _GONE:
                rows.pop(key, None)
            else:
                rows[key] = before
                if rows is self._holds:
                    self._open[key] = None
            undo.pop()

    def _interrupted(self) -> None:
        """This thread left its last transaction by an interrupt, before that was undone, or is still in it."""
        if self._inside:
            self._lock.release()  # it was taken twice
            refuse_inside(self)
        self._roll_back()

    def _put(self, rows: dict[Any, Any], key: object, value: object) -> None:
        self._undo.append((rows, key, rows.get(key, _GONE)))
        rows[key] = value

    def account(self, name: str) -> Account | None:
        return self._accounts.get(name)

    def accounts(self, *, prefix: str = "") -> list[Account]:
        return [self._accounts[name] for name in sorted(self._accounts) if name.startswith(prefix)]

    def put_account(self, account: Account) -> None:
        name, rows = account[0], self._accounts
        self._undo.append((rows, name, rows.get(name, _GONE)))
        rows[name] = account

    def put_balances(self, accounts: Sequence[Account]) -> None:
        undo, rows = self._undo, self._accounts
        for account in accounts:
            name = account[0]
            undo.append((rows, name, rows[name]))
            rows[name] = account

    def period(self, account: str, window: str, since_ns: int, until_ns: int = NEVER) -> list[tuple[int, Units, Units]]:
        periods, starts = self._periods.get((account, window), {}), self._starts.get((account, window), [])
        counted = islice(starts, bisect_left(starts, since_ns), bisect_left(starts, until_ns))
        return [(start, *periods[start]) for start in counted if start in periods]

    def shift(self, account: str, window: str, start_ns: int, held: Units, posted: Units) -> None:
        periods = self._periods.setdefault((account, window), {})
        before = periods.get(start_ns)
        if before is None:
            before = (NOTHING, NOTHING)
            starts = self._starts[account, window]
            place = bisect_left(starts, start_ns)
            if place == len(starts) or starts[place] != start_ns:
                starts.insert(place, start_ns)
        self._put(periods, start_ns, (plus(before[0], held), plus(before[1], posted)))
        self._tallies.add(account, window, start_ns, held, posted)

    def forget_periods(self, account: str, window: str) -> None:
        self._tallies.drop(account, window)
        self._put(self._periods, (account, window), {})

    def hold(self, hold_id: str) -> HoldRecord | None:
        hold = self._holds.get(hold_id)
        if type(hold) is int:
            return new_tuple(HoldRecord, tuple(self._shelf[hold : hold + _FIELDS]))
        return cast("HoldRecord | None", hold)

    def add_hold(self, hold: HoldRecord) -> bool:
        hold_id, parent, rows = hold[1], hold[2], self._holds
        if hold_id in rows:
            return False
        self._undo.append((rows, hold_id, _GONE))
        rows[hold_id] = hold
        self._open[hold_id] = None
        if parent is not None:
            self._within[parent][hold_id] = None
        return True

    def put_hold(self, hold: HoldRecord) -> None:
        hold_id, rows = hold[1], self._holds
        self._undo.append((rows, hold_id, rows.get(hold_id, _GONE)))
        if hold[5] == "open":
            rows[hold_id] = hold
            return
        shelf = self._shelf
        rows[hold_id] = len(shelf)
        shelf += hold[:]
        self._open.pop(hold_id, None)
        if hold[8] and hold[5] == "settled":
            self._tagged[hold[8]][hold_id] = None

    def _found(self, ids: Iterable[str]) -> list[HoldRecord]:
        return [hold for hold_id in ids if (hold := self.hold(hold_id)) is not None]

    def holds_within(self, parent: str) -> list[HoldRecord]:
        return [hold for hold in self._found(self._within.get(parent, {})) if hold.parent == parent]

    def holds(self, *, prefix: str = "", state: str | None = None) -> list[HoldRecord]:
        if state == "open":
            # By number: a hold whose end was undone stands last among the open ones.
            found = sorted(hold for hold in self._found(self._open) if hold.state == "open")
        else:
            found = [hold for hold in self._found(self._holds) if state is None or hold.state == state]
        return [hold for hold in found if hold.id.startswith(prefix)]

    def history(self, tag: str, limit: int) -> list[HoldRecord]:
        settled = (h for h in self._found(self._tagged.get(tag, {})) if h.state == "settled" and not h.presumed)
        return list(islice(sorted(settled, key=lambda h: h.closed or 0, reverse=True), limit))

    def mark(self, name: str) -> int | None:
        return self._marks.get(name)

    def put_mark(self, name: str, seq: int) -> None:
        self._put(self._marks, name, seq)

    def lease(self, owner: str) -> int | None:
        return self._leases.get(owner)

    def put_lease(self, owner: str, until_ns: int) -> None:
        self._put(self._leases, owner, until_ns)

    def next_seq(self) -> int:
        return len(self._lines) // _LINE + 1

    def append(
        self,
        kind: EntryKind,
        subject: str,
        *,
        at_ns: int,
        targets: tuple[str, ...],
        held: Units,
        posted: Units,
        detail: Detail,
    ) -> int:
        h0, h1, h2 = held
        p0, p1, p2 = posted
        text = canonical(detail) if detail else "{}"
        lines = self._lines
        lines += (at_ns, kind, subject, targets, h0, h1, h2, p0, p1, p2, text)
        return len(lines) // _LINE

    def entry(self, seq: int) -> Entry | None:
        return next(self.entries(after=seq - 1), None) if 0 < seq < self.next_seq() else None

    def entries(self, *, after: int = 0) -> Iterator[Entry]:
        self._hash()
        for seq in range(after + 1, self.next_seq()):
            at_ns, kind, subject, targets, held, posted, detail = self._line(seq)
            data = cast(Detail, json.loads(detail))
            yield Entry(seq, at_ns, kind, subject, targets, held, posted, data, self._hashes[seq - 1].hex())

    def _line(self, seq: int) -> Line:
        place = (seq - 1) * _LINE
        at_ns, kind, subject, targets, h0, h1, h2, p0, p1, p2, detail = self._lines[place : place + _LINE]
        return at_ns, kind, subject, targets, (h0, h1, h2), (p0, p1, p2), detail

    def _hash(self) -> None:
        """Continue the chain to the last entry."""
        del self._hashes[self.next_seq() - 1 :]
        for seq in range(len(self._hashes) + 1, self.next_seq()):
            at_ns, kind, subject, targets, held, posted, detail = self._line(seq)
            before = self._hashes[-1] if self._hashes else GENESIS
            text = targets_text(targets)
            self._hashes.append(chain_hash(before, seq, at_ns, kind, subject, text, held, posted, detail))
