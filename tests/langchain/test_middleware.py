"""One middleware for `create_agent`: model and tool calls that pay, and an end with grace."""

from __future__ import annotations

import asyncio
import gc
import weakref
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from langchain_core.messages import AIMessage, ToolMessage
from langchain_core.tools import tool
from langgraph.checkpoint.memory import InMemorySaver
from langgraph.types import Command, interrupt

from agentbudget.errors import BudgetExceeded, Mistake
from agentbudget.langchain import ChatModel
from agentbudget.ledger import Ledger
from agentbudget.models.base import Request, ToolCall
from agentbudget.money import Amount, Budget
from agentbudget.testing import ScriptedModel, ScriptedReply

agents = pytest.importorskip("langchain.agents")
THREAD = {"configurable": {"thread_id": "t1"}}
ASKED = {"messages": [("user", "what is the weather?")]}


@tool
def weather(place: str) -> str:
    """The weather at a place."""
    return f"sunny in {place}"


def reply(request: Request) -> ScriptedReply:
    """Asks for the tool once, then answers."""
    if request.messages[-1].role == "tool":
        return ScriptedReply(f"It is {request.messages[-1].text}.")
    return ScriptedReply("", finish="tools", calls=(ToolCall("call-1", "weather", '{"place": "Oslo"}'),))


def agent(ledger: Ledger, limit: Budget, *, more: Sequence[dict[str, Any]] = (), **options: Any) -> Any:
    from agentbudget.langchain import BudgetMiddleware

    paying = BudgetMiddleware(ledger=ledger, accounts={"run/{thread_id}": limit}, **options)
    chat = ChatModel(model=ScriptedModel(reply), max_tokens=20)
    return agents.create_agent(chat, [weather, *more], middleware=[paying], checkpointer=InMemorySaver())


@pytest.fixture
def ledger() -> Ledger:
    return Ledger.open("memory:")


async def test_model_and_tool_calls_are_booked_on_the_threads_budget(ledger: Ledger) -> None:
    made = agent(ledger, Budget(usd="1"), tools={"weather": "0.01"})
    found = await made.ainvoke(ASKED, THREAD)
    assert found["messages"][-1].text == "It is sunny in Oslo."
    assert [hold.meta["kind"] for hold in ledger.holds()] == ["call", "tool", "call"]
    posted = ledger.balance("run/t1").posted
    assert posted.calls == 3
    assert posted.usd_nano > Amount.of(usd="0.01").usd_nano
    assert ledger.balance("run/t1").held == Amount()


def test_sync_agents_pay_too(ledger: Ledger) -> None:
    agent(ledger, Budget(usd="1")).invoke(ASKED, THREAD)
    assert ledger.balance("run/t1").posted.calls == 3


def test_each_thread_has_a_budget_of_its_own(ledger: Ledger) -> None:
    made = agent(ledger, Budget(calls=3))
    made.invoke(ASKED, THREAD)
    made.invoke(ASKED, {"configurable": {"thread_id": "t2"}})
    assert ledger.balance("run/t2").posted.calls == 3


async def test_an_exhausted_budget_ends_the_agent_with_a_message(ledger: Ledger) -> None:
    made = agent(ledger, Budget(calls=2))
    found = await made.ainvoke(ASKED, THREAD)
    last = found["messages"][-1]
    assert isinstance(last, AIMessage)
    assert "run/t1 has 0 calls left" in last.text
    assert ledger.balance("run/t1").posted.calls == 2


def test_a_tool_that_cannot_be_paid_for_is_not_called_and_the_model_hears_why(ledger: Ledger) -> None:
    made = agent(ledger, Budget(usd="0.005"), tools={"weather": "0.01"})
    found = made.invoke(ASKED, THREAD)
    refused = next(message for message in found["messages"] if isinstance(message, ToolMessage))
    assert refused.status == "error"
    assert refused.text.startswith("not called: run/t1")
    assert ledger.balance("run/t1").posted.calls == 2


def test_whoever_wants_the_error_gets_it(ledger: Ledger) -> None:
    with pytest.raises(BudgetExceeded):
        agent(ledger, Budget(calls=1), on_exhausted="raise").invoke(ASKED, THREAD)


def test_another_way_to_end_is_refused_when_the_middleware_is_made(ledger: Ledger) -> None:
    with pytest.raises(Mistake, match="on_exhausted must be 'end' or 'raise', not 'stop'"):
        agent(ledger, Budget(calls=1), on_exhausted="stop")


@pytest.mark.parametrize(
    ("tools", "told"),
    [({"wether": "0.01", "weather": "0.01"}, ["'wether'"]), ({"weather": "0.01"}, []), ({"search": "0.01"}, [])],
)
def test_a_price_for_a_tool_that_is_none_is_told_once(
    ledger: Ledger, caplog: pytest.LogCaptureFixture, tools: dict[str, str], told: list[str]
) -> None:
    schema: dict[str, Any] = {"type": "object", "properties": {}}
    search = {"type": "function", "function": {"name": "search", "parameters": schema}}
    made = agent(ledger, Budget(usd="1"), tools=tools, more=[search])
    for _ in range(2):
        made.invoke(ASKED, THREAD)
    said = [record.getMessage() for record in caplog.records if record.name == "agentbudget.langchain.middleware"]
    assert [line.split(" for ")[1].partition(",")[0] for line in said] == told


