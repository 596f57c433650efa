"""The ledger's rows in SQL that SQLite and PostgreSQL share: what both understand, with ``?`` for values."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any, Final, Protocol, cast

from agentbudget.ledger.fold import meta_of
from agentbudget.ledger.records import (
    NOTHING,
    Account,
    Detail,
    Entry,
    EntryKind,
    HoldRecord,
    Limits,
    Units,
    WindowLimit,
    plus,
)
from agentbudget.ledger.store import GENESIS, canonical, chain_hash, targets_text
from agentbudget.ledger.tally import NEVER, Tally, most_in
from agentbudget.ledger.windows import Window

Row = tuple[Any, ...]

ACCOUNT_COLUMNS: Final = (
    "name, parent, limit_usd, limit_tokens, limit_calls, windows, posted_usd, posted_tokens, posted_calls, "
    "held_usd, held_tokens, held_calls, frozen"
)
GET_ACCOUNT: Final = f"SELECT {ACCOUNT_COLUMNS} FROM accounts WHERE name = ?"
PUT_ACCOUNT: Final = (
    f"INSERT INTO accounts ({ACCOUNT_COLUMNS}) VALUES (?,?,?,?,?,?,?,?,?,?,?,?,?) ON CONFLICT (name) DO UPDATE SET "
    + ", ".join(f"{c} = excluded.{c}" for c in ACCOUNT_COLUMNS.split(", ")[2:])
)
PUT_BALANCE: Final = (
    "UPDATE accounts SET posted_usd = ?, posted_tokens = ?, posted_calls = ?, "
    "held_usd = ?, held_tokens = ?, held_calls = ? WHERE name = ?"
)

HOLD_COLUMNS: Final = (
    "h.number, h.id, h.parent, o.targets, h.usd, h.tokens, h.calls, h.state, h.sent, h.owner, h.tag, o.detail, "
    "o.at_ns, h.reserved_usd, h.reserved_tokens, h.reserved_calls, h.spent_usd, h.spent_tokens, h.spent_calls, "
    "h.children, h.settled_usd, h.settled_tokens, h.settled_calls, h.presumed, h.closed, c.at_ns, c.detail"
)
GET_HOLDS: Final = (
    f"SELECT {HOLD_COLUMNS} FROM holds h JOIN entries o ON o.seq = h.number LEFT JOIN entries c ON c.seq = h.closed "
)
"""What the journal says of a hold is read from there, so that it stands once."""
ADD_HOLD: Final = (
    "INSERT INTO holds (number, id, parent, usd, tokens, calls, state, sent, owner, tag) "
    "VALUES (?,?,?,?,?,?,?,?,?,?) ON CONFLICT (id) DO NOTHING"
)
PUT_HOLD: Final = (
    "UPDATE holds SET usd = ?, tokens = ?, calls = ?, state = ?, sent = ?, owner = ?, "
    "reserved_usd = ?, reserved_tokens = ?, reserved_calls = ?, spent_usd = ?, spent_tokens = ?, spent_calls = ?, "
    "children = ?, settled_usd = ?, settled_tokens = ?, settled_calls = ?, presumed = ?, closed = ? WHERE number = ?"
)
HOLD_FIELDS: Final = (
    *("number", "id", "parent", "usd", "tokens", "calls", "state", "sent", "owner", "tag"),
    *("reserved_usd", "reserved_tokens", "reserved_calls", "spent_usd", "spent_tokens", "spent_calls", "children"),
    *("settled_usd", "settled_tokens", "settled_calls", "presumed", "closed"),
)
"""The columns of the table of holds."""
CLOSE_HOLD: Final = (
    "UPDATE holds SET state = ?, settled_usd = ?, settled_tokens = ?, settled_calls = ?, presumed = ?, closed = ? "
    "WHERE number = ?"
)

ENTRY_COLUMNS: Final = (
    "seq, at_ns, kind, subject, targets, held_usd, held_tokens, held_calls, "
    "posted_usd, posted_tokens, posted_calls, detail, hash"
)
ADD_ENTRY: Final = f"INSERT INTO entries ({ENTRY_COLUMNS}) VALUES (?,?,?,?,?,?,?,?,?,?,?,?,?)"

SHIFT: Final = (
    "INSERT INTO periods (account, time_window, start_ns, held_usd, held_tokens, held_calls, "
    "posted_usd, posted_tokens, posted_calls) VALUES (?,?,?,?,?,?,?,?,?) "
    "ON CONFLICT (account, time_window, start_ns) DO UPDATE SET "
    + ", ".join(
        f"{c} = periods.{c} + excluded.{c}"
        for c in ("held_usd", "held_tokens", "held_calls", "posted_usd", "posted_tokens", "posted_calls")
    )
)
USED: Final = (
    "SELECT SUM(held_usd), SUM(held_tokens), SUM(held_calls), SUM(posted_usd), SUM(posted_tokens), SUM(posted_calls) "
    "FROM periods WHERE account = ? AND time_window = ? AND start_ns >= ?"
)

NEWS: Final = (
    "SELECT subject, targets, held_usd, held_tokens, held_calls, posted_usd, posted_tokens, posted_calls "
    "FROM entries WHERE seq > ? ORDER BY seq LIMIT 200"
)
"""What others wrote, as `SqlTransaction.catch_up` takes it. More than so many are not worth following."""

LAST: Final = "\U0010ffff"
"""After every character that an id may have: the end of a range of prefixes."""

PAGE: Final = 100
"""Entries that are read at first in one go."""


class Cursor(Protocol):
    """What a statement gives."""

    @property
    def rowcount(self) -> int: ...

    def fetchone(self) -> Row | None: ...

    def __iter__(self) -> Iterator[Row]: ...


Execute = Callable[[str, Row], Cursor]


class SqlTransaction:
    """A `Transaction` over a connection's ``execute``. Whoever begins it calls `begin` with the last entry's number
    and hash; what it reads of accounts and open holds stays good for as long as nobody else writes an entry."""

    CACHED: Final = 10_000

    def __init__(self, execute: Execute) -> None:
        self._execute = execute
        self._seq = -1
        self._hash = GENESIS
        self._accounts: dict[str, Account] = {}
        self._holds: dict[str, HoldRecord] = {}

    def begin(self, seq: int, last_hash: bytes) -> None:
        """A transaction begins after entry `seq`. What others wrote since the last one is read anew."""
        if seq != self._seq or not self.fresh:
            self.forget()
        self._seq, self._hash = seq, last_hash

    def catch_up(self, news: Sequence[Row], seq: int, last_hash: bytes) -> None:
        """See `begin`; ``news`` is what others wrote since the last transaction, if it is not too much (`NEWS`).

        An entry says how it changed balances, so that these need no look; what else it touches is read anew.
        """
        if len(news) == seq - self._seq and (news or last_hash == self._hash):
            for subject, targets, h0, h1, h2, p0, p1, p2 in news:
                self._holds.pop(subject, None)
                self._accounts.pop(subject, None)
                for target in json.loads(targets):
                    self._follow(target, (h0, h1, h2), (p0, p1, p2))
            self._seq = seq
        else:
            self.forget()
        self.begin(seq, last_hash)

    def _follow(self, target: str, held: Units, posted: Units) -> None:
        account = self._accounts.get(target)
        if account is not None:
            self._accounts[target] = account._replace(
                posted_units=plus(account.posted_units, posted), held_units=plus(account.held_units, held)
            )
        elif target.startswith("hold:"):
            self._holds.pop(target.removeprefix("hold:"), None)

    @property
    def last(self) -> tuple[int, bytes]:
        """The number and hash of the last entry."""
        return self._seq, self._hash

    @property
    def fresh(self) -> bool:
        """False if the last entry must be asked for, whether or not others wrote."""
        return self._seq >= 0 and len(self._holds) <= self.CACHED and len(self._accounts) <= self.CACHED

    def forget(self) -> None:
        """Trust nothing that was read before."""
        self._seq = -1
        self._accounts.clear()
        self._holds.clear()

    now_ns = staticmethod(time.time_ns)

    # --- accounts

    def account(self, name: str) -> Account | None:
        found = self._accounts.get(name)
        if found is None:
            row = self._execute(GET_ACCOUNT, (name,)).fetchone()
            if row is None:
                return None
            found = self._accounts[name] = read_account(row)
        return found

    def accounts(self, *, prefix: str = "") -> list[Account]:
        sql = f"SELECT {ACCOUNT_COLUMNS} FROM accounts WHERE name >= ? AND name < ? ORDER BY name"
        return [read_account(row) for row in self._execute(sql, (prefix, prefix + LAST))]

    def put_account(self, account: Account) -> None:
        self._execute(PUT_ACCOUNT, account_row(account))
        self._accounts[account.name] = account

    def put_balances(self, accounts: Sequence[Account]) -> None:
        for account in accounts:
            self._execute(PUT_BALANCE, (*account.posted_units, *account.held_units, account.name))
            self._accounts[account.name] = account

    # --- windows

    def used(self, account: str, window: str, since_ns: int) -> Units:
        row = self._execute(USED, (account, window, since_ns)).fetchone()
        if row is None or row[0] is None:
            return NOTHING
        held, posted = row[:3], row[3:]  # each fits a column; their sum may not
        return (int(held[0] + posted[0]), int(held[1] + posted[1]), int(held[2] + posted[2]))

    def oldest(self, account: str, window: str, since_ns: int) -> int | None:
        return Tally(since_ns, self.period(account, window, since_ns)).oldest(since_ns)

    def most(self, account: str, window: str, start_ns: int, length_ns: int) -> Units:
        periods = self.period(account, window, start_ns - length_ns, start_ns + length_ns + 1)
        return most_in(periods, start_ns, length_ns)

    def period(self, account: str, window: str, since_ns: int, until_ns: int = NEVER) -> list[tuple[int, Units, Units]]:
        sql = (
            "SELECT start_ns, held_usd, held_tokens, held_calls, posted_usd, posted_tokens, posted_calls "
            "FROM periods WHERE account = ? AND time_window = ? AND start_ns >= ? AND start_ns < ? ORDER BY start_ns"
        )
        rows = self._execute(sql, (account, window, since_ns, until_ns))
        return [(row[0], (row[1], row[2], row[3]), (row[4], row[5], row[6])) for row in rows]

    def shift(self, account: str, window: str, start_ns: int, held: Units, posted: Units) -> None:
        self._execute(SHIFT, (account, window, start_ns, *held, *posted))

    def forget_periods(self, account: str, window: str) -> None:
        self._execute("DELETE FROM periods WHERE account = ? AND time_window = ?", (account, window))

    # --- holds

    def hold(self, hold_id: str) -> HoldRecord | None:
        found = self._holds.get(hold_id)
        if found is None:
            row = self._execute(GET_HOLDS + "WHERE h.id = ?", (hold_id,)).fetchone()
            if row is None:
                return None
            found = read_hold(row)
            if found.state == "open":
                self._holds[hold_id] = found
        return found

    def add_hold(self, hold: HoldRecord) -> bool:
        values = (hold.number, hold.id, hold.parent, *hold.amount_units, "open", False, hold.owner, hold.tag or None)
        if self._execute(ADD_HOLD, values).rowcount == 0:
            return False
        self._holds[hold.id] = hold
        return True

    def put_hold(self, hold: HoldRecord) -> None:
        before = self._holds.get(hold.id)
        if before is not None and before.state == "open" and hold.state != "open" and _only_closed(before, hold):
            settled = hold.settled_units or (None, None, None)
            self._execute(CLOSE_HOLD, (hold.state, *settled, hold.presumed, hold.closed, hold.number))
        else:
            self._execute(
                PUT_HOLD,
                (
                    *hold.amount_units,
                    hold.state,
                    hold.sent,
                    hold.owner,
                    *hold.reserved_units,
                    *hold.spent_units,
                    hold.children,
                    *(hold.settled_units or (None, None, None)),
                    hold.presumed,
                    hold.closed,
                    hold.number,
                ),
            )
        if hold.state == "open":
            self._holds[hold.id] = hold
        else:
            self._holds.pop(hold.id, None)

    def _read_holds(self, where: str, values: tuple[Any, ...]) -> list[HoldRecord]:
        return [read_hold(row) for row in self._execute(GET_HOLDS + where, values)]

    def holds_within(self, parent: str) -> list[HoldRecord]:
        return self._read_holds("WHERE h.parent = ? ORDER BY h.number", (parent,))

    def holds(self, *, prefix: str = "", state: str | None = None) -> list[HoldRecord]:
        span = (prefix, prefix + LAST)
        if state == "open":  # a literal, so that the index of open holds serves
            return self._read_holds("WHERE h.state = 'open' AND h.id >= ? AND h.id < ? ORDER BY h.number", span)
        found = self._read_holds("WHERE h.id >= ? AND h.id < ? ORDER BY h.number", span)
        return [hold for hold in found if state is None or hold.state == state]

    def history(self, tag: str, limit: int) -> list[HoldRecord]:
        where = "WHERE h.tag = ? AND h.state = 'settled' AND NOT h.presumed ORDER BY h.closed DESC LIMIT ?"
        return self._read_holds(where, (tag, limit))

    # --- ids and leases

    def mark(self, name: str) -> int | None:
        row = self._execute("SELECT seq FROM marks WHERE name = ?", (name,)).fetchone()
        return None if row is None else row[0]

    def put_mark(self, name: str, seq: int) -> None:
        self._execute("INSERT INTO marks (name, seq) VALUES (?, ?)", (name, seq))

    def lease(self, owner: str) -> int | None:
        row = self._execute("SELECT until_ns FROM leases WHERE owner = ?", (owner,)).fetchone()
        return None if row is None else row[0]

    def put_lease(self, owner: str, until_ns: int) -> None:
        self._execute(
            "INSERT INTO leases (owner, until_ns) VALUES (?, ?) "
            "ON CONFLICT (owner) DO UPDATE SET until_ns = excluded.until_ns",
            (owner, until_ns),
        )

    # --- the journal

    def next_seq(self) -> int:
        return self._seq + 1

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
        seq = self._seq + 1
        targets_json, detail_json = targets_text(targets), canonical(detail)
        digest = chain_hash(self._hash, seq, at_ns, kind, subject, targets_json, held, posted, detail_json)
        self._execute(
            ADD_ENTRY,
            (seq, at_ns, kind, subject, targets_json, *held, *posted, detail_json, digest),
        )
        self._seq, self._hash = seq, digest
        return seq

    def entry(self, seq: int) -> Entry | None:
        row = self._execute(f"SELECT {ENTRY_COLUMNS} FROM entries WHERE seq = ?", (seq,)).fetchone()
        return None if row is None else read_entry(row)

    def entries(self, *, after: int = 0) -> Iterator[Entry]:
        # Page by page: a statement that is not read to its end would keep the view of this moment for good.
        sql = f"SELECT {ENTRY_COLUMNS} FROM entries WHERE seq > ? ORDER BY seq LIMIT ?"
        size = PAGE
        while rows := list(self._execute(sql, (after, size))):
            yield from map(read_entry, rows)
            if len(rows) < size:
                return
            after, size = rows[-1][0], min(2 * size, 64 * PAGE)


def _only_closed(before: HoldRecord, after: HoldRecord) -> bool:
    """True if nothing but the end of the hold differs."""
    return (
        before.amount_units == after.amount_units
        and before.spent_units == after.spent_units
        and before.reserved_units == after.reserved_units
        and before.children == after.children
        and before.sent == after.sent
        and before.owner == after.owner
    )


def account_row(account: Account) -> Row:
    """An account as its table has it, in the order of `ACCOUNT_COLUMNS`."""
    windows = canonical({window.text: triple for window, triple in account.windows})
    balances = (*account.posted_units, *account.held_units)
    return (account.name, account.parent, *account.limits, windows, *balances, account.frozen)


def read_account(row: Row) -> Account:
    """An account from its columns, in the order of `ACCOUNT_COLUMNS`."""
    windows: dict[str, list[int | None]] = json.loads(row[5])
    limits: list[tuple[str, Limits]] = [(text, (t[0], t[1], t[2])) for text, t in windows.items()]
    return Account(
        row[0],
        row[1],
        (row[2], row[3], row[4]),
        tuple(WindowLimit(Window.parse(text), triple) for text, triple in limits),
        (row[6], row[7], row[8]),
        (row[9], row[10], row[11]),
        row[12],
    )


def read_hold(row: Row) -> HoldRecord:
    """A hold from its columns, in the order of `HOLD_COLUMNS`."""
    return HoldRecord(
        number=row[0],
        id=row[1],
        parent=row[2],
        accounts=() if row[2] is not None else tuple(json.loads(row[3])),
        amount_units=(row[4], row[5], row[6]),
        state=row[7],
        sent=bool(row[8]),
        owner=row[9],
        tag=row[10] or "",
        meta=meta_of(json.loads(row[11])),
        created_ns=row[12],
        reserved_units=(row[13], row[14], row[15]),
        spent_units=(row[16], row[17], row[18]),
        children=row[19],
        settled_units=None if row[20] is None else (row[20], row[21], row[22]),
        presumed=bool(row[23]),
        closed=row[24],
        closed_ns=row[25],
        detail=json.loads(row[26]) if row[26] is not None else {},
    )


def read_entry(row: Row) -> Entry:
    """An entry from its columns, in the order of `ENTRY_COLUMNS`."""
    return Entry(
        seq=row[0],
        at_ns=row[1],
        kind=cast(EntryKind, row[2]),
        subject=row[3],
        targets=tuple(json.loads(row[4])),
        held=(row[5], row[6], row[7]),
        posted=(row[8], row[9], row[10]),
        detail=json.loads(row[11]),
        hash=bytes(row[12]).hex(),
    )
