"""The local books of one worker that leases blocks: ledgers of its own, in memory or in a folder of SQLite files."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, Final, cast

from agentbudget.errors import Mistake, StoreBusy, StoreUnavailable
from agentbudget.ledger.memory import MemoryStore
from agentbudget.ledger.records import EMPTY, NOTHING, Detail, HoldRecord, Units, minus, plus
from agentbudget.ledger.store import Store, Transaction
from agentbudget.money import Amount

if TYPE_CHECKING:
    from agentbudget.ledger.core import Ledger

try:
    import fcntl
except ImportError:  # no advisory locks on this system: the worker's name for its folder must do
    fcntl = None

REMEMBERED: Final = 10_000
"""A worker remembers the ids of at least so many of its last holds; older books are dropped once they are booked."""

TAG: Final = "block"
"""The tag of every block's hold, and how its id begins."""

BOOKED: Final = "booked"
"""Why the account of a block is frozen in the local books: the shared ledger has its bill."""


@dataclass(eq=False, slots=True)
class Book:
    """One local ledger, with an account for each block. ``unbooked`` counts the blocks that are not settled yet."""

    ledger: Ledger
    store: Store
    path: Path | None
    holds: int = 0
    unbooked: int = 0

    def root(self, record: HoldRecord) -> HoldRecord:
        """The hold on a block that contains this one, or is it."""
        with self.store.read() as tx:
            while record.parent is not None:
                above = tx.hold(record.parent)
                assert above is not None
                record = above
            return record

    def roots(self, block_id: str) -> list[HoldRecord]:
        """Every hold on a block, in order of creation."""
        return [hold for hold in self.ledger.holds() if hold.accounts == (block_id,)]

    def with_inner(self, roots: Iterable[HoldRecord], deep: set[str]) -> Iterator[HoldRecord]:
        """These holds, and all within those of them that `deep` names."""
        with self.store.read() as tx:
            for root in roots:
                yield from _tree(tx, root) if root.id in deep else (root,)


class Books:
    """The worker's books, the newest last. What was reserved in one of them is settled there.

    With a ``folder`` they are files, which the folder's next user finds; it is locked against a second one. Raises
    `StoreBusy` if another worker has it, `StoreUnavailable` if it cannot be made.
    """

    def __init__(self, open_ledger: Callable[[Store], Ledger], folder: Path | None) -> None:
        self._open_ledger = open_ledger
        self._folder = folder
        self._lock = None if folder is None else _lock(folder)
        self._closed = ""
        """Why nothing can be done in it any more."""
        self._books: list[Book] = []
        try:
            for path in [] if folder is None else sorted(folder.glob("[0-9]*.db")):
                self._add(path)
        except BaseException:
            self.close()
            raise

    def __iter__(self) -> Iterator[Book]:
        return iter(list(self._books))

    def current(self) -> Book:
        """The book for a new block: the newest, or another when that one is full."""
        if not self._books or self._books[-1].holds >= REMEMBERED:
            last = self._books[-1].path if self._books else None
            number = int(last.stem) + 1 if last is not None else 1
            self._add(None if self._folder is None else self._folder / f"{number:06}.db")
        return self._books[-1]

    def find(self, hold_id: str) -> tuple[Book, HoldRecord] | None:
        """The hold of this id, in whichever book it is."""
        if self._closed:
            raise Mistake(f"this lease {self._closed}")
        for book in reversed(self._books):
            record = book.ledger.hold(hold_id)
            if record is not None:
                return book, record
        return None

    def older_has(self, hold_id: str) -> bool:
        """True if a book before the newest has a hold of this id."""
        return len(self._books) > 1 and any(book.ledger.hold(hold_id) is not None for book in self._books[:-1])

    def forget(self) -> None:
        """Drop the oldest books, if their blocks are booked and the others remember enough."""
        while len(self._books) > 2 and not self._books[0].unbooked:
            book = self._books.pop(0)
            book.ledger.close()
            if book.path is not None:
                for suffix in ("-wal", "-shm", "-turn", ""):
                    book.path.with_name(book.path.name + suffix).unlink(missing_ok=True)

    def close(self) -> None:
        """Close the files, and let another worker have the folder. Books in memory can still be read."""
        if self._folder is not None and not self._closed:
            self._closed = f"is closed; open it again with the journal {self._folder}, and go on there"
            for book in self._books:
                book.ledger.close()
            if self._lock is not None:
                self._lock.close()

    def disown(self) -> None:
        """Let go of everything, in a forked process."""
        self._closed = "is the parent's; open another in this process"
        self._books = []
        if self._lock is not None:
            self._lock.close()  # the parent's hold on the folder ends with the last of these, so with the parent

    def _add(self, path: Path | None) -> None:
        store: Store = MemoryStore()
        if path is not None:
            from agentbudget.ledger.sqlite import SqliteStore

            store = SqliteStore(path)
        with store.read() as tx:
            holds = tx.next_seq() // 3  # a hold has about three entries
        self._books.append(Book(self._open_ledger(store), store, path, holds))


