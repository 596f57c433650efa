"""The tables of a ledger in SQL, their version, and how older ones are brought to it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Final, Protocol

from agentbudget.errors import SchemaMismatch

VERSION: Final = 2
"""The version of these tables; a store that keeps more beside them counts its own."""


@dataclass(frozen=True, slots=True)
class Dialect:
    """How a database writes its types: `text` compares by code points, `keyed` ends a table of a text key."""

    integer: str
    boolean: str
    text: str
    octets: str
    keyed: str = ""
    numbered: str = ""


def tables(dialect: Dialect) -> list[str]:
    """The statements that make the tables of `VERSION`."""
    types = {
        "int": dialect.integer,
        "bool": dialect.boolean,
        "text": dialect.text,
        "octets": dialect.octets,
        "keyed": dialect.keyed,
        "numbered": dialect.numbered,
    }
    return [statement.format(**types) for statement in _TABLES]


_TABLES: Final = (
    """CREATE TABLE accounts (
      name {text} PRIMARY KEY, parent TEXT,
      limit_usd {int}, limit_tokens {int}, limit_calls {int}, windows TEXT NOT NULL,
      posted_usd {int} NOT NULL, posted_tokens {int} NOT NULL, posted_calls {int} NOT NULL,
      held_usd {int} NOT NULL, held_tokens {int} NOT NULL, held_calls {int} NOT NULL,
      frozen TEXT
    ) {keyed}""",
    """CREATE TABLE periods (
      account TEXT NOT NULL, time_window TEXT NOT NULL, start_ns {int} NOT NULL,
      held_usd {int} NOT NULL, held_tokens {int} NOT NULL, held_calls {int} NOT NULL,
      posted_usd {int} NOT NULL, posted_tokens {int} NOT NULL, posted_calls {int} NOT NULL,
      PRIMARY KEY (account, time_window, start_ns)
    ) {keyed}""",
    """CREATE TABLE holds (
      number {int} PRIMARY KEY, id {text} NOT NULL UNIQUE, parent TEXT,
      usd {int} NOT NULL, tokens {int} NOT NULL, calls {int} NOT NULL,
      state TEXT NOT NULL, sent {bool} NOT NULL, owner TEXT NOT NULL, tag TEXT,
      reserved_usd {int} NOT NULL DEFAULT 0, reserved_tokens {int} NOT NULL DEFAULT 0,
      reserved_calls {int} NOT NULL DEFAULT 0,
      spent_usd {int} NOT NULL DEFAULT 0, spent_tokens {int} NOT NULL DEFAULT 0,
      spent_calls {int} NOT NULL DEFAULT 0, children {int} NOT NULL DEFAULT 0,
      settled_usd {int}, settled_tokens {int}, settled_calls {int},
      presumed {bool} NOT NULL DEFAULT FALSE, closed {int}
    ) {numbered}""",
    "CREATE INDEX holds_parent ON holds (parent) WHERE parent IS NOT NULL",
    "CREATE INDEX holds_open ON holds (number) WHERE state = 'open'",
    "CREATE INDEX holds_tag ON holds (tag, closed) WHERE tag IS NOT NULL AND state = 'settled'",
    """CREATE TABLE entries (
      seq {int} PRIMARY KEY, at_ns {int} NOT NULL, kind TEXT NOT NULL, subject TEXT NOT NULL, targets TEXT NOT NULL,
      held_usd {int} NOT NULL, held_tokens {int} NOT NULL, held_calls {int} NOT NULL,
      posted_usd {int} NOT NULL, posted_tokens {int} NOT NULL, posted_calls {int} NOT NULL,
      detail TEXT NOT NULL, hash {octets} NOT NULL
    ) {numbered}""",
    "CREATE TABLE marks (name TEXT PRIMARY KEY, seq {int} NOT NULL) {keyed}",
    "CREATE TABLE leases (owner TEXT PRIMARY KEY, until_ns {int} NOT NULL) {keyed}",
)


class Tables(Protocol):
    """The tables of one store, in a transaction that nobody else writes beside."""

    @property
    def steps(self) -> Mapping[int, Callable[[], None]]:
        """What leads from a version to the next one."""
        ...

    def version(self) -> int | None:
        """The version that they have; None where there are none yet. Raises `SchemaMismatch` if the tables that are
        there are another program's."""
        ...

    def create(self) -> None:
        """Make them, empty, as the newest version has them."""
        ...

    def set_version(self, version: int) -> None: ...


def migrate(location: str, exclusively: Callable[[], AbstractContextManager[Tables]], *, to: int = VERSION) -> None:
    """Make the tables of a new store, or bring those of an older one to a version, each step in one transaction.

    Raises `SchemaMismatch` for tables of another program, of a newer version, or that cannot be brought here.
    """
    while True:
        with exclusively() as found:
            version = found.version()
            if version == to:
                return
            if version is None:
                found.create()
                found.set_version(to)
            elif version in found.steps:
                found.steps[version]()
                found.set_version(version + 1)
            else:
                raise another_version(location, version, to)


def another_version(location: str, version: int, expected: int = VERSION) -> SchemaMismatch:
    """The error for tables of a version that this agentbudget cannot read."""
    return SchemaMismatch(
        f"the ledger {location} has schema {version}, this agentbudget reads {expected}; "
        "use the version that wrote it, or name another place",
        location=location,
        found=version,
        expected=expected,
    )
