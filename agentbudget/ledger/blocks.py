"""Leased blocks, on the side of the shared ledger: how a worker takes them, and how they come back.

A block is one hold on the worker's accounts, sent from the start: what happens inside may have been spent. It is
settled at the sum of what was paid inside, with a line for each hold.
"""

from __future__ import annotations

import threading
import time
import uuid
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final, TypeVar

from agentbudget.errors import AccountFrozen, BudgetExceeded, HoldClosed, Mistake, UnknownHold
from agentbudget.ledger.books import BOOKED, TAG, Bill, Book, Books
from agentbudget.ledger.hold import Hold
from agentbudget.ledger.records import (
    NOTHING,
    UNLIMITED,
    HoldRecord,
    Limits,
    Units,
    as_budget,
    limits,
    plus,
)
from agentbudget.ledger.windows import NS, Window
from agentbudget.money import Amount

if TYPE_CHECKING:
    from agentbudget.ledger.core import Ledger

BATCH: Final = 1000
"""A block is settled after so many holds, so that its bill stays one entry of readable size."""

SHARE: Final = 8
"""A block takes ahead at most an eighth of what its accounts have left: as they empty, blocks shrink."""

ROLLING: Final = 100
"""On an account with a rolling window, a block is used for a hundredth of it."""

_CLOCK: Final[int | None] = getattr(time, "CLOCK_BOOTTIME", None)
_T = TypeVar("_T")


@dataclass(eq=False, slots=True)
class Block:
    """A block that is not settled yet, and the account of its name in the local book.

    ``amount`` is what the shared ledger holds for it. From ``due_ns`` on whoever tends renews it, from ``until_ns`` on
    nothing more is reserved inside. ``open`` and ``closed`` are the holds inside: the open ones with
    the ids of those within them; ``deep`` names the closed ones that had any.
    """

    id: str
    book: Book
    amount: Units
    due_ns: int = 0
    until_ns: int = 0
    open: dict[str, list[str]] = field(default_factory=dict[str, "list[str]"])
    closed: dict[str, HoldRecord] = field(default_factory=dict[str, HoldRecord])
    deep: set[str] = field(default_factory=set[str])
    accounts: tuple[str, ...] = field(init=False)

    def __post_init__(self) -> None:
        self.accounts = (self.id,)

    def used(self) -> Units:
        """What is held and posted inside."""
        account = self.book.ledger.balance(self.id)
        return plus(account.held_units, account.posted_units)

    def limit(self, to: Units) -> None:
        """Let at most so much be reserved inside."""
        self.book.ledger.set_limit(self.id, as_budget(to))

    def bill(self) -> Bill:
        """What was paid inside."""
        return Bill.of(self.book.with_inner(self.closed.values(), self.deep))


@dataclass(frozen=True, slots=True)
class Terms:
    """How a worker takes blocks: the first one's size, the most that one may reach, and how long (ns) one is used."""

    first: Units
    most: Limits
    renew_ns: int
    heartbeat_ns: int


