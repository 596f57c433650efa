"""Any sequence of operations leaves the books in order."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, consumes, invariant, rule

from agentbudget.errors import BudgetExceeded, HoldClosed
from agentbudget.ledger import Hold, Ledger
from agentbudget.money import Amount, Budget
from tests.ledger.server import Server

AMOUNTS = st.builds(Amount, st.integers(0, 400), st.integers(0, 400), st.integers(0, 3))
LIMIT = 1_000


class LedgerMachine(RuleBasedStateMachine):
    """Holds come and go, in and outside of each other; after each step everything must add up."""

    location = "memory:"
    steps: Any = Bundle("steps")
    calls: Any = Bundle("calls")

    def __init__(self) -> None:
        super().__init__()
        self.ledger = Ledger.open(self.location)
        limit = Budget(usd=Amount(LIMIT).usd, tokens=LIMIT)
        self.ledger.account("org", limit=limit)
        self.ledger.account("a", parent="org", limit=limit)
        self.ledger.account("b", parent="org")
        self.count = 0
        self.overrun = 0

    def fresh(self) -> str:
        self.count += 1
        return f"h{self.count}"

    # The decorators of bundles are generic over a type that hypothesis leaves open.
    @rule(  # pyright: ignore[reportUntypedFunctionDecorator]
        target=steps, amount=AMOUNTS, account=st.sampled_from(["a", "b"])
    )
    def reserve(self, amount: Amount, account: str) -> Any:
        try:
            return self.ledger.reserve(self.fresh(), amount, accounts=[account])
        except BudgetExceeded:
            return None

    @rule(  # pyright: ignore[reportUntypedFunctionDecorator]
        target=calls, step=steps, amount=AMOUNTS, sent=st.booleans()
    )
    def call(self, step: Hold | None, amount: Amount, sent: bool) -> Any:
        if step is None:
            return None
        try:
            hold = self.ledger.reserve(self.fresh(), amount, within=step.id)
        except (BudgetExceeded, HoldClosed):
            return None
        if sent:
            hold.mark_sent()
        return hold

    @rule(hold=calls, cost=AMOUNTS)
    def settle(self, hold: Hold | None, cost: Amount) -> None:
        if hold is None:
            return
        before = hold.refresh()
        try:
            after = hold.settle(cost)
        except HoldClosed:
            assert before.state != "open"
            return
        if not (before.state == "settled" and not before.presumed):
            self.overrun += after.overrun.usd_nano
        assert hold.settle(cost) == hold.refresh()

    @rule(hold=calls)
    def void(self, hold: Hold | None) -> None:
        if hold is None:
            return
        before = hold.refresh()
        try:
            hold.void()
        except HoldClosed:
            assert before.sent or before.state != "open"

    @rule(step=consumes(steps))
    def close(self, step: Hold | None) -> None:
        if step is not None:
            record = step.settle()
            assert record.settled == record.spent

    @invariant()
    def adds_up(self) -> None:
        verification = self.ledger.verify()
        assert verification.ok, verification.problems
        for account in self.ledger.accounts():
            if account.limit.usd_nano is not None:
                assert account.posted.usd_nano + account.held.usd_nano <= LIMIT + self.overrun


class SqliteLedgerMachine(LedgerMachine):
    def __init__(self) -> None:
        self.folder = tempfile.TemporaryDirectory()
        self.location = str(Path(self.folder.name) / "ledger.db")
        super().__init__()

    def teardown(self) -> None:
        self.ledger.close()
        self.folder.cleanup()


class PostgresLedgerMachine(LedgerMachine):
    """Two ledgers take turns at one database, so that each follows what the other wrote."""

    server: Server

    def __init__(self) -> None:
        self.location = self.server.fresh()
        super().__init__()
        self.other = Ledger.open(self.location)

    @invariant()
    def take_turns(self) -> None:
        self.ledger, self.other = self.other, self.ledger

    def teardown(self) -> None:
        self.ledger.close()
        self.other.close()


@pytest.fixture
def served(server: Server) -> None:
    PostgresLedgerMachine.server = server


TestMemory = LedgerMachine.TestCase
TestMemory.settings = settings(max_examples=60, stateful_step_count=40, deadline=None)
TestSqlite = SqliteLedgerMachine.TestCase
TestSqlite.settings = settings(max_examples=15, stateful_step_count=30, deadline=None)
TestPostgres = pytest.mark.usefixtures("served")(PostgresLedgerMachine.TestCase)
TestPostgres.settings = settings(max_examples=5, stateful_step_count=20, deadline=None)
