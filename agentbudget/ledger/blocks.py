"""Leased blocks: a worker takes a block of a hot account's budget, and reserves inside it without asking anybody.

On the shared ledger a block is one hold, which is sent from the start: what happens inside may have been spent. Inside
it is an account of the worker's local ledger (`books`), whose limit is what the block holds. So the worker cannot
spend more than it leased, and the shared ledger admits no more blocks than fit.
"""

from __future__ import annotations

import threading
import time
import uuid
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from types import TracebackType
from typing import TYPE_CHECKING, Final, Self, TypeVar

from agentbudget.errors import (
    AccountFrozen,
    AgentBudgetError,
    BudgetExceeded,
    HoldClosed,
    HoldConflict,
    Mistake,
    StoreError,
    UnknownHold,
)
from agentbudget.ledger.books import BOOKED, Bill, Book, Books
from agentbudget.ledger.hold import Hold
from agentbudget.ledger.records import (
    NOTHING,
    UNLIMITED,
    Detail,
    HoldRecord,
    Limits,
    Units,
    as_budget,
    limits,
    plus,
    units,
)
from agentbudget.ledger.windows import NS, Window
from agentbudget.money import ZERO, Amount, Budget

if TYPE_CHECKING:
    from agentbudget.ledger.core import Ledger

BATCH: Final = 1000
"""A block is settled after so many holds, so that the bill on the shared ledger stays one entry of readable size."""

SHARE: Final = 8
"""A block takes ahead at most an eighth of what its accounts have left: as they empty, blocks shrink."""

ROLLING: Final = 100
"""On an account with a rolling window, a block lives for a hundredth of it."""

TAG: Final = "block"
"""The tag of every block's hold, and how its id begins."""

_T = TypeVar("_T")


@dataclass(eq=False, slots=True)
class _Block:
    """A block that is not settled yet. ``open`` and ``closed`` are the holds on it; ``open`` with the ids of those
    within them, ``deep`` names the closed ones that had any."""

    id: str
    book: Book
    amount: Units
    until_ns: int
    names: tuple[str, ...]
    open: dict[str, list[str]] = field(default_factory=dict[str, "list[str]"])
    closed: dict[str, HoldRecord] = field(default_factory=dict[str, HoldRecord])
    deep: set[str] = field(default_factory=set[str])

    def used(self) -> Units:
        """What is held and posted inside."""
        account = self.book.ledger.balance(self.id)
        return plus(account.held_units, account.posted_units)

    def bill(self) -> Bill:
        """What was paid inside."""
        return Bill.of(self.book.with_inner(self.closed.values(), self.deep))


