"""The seam between the ledger's rules and where its rows are kept."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from contextlib import AbstractContextManager
from typing import Final, Protocol

from agentbudget.ledger.records import Account, Delta, Detail, Entry, EntryKind, HoldRecord

GENESIS: Final = "0" * 32
"""The hash before the first entry."""


class Transaction(Protocol):
    """Rows as one writer sees them: nobody else writes between its first read and its end.

    If the block raises, nothing of it remains.
    """

    def account(self, name: str) -> Account | None: ...

    def accounts(self) -> list[Account]: ...

    def put_account(self, account: Account) -> None: ...

    def hold(self, hold_id: str) -> HoldRecord | None: ...

    def put_hold(self, hold: HoldRecord) -> None: ...

    def holds_within(self, parent: str) -> list[HoldRecord]:
        """Direct children of a hold, in order of creation."""
        ...

    def holds(self, *, prefix: str = "", state: str | None = None) -> list[HoldRecord]:
        """Holds whose id starts with `prefix`, in order of creation."""
        ...

    def history(self, tag: str, limit: int) -> list[HoldRecord]:
        """The last `limit` settled holds of this tag, newest first; presumed ones are left out."""
        ...

    def renew(self, owner: str, lease_until_ns: int) -> int:
        """Put off the lease of every open hold of `owner`; returns how many."""
        ...

    def append(
        self, kind: EntryKind, *, subject: str, targets: tuple[str, ...], delta: Delta, detail: Detail, at_ns: int
    ) -> Entry: ...

    def entries(self, *, after: int = 0) -> Iterator[Entry]: ...


class Store(Protocol):
    """Where rows are kept."""

    @property
    def location(self) -> str:
        """For messages: the path or address."""
        ...

    def write(self) -> AbstractContextManager[Transaction]:
        """An exclusive transaction; commits when the block ends, rolls back when it raises."""
        ...

    def read(self) -> AbstractContextManager[Transaction]:
        """A consistent view for reading."""
        ...

    def close(self) -> None: ...


def canonical(value: object) -> str:
    """JSON with sorted keys and no spaces: the form that is hashed and stored."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False)


def chain_hash(
    before: str, seq: int, at_ns: int, kind: str, subject: str, targets: str, delta: Delta, detail: str
) -> str:
    """The hash of an entry: BLAKE2b-128 over the hash of the entry before and every column of this one."""
    line = f"{before}|{seq}|{at_ns}|{kind}|{subject}|{targets}|{delta.held}|{delta.posted}|{detail}"
    return hashlib.blake2b(line.encode(), digest_size=16).hexdigest()
