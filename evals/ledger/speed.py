"""How fast is a reservation with its settlement: `python -m evals.ledger.speed`.

Pairs of reserve and settle a second, in memory and in an SQLite file, on one account, on four at once, and on one with
windows, beside raw SQL that checks nothing, by the bare `sqlite3` module, on a fresh file set as the ledger's:

- *raw SQL* writes the same entries, holds, balances and periods, each where it changes, in one transaction for each
  reservation and each settlement, as one would by hand;
- *replayed* are the statements that the ledger itself sends, with the same values in the same transactions: it writes
  the entry alone, and the tables follow the journal by the hundred.

Raw files have pages as large as the ledger's; ``--raw-page-bytes 4096``: as SQLite makes them.
Rounds alternate; medians are printed. Where other work disturbs, ``--cpu`` counts this process's own seconds instead:
what it waits for, such as the disk, is then left out.
"""

from __future__ import annotations

import argparse
import sqlite3
import statistics
import tempfile
import time
from collections.abc import Callable, Iterable
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

from agentbudget.ledger import Ledger
from agentbudget.ledger.records import NOTHING, plus
from agentbudget.ledger.sql import CLOSE_HOLD, PUT_BALANCE, SHIFT
from agentbudget.ledger.sqlite import CHECKPOINT_PAGES, PAGE_BYTES, SqliteStore
from agentbudget.ledger.tail import ADD_LINE, LINE_COLUMNS
from agentbudget.ledger.windows import Window
from agentbudget.money import Amount, Budget

HELD = Amount(1_000, 10, 1)
COST = Amount(900, 9, 1)
ADD_HOLD = "INSERT INTO holds (number, id, usd, tokens, calls, state, sent, owner) VALUES (?,?,?,?,?,?,?,?)"
Clock = Callable[[], float]
Statement = tuple[str, tuple[Any, ...] | list[tuple[Any, ...]]]


@dataclass(frozen=True, slots=True)
class Shape:
    """What a hold weighs on: so many accounts, each with these windows."""

    accounts: int
    windows: tuple[str, ...] = ()

    def __str__(self) -> str:
        return str(self.accounts) if not self.windows else f"{self.accounts}, windows {' and '.join(self.windows)}"

    @property
    def names(self) -> list[str]:
        """The accounts."""
        return [f"team/{n}" for n in range(self.accounts)]


SHAPES = (Shape(1), Shape(4), Shape(1, ("day", "1h")))


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pairs", type=int, default=5_000, help="pairs in a round")
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--cpu", action="store_true", help="count the seconds that the processor worked for it")
    parser.add_argument("--raw-page-bytes", type=int, default=PAGE_BYTES, help="pages of the file that raw SQL writes")
    given = parser.parse_args()
    clock = time.process_time if given.cpu else time.perf_counter
    heads = ("ledger, pairs/s", "raw SQL", "ledger / raw", "replayed", "ledger / replayed", "file, bytes/pair")
    print(f"| store | accounts of a hold | {' | '.join(heads)} |")
    print("|---|---|--:|--:|--:|--:|--:|--:|")
    for shape in SHAPES:
        rates = [
            rate(opened(Ledger.open("memory:"), shape), shape, 4 * given.pairs, clock) for _ in range(given.rounds)
        ]
        print(f"| memory | {shape} | {statistics.median(rates):,.0f} | | | | | |", flush=True)
    for shape in SHAPES:
        with tempfile.TemporaryDirectory() as folder:
            compared = _compare(
                Path(folder), shape, given.pairs, rounds=given.rounds, clock=clock, page_bytes=given.raw_page_bytes
            )
            print(compared, flush=True)


def opened(ledger: Ledger, shape: Shape) -> Ledger:
    """The ledger with accounts of this shape."""
    enough = Budget(usd="1000000")
    for name in shape.names:
        ledger.account(name, limit=enough, windows=dict.fromkeys(shape.windows, enough))
    return ledger


def rate(ledger: Ledger, shape: Shape, pairs: int, clock: Clock) -> float:
    """Pairs of reserve and settle a second."""
    names = shape.names
    began = clock()
    for n in range(pairs):
        ledger.reserve(f"call-{n}", HELD, accounts=names).settle(COST)
    return pairs / (clock() - began)


