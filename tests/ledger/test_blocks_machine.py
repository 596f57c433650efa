"""Whatever several workers do in their blocks, in whatever order, and however they die: the books are in order."""

from __future__ import annotations

import tempfile
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, invariant, multiple, rule

from agentbudget.errors import AccountFrozen, BudgetExceeded, HoldClosed, UnknownHold
from agentbudget.ledger import Hold, Ledger
from agentbudget.ledger.blocks import Blocks, Terms
from agentbudget.ledger.books import Books
from agentbudget.ledger.leased import LeasedBudget
from agentbudget.ledger.memory import MemoryStore
from agentbudget.money import Amount, Budget
from agentbudget.testing import ManualClock

WORKERS = st.integers(0, 2)
AMOUNTS = st.builds(Amount, st.integers(0, 60), st.integers(0, 60), st.just(0))
LIMIT, DAILY = 1_000, 400
NONE = cast(Any, multiple())


@dataclass
class Paid:
    """What a test knows of one hold: who made it, and what its provider billed."""

    worker: int
    hold: Hold
    within: Paid | None
    sent: bool = False
    open: bool = True
    billed: Amount = field(default_factory=Amount)
    presumed: bool = False


class BlocksMachine(RuleBasedStateMachine):
    """Three workers, each as on a host of its own, on one account with a limit for all time and one for the day."""

    journal = False
    holds: Any = Bundle("holds")

    def __init__(self) -> None:
        super().__init__()
        self.folder = tempfile.TemporaryDirectory()
        self.clock, self.store = ManualClock(), MemoryStore()
        self.ledger = Ledger(self.store, clock=self.clock, owner="here:1:x")
        total = Budget(usd=Amount(LIMIT).usd, tokens=LIMIT)
        self.ledger.account("org", limit=total)
        self.ledger.account("team", parent="org", windows={"day": Budget(usd=Amount(DAILY).usd)})
        self.paid: list[Paid] = []
        self.overrun = 0
        self.workers = [self.open(n) for n in range(3)]

    def open(self, number: int) -> tuple[LeasedBudget, Books]:
        ledger = Ledger(self.store, clock=self.clock, owner=f"elsewhere{number}:{len(self.paid)}:x")
        folder = Path(self.folder.name) / str(number) if self.journal else None
        books = Books(lambda store: Ledger(store, clock=self.clock), folder)
        terms = Terms(first=(40, 0, 0), most=(160, 200, None), renew_ns=5 * 10**9, heartbeat_ns=20 * 10**9)
        name = f"worker-{number}"
        return LeasedBudget(["team"], Blocks(ledger, ["team"], terms, books=books, name=name, tick=self.clock)), books

    @rule(  # pyright: ignore[reportUntypedFunctionDecorator] # bundles are generic over a type that is left open
        target=holds, worker=WORKERS, amount=AMOUNTS
    )
    def reserve(self, worker: int, amount: Amount) -> Any:
        try:
            hold = self.workers[worker][0].reserve(f"h{len(self.paid)}", amount)
        except (BudgetExceeded, AccountFrozen):
            return NONE
        self.paid.append(Paid(worker, hold, None))
        return self.paid[-1]

    @rule(  # pyright: ignore[reportUntypedFunctionDecorator]
        target=holds, above=holds, amount=AMOUNTS
    )
    def reserve_within(self, above: Paid, amount: Amount) -> Any:
        try:
            hold = self.workers[above.worker][0].reserve(f"h{len(self.paid)}", amount, within=above.hold.id)
        except (BudgetExceeded, AccountFrozen):
            return NONE
        except (HoldClosed, UnknownHold):
            assert not above.open
            return NONE
        assert above.open
        self.paid.append(Paid(above.worker, hold, above))
        return self.paid[-1]

    @rule(paid=holds)
    def send(self, paid: Paid) -> None:
        if paid.open:
            paid.hold.mark_sent()
            paid.sent = True

    @rule(paid=holds, by=AMOUNTS)
    def extend(self, paid: Paid, by: Amount) -> None:
        if paid.open:
            try:
                paid.hold.extend(paid.hold.amount + by)
            except (BudgetExceeded, AccountFrozen, HoldClosed):
                return

    @rule(paid=holds, cost=AMOUNTS)
    def settle(self, paid: Paid, cost: Amount) -> None:
        try:
            record = paid.hold.settle(cost)
        except UnknownHold:
            assert not paid.open
            return
        except HoldClosed:
            assert not paid.open
            assert not paid.presumed
            return
        if paid.open or paid.presumed:
            self.overrun += max(record.overrun.usd_nano, record.overrun.tokens)
            self.end(paid, cost)
        paid.presumed = False

    @rule(paid=holds)
    def presume(self, paid: Paid) -> None:
        if paid.open and paid.sent and not any(p.open for p in self.inside(paid)):
            record = paid.hold.presume()
            self.end(paid, record.amount.minus(record.spent))
            paid.presumed = True

    @rule(paid=holds)
    def void(self, paid: Paid) -> None:
        if paid.open and not paid.sent and not any(p.open or p.billed for p in self.inside(paid)):
            paid.hold.void()
            self.end(paid, Amount())

    @rule(worker=WORKERS, seconds=st.sampled_from([0, 1, 6, 70, 90_000]))
    def tend(self, worker: int, seconds: int) -> None:
        self.clock.advance(seconds)
        self.workers[worker][0].tend()

    @rule(frozen=st.booleans())
    def freeze(self, frozen: bool) -> None:
        if frozen:
            self.ledger.freeze("org")
        else:
            self.ledger.unfreeze("org")

    @rule()
    def sweep(self) -> None:
        self.ledger.sweep()

    @rule(worker=WORKERS)
    def close(self, worker: int) -> None:
        self.resolve(worker)
        self.workers[worker][0].close()
        self.workers[worker] = self.open(worker)
        self.forget(worker)

    def resolve(self, worker: int) -> None:
        """What becomes of a worker's open holds when it goes."""
        for paid in [p for p in self.paid if p.worker == worker and p.open and p.within is None]:
            self.abandon(paid)

    def abandon(self, paid: Paid) -> None:
        """Nothing sent → void; sent → presumed spent, beside what was spent within it."""
        inside = [p for p in self.inside(paid) if p.within is paid]
        for inner in inside:
            if inner.open:
                self.abandon(inner)
        record = self.workers[paid.worker][0].hold(paid.hold.id)
        assert record is not None
        spent = Amount()
        for inner in inside:
            spent += self.cost(inner)
        paid.billed = record.amount.at_least(spent).minus(spent) if paid.sent else Amount()
        paid.open, paid.presumed = False, paid.sent

    def cost(self, paid: Paid) -> Amount:
        total = paid.billed
        for inner in self.paid:
            if inner.within is paid:
                total += self.cost(inner)
        return total

    def end(self, paid: Paid, cost: Amount) -> None:
        if paid.open:
            for inner in self.inside(paid):
                if inner.open and inner.within is paid:
                    self.abandon(inner)
        paid.billed, paid.open = cost, False

    def inside(self, paid: Paid) -> list[Paid]:
        found = [inner for inner in self.paid if inner.within is paid]
        return found + [deeper for inner in found for deeper in self.inside(inner)]

    def forget(self, worker: int) -> None:
        """The next worker of this number knows the holds of the last one if it left a journal."""
        for paid in self.paid:
            if paid.worker == worker:
                paid.hold = Hold(self.workers[worker][0], paid.hold.record)

    @invariant()
    def never_overspends(self) -> None:
        org, team = self.ledger.balance("org"), self.ledger.balance("team")
        (day,) = self.ledger.windows("team")
        most = LIMIT + self.overrun
        for weight in (org.posted + org.held, team.posted + team.held, self.billed()):
            assert max(weight.usd_nano, weight.tokens) <= most
        assert (day.posted + day.held).usd_nano <= DAILY + self.overrun

    def billed(self) -> Amount:
        total = Amount()
        for paid in self.paid:
            total += paid.billed
        return total

    @invariant()
    def everything_verifies(self) -> None:
        assert self.ledger.verify().problems == ()
        for _, books in self.workers:
            for book in books:
                assert book.ledger.verify().ok

    def teardown(self) -> None:
        for worker, (lease, books) in enumerate(self.workers):
            self.resolve(worker)
            lease.close()
            books.close()
        balance = self.ledger.balance("org")
        assert (balance.posted, balance.held) == (self.billed(), Amount())
        assert self.ledger.verify().ok
        self.folder.cleanup()


class JournalMachine(BlocksMachine):
    """The same with journals, and with workers that die."""

    journal = True

    @rule(worker=WORKERS, swept=st.booleans())
    def crash(self, worker: int, swept: bool) -> None:
        self.resolve(worker)
        self.workers[worker][1].close()
        if swept:
            self.clock.advance(100)
            self.ledger.sweep()
        self.workers[worker] = self.open(worker)
        self.forget(worker)


TestMemory = BlocksMachine.TestCase
TestMemory.settings = settings(max_examples=60, stateful_step_count=40, deadline=None)
TestJournal = JournalMachine.TestCase
TestJournal.settings = settings(max_examples=15, stateful_step_count=30, deadline=None)
