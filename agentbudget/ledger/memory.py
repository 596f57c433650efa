"""The ledger's rows in memory: for tests, notebooks and budgets that need not outlive the process."""

from __future__ import annotations

import threading
from collections.abc import Generator, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace

from agentbudget.ledger.records import Account, Delta, Detail, Entry, EntryKind, HoldRecord
from agentbudget.ledger.store import GENESIS, canonical, chain_hash


@dataclass(slots=True)
class Rows:
    """What has been committed. ``within`` lists a hold's children in order of creation."""

    accounts: dict[str, Account] = field(default_factory=dict[str, Account])
    holds: dict[str, HoldRecord] = field(default_factory=dict[str, HoldRecord])
    within: dict[str, list[str]] = field(default_factory=dict[str, list[str]])
    entries: list[Entry] = field(default_factory=list[Entry])


class MemoryStore:
    """A `Store` in dictionaries, safe for threads."""

    location = "memory"

    def __init__(self) -> None:
        self._lock = threading.RLock()
        self._rows = Rows()

    @contextmanager
    def write(self) -> Generator[MemoryTransaction]:
        with self._lock:
            tx = MemoryTransaction(self._rows)
            yield tx
            tx.commit()

    read = write

    def close(self) -> None:
        """Nothing to close."""


class MemoryTransaction:
    """Writes gather here and reach the store only when the block ended well."""

    def __init__(self, rows: Rows) -> None:
        self._rows = rows
        self._accounts: dict[str, Account] = {}
        self._holds: dict[str, HoldRecord] = {}
        self._entries: list[Entry] = []

    def commit(self) -> None:
        rows = self._rows
        for hold in self._holds.values():
            if hold.parent is not None and hold.id not in rows.holds:
                rows.within.setdefault(hold.parent, []).append(hold.id)
        rows.accounts.update(self._accounts)
        rows.holds.update(self._holds)
        rows.entries.extend(self._entries)

    def account(self, name: str) -> Account | None:
        return self._accounts.get(name) or self._rows.accounts.get(name)

    def accounts(self) -> list[Account]:
        merged = self._rows.accounts | self._accounts
        return [merged[name] for name in sorted(merged)]

    def put_account(self, account: Account) -> None:
        self._accounts[account.name] = account

    def hold(self, hold_id: str) -> HoldRecord | None:
        return self._holds.get(hold_id) or self._rows.holds.get(hold_id)

    def put_hold(self, hold: HoldRecord) -> None:
        self._holds[hold.id] = hold

    def holds_within(self, parent: str) -> list[HoldRecord]:
        old = self._rows.within.get(parent, [])
        new = [h.id for h in self._holds.values() if h.parent == parent and h.id not in old]
        return [hold for hold_id in (*old, *new) if (hold := self.hold(hold_id)) is not None]

    def _merged(self) -> dict[str, HoldRecord]:
        return self._rows.holds | self._holds

    def holds(self, *, prefix: str = "", state: str | None = None) -> list[HoldRecord]:
        return [h for h in self._merged().values() if h.id.startswith(prefix) and (state is None or h.state == state)]

    def history(self, tag: str, limit: int) -> list[HoldRecord]:
        settled = [h for h in self._merged().values() if h.tag == tag and h.state == "settled" and not h.presumed]
        return sorted(settled, key=lambda h: h.closed_ns or 0, reverse=True)[:limit]

    def renew(self, owner: str, lease_until_ns: int) -> int:
        mine = [h for h in self._merged().values() if h.owner == owner and h.state == "open"]
        for hold in mine:
            self.put_hold(replace(hold, lease_until_ns=lease_until_ns))
        return len(mine)

    def append(
        self, kind: EntryKind, *, subject: str, targets: tuple[str, ...], delta: Delta, detail: Detail, at_ns: int
    ) -> Entry:
        written = self._rows.entries
        last = self._entries[-1] if self._entries else written[-1] if written else None
        seq, before = (last.seq + 1, last.hash) if last else (1, GENESIS)
        digest = chain_hash(before, seq, at_ns, kind, subject, canonical(targets), delta, canonical(detail))
        entry = Entry(seq, at_ns, kind, subject, targets, delta, detail, digest)
        self._entries.append(entry)
        return entry

    def entries(self, *, after: int = 0) -> Iterator[Entry]:
        return iter([*self._rows.entries, *self._entries][after:])