def _compare(folder: Path, shape: Shape, pairs: int, *, rounds: int, clock: Clock, page_bytes: int) -> str:
    theirs = {"raw": by_hand(folder / "journal.db", shape, pairs), "replayed": record(folder / "sent.db", shape, pairs)}
    ours: list[float] = []
    raw: dict[str, list[float]] = {name: [] for name in theirs}
    for turn in range(rounds):
        with opened(Ledger.open(folder / f"ledger-{turn}.db"), shape) as ledger:
            ours.append(rate(ledger, shape, pairs, clock))
        for name, statements in theirs.items():
            path = folder / f"{name}-{turn}.db"
            raw[name].append(replay(path, statements, shape, pairs, clock, page_bytes=page_bytes))
    figures = [f"{statistics.median(ours):,.0f}"]
    for rates in raw.values():
        ratio = statistics.median(a / b for a, b in zip(ours, rates, strict=True))
        figures += [f"{statistics.median(rates):,.0f}", f"{ratio:.0%}"]
    size = (folder / "ledger-0.db").stat().st_size
    return f"| SQLite | {shape} | {' | '.join(figures)} | {size / pairs:,.0f} |"


class _Listener:
    """A connection whose changes are written down, transaction by transaction."""

    def __init__(self, db: sqlite3.Connection) -> None:
        self._db = db
        self.heard: list[Statement] = []

    @property
    def in_transaction(self) -> bool:
        return self._db.in_transaction

    def execute(self, sql: str, values: tuple[Any, ...] = ()) -> sqlite3.Cursor:
        if not sql.startswith("SELECT"):
            self.heard.append((sql, values))
        return self._db.execute(sql, values)

    def executemany(self, sql: str, rows: Iterable[tuple[Any, ...]]) -> sqlite3.Cursor:
        listed = list(rows)
        self.heard.append((sql, listed))
        return self._db.executemany(sql, listed)

    def close(self) -> None:
        self._db.close()


def record(path: Path, shape: Shape, pairs: int) -> list[Statement]:
    """What the ledger sends for so many pairs."""
    store = SqliteStore(path)
    with opened(Ledger(store), shape) as ledger:
        writer = cast(Any, store.write())  # listened to, not changed
        listener = _Listener(writer._db)
        writer._db = writer._tx._db = listener
        writer._write = listener.execute
        rate(ledger, shape, pairs, time.perf_counter)
        return listener.heard


def by_hand(path: Path, shape: Shape, pairs: int) -> list[Statement]:
    """What one would send who keeps the same tables, each as it changes, and checks nothing: of the journal of so many
    pairs."""
    with opened(Ledger.open(path), shape) as ledger:
        rate(ledger, shape, pairs, time.perf_counter)
        holds = {hold.id: hold for hold in ledger.holds(prefix="call-")}
    with closing(sqlite3.connect(path)) as db:
        lines = db.execute(
            f"SELECT {LINE_COLUMNS} FROM entries WHERE kind IN ('reserve', 'settle') ORDER BY seq"
        ).fetchall()
    windows = [Window.parse(window) for window in shape.windows]
    posted = NOTHING
    found: list[Statement] = []
    for line in lines:
        reserves, hold, held, more = line[2] == "reserve", holds[line[3]], line[5:8], line[8:11]
        posted = plus(posted, more)
        balance = (*posted, *(held if reserves else NOTHING))
        found.append(("BEGIN IMMEDIATE", ()))
        for name in shape.names:
            found.append((PUT_BALANCE, (*balance, name)))
            found += [(SHIFT, (name, w.text, w.start(hold.created_ns), *held, *more)) for w in windows]
        if reserves:
            found.append((ADD_HOLD, (hold.number, hold.id, *held, "open", 0, hold.owner)))
        else:
            found.append((CLOSE_HOLD, ("settled", *more, 0, line[0], hold.number)))
        found += [(ADD_LINE, line), ("COMMIT", ())]
    return found


def replay(
    path: Path, statements: list[Statement], shape: Shape, pairs: int, clock: Clock, *, page_bytes: int = PAGE_BYTES
) -> float:
    """Pairs a second of these statements, by the bare module."""
    db = raw_database(path, shape, page_bytes=page_bytes)
    execute = db.cursor().execute  # as the ledger does: one cursor serves all
    began = clock()
    for sql, values in statements:
        if isinstance(values, list):
            db.executemany(sql, values)
        else:
            execute(sql, values)
    taken = clock() - began
    db.close()
    return pairs / taken


def raw_database(path: Path, shape: Shape, *, page_bytes: int = PAGE_BYTES) -> sqlite3.Connection:
    """The bare module's connection to a fresh ledger, set as the ledger sets its own but for the size of its pages."""
    with closing(sqlite3.connect(path)) as empty:
        empty.execute(f"PRAGMA page_size = {page_bytes}")
        empty.execute("PRAGMA journal_mode = WAL")  # from here on the file keeps it
    opened(Ledger.open(path), shape).close()
    db = sqlite3.connect(path, isolation_level=None)
    db.execute("PRAGMA journal_mode = WAL")
    db.execute("PRAGMA synchronous = NORMAL")
    db.execute(f"PRAGMA wal_autocheckpoint = {CHECKPOINT_PAGES}")
    return db


if __name__ == "__main__":
    main()
