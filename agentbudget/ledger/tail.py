"""Rows in SQL whose tables lag behind the journal: a reservation writes one entry, and the tables follow by the dozen.

The tables are those of entry ``applied``. What entries after it changed, the tail, is kept in memory beside them: by
whoever wrote it, and by whoever reads it from the journal. Whoever makes it too long brings the tables up to date.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Sequence
from functools import lru_cache
from hashlib import blake2b
from typing import Final, Protocol

from agentbudget.ledger.admission import required, required_hold, weigh, weigh_within
from agentbudget.ledger.fold import meta_of
from agentbudget.ledger.outlines import ENDS, Outline, Outlines, detail_of
from agentbudget.ledger.records import (
    NOTHING,
    Account,
    Detail,
    Entry,
    EntryKind,
    HoldRecord,
    Units,
    closed,
    opened,
    plus,
)
from agentbudget.ledger.rows import PUT_PLAIN, PUT_WHOLE, is_plain, plain_row, whole_row
from agentbudget.ledger.sql import (
    ENTRY_COLUMNS,
    GET_HOLDS,
    PUT_ACCOUNT,
    PUT_BALANCE,
    SHIFT,
    Cursor,
    Execute,
    Row,
    SqlTransaction,
    account_row,
    read_entry,
    read_hold,
)
from agentbudget.ledger.store import GENESIS, canonical, targets_text
from agentbudget.ledger.tally import NEVER, Tallied, Tallies

LIGHT: Final[frozenset[EntryKind]] = frozenset({"reserve", "sent", "extend", "reduce", "settle", "void"})
"""The entries that may be written before the tables follow: `replay` knows what each of them changed."""
LONGEST: Final = 128
"""Entries in a tail before the tables follow."""

TALLIES: Final = 1_000
"""Windows whose sums are kept in mind; one that rolls has up to a thousand periods."""

LINE_COLUMNS: Final = f"{ENTRY_COLUMNS}, owner"
"""What stands in the journal: the entry, and for a new hold the number of its owner, which no hash covers."""
ADD_LINE: Final = f"INSERT INTO entries ({LINE_COLUMNS}) VALUES (?,?,?,?,?,?,?,?,?,?,?,?,?,?)"
CLAIM: Final = (
    f"INSERT INTO entries ({LINE_COLUMNS}) SELECT ?,?,?,?,?,?,?,?,?,?,?,?,?,? "
    "WHERE NOT EXISTS (SELECT 1 FROM holds WHERE id = ?)"
)
"""The entry of a new hold, unless its id is taken."""
HEAD: Final = (
    "SELECT h.applied, e.seq, e.hash FROM head h LEFT JOIN entries e ON e.seq = (SELECT max(seq) FROM entries)"
)
NEWS: Final = f"SELECT {LINE_COLUMNS} FROM entries WHERE seq > ? ORDER BY seq"
LAST_SEQ: Final = "SELECT max(seq) FROM entries"
APPLIED: Final = "SELECT applied FROM head"
EXTRA: Final = (
    "ALTER TABLE entries ADD COLUMN owner INTEGER",
    "CREATE TABLE owners (number INTEGER PRIMARY KEY, name TEXT NOT NULL UNIQUE) STRICT",
    "CREATE TABLE head (id INTEGER PRIMARY KEY CHECK (id = 1), applied INTEGER NOT NULL) STRICT",
    "INSERT INTO head (id, applied) SELECT 1, coalesce(max(seq), 0) FROM entries",
)
"""What the shared tables lack."""
_PUT_HEAD: Final = "UPDATE head SET applied = ? WHERE id = 1"
_IN_FLIGHT: Final = f"{GET_HOLDS}WHERE h.state = 'open' ORDER BY h.number DESC LIMIT 100"
"""Holds that somebody is likely to settle soon."""
_NUMBER: Final = "SELECT number FROM owners WHERE name = ?"
_HAS: Final = "SELECT 1 FROM holds WHERE id = ?"


class NoOwner(LookupError):
    """An entry of a new hold does not say whose it is."""


class Database(Protocol):
    """What a tail asks of its connection."""

    def execute(self, sql: str, values: Row = ..., /) -> Cursor: ...

    def executemany(self, sql: str, values: Iterable[Row], /) -> object: ...


class TailTransaction(Tallied, SqlTransaction):
    """A `Transaction` that keeps what it changes in memory, on top of what the tables say.

    Whoever enters it tells it where the journal stands (`learn`) if it may have changed; whoever leaves it writes
    ``lines``, the new entries, and sometimes what they changed (`flush`). What it knows can be forgotten at any time
    but between the two: it stands in the journal.
    """

    def __init__(self, db: Database, read: Execute | None = None) -> None:
        super().__init__(read or db.execute)
        self._db = db
        self.applied = -1
        """The entry that the tables, as far as this transaction knows, are of."""
        self.lines: list[Row] = []
        self.claim: str | None = None
        """The id of a new hold that may be taken."""
        self.sure = True
        """Whether nobody else writes meanwhile, so that what is read is so."""
        self.light = False
        """Whether what was done is one entry that the tables may follow later."""
        self.changed = False
        """Whether it is in the middle of a change: if that is broken off, all is to be forgotten."""
        self._owner: int | None = None
        """The number of the owner of a hold whose entry follows."""
        self._numbers: dict[str, int] = {}
        self._names: dict[int, str] = {}
        self._new_accounts: dict[str, bool] = {}
        """Those that changed since; whether more than a balance did."""
        self._new_holds: dict[str, HoldRecord] = {}
        self._outlines = Outlines()
        """Holds that others made, as long as nobody asks for them here; they are in no other of these."""
        self._new_periods: dict[tuple[str, str], dict[int, tuple[Units, Units]]] = {}
        self._tallies = Tallies(self.period)
        """Of the windows that were asked for: as of the last entry that is known."""

    # --- where it stands

    def forget(self) -> None:
        self.applied = -1
        super().forget()
        self._clear()
        self._outlines.clear()
        self._tallies.clear()
        self.start()

    def _clear(self) -> None:
        self._new_accounts.clear()
        self._new_holds.clear()
        self._new_periods.clear()

    def start(self) -> None:
        """Nothing is changed yet."""
        self.lines.clear()
        self.claim = self._owner = None
        self.light = self.changed = False

    def learn(self, head: Row) -> None:
        """Learn what others wrote. ``head`` is what `HEAD` gives; all that is read here is of the same moment."""
        applied, seq, last_hash = head
        if self._seq < applied or not self.rebase(applied):
            self.forget()
            self.changed = True
            self._seq = self.applied = applied
            self._holds = {hold.id: hold for hold in map(read_hold, self._db.execute(_IN_FLIGHT))}
        self.changed = True
        self._take_in(list(self._db.execute(NEWS, (self._seq,))))
        if seq is None or seq < applied:  # some are missing
            seq, last_hash = applied, last_hash or GENESIS
        self._seq, self._hash = seq, last_hash
        self.start()

    def rebase(self, applied: int) -> bool:
        """Learn that another brought the tables to an entry that is known; False if that makes what is kept wrong."""
        if applied != self.applied:
            # Periods are kept as what changed since, the rest as what it came to: of what is changing just now, nobody
            # can say here whether the tables have it.
            if self.applied < 0 or self._new_periods or self.changed:
                return False
            self._new_holds = {i: h for i, h in self._new_holds.items() if h.closed is None or h.closed > applied}
            self._outlines.rebase(applied)
            self.applied = applied
        return True

    def follow(self, news: Sequence[Row]) -> None:
        """Do again what others did, in entries after those that are known."""
        self.changed = True
        self._take_in(news)
        self.start()

    def _take_in(self, news: Sequence[Row]) -> None:
        if not news:
            return
        columns = tuple(zip(*news, strict=True))
        texts = frozenset(columns[4])
        # Most entries add to balances, and that is all that whoever follows has to know of them.
        if all(map(self._only_adds, texts)) and self._outlines.keep(news):
            for text in texts:
                of = (
                    columns if len(texts) == 1 else tuple(zip(*(line for line in news if line[4] == text), strict=True))
                )
                weigh(self, read_targets(text), _sums(of[5:8]), _sums(of[8:11]), 0)
        else:
            for line in news:
                self._take_one(line)
        self._seq, self._hash = news[-1][0], news[-1][12]

    def _take_one(self, line: Row) -> None:
        if self._only_adds(line[4]) and self._outlines.keep((line,)):
            weigh(self, read_targets(line[4]), line[5:8], line[8:11], 0)
        else:
            replay(self, line)

    def _only_adds(self, text: str) -> bool:
        """Whether an entry of these targets weighs on accounts at most, and none of them has windows."""
        targets = read_targets(text)
        if targets and targets[0].startswith("hold:"):
            return False
        return not any((self.account(name) or required(self, name)).windows for name in targets)

    @property
    def seq(self) -> int:
        """The last entry that is known, or is about to be written."""
        return self._seq

    def owner_of(self, line: Row) -> str:
        """Who reserved a hold."""
        number: int = line[13]
        name = self._names.get(number)
        if name is None:
            (name,) = self._db.execute("SELECT name FROM owners WHERE number = ?", (number,)).fetchone() or (None,)
            if name is None:
                raise NoOwner(f"entry {line[0]} has no owner")
            self._names[number] = name
        return name

    def _number_of(self, owner: str) -> int:
        known = self._numbers.get(owner)
        if known is not None:
            return known
        found = self._execute(_NUMBER, (owner,)).fetchone()
        if found is not None:
            self._numbers[owner] = found[0]
            return found[0]
        self.changed = True
        self._execute("INSERT INTO owners (name) VALUES (?)", (owner,))
        (number,) = self._execute(_NUMBER, (owner,)).fetchone() or (0,)
        return number  # not kept in mind: this transaction may come to nothing

    def flush(self) -> None:
        """Write the new entries, and bring the tables to the last of them."""
        self.changed = True
        db = self._db
        db.executemany(ADD_LINE, self.lines)
        self.lines.clear()
        whole = [account_row(self._accounts[name]) for name, is_whole in self._new_accounts.items() if is_whole]
        balances = [name for name, is_whole in self._new_accounts.items() if not is_whole]
        if whole:
            db.executemany(PUT_ACCOUNT, whole)
        db.executemany(PUT_BALANCE, [(*(a := self._accounts[n])[4], *a[5], n) for n in balances])
        self._put_holds(db)
        for (account, window), periods in self._new_periods.items():
            db.executemany(SHIFT, [(account, window, start, *h, *p) for start, (h, p) in periods.items()])
        db.execute(_PUT_HEAD, (self._seq,))

    def _put_holds(self, db: Database) -> None:
        plain = [outline.row(self.owner_of(outline.opened)) for outline in self._outlines.since(self.applied)]
        others: list[Row] = []
        for hold in self._new_holds.values():
            if is_plain(hold):
                plain.append(plain_row(hold))
            else:
                others.append(whole_row(hold))
        db.executemany(PUT_PLAIN, plain)
        db.executemany(PUT_WHOLE, others)

    def flushed(self) -> None:
        """What `flush` wrote is there for good."""
        self.applied = self._seq
        self._clear()
        self._outlines.rebase(self._seq)
        self.start()
        if not self.fresh or len(self._outlines) > self.CACHED or len(self._tallies) > TALLIES:
            self.forget()

    @property
    def is_long(self) -> bool:
        """Whether one of the next entries may be one too many for the tail."""
        return self._seq - self.applied >= LONGEST - 16

    @property
    def behind(self) -> bool:
        """Whether the tables have to follow something."""
        return bool(self.lines or self._new_holds or self._new_accounts or self._new_periods)

    # --- accounts and windows

    def known(self, name: str) -> Account | None:
        """The account as it was last read or changed, without a look at the tables."""
        return self._accounts.get(name)

    def accounts(self, *, prefix: str = "") -> list[Account]:
        return [self._accounts[a.name] if a.name in self._new_accounts else a for a in self._all_accounts(prefix)]

    def _all_accounts(self, prefix: str) -> list[Account]:
        found = {account.name: account for account in super().accounts(prefix=prefix)}
        for name in self._new_accounts:
            if name.startswith(prefix):
                found[name] = self._accounts[name]
        return [found[name] for name in sorted(found)]

    def put_account(self, account: Account) -> None:
        self.changed = True
        self._new_accounts[account.name] = True
        self._accounts[account.name] = account

    def put_balances(self, accounts: Sequence[Account]) -> None:
        self.changed = True
        for account in accounts:
            name = account[0]
            self._accounts[name] = account
            if name not in self._new_accounts:
                self._new_accounts[name] = False

    def period(self, account: str, window: str, since_ns: int, until_ns: int = NEVER) -> list[tuple[int, Units, Units]]:
        found = {start: (held, posted) for start, held, posted in super().period(account, window, since_ns, until_ns)}
        for start, (held, posted) in self._new_periods.get((account, window), {}).items():
            if since_ns <= start < until_ns:
                before = found.get(start, (NOTHING, NOTHING))
                found[start] = (plus(before[0], held), plus(before[1], posted))
        return [(start, *found[start]) for start in sorted(found)]

    def shift(self, account: str, window: str, start_ns: int, held: Units, posted: Units) -> None:
        self.changed = True
        self._tallies.add(account, window, start_ns, held, posted)
        periods = self._new_periods.setdefault((account, window), {})
        before = periods.get(start_ns)
        periods[start_ns] = (held, posted) if before is None else (plus(before[0], held), plus(before[1], posted))

    def forget_periods(self, account: str, window: str) -> None:
        self.changed = True
        super().forget_periods(account, window)
        self._new_periods.pop((account, window), None)
        self._tallies.drop(account, window)

    # --- holds

    def hold(self, hold_id: str) -> HoldRecord | None:
        return self._holds.get(hold_id) or self._new_holds.get(hold_id) or self._other(hold_id) or super().hold(hold_id)

    def _other(self, hold_id: str) -> HoldRecord | None:
        """The hold that somebody else made since the tables were written: from now on one of those that are known."""
        outline = self._outlines.pop(hold_id)
        return None if outline is None else self._know(hold_id, outline)

    def _know(self, hold_id: str, outline: Outline) -> HoldRecord:
        hold = self._new_holds[hold_id] = self._unfolded(outline)
        if outline.ended is None:
            self._holds[hold_id] = hold
        return hold

    def _know_all(self) -> None:
        for hold_id, outline in self._outlines.pop_all():
            self._know(hold_id, outline)

    def _unfolded(self, outline: Outline) -> HoldRecord:
        """The hold as its entries tell."""
        hold = _opened(self, outline.opened)
        if outline.sent is not None:
            hold = hold._replace(sent=True)
        return hold if outline.ended is None else _ended(hold, outline.ended)

    def add_hold(self, hold: HoldRecord) -> bool:
        hold_id = hold[1]
        if hold_id in self._holds or hold_id in self._new_holds or hold_id in self._outlines:
            return False
        if not self.sure:
            self.claim = hold_id
        elif self._execute(_HAS, (hold_id,)).fetchone() is not None:
            return False
        self._owner = self._numbers.get(hold[7]) or self._number_of(hold[7])
        self.changed = True
        self._new_holds[hold_id] = self._holds[hold_id] = hold
        return True

    def claim_fails(self) -> bool:
        """Whether the id that was taken for a new one is not, as whoever has the file locked can say."""
        return self.claim is not None and self._execute(_HAS, (self.claim,)).fetchone() is not None

    def put_hold(self, hold: HoldRecord) -> None:
        self.changed = True
        hold_id = hold[1]
        self._new_holds[hold_id] = hold
        if hold[5] == "open":
            self._holds[hold_id] = hold
        else:
            self._holds.pop(hold_id, None)

    def holds_within(self, parent: str) -> list[HoldRecord]:
        self._know_all()
        return self._merged(super().holds_within(parent), (h for h in self._new_holds.values() if h.parent == parent))

    def holds(self, *, prefix: str = "", state: str | None = None) -> list[HoldRecord]:
        self._know_all()
        new = (hold for hold in self._new_holds.values() if hold.id.startswith(prefix))
        found = self._merged(super().holds(prefix=prefix, state=state), new)
        return [hold for hold in found if state is None or hold.state == state]

    def _merged(self, kept: list[HoldRecord], new: Iterable[HoldRecord]) -> list[HoldRecord]:
        found = {hold.id: hold for hold in (*kept, *new)}
        return sorted(found.values(), key=lambda hold: hold.number)

    def history(self, tag: str, limit: int) -> list[HoldRecord]:
        self._know_all()
        kept = [hold for hold in super().history(tag, limit) if hold.id not in self._new_holds]
        new = [h for h in self._new_holds.values() if h.tag == tag and h.state == "settled" and not h.presumed]
        return sorted((*kept, *new), key=lambda hold: hold.closed or 0, reverse=True)[: max(0, limit)]

    # --- the journal

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
        self.changed = True
        # `chain_hash` in one piece with the row: half of what a reservation costs here is spent in these lines.
        seq, target, text = self._seq + 1, targets_text(targets), canonical(detail) if detail else "{}"
        h0, h1, h2 = held
        p0, p1, p2 = posted
        line = f"{seq}|{at_ns}|{kind}|{subject}|{target}|{h0},{h1},{h2}|{p0},{p1},{p2}|{text}"
        digest = blake2b(self._hash + line.encode(), digest_size=16).digest()
        self.light = kind in LIGHT and seq - self.applied < LONGEST and not self.lines
        octets = bytearray(digest)  # `sqlite3` looks for adapters of bytes at every statement, and of these it does not
        self.lines.append((seq, at_ns, kind, subject, target, h0, h1, h2, p0, p1, p2, text, octets, self._owner))
        self._owner = None
        self._seq, self._hash = seq, digest
        return seq

    def entry(self, seq: int) -> Entry | None:
        return next((read_entry(line) for line in self.lines if line[0] == seq), None) or super().entry(seq)

    def entries(self, *, after: int = 0) -> Iterator[Entry]:
        yield from super().entries(after=after)
        yield from [read_entry(line) for line in self.lines if line[0] > after]


def _sums(columns: Sequence[tuple[int, ...]]) -> Units:
    usd, tokens, calls = map(sum, columns)
    return (usd, tokens, calls)


def replay(tx: TailTransaction, line: Row) -> None:
    """Do again what an entry of the tail says was done. Raises `ValueError` for one that cannot be in a tail."""
    seq, kind, subject = line[0], line[2], line[3]
    held, posted = line[5:8], line[8:11]
    targets, within = read_targets(line[4]), _parent(line)
    change = 0
    if kind == "reserve":
        record = _opened(tx, line)
        change = 1
    else:
        record = required_hold(tx, subject)
        if kind == "sent":
            tx.put_hold(record._replace(sent=True))
            return
        if kind in ("extend", "reduce"):
            record = record._replace(amount_units=plus(record.amount_units, held))
        elif kind in ENDS:
            record = _ended(record, line)
            change = -1
        else:
            raise ValueError(f"entry {seq}, {kind!r}, was written before the tables followed")
    tx.put_hold(record)
    if within is None:
        weigh(tx, targets, held, posted, record.created_ns)
    else:
        weigh_within(tx, required_hold(tx, within), held, posted, change)


def _opened(tx: TailTransaction, line: Row) -> HoldRecord:
    """The hold that an entry opened."""
    detail, within = detail_of(line), _parent(line)
    accounts = () if within is not None else read_targets(line[4])
    owner, tag = tx.owner_of(line), detail.get("tag", "")
    return opened(line[0], line[3], within, accounts, line[5:8], owner, tag, meta_of(detail), line[1])


def _ended(hold: HoldRecord, line: Row) -> HoldRecord:
    """The hold as an entry ended it."""
    detail = detail_of(line)
    return closed(hold, ENDS[line[2]], line[8:11], line[0], line[1], detail, bool(detail.get("presumed")))


def _parent(line: Row) -> str | None:
    """The hold that an entry weighs on."""
    targets = read_targets(line[4])
    return targets[0].removeprefix("hold:") if targets and targets[0].startswith("hold:") else None


@lru_cache(maxsize=4096)
def read_targets(text: str) -> tuple[str, ...]:
    """The targets of an entry, as `targets_text` wrote them."""
    return tuple(json.loads(text))
