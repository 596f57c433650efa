"""Ends of holds that the store did not take are booked once it is there again."""

from __future__ import annotations

from collections.abc import Callable, Generator
from pathlib import Path

import pytest
from langgraph.graph import START, StateGraph
from langgraph.runtime import Runtime

from agentbudget import Agent, Context, skill
from agentbudget.errors import StoreUnavailable
from agentbudget.graph import TaskState
from agentbudget.ledger import Hold, Ledger
from agentbudget.money import Amount, Budget
from agentbudget.settings import Settings
from agentbudget.testing import ScriptedModel
from tests.ledger.server import Server


@pytest.fixture
def own_server(server: Server) -> Generator[Server]:
    """The server, for a test that stops it: started again at the end, whatever happened."""
    yield server
    server.ensure_started()


def fails(end: Callable[[], object]) -> None:
    with pytest.raises(StoreUnavailable):
        end()


def owing(ledger: Ledger, server: Server) -> Hold:
    """A hold of 50 whose settlement at 30 the server, which was stopped, has not heard of."""
    ledger.account("run/1")
    hold = ledger.reserve("a", Amount(50), accounts=["run/1"])
    hold.mark_sent()
    server.stop()
    fails(lambda: hold.settle(Amount(30)))
    return hold


def test_what_could_not_be_booked_is_booked_with_the_next_reservation(own_server: Server, database: str) -> None:
    with Ledger.open(database) as ledger:
        ledger.account("run/1", limit=Budget(usd="1", calls=5))
        step = ledger.reserve("step", Amount(90, 0, 2), accounts=["run/1"])
        call = ledger.reserve("call", Amount(50, 0, 1), within="step")
        lost = ledger.reserve("lost", Amount(20, 0, 1), accounts=["run/1"])
        unsent = ledger.reserve("unsent", Amount(10, 0, 1), accounts=["run/1"])
        for hold in (call, lost):
            hold.mark_sent()
        own_server.stop()
        fails(lambda: call.settle(Amount(30, 0, 1), detail={"seconds": 1}))
        fails(lambda: call.presume())  # as whoever was told that the first failed does: the first word is the truth
        fails(step.settle)
        fails(lost.presume)
        fails(unsent.void)
        fails(lambda: ledger.reserve("next", Amount(1), accounts=["run/1"]))
        own_server.start()
        ledger.reserve("next", Amount(1), accounts=["run/1"])
        assert ledger.balance("run/1").posted == Amount(50, 0, 2)
        assert ledger.balance("run/1").held == Amount(1)
        assert [(hold.state, hold.presumed) for hold in ledger.holds()][:4] == [
            ("settled", False),
            ("settled", False),
            ("settled", True),
            ("voided", False),
        ]
        assert ledger.verify().ok


@pytest.mark.parametrize("how", ["heartbeat", "close"])
def test_what_could_not_be_booked_is_booked_at_the_next_sign_of_life(
    own_server: Server, database: str, how: str
) -> None:
    ledger = Ledger.open(database)
    owing(ledger, own_server)
    own_server.start()
    ledger.heartbeat() if how == "heartbeat" else ledger.close()
    with Ledger.open(database) as other:
        assert other.balance("run/1").posted == Amount(30)
        assert other.verify().ok
    ledger.close()


def test_what_could_not_be_booked_until_the_end_is_told(
    own_server: Server, database: str, caplog: pytest.LogCaptureFixture
) -> None:
    ledger = Ledger.open(database)
    owing(ledger, own_server)
    ledger.close()
    assert "are not booked, and left for a sweep" in caplog.text
    own_server.start()
    with Ledger.open(database) as other:
        assert other.hold("a") is not None
        assert other.verify().ok