class LeasedBudget:
    """A worker's lease of blocks from `shared`; see `Ledger.lease`. Safe for threads.

    It has the verbs of a `Ledger` for its accounts. ``books`` are its local ledgers; ``recovered`` are the blocks of
    an earlier user of the journal that were settled when this lease began. ``trouble`` is what last kept it from
    settling a block in passing, None when all that is due is booked; it tries again at the next `tend`, and `close`
    raises.
    """

    def __init__(
        self,
        shared: Ledger,
        accounts: Sequence[str],
        *,
        block: Amount,
        most: Budget,
        books: Books,
        name: str,
        renew_s: float,
        tend_s: float | None,
        heartbeat_s: float,
        clock: Callable[[], int] | None,
    ) -> None:
        self._shared = shared
        self._accounts = tuple(accounts)
        self.books = books
        self._name = name
        self._prefix = f"{TAG}/{name}/{uuid.uuid4().hex[:12]}"
        self._opened = 0
        self._base = self._target = units(block)
        self._most = limits(most)
        self._renew_ns = int(renew_s * NS)
        self._heartbeat_ns = int(heartbeat_s * NS)
        self._tick = clock or time.monotonic_ns  # a wall clock that jumps must not keep a block from its end
        self._beat_due = 0
        # `_sharing` is one conversation with the shared ledger at a time; `_lock` guards what is local, and is never
        # held during such a conversation. Whoever needs both takes `_sharing` first.
        self._sharing = threading.Lock()
        self._lock = threading.Lock()
        self._current: _Block | None = None
        self._retired: dict[str, _Block] = {}
        self._where: dict[str, tuple[_Block, str]] = {}
        self._frozen: AccountFrozen | None = None
        self._closed = False
        self.trouble: AgentBudgetError | None = None
        try:
            self._lineage = self._ancestors()
            self.recovered = self._recover()
        except BaseException:
            books.close()
            raise
        self._stop = threading.Event()
        if tend_s is not None:
            threading.Thread(target=self._tend_every, args=(tend_s,), name=f"tend {name}", daemon=True).start()

    @property
    def room(self) -> Amount:
        """What the block in use has free: what a crash would strand beyond what is under way, until it lapses."""
        with self._lock:
            block = self._current
            return ZERO if block is None else Amount(*block.amount).minus(Amount(*block.used()))

    @property
    def blocks(self) -> list[str]:
        """The ids of the blocks that are not settled yet: holds on the shared ledger, the one in use last."""
        with self._lock:
            return [*self._retired, *((self._current.id,) if self._current else ())]

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
        weighs on. Raises `BudgetExceeded` where neither the block nor the shared ledger has room, though up to
        `room` of each other worker may be free; `StoreError` if the shared ledger is needed and cannot be had.
        """
        if within is not None:
            return self._reserve_within(hold_id, amount, accounts, within, tag, meta)
        if isinstance(accounts, str) or (accounts and set(accounts) != set(self._accounts)):
            raise Mistake(f"this lease is on {list(self._accounts)}: reserve on {accounts!r} with the ledger itself")
        hold = self._reserve_here(hold_id, amount, tag, meta) or self._replay(hold_id, amount)
        while hold is None:
            made = self._make_room(units(amount))
            hold = self._reserve_here(hold_id, amount, tag, meta, made=made)
        return hold

    def hold(self, hold_id: str) -> HoldRecord | None:
        """The hold of this id, among the last that this worker made (at least `books.REMEMBERED`), or None."""
        with self._lock:
            found = self.books.find(hold_id)
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
                if at is None:
                    return self._book_of(hold_id).ledger.extend(hold_id, to)
                block, root = at
                try:
                    return block.book.ledger.extend(hold_id, to)
                except BudgetExceeded as refused:
                    if hold_id != root:
                        raise
                    need = refused.requested
            with self._sharing:
                self._widen_by(block, units(need))

    def reduce(self, hold_id: str, to: Amount) -> HoldRecord:
        """See `Ledger.reduce`."""
        with self._lock:
            return self._book_of(hold_id).ledger.reduce(hold_id, to)

    def settle(
        self, hold_id: str, cost: Amount = ZERO, *, presumed: bool = False, detail: Detail | None = None
    ) -> HoldRecord:
        """See `Ledger.settle`. The shared ledger hears of it when the block is settled.

        A presumption may be corrected also after that: the block's settlement is corrected with it.
        """
        with self._lock:
            at = self._where.get(hold_id)
            record = None
            if at is not None:
                record = at[0].book.ledger.settle(hold_id, cost, presumed=presumed, detail=detail)
                self._note_end(*at, record)
        if at is None or record is None:
            return self._settle_again(hold_id, cost, presumed, detail)
        self._follow_up(at[0], record)
        return record

    def void(self, hold_id: str, *, reason: str = "nothing was sent") -> HoldRecord:
        """See `Ledger.void`."""
        with self._lock:
            at = self._where.get(hold_id)
            if at is None:
                return self._book_of(hold_id).ledger.void(hold_id, reason=reason)
            record = at[0].book.ledger.void(hold_id, reason=reason)
            self._note_end(*at, record)
        self._follow_up(at[0], record)
        return record

    # --- the life of the lease

    def tend(self) -> None:
        """Do what is due on the shared ledger: say that this worker lives, heed a freeze, give back what lies idle,
        settle blocks whose time is over.

        To be called about once a second, by whoever is at hand or by the thread that ``tend_s`` asks for. Raises
        `StoreError`; what was due stays due.
        """
        with self._sharing:
            if self._closed:
                return
            if self._tick() >= self._beat_due:
                self._shared.heartbeat()
                self._beat_due = self._tick() + self._heartbeat_ns
            self._look_for_freeze()
            block = self._current
            if block is not None and self._is_over(block):
                self._retire(block)
            self._see_to_retired()
            self.trouble = None

    def close(self) -> None:
        """Settle every block at the truth and give the rest back.

        Holds still open are resolved as by a sweep: nothing sent → void, sent → presumed spent. Raises `StoreError`
        if the shared ledger cannot be had: close again later, or the journal's next user settles; without a journal
        the blocks lapse with the process.
        """
        self._stop.set()
        with self._sharing:
            with self._lock:
                self._closed = True
                for block in (*self._retired.values(), *((self._current,) if self._current else ())):
                    for root in list(block.open):
                        self._note_end(block, root, block.book.ledger.resolve(root))
            if self._current is not None:
                self._retire(self._current)
            self._see_to_retired()
            self.books.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _tend_every(self, seconds: float) -> None:
        while not self._stop.wait(seconds):
            try:
                self.tend()
            except AgentBudgetError as error:  # the thread goes on: what was due stays due
                self.trouble = error

    # --- inside the block

    def _reserve_here(
        self, hold_id: str, amount: Amount, tag: str, meta: Detail | None, *, made: _Block | None = None
    ) -> Hold | None:
        """The hold, if the block in use has room and the id is new to the other blocks.

        A block that was just ``made`` serves at least this hold, however short its time is.
        """
        with self._lock:
            if self._closed:
                raise Mistake("this lease is closed: nothing can be reserved in it")
            block = self._current
            if block is None or (block is not made and self._is_over(block)) or self.books.older_has(hold_id):
                return None
            try:
                hold = block.book.ledger.reserve(hold_id, amount, accounts=block.names, tag=tag, meta=meta)
            except (BudgetExceeded, HoldConflict):
                return None
            if not hold.replayed:
                block.book.holds += 1
                block.open[hold_id] = []
                self._where[hold_id] = (block, hold_id)
            return Hold(self, hold.record, hold.replayed)

    def _replay(self, hold_id: str, amount: Amount) -> Hold | None:
        """The hold that the id already names. Raises `HoldConflict` if it is not the one that is asked for."""
        with self._lock:
            found = self.books.find(hold_id)
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
            book = self._book_of(within) if at is None else at[0].book
            if self.books.older_has(hold_id):
                book = self._book_of(hold_id)
            hold = book.ledger.reserve(hold_id, amount, accounts=accounts, within=within, tag=tag, meta=meta)
            if not hold.replayed and at is not None:
                block, root = at
                block.book.holds += 1
                block.open[root].append(hold_id)
                self._where[hold_id] = at
            return Hold(self, hold.record, hold.replayed)

    def _book_of(self, hold_id: str) -> Book:
        at = self._where.get(hold_id)
        return self._required(hold_id)[0] if at is None else at[0].book

    def _required(self, hold_id: str) -> tuple[Book, HoldRecord]:
        found = self.books.find(hold_id)
        if found is None:
            raise UnknownHold(f"this lease knows no hold {hold_id!r}; if its block is settled, correct that one")
        return found

    def _note_end(self, block: _Block, root: str, record: HoldRecord) -> None:
        if record.id == root:
            within = block.open.pop(root)
            for hold_id in (root, *within):
                del self._where[hold_id]
            block.closed[root] = record
            if within:
                block.deep.add(root)

    def _follow_up(self, block: _Block, record: HoldRecord) -> None:
        """What the end of a hold asks of the shared ledger: more for an overrun, the bill of a block that is done."""
        overran = any(s > a for s, a in zip(record.settled_units or NOTHING, record.amount_units, strict=True))
        if not overran and (block.open or block.id not in self._retired):
            return
        with self._sharing:
            try:
                if overran:
                    self._cover(block)
                if block.id in self._retired and not block.open:
                    self._settle_block(block)
            except StoreError as error:  # booked here; the shared ledger hears of it at the next chance
                self.trouble = error

    def _settle_again(self, hold_id: str, cost: Amount, presumed: bool, detail: Detail | None) -> HoldRecord:
        """Settle a hold that has ended: the same changes nothing, a presumption is corrected, in its block too."""
        with self._sharing:
            with self._lock:
                book, before = self._required(hold_id)
                root = book.root(before)
                block = self._unsettled(root.accounts[0])
                if block is None and before.presumed:
                    block = self._revive(book, root.accounts[0])
                record = book.ledger.settle(hold_id, cost, presumed=presumed, detail=detail)
                if block is not None and root.id in block.closed:
                    block.closed[root.id] = book.root(record)
                    block.deep.add(root.id)
            if block is not None and block.id in self._retired and not block.open:
                self._settle_block(block)
            return record

    def _unsettled(self, block_id: str) -> _Block | None:
        current = self._current
        return current if current is not None and current.id == block_id else self._retired.get(block_id)

    # --- with the shared ledger: `_sharing` is held

    def _is_over(self, block: _Block) -> bool:
        return self._frozen is not None or self._tick() >= block.until_ns or len(block.closed) >= BATCH

    def _make_room(self, need: Units) -> _Block:
        """A block that has room for `need`: the one in use, grown, or another."""
        with self._sharing:
            block = self._current
            try:
                if block is not None and not self._is_over(block) and self._grow(block, need):
                    return block
                if block is not None:
                    self._retire(block)
                return self._open(need)
            except AccountFrozen as error:
                self._frozen = error
                if self._current is not None:
                    self._retire(self._current)
                raise

    def _grow(self, block: _Block, need: Units) -> bool:
        """Widen the block until `need` fits: up to double, if that fits. False if it cannot grow any more."""
        with self._lock:
            short = _short(block.amount, block.used(), need)
        if short == NOTHING:
            return True  # another thread was here before
        exact = plus(block.amount, short)
        room, _ = self._survey()
        if _beyond(exact, self._most) and not _beyond(short, room):
            return False  # a block of its own; what does not fit is refused below, and leaves this one as it is
        doubled = _triple(2 * a if s else a for a, s in zip(block.amount, short, strict=True))
        wanted = _ahead(_capped(doubled, self._most), exact, room, block.amount)
        try:
            return self._ask(exact, wanted, lambda to: self._widen(block, to))
        except HoldClosed:  # a sweep took this worker for dead: the block is presumed spent, until it is settled
            return False

    def _open(self, need: Units) -> _Block:
        """Open the next block, for `need` and ahead of demand."""
        if not self._accounts:
            raise Mistake("this lease names no accounts: nothing can be reserved in it")
        self._see_to_retired()
        room, windows = self._survey()
        self._opened += 1
        block_id = f"{self._prefix}/{self._opened}"
        wanted = _ahead(_capped(self._target, self._most), need, room)

        def reserve(amount: Units) -> Hold:
            meta = {"worker": self._name}
            return self._shared.reserve(block_id, Amount(*amount), accounts=self._accounts, tag=TAG, meta=meta)

        try:
            hold = self._ask(need, wanted, reserve)
            record = hold.record
            # First the journal, then "sent": whoever finds a block that was sent finds its account in the journal.
            block = self._retired[block_id] = self._new_block(block_id, record.amount_units)
            hold.mark_sent()
        except StoreError:  # it may have been admitted even so: settled at nothing as soon as can be
            if block_id not in self._retired:
                self._retired[block_id] = self._new_block(block_id, NOTHING)
            raise
        block.until_ns = self._tick() + min(self._renew_ns, *(_lasts(w, record.created_ns) for w in windows), 2**62)
        with self._lock:
            self._frozen = None
            del self._retired[block_id]
            self._current = block
        return block

    def _new_block(self, block_id: str, amount: Units) -> _Block:
        book = self.books.current()
        book.ledger.account(block_id, limit=as_budget(amount))
        book.unbooked += 1
        return _Block(block_id, book, amount, 0, (block_id,))

    def _ask(self, need: Units, wanted: Units, how: Callable[[Units], _T]) -> _T:
        """Ask for what is wanted; then for what is needed; then again, if blocks that wait can give something back."""
        if wanted != need:
            try:
                return how(wanted)
            except BudgetExceeded:
                pass  # others were quicker: what is needed may still fit
        try:
            return how(need)
        except BudgetExceeded:
            if not self._see_to_retired():
                raise
            return how(need)

    def _widen_by(self, block: _Block, need: Units) -> None:
        with self._lock:
            exact = plus(block.amount, _short(block.amount, block.used(), need))
        try:
            self._ask(exact, exact, lambda to: self._widen(block, to))
        except AccountFrozen as error:
            self._frozen = error
            raise

    def _widen(self, block: _Block, to: Units) -> bool:
        record = self._shared.extend(block.id, Amount(*to))
        with self._lock:
            block.amount = record.amount_units
            block.book.ledger.set_limit(block.id, as_budget(block.amount))
        return True

    def _cover(self, block: _Block) -> None:
        """An overrun beyond the block weighs on the shared ledger at once if it fits, else when the block ends."""
        with self._lock:
            used = block.used()
        if block is not self._unsettled(block.id) or not _beyond(used, block.amount):
            return
        try:
            self._widen(block, used)
        except (BudgetExceeded, AccountFrozen, HoldClosed):
            if block is self._current:
                self._retire(block)

    def _retire(self, block: _Block) -> None:
        """Reserve no more in a block; settle it now, or when the last hold in it ends."""
        with self._lock:
            self._current = None
            self._retired[block.id] = block
            used = zip(self._base, block.amount, block.used(), strict=True)
            self._target = _triple(max(base, a // 2) if 4 * u < a else a for base, a, u in used)
        self._see_to(block)

    def _see_to_retired(self) -> bool:
        """Settle the blocks that are done and trim those that wait; True if something came back."""
        came_back = [self._see_to(block) for block in list(self._retired.values())]
        return any(came_back)

    def _see_to(self, block: _Block) -> bool:
        if not block.open:
            self._settle_block(block)
            return True
        with self._lock:
            used = block.used()
            if not _beyond(block.amount, used):
                return False
            block.amount = _triple(min(a, u) for a, u in zip(block.amount, used, strict=True))
            block.book.ledger.set_limit(block.id, as_budget(block.amount))
        try:
            self._shared.reduce(block.id, Amount(*block.amount))
        except HoldClosed:
            return False  # it lapsed; settling it corrects that
        return True

    def _settle_block(self, block: _Block) -> None:
        """Book on the shared ledger what was paid inside, with a line for each hold."""
        bill = block.bill()
        detail = {"paid": bill.lines} if bill.lines else {}
        try:
            self._shared.settle(block.id, bill.cost, presumed=bill.presumed, detail=detail)
        except UnknownHold:
            if bill.lines:
                raise UnknownHold(
                    f"the ledger at {self._shared.location} has no block {block.id!r}: the journal is another ledger's"
                ) from None
        except HoldClosed:  # somebody settled it by hand, at another sum: that stands, and is said once
            self._forget(block)
            raise
        self._forget(block)

    def _forget(self, block: _Block) -> None:
        with self._lock:
            block.book.ledger.freeze(block.id, reason=BOOKED)
            del self._retired[block.id]
            block.book.unbooked -= 1
            self.books.forget()

    def _revive(self, book: Book, block_id: str) -> _Block:
        """A block as its book has it, to be settled, or settled again."""
        book.ledger.unfreeze(block_id)
        book.unbooked += 1
        closed = {hold.id: hold for hold in book.roots(block_id)}
        block = _Block(block_id, book, NOTHING, 0, (block_id,), closed=closed, deep=set(closed))
        self._retired[block_id] = block
        return block

    def _recover(self) -> list[HoldRecord]:
        """Settle what an earlier user of the journal left. What it had sent and not settled is presumed spent."""
        found: list[str] = []
        for book in self.books:
            open_roots = [hold.id for hold in book.ledger.holds(state="open") if hold.parent is None]
            for hold_id in open_roots:
                book.ledger.resolve(hold_id)
            for account in book.ledger.accounts(prefix=f"{TAG}/"):
                if account.frozen != BOOKED:
                    found.append(account.name)
                    self._settle_block(self._revive(book, account.name))
        settled = [self._shared.hold(block_id) for block_id in found]
        return [record for record in settled if record is not None]

    def _ancestors(self) -> tuple[str, ...]:
        """The accounts and all above them."""
        steps: dict[str, None] = {}
        for name in self._accounts:
            step: str | None = name
            while step is not None and step not in steps:
                steps[step] = None
                step = self._shared.balance(step).parent
        return tuple(steps)

    def _survey(self) -> tuple[Limits, list[Window]]:
        """What is left on every account at least, in every window; and the windows."""
        room, windows = UNLIMITED, list[Window]()
        for name in self._lineage:
            account = self._shared.balance(name)
            room = _least(room, limits(account.available))
            for balance in self._shared.windows(name) if account.windows else ():
                room = _least(room, limits(balance.available))
                windows.append(balance.window)
        return room, windows

    def _look_for_freeze(self) -> AccountFrozen | None:
        self._frozen = None
        for name in self._lineage:
            reason = self._shared.balance(name).frozen
            if reason is not None:
                self._frozen = AccountFrozen(
                    f"account {name!r} is frozen ({reason or 'no reason given'}): nothing may be reserved on it "
                    "until it is unfrozen",
                    account=name,
                )
                break
        return self._frozen

    def _heed_freeze(self) -> None:
        """Raise `AccountFrozen` if one was noticed and stands."""
        if self._frozen is not None:
            with self._sharing:
                error = self._look_for_freeze()
            if error is not None:
                raise error


def _triple(values: Iterable[int]) -> Units:
    usd, tokens, calls = values
    return (usd, tokens, calls)


def _short(limit: Units, used: Units, need: Units) -> Units:
    """What a limit lacks for `need` beside what is used."""
    return _triple(max(0, u + n - m) for m, u, n in zip(limit, used, need, strict=True))


def _beyond(amount: Units, most: Limits) -> bool:
    return any(m is not None and a > m for a, m in zip(amount, most, strict=True))


def _capped(amount: Units, most: Limits) -> Units:
    return _triple(a if m is None else min(a, m) for a, m in zip(amount, most, strict=True))


def _ahead(wanted: Units, need: Units, room: Limits, base: Units = NOTHING) -> Units:
    """What is wanted, but beyond `base` no more than a share of the room that is left; and what is needed anyway."""
    shares = (None if r is None else b + r // SHARE for b, r in zip(base, room, strict=True))
    return _triple(max(n, w if s is None else min(w, s)) for w, n, s in zip(wanted, need, shares, strict=True))


def _least(a: Limits, b: Limits) -> Limits:
    usd, tokens, calls = (y if x is None else x if y is None else min(x, y) for x, y in zip(a, b, strict=True))
    return (usd, tokens, calls)


def _lasts(window: Window, began_ns: int) -> int:
    """How long (ns) a block that was reserved at a moment may be used on an account with this window."""
    if window.kind == "rolling":
        return window.seconds * NS // ROLLING
    return window.ends(window.start(began_ns)) - began_ns
