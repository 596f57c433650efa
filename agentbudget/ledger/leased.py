"""A leased budget: what a worker reserves and settles inside its blocks, without asking anybody.

Inside a block is an account of a local ledger (`books`), whose limit is what the block holds on the shared one
(`blocks`). So a worker cannot spend more than it leased, and the shared ledger admits no more blocks than fit.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from types import TracebackType
from typing import TYPE_CHECKING, Self

from agentbudget.errors import (
    AgentBudgetError,
    BudgetExceeded,
    HoldConflict,
    InvalidArgument,
    Mistake,
    StoreError,
    UnknownHold,
)
from agentbudget.forks import watch
from agentbudget.ledger.arguments import check_amount, check_detail
from agentbudget.ledger.blocks import Block, Blocks
from agentbudget.ledger.books import Book
from agentbudget.ledger.charge import AmountOf, Charge, CostOf, TextOf
from agentbudget.ledger.hold import Hold
from agentbudget.ledger.records import EMPTY, Detail, HoldRecord, units
from agentbudget.ledger.store import check_text
from agentbudget.money import ZERO, Amount

if TYPE_CHECKING:
    from agentbudget.ledger.core import Ledger


class LeasedBudget:
    """A worker's lease of blocks; see `Ledger.lease`. Safe for threads. It has the verbs of a `Ledger`.

    ``recovered`` are the blocks of an earlier user of the journal that were settled when this lease began.
    ``trouble`` is what last kept it from settling a block in passing, None when all that was due is booked; it tries
    again at the next `tend`, and `close` raises.
    """

    def __init__(self, accounts: Sequence[str], blocks: Blocks, *, tend_s: float | None = None) -> None:
        self._accounts = tuple(accounts)
        self._blocks = blocks
        self._books = blocks.books
        self._lock = blocks.lock
        self._where: dict[str, tuple[Block, str]] = {}  # of each open hold: its block, and the outermost hold around it
        self._closed = False
        self._stop = threading.Event()
        self.recovered = blocks.recover()
        self.trouble: AgentBudgetError | None = None
        watch(self)
        if tend_s is not None:
            threading.Thread(target=self._tend_every, args=(tend_s,), name="agentbudget tend", daemon=True).start()

    @property
    def room(self) -> Amount:
        """What the block in use has free."""
        with self._lock:
            block = self._blocks.current
            return ZERO if block is None else Amount(*block.amount).minus(Amount(*block.used()))

    @property
    def blocks(self) -> list[str]:
        """The ids of the blocks that are not settled yet: holds on the shared ledger, the one in use last."""
        with self._lock:
            current = self._blocks.current
            return [*self._blocks.retired, *((current.id,) if current else ())]

    # --- the verbs of a ledger

    def reserve(
        self,
        hold_id: str,
        amount: Amount,
        *,
        accounts: Sequence[str] = (),
        within: str | None = None,
        tag: str = "",
        meta: Detail | None = None,
    ) -> Hold:
        """Set `amount` aside inside the block, or inside the hold `within`, as `Ledger.reserve` does.

        ``accounts`` may be left out; others than the lease's are a `Mistake`. The record names the block as what it
        weighs on. Raises `BudgetExceeded` where neither the block nor the shared ledger has room, though other
        workers may have some (`room`); `StoreError` if the shared ledger is needed and cannot be had.
        """
        if within is not None:
            return self._reserve_within(hold_id, amount, accounts, within, tag, meta)
        if isinstance(accounts, str) or (accounts and set(accounts) != set(self._accounts)):
            raise InvalidArgument(
                f"this lease is on {list(self._accounts)}: reserve on {accounts!r} with the ledger itself",
                argument="accounts",
                value=accounts,
            )
        hold = self._reserve_here(hold_id, amount, tag, meta) or self._replay(hold_id, amount)
        while hold is None:
            with self._blocks.sharing:
                made = self._blocks.make_room(units(amount))
            hold = self._reserve_here(hold_id, amount, tag, meta, made=made)
        return hold

    @property
    def owner(self) -> str:
        """Who holds what is reserved here."""
        return self._blocks.owner

    def charged(
        self,
        amount: Amount | AmountOf,
        *,
        within: str | TextOf | None = None,
        cost: CostOf | None = None,
        hold_id: TextOf | None = None,
        passing: str | None = None,
        tag: str = "",
        meta: Detail | None = None,
    ) -> Charge:
        """A decorator that charges every call of a function to this lease; see `Ledger.charged`."""
        accounts = () if within is not None else self._accounts
        return Charge(self, amount, accounts, within, cost, hold_id, passing, tag, meta)

    def hold(self, hold_id: str) -> HoldRecord | None:
        """The hold of this id, among the last that this worker made (`books.REMEMBERED` at least), or None."""
        with self._lock:
            found = self._books.find(hold_id)
            return None if found is None else found[1]

    def mark_sent(self, hold_id: str) -> HoldRecord:
        """See `Ledger.mark_sent`."""
        with self._lock:
            return self._book_of(hold_id).ledger.mark_sent(hold_id)

    def extend(self, hold_id: str, to: Amount) -> HoldRecord:
        """See `Ledger.extend`: the block grows by what it lacks."""
        self._heed_freeze()
        while True:
            with self._lock:
                at = self._where.get(hold_id)
                try:
                    return self._book_of(hold_id).ledger.extend(hold_id, to)
                except BudgetExceeded as refused:
                    if at is None or hold_id != at[1]:
                        raise
                    need = refused.requested
            with self._blocks.sharing:
                self._blocks.widen_for(at[0], units(need))

    def reduce(self, hold_id: str, to: Amount) -> HoldRecord:
        """See `Ledger.reduce`."""
        with self._lock:
            return self._book_of(hold_id).ledger.reduce(hold_id, to)

    def settle(
        self, hold_id: str, cost: Amount = ZERO, *, presumed: bool = False, detail: Detail | None = None
    ) -> HoldRecord:
        """See `Ledger.settle`. The shared ledger hears of it when the block is settled.

        A presumption may be corrected also after that: the settlement of its block is corrected with it.
        """
        check_detail("detail", detail or EMPTY)
        return self._end(
            hold_id, lambda ledger: ledger.settle(hold_id, cost, presumed=presumed, detail=detail), corrects=True
        )

    def presume(self, hold_id: str, *, detail: Detail | None = None) -> HoldRecord:
        """See `Ledger.presume`."""
        check_detail("detail", detail or EMPTY)
        return self._end(hold_id, lambda ledger: ledger.presume(hold_id, detail=detail))

    def void(self, hold_id: str, *, reason: str = "nothing was sent") -> HoldRecord:
        """See `Ledger.void`."""
        return self._end(hold_id, lambda ledger: ledger.void(hold_id, reason=reason))

    def resolve(self, hold_id: str) -> HoldRecord:
        """See `Ledger.resolve`."""
        return self._end(hold_id, lambda ledger: ledger.resolve(hold_id))

    # --- the life of the lease

    def tend(self) -> None:
        """Do what is due on the shared ledger: say that this worker lives, heed a freeze, settle blocks whose time is
        over, take the next one before it is needed, give back what lies idle.

        To be called about once a second, by whoever is at hand or by the thread that ``tend_s`` asks for. Raises
        `StoreError`; what was due stays due.
        """
        with self._blocks.sharing:
            if not self._closed:
                self._blocks.tend()
                self.trouble = None

    def close(self) -> None:
        """Settle every block at the truth and give the rest back.

        Holds still open are resolved as by a sweep: nothing sent → void, sent → presumed spent. Raises `StoreError`
        if the shared ledger cannot be had: close again later, or the journal's next user settles; without a journal
        the blocks lapse with the process. `HoldClosed` says that somebody settled a block by hand, which stands.
        """
        self._stop.set()
        with self._blocks.sharing:
            with self._lock:
                self._closed = True
                for hold_id, (block, root) in list(self._where.items()):
                    if hold_id == root:
                        self._note_end(block, root, block.book.ledger.resolve(root))
            if self._blocks.current is not None:
                self._blocks.put_aside(self._blocks.current)
            try:
                self._blocks.see_to_retired()
            finally:
                if not self._blocks.retired:
                    self._books.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def before_fork(self) -> None:
        """Nothing to do."""

    def after_fork(self, *, child: bool) -> None:
        """A forked process has no part in its parent's blocks: the lease is closed there, and settles nothing."""
        if child:
            self._blocks.disown()
            self._lock = self._blocks.lock
            self._where.clear()
            self._closed = True

    def _tend_every(self, seconds: float) -> None:
        while not self._stop.wait(seconds):
            try:
                self.tend()
            except AgentBudgetError as error:  # the thread goes on: what was due stays due
                self.trouble = error

    # --- inside the blocks

    def _reserve_here(
        self, hold_id: str, amount: Amount, tag: str, meta: Detail | None, *, made: Block | None = None
    ) -> Hold | None:
        """The hold, if the block in use has room and the id is new to the other blocks.

        A block that was just ``made`` serves at least this hold, however short its time is.
        """
        with self._lock:
            if self._closed:
                raise Mistake("this lease is closed: nothing can be reserved in it")
            block = self._blocks.current
            if block is None or (block is not made and self._blocks.is_over(block)) or self._books.older_has(hold_id):
                return None
            try:
                hold = block.book.ledger.reserve(hold_id, amount, accounts=block.accounts, tag=tag, meta=meta)
            except (BudgetExceeded, HoldConflict):
                return None
            self._note_begin(block, hold_id, hold.record)
            return Hold(self, hold.record, hold.replayed)

    def _replay(self, hold_id: str, amount: Amount) -> Hold | None:
        """The hold that the id already names. Raises `HoldConflict` if it is not the one that is asked for."""
        check_text("hold_id", hold_id)
        check_amount(amount)
        with self._lock:
            found = self._books.find(hold_id)
            if found is None:
                return None
            book, record = found
            hold = book.ledger.reserve(hold_id, amount, accounts=book.root(record).accounts)
            return Hold(self, hold.record, True)

    def _reserve_within(
        self, hold_id: str, amount: Amount, accounts: Sequence[str], within: str, tag: str, meta: Detail | None
    ) -> Hold:
        self._heed_freeze()
        with self._lock:
            at = self._where.get(within)
            book = self._book_of(hold_id if self._books.older_has(hold_id) else within)
            hold = book.ledger.reserve(hold_id, amount, accounts=accounts, within=within, tag=tag, meta=meta)
            if at is not None:
                self._note_begin(*at, hold.record)
            return Hold(self, hold.record, hold.replayed)

    def _book_of(self, hold_id: str) -> Book:
        at = self._where.get(hold_id)
        return self._required(hold_id)[0] if at is None else at[0].book

    def _required(self, hold_id: str) -> tuple[Book, HoldRecord]:
        found = self._books.find(hold_id)
        if found is None:
            raise UnknownHold(
                f"this lease knows no hold {hold_id!r}; if its block is settled, correct that one", hold_id=hold_id
            )
        return found

    def _end(self, hold_id: str, how: Callable[[Ledger], HoldRecord], *, corrects: bool = False) -> HoldRecord:
        """End a hold. Where it has ended, and is presumed spent, this may be what ``corrects`` it."""
        with self._lock:
            at = self._where.get(hold_id)
            if at is None:
                book, record = self._required(hold_id)
                if not (corrects and record.presumed):
                    return how(book.ledger)
            else:
                record = how(at[0].book.ledger)
                self._note_end(*at, record)
        if at is None:
            return self._correct(hold_id, how)
        self._follow_up(at[0], record)
        return record

    def _note_begin(self, block: Block, root: str, record: HoldRecord) -> None:
        """Keep an open hold in mind. It may be there already, but for an interrupt that came before this."""
        if record.state == "open" and record.id not in self._where:
            block.book.holds += 1
            if record.id == root:
                block.open[root] = []
            else:
                block.open[root].append(record.id)
            self._where[record.id] = (block, root)

    def _note_end(self, block: Block, root: str, record: HoldRecord) -> None:
        if record.id == root:
            within = block.open.pop(root)
            for hold_id in (root, *within):
                del self._where[hold_id]
            block.closed[root] = record
            if within:
                block.deep.add(root)

    def _follow_up(self, block: Block, record: HoldRecord) -> None:
        """What the end of a hold asks of the shared ledger: more for an overrun, the bill of a block that is done."""
        (usd, tokens, calls), (m_usd, m_tokens, m_calls) = record.settled_units or (0, 0, 0), record.amount_units
        overran = usd > m_usd or tokens > m_tokens or calls > m_calls
        if not overran and (block.open or block.id not in self._blocks.retired):
            return
        with self._blocks.sharing:
            try:
                if overran:
                    self._blocks.cover(block)
                self._settle_if_done(block)
            except StoreError as error:  # booked here; the shared ledger hears of it at the next chance
                self.trouble = error

    def _settle_if_done(self, block: Block) -> None:
        if block.id in self._blocks.retired and not block.open:
            self._blocks.settle(block)

    def _correct(self, hold_id: str, how: Callable[[Ledger], HoldRecord]) -> HoldRecord:
        """Correct a presumption, here and in the settlement of its block."""
        with self._blocks.sharing:
            with self._lock:
                book, before = self._required(hold_id)
                root = book.root(before)
                block = self._blocks.find(root.accounts[0]) or self._blocks.revive(book, root.accounts[0])
                record = how(book.ledger)
                if root.id in block.closed:
                    block.closed[root.id] = book.root(record)
                    block.deep.add(root.id)
            self._settle_if_done(block)
            return record

    def _heed_freeze(self) -> None:
        """Raise `AccountFrozen` if a freeze was noticed and stands."""
        if self._blocks.frozen is not None:
            with self._blocks.sharing:
                error = self._blocks.look_for_freeze()
            if error is not None:
                raise error