def test_a_hold_that_was_ended_otherwise_in_the_meantime_stays_as_it_is(
    own_server: Server, database: str, caplog: pytest.LogCaptureFixture
) -> None:
    with Ledger.open(database) as ledger:
        ledger.account("run/1")
        hold = ledger.reserve("a", Amount(50), accounts=["run/1"])
        own_server.stop()
        fails(lambda: hold.settle(Amount(30)))
        own_server.start()
        with Ledger.open(database) as other:
            other.settle("a", Amount(40))
        ledger.reserve("next", Amount(1), accounts=["run/1"])
        assert ledger.balance("run/1").posted == Amount(40)
        assert "passed over" in caplog.text


def test_leaving_a_hold_whose_settlement_is_owed_does_not_void_it(own_server: Server, database: str) -> None:
    with Ledger.open(database) as ledger:
        ledger.account("run/1")
        with ledger.reserve("a", Amount(50), accounts=["run/1"]) as hold:
            own_server.stop()
            fails(lambda: hold.settle(Amount(30)))
            own_server.start()
        assert ledger.balance("run/1").posted == Amount(30)


def test_a_block_that_ends_while_the_store_is_away_ends_its_hold_afterwards(own_server: Server, database: str) -> None:
    def leave(hold: Hold) -> None:
        with hold:
            own_server.stop()

    with Ledger.open(database) as ledger:
        ledger.account("run/1")
        for hold_id in ("sent", "sent elsewhere", "unsent", "spent"):
            hold = ledger.reserve(hold_id, Amount(50), accounts=["run/1"])
            if hold_id == "sent":
                hold.mark_sent()
            if hold_id == "sent elsewhere":
                ledger.mark_sent(hold_id)
            if hold_id == "spent":
                ledger.reserve("call", Amount(20), within="spent").settle(Amount(7))
            fails(lambda hold=hold: leave(hold))
            own_server.start()
        ledger.heartbeat()
        ended = {hold.id: (hold.state, hold.settled, hold.presumed) for hold in ledger.holds()}
        assert ended["sent"] == ("settled", Amount(50), True)
        assert ended["sent elsewhere"] == ("lapsed", Amount(50), True)
        assert ended["unsent"] == ("voided", Amount(), False)
        assert ended["spent"] == ("lapsed", Amount(7), False)
        assert ledger.balance("run/1").held == Amount()
        assert ledger.verify().ok


def test_a_step_ends_after_what_is_owed_of_its_calls(own_server: Server, database: str) -> None:
    with Ledger.open(database) as ledger:
        ledger.account("run/1")
        with ledger.reserve("step", Amount(90), accounts=["run/1"]) as step:
            call = ledger.reserve("call", Amount(50), within="step")
            call.mark_sent()
            own_server.stop()
            fails(lambda: call.settle(Amount(30)))
            own_server.start()
            assert step.settle().settled == Amount(30)


@skill(max_output_tokens=8)
async def guess(ctx: Context, message: str) -> str:
    """Guess what comes next."""
    ...


async def test_what_a_run_had_set_aside_is_freed_with_the_next_run_of_its_agent(
    own_server: Server, database: str, tmp_path: Path
) -> None:
    async def ask(state: TaskState, runtime: Runtime[Context]) -> TaskState:
        ctx = runtime.context
        if state.get("task") == "goes away":
            await ctx.set_aside(guess, input_tokens=50)
            own_server.stop()
        return {"output": await guess(ctx, message="a")}

    graph: StateGraph[TaskState, Context, TaskState, TaskState] = StateGraph(TaskState, Context)
    graph.add_node("ask", ask)
    graph.add_edge(START, "ask")
    settings = Settings.from_env().at(tmp_path).with_ledger(database)
    async with Agent(graph=graph, models=[ScriptedModel(lambda _: "so")], settings=settings) as agent:
        with pytest.raises(StoreUnavailable):
            await agent.run("goes away", budget=Budget(usd="0.01"), user="42")
        own_server.start()
        assert agent.ledger.balance("user/42").held
        await agent.run("stays", budget=Budget(usd="0.01"), user="42")
        assert not agent.ledger.balance("user/42").held
        assert agent.ledger.verify().ok