def _lock(folder: Path) -> IO[bytes] | None:
    """The folder, locked for as long as the file is open: the system lets go of it when the process dies."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        file = (folder / "lock").open("ab", buffering=0)
    except OSError as error:
        raise StoreUnavailable(f"cannot use {folder} as a journal: {error}; nothing was admitted") from error
    if fcntl is None:
        return file
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        file.close()
        raise StoreBusy(f"another worker uses the journal {folder}: give each worker a folder of its own") from None
    return file


def _tree(tx: Transaction, record: HoldRecord) -> Iterator[HoldRecord]:
    """The hold, and all within it, each before those within itself."""
    waiting = [record]
    while waiting:
        hold = waiting.pop()
        yield hold
        waiting += reversed(tx.holds_within(hold.id))


@dataclass(frozen=True, slots=True)
class Bill:
    """What was paid inside a block: the sum, whether some of it is presumed, and a line for each hold."""

    cost: Amount
    presumed: bool
    lines: list[dict[str, object]]

    @classmethod
    def of(cls, holds: Iterable[HoldRecord]) -> Bill:
        """The bill for these holds. Each counts with what it cost itself, without what was spent within it."""
        total, presumed, lines = NOTHING, False, list[dict[str, object]]()
        for hold in holds:
            if hold.state in ("settled", "lapsed"):
                own = plus(hold.settled_units or NOTHING, minus(hold.spent_units))
                total, presumed = plus(total, own), presumed or hold.presumed
                lines.append(_line(hold, own))
        return cls(Amount(*total), presumed, lines)


def _line(hold: HoldRecord, own: Units) -> dict[str, object]:
    line: dict[str, object] = {"id": hold.id, "cost": list(own)}
    said = {"within": hold.parent, "tag": hold.tag, "meta": hold.meta, "detail": hold.detail}
    return line | {key: value for key, value in said.items() if value}


def paid_inside(block: HoldRecord) -> list[HoldRecord]:
    """The holds on the bill of a settled block, each with what it cost itself, as made when the block was; none where
    the hold is no block."""
    lines: object = block.detail.get("paid") if block.tag == TAG and block.id.startswith(f"{TAG}/") else None
    return [_of_line(block, line) for line in cast("list[dict[str, Any]]", lines)] if isinstance(lines, list) else []


def _of_line(block: HoldRecord, line: Mapping[str, Any]) -> HoldRecord:
    detail: Detail = line.get("detail", EMPTY)
    usd, tokens, calls = line["cost"]
    return block._replace(
        id=line["id"],
        parent=line.get("within"),
        tag=line.get("tag", ""),
        meta=line.get("meta", EMPTY),
        settled_units=(usd, tokens, calls),
        spent_units=NOTHING,
        presumed=bool(detail.get("presumed")),
        detail=detail,
    )