class Blocks:
    """The blocks of one worker: the one in use, and those retired ones in which a hold is still open.

    ``sharing`` is held by whoever speaks with the shared ledger, and whoever calls a method of this class, save where
    it says otherwise. ``lock`` guards what is local, and nobody waits for the shared ledger while holding it. Whoever
    needs both takes ``sharing`` first.
    """

    def __init__(
        self,
        shared: Ledger,
        accounts: Sequence[str],
        terms: Terms,
        *,
        books: Books,
        name: str,
        tick: Callable[[], int],
    ) -> None:
        self.sharing = threading.Lock()
        self.lock = threading.Lock()
        self.books = books
        self.current: Block | None = None
        self.retired: dict[str, Block] = {}
        self.frozen: AccountFrozen | None = None
        self._shared = shared
        self._accounts = tuple(accounts)
        self._lineage = self._ancestors()
        self._terms = terms
        self._target = terms.first
        self._worker = name
        self._prefix = f"{TAG}/{name}/{uuid.uuid4().hex[:12]}"
        self._opened = 0
        self._tick = tick
        self._beat_due = 0

    @property
    def owner(self) -> str:
        """Who holds the blocks."""
        return self._shared.owner

    def is_over(self, block: Block) -> bool:
        """True if nothing more should be reserved in a block. Needs only ``lock``."""
        return self.frozen is not None or self._tick() >= block.until_ns or len(block.closed) >= BATCH

    def find(self, block_id: str) -> Block | None:
        """The block of this id, if it is not settled."""
        current = self.current
        return current if current is not None and current.id == block_id else self.retired.get(block_id)

    # --- room

    def make_room(self, need: Units) -> Block:
        """A block that has room for `need`: the one in use, grown, or another.

        Raises `BudgetExceeded`, `AccountFrozen`, `StoreError`.
        """
        try:
            if self.current is not None and not self.is_over(self.current) and self._grow(self.current, need):
                return self.current
            if self.current is not None:
                self._learn(self.current)
                self.retire(self.current)
            return self._open(need)
        except AccountFrozen as error:
            self.frozen = error
            if self.current is not None:
                self.retire(self.current)
            raise

    def widen_for(self, block: Block, need: Units) -> None:
        """Widen a block by what it lacks for `need`. Raises as `make_room`, and `HoldClosed` if it lapsed."""
        with self.lock:
            exact = plus(block.amount, _short(block.amount, block.used(), need))
        try:
            self._ask(exact, exact, lambda to: self._widen(block, to))
        except AccountFrozen as error:
            self.frozen = error
            raise

    def cover(self, block: Block) -> None:
        """An overrun beyond a block weighs on the shared ledger at once if it fits, else when the block ends."""
        with self.lock:
            used = block.used()
        if self.find(block.id) is not block or not _beyond(used, block.amount):
            return
        try:
            self._widen(block, used)
        except (BudgetExceeded, AccountFrozen, HoldClosed):
            if block is self.current:
                self.retire(block)

    def _grow(self, block: Block, need: Units) -> bool:
        """Widen the block in use until `need` fits: to the double, if that fits. False if it cannot grow any more."""
        with self.lock:
            short = _short(block.amount, block.used(), need)
        if short == NOTHING:
            return True  # another thread was here before
        exact = plus(block.amount, short)
        room, _ = self._survey()
        if _beyond(exact, self._terms.most) and not _beyond(short, room):
            return False  # a block of its own; what does not fit is refused below, and leaves this one as it is
        doubled = _triple(2 * a if s else a for a, s in zip(block.amount, short, strict=True))
        wanted = _ahead(_capped(doubled, self._terms.most), exact, room, block.amount)
        try:
            self._ask(exact, wanted, lambda to: self._widen(block, to))
        except HoldClosed:  # a sweep took this worker for dead: the block is presumed spent, until it is settled
            return False
        except BudgetExceeded as refused:
            if refused.window == "total":
                raise
            return False  # more of this block counts when it was opened; one of its own counts now
        return True

    def _open(self, need: Units) -> Block:
        """The next block, with room for `need` and ahead of demand."""
        if not self._accounts:
            raise Mistake("this lease names no accounts: nothing can be reserved in it")
        self.see_to_retired()
        room, windows = self._survey()
        self._opened += 1
        block_id = f"{self._prefix}/{self._opened}"
        wanted = _ahead(_capped(self._target, self._terms.most), need, room)
        asked = self._tick()  # before it was reserved: however long that takes, it is over before its window
        try:
            hold = self._ask(need, wanted, lambda amount: self._reserve(block_id, amount))
            record = hold.record
            # First the journal, then "sent": whoever finds a block that was sent finds its account in the journal.
            block = self.retired[block_id] = self._new_block(block_id, record.amount_units)
            hold.mark_sent()
        except (BudgetExceeded, AccountFrozen):
            raise
        except BaseException:  # it may have been admitted even so: settled at nothing as soon as can be
            if block_id not in self.retired:
                self.retired[block_id] = self._new_block(block_id, NOTHING)
            raise
        lasts_ns = min((_lasts(window, record.created_ns) for window in windows), default=2**62)
        with self.lock:
            self.frozen = None
            del self.retired[block_id]
            block.due_ns = asked + min(self._terms.renew_ns, lasts_ns)
            block.until_ns = asked + min(2 * self._terms.renew_ns, lasts_ns)
            self.current = block
        return block

    def _reserve(self, block_id: str, amount: Units) -> Hold:
        meta = {"worker": self._worker}
        return self._shared.reserve(block_id, Amount(*amount), accounts=self._accounts, tag=TAG, meta=meta)

    def _new_block(self, block_id: str, amount: Units) -> Block:
        book = self.books.current()
        book.ledger.account(block_id, limit=as_budget(amount))
        book.unbooked += 1
        return Block(block_id, book, amount)

    def _ask(self, need: Units, wanted: Units, how: Callable[[Units], _T]) -> _T:
        """Ask for what is wanted; then for what is needed; then again, if retired blocks gave something back."""
        if wanted != need:
            try:
                return how(wanted)
            except BudgetExceeded:
                pass  # others were quicker: what is needed may still fit
        try:
            return how(need)
        except BudgetExceeded:
            if not self.see_to_retired():
                raise
            return how(need)

    def _widen(self, block: Block, to: Units) -> None:
        record = self._shared.extend(block.id, Amount(*to))
        with self.lock:
            block.amount = record.amount_units
            block.limit(block.amount)

    def _survey(self) -> tuple[Limits, list[Window]]:
        """What is left at least on every account and in every window; and the windows."""
        room, windows = UNLIMITED, list[Window]()
        for name in self._lineage:
            account = self._shared.balance(name)
            room = _least(room, limits(account.available))
            for balance in self._shared.windows(name) if account.windows else ():
                room = _least(room, limits(balance.available))
                windows.append(balance.window)
        return room, windows

    def _ancestors(self) -> tuple[str, ...]:
        """The accounts and all above them."""
        steps: dict[str, None] = {}
        for name in self._accounts:
            step: str | None = name
            while step is not None and step not in steps:
                steps[step] = None
                step = self._shared.balance(step).parent
        return tuple(steps)

    # --- what comes back

    def tend(self) -> None:
        """Say that this worker lives, look for a freeze, keep ahead of demand, see to the retired."""
        if self._tick() >= self._beat_due:
            self._shared.heartbeat()
            self._beat_due = self._tick() + self._terms.heartbeat_ns
        self.look_for_freeze()
        block = self.current
        if block is not None and (self._is_due(block) or not self._is_ahead(block)):
            self._renew(block)
        self.see_to_retired()

    def _is_due(self, block: Block) -> bool:
        return self.is_over(block) or self._tick() >= block.due_ns or 2 * len(block.closed) >= BATCH

    def _is_ahead(self, block: Block) -> bool:
        """True if a quarter of a block is left, or was added to it; also if there is none to be had."""
        try:
            return self._grow(block, _triple(amount // 4 for amount in block.amount))
        except BudgetExceeded:
            return True

    def _renew(self, block: Block) -> None:
        """Put another block in the place of the one in use, so that nobody who reserves has to wait for it. One that
        nobody used only goes back."""
        self._learn(block)
        if (block.open or block.closed) and self.frozen is None:
            try:
                self._open(NOTHING)
            except BudgetExceeded:
                pass  # whoever reserves next asks for what it needs
            except AccountFrozen as error:
                self.frozen = error
        self.retire(block)

    def retire(self, block: Block) -> None:
        """Reserve no more in a block; settle it now, or when the last hold in it ends."""
        self.put_aside(block)
        self._see_to(block)

    def put_aside(self, block: Block) -> None:
        """Reserve no more in a block."""
        with self.lock:
            if self.current is block:
                self.current = None
            self.retired[block.id] = block

    def _learn(self, block: Block) -> None:
        """The next block is as large as this one became, or half of that if little of it was used."""
        with self.lock:
            used = zip(self._terms.first, block.amount, block.used(), strict=True)
            self._target = _triple(max(first, a // 2) if 4 * u < a else a for first, a, u in used)

    def see_to_retired(self) -> bool:
        """Settle the retired blocks that are done and trim the others; True if something came back.

        What is wrong with one block keeps no other from it: the first `HoldClosed` or `UnknownHold` is raised at last.
        """
        came_back, wrong = False, None
        for block in list(self.retired.values()):
            try:
                came_back = self._see_to(block) or came_back
            except (HoldClosed, UnknownHold) as error:
                wrong = wrong or error
        if wrong is not None:
            raise wrong
        return came_back

    def _see_to(self, block: Block) -> bool:
        if not block.open:
            self.settle(block)
            return True
        with self.lock:
            used = block.used()
            if not _beyond(block.amount, used):
                return False
            least = _triple(min(a, u) for a, u in zip(block.amount, used, strict=True))
            block.limit(least)  # here first: what the shared ledger has back, nobody spends here
        try:
            block.amount = self._shared.reduce(block.id, Amount(*least)).amount_units
        except HoldClosed:  # it lapsed; settling it corrects that
            block.amount = least
        return True

    def settle(self, block: Block) -> None:
        """Book on the shared ledger what was paid inside a block.

        Raises `HoldClosed` once if somebody settled it by hand at another sum, which stands.
        """
        if block.book.ledger.balance(block.id).held_units != NOTHING:
            self._resolve_lost(block)
        bill = block.bill()
        detail = {"paid": bill.lines} if bill.lines else {}
        try:
            self._shared.settle(block.id, bill.cost, presumed=bill.presumed, detail=detail)
        except UnknownHold:
            if bill.lines:
                raise UnknownHold(
                    f"the ledger at {self._shared.location} has no block {block.id}: the journal is another ledger's, "
                    "or this one was restored from an older copy; use another folder, and settle what that one lists",
                    hold_id=block.id,
                ) from None
        except HoldClosed:
            self._forget(block)
            raise
        self._forget(block)

    def _resolve_lost(self, block: Block) -> None:
        """End the holds that nobody has: an interrupt came before whoever reserved them got them."""
        with self.lock:
            for hold in block.book.roots(block.id):
                if hold.state == "open":
                    block.closed[hold.id] = block.book.ledger.resolve(hold.id)
                    block.deep.add(hold.id)

    def _forget(self, block: Block) -> None:
        with self.lock:
            block.book.ledger.freeze(block.id, reason=BOOKED)
            del self.retired[block.id]
            block.book.unbooked -= 1
            self.books.forget()

    def revive(self, book: Book, block_id: str) -> Block:
        """A block as its book has it, among the retired, to be settled or settled again. What its worker left open
        ends: nothing sent → void, sent → presumed spent."""
        book.ledger.unfreeze(block_id)
        book.unbooked += 1
        closed = {hold.id: book.ledger.resolve(hold.id) for hold in book.roots(block_id)}
        block = self.retired[block_id] = Block(block_id, book, NOTHING, closed=closed, deep=set(closed))
        return block

    def recover(self) -> list[HoldRecord]:
        """Settle what an earlier user of the journal left; returns its blocks' holds. Raises as `see_to_retired`."""
        # All are found before one is settled: a book is dropped with the last of its blocks that is known.
        found = [
            self.revive(book, account.name).id
            for book in self.books
            for account in book.ledger.accounts(prefix=f"{TAG}/")
            if account.frozen != BOOKED
        ]
        self.see_to_retired()
        settled = [self._shared.hold(block_id) for block_id in found]
        return [record for record in settled if record is not None]

    def disown(self) -> None:
        """Let go of every block, in a forked process: they are its parent's, as is whoever holds a lock."""
        self.sharing, self.lock = threading.Lock(), threading.Lock()
        self.current = None
        self.retired = {}
        self.books.disown()

    # --- freezes

    def look_for_freeze(self) -> AccountFrozen | None:
        """Note whether an account is frozen."""
        self.frozen = None
        for name in self._lineage:
            reason = self._shared.balance(name).frozen
            if reason is not None:
                self.frozen = AccountFrozen(
                    f"account {name!r} is frozen ({reason or 'no reason given'}): nothing may be reserved on it "
                    "until it is unfrozen",
                    account=name,
                )
                break
        return self.frozen


def steady_ns() -> int:
    """Nanoseconds that pass evenly: also while the machine sleeps, and whatever becomes of the clock on the wall."""
    return time.monotonic_ns() if _CLOCK is None else time.clock_gettime_ns(_CLOCK)


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