def test_a_tool_that_raises_has_been_called(ledger: Ledger) -> None:
    @tool
    def broken(place: str) -> str:
        """The weather at a place."""
        raise RuntimeError(place)

    from agentbudget.langchain import BudgetMiddleware

    paying = BudgetMiddleware(ledger=ledger, accounts={"user/42": Budget(usd="1")}, tools={"broken": "0.01"})
    script = [ScriptedReply("", calls=(ToolCall("call-1", "broken", '{"place": "Oslo"}'),))]
    made = agents.create_agent(ChatModel(model=ScriptedModel(script)), [broken], middleware=[paying])
    with pytest.raises(RuntimeError, match="Oslo"):
        made.invoke(ASKED)
    assert ledger.balance("user/42").posted.usd_nano >= 10_000_000
    assert ledger.balance("user/42").held == Amount()


@tool
def pay(what: str) -> str:
    """Pay for something that somebody approves of."""
    return f"paid {what}: {interrupt(f'pay {what}?')}"


async def carry_on_async(made: Any) -> Any:
    await made.ainvoke(ASKED, THREAD)
    return await made.ainvoke(Command(resume="yes"), THREAD)


def carry_on(made: Any) -> Any:
    made.invoke(ASKED, THREAD)
    return made.invoke(Command(resume="yes"), THREAD)


@pytest.mark.parametrize("way", ["sync", "async"])
def test_a_tool_that_pauses_for_an_approval_is_paid_for_once(ledger: Ledger, way: str) -> None:
    from agentbudget.langchain import BudgetMiddleware

    budget = BudgetMiddleware(ledger=ledger, accounts={"run/{thread_id}": Budget(usd="1")}, tools={"pay": "0.01"})
    asks = ScriptedReply("", finish="tools", calls=(ToolCall("call-1", "pay", '{"what": "rent"}'),))
    chat = ChatModel(model=ScriptedModel([asks, "Done."]), max_tokens=20)
    made = agents.create_agent(chat, [pay], middleware=[budget], checkpointer=InMemorySaver())
    found = carry_on(made) if way == "sync" else asyncio.run(carry_on_async(made))
    assert [message.text for message in found["messages"][-2:]] == ["paid rent: yes", "Done."]
    paid = [hold.settled for hold in ledger.holds() if hold.meta["kind"] == "tool"]
    assert paid == [Amount(), Amount.of(usd="0.01", calls=1)]


def test_tool_calls_of_one_id_in_many_conversations_at_once_are_each_paid_for(tmp_path: Path) -> None:
    """A local model calls the first tool of every conversation alike."""
    from agentbudget.langchain import BudgetMiddleware

    def converse(number: int) -> str:
        with Ledger.open(tmp_path / "ledger.db") as ledger:
            budget = BudgetMiddleware(ledger=ledger, accounts={"user/42": Budget(usd="1")}, tools={"weather": "0.01"})
            chat = ChatModel(model=ScriptedModel(reply), max_tokens=20)
            made = agents.create_agent(chat, [weather], middleware=[budget])
            return [made.invoke(ASKED)["messages"][-1].text for _ in range(5)][-1]

    with ThreadPoolExecutor(6) as pool:
        assert set(pool.map(converse, range(6))) == {"It is sunny in Oslo."}
    with Ledger.open(tmp_path / "ledger.db") as ledger:
        paid = [hold.settled for hold in ledger.holds() if hold.meta["kind"] == "tool"]
        assert paid == [Amount.of(usd="0.01", calls=1)] * 30
        assert ledger.verify().ok


def test_models_that_are_made_for_each_call_are_let_go_of(ledger: Ledger) -> None:
    from agentbudget.langchain import BudgetMiddleware
    from agentbudget.langchain.middleware import KEPT_MODELS

    made: list[weakref.ref[ChatModel]] = []

    @agents.middleware.wrap_model_call
    def choose(request: Any, handler: Any) -> Any:
        chosen = ChatModel(model=ScriptedModel(["so"]), max_tokens=20)
        made.append(weakref.ref(chosen))
        return handler(request.override(model=chosen))

    paying = BudgetMiddleware(ledger=ledger, accounts={"run/{thread_id}": Budget(usd="1")})
    chatty = agents.create_agent(ChatModel(model=ScriptedModel([])), [], middleware=[choose, paying])
    for _ in range(2 * KEPT_MODELS):
        chatty.invoke(ASKED, THREAD)
    gc.collect()
    assert len(made) == 2 * KEPT_MODELS
    assert sum(model() is not None for model in made) <= KEPT_MODELS
    assert ledger.balance("run/t1").posted.calls == 2 * KEPT_MODELS
