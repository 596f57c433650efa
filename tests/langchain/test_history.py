"""A middleware for `create_agent` that shortens what its model is sent."""

from __future__ import annotations

from typing import Any

import pytest
from langchain_core.tools import tool
from langgraph.checkpoint.memory import InMemorySaver

from agentbudget.errors import ContextTooLong
from agentbudget.history import Policy
from agentbudget.langchain import BudgetMiddleware, ChatModel, HistoryMiddleware
from agentbudget.ledger import Ledger
from agentbudget.models.base import Request, ToolCall
from agentbudget.money import Budget
from agentbudget.testing import ScriptedModel, ScriptedReply

agents = pytest.importorskip("langchain.agents")
THREAD = {"configurable": {"thread_id": "t1"}}
AT_ONCE = Policy(step_tokens=0)


@tool
def order(number: str) -> str:
    """What was ordered."""
    return (
        f'{{"number": "{number}", "paid": "2024-05-20", "with": "gift_card_88", "note": "{"leave it outside " * 10}"}}'
    )


def reply(request: Request) -> ScriptedReply:
    """Looks the order up when one is named, and answers after that."""
    last = request.messages[-1]
    if last.role == "tool" or "order-" not in last.text.rpartition("\n\n")[2]:
        return ScriptedReply(f"Answer {len(request.messages)}.")
    number = "order-" + last.text.rpartition("order-")[2][:4]
    calls = (ToolCall(f"call-{number}", "order", f'{{"number": "{number}"}}'),)
    return ScriptedReply("", finish="tools", calls=calls)


def agent(model: ScriptedModel, *middleware: Any) -> Any:
    chat = ChatModel(model=model, max_tokens=20)
    return agents.create_agent(
        chat, [order], system_prompt="Be kind.", middleware=list(middleware), checkpointer=InMemorySaver()
    )


async def talk(made: Any, *said: str) -> Any:
    found = None
    for text in said:
        found = await made.ainvoke({"messages": [("user", text)]}, THREAD)
    return found


async def test_the_model_is_sent_lines_and_the_state_keeps_the_messages() -> None:
    model = ScriptedModel(reply)
    found = await talk(agent(model, HistoryMiddleware(AT_ONCE)), "What of order-1182?", "And now?", "Thanks.")
    sent = model.requests[-1].messages
    assert [message.role for message in sent] == ["system", "user", "assistant", "user"]
    assert "order(order-1182): paid 2024-05-20, with gift_card_88" in sent[1].text
    kinds = [message.type for message in found["messages"]]
    assert kinds[:4] == ["human", "ai", "tool", "ai"]
    assert found["messages"][2].text.startswith('{"number"')


async def test_a_call_and_its_result_reach_the_model_together() -> None:
    model = ScriptedModel(reply)
    await talk(agent(model, HistoryMiddleware(AT_ONCE)), "Hello", "Really?", "What of order-1182?")
    *_, asked, result = model.requests[-1].messages
    assert asked.calls[0].id == result.answers
    assert result.text.startswith("number: order-1182\n")


async def test_what_is_held_for_a_call_is_what_is_sent() -> None:
    ledger = Ledger.open("memory:")
    model = ScriptedModel(reply)
    paying = BudgetMiddleware(ledger=ledger, accounts={"run/{thread_id}": Budget(usd="1")})
    await talk(agent(model, HistoryMiddleware(AT_ONCE), paying), "What of order-1182?", "And now?", "Thanks.")
    last = [hold for hold in ledger.holds() if hold.meta["kind"] == "call"][-1]
    count = await model.count_input(model.requests[-1])
    assert last.detail["usage"]["input_tokens"] == count.tokens


async def test_an_allowance_that_holds_the_conversation_changes_nothing() -> None:
    model = ScriptedModel(reply)
    await talk(agent(model, HistoryMiddleware(tokens=10_000)), "What of order-1182?", "Thanks.")
    assert [message.role for message in model.requests[-1].messages] == [
        "system",
        "user",
        "assistant",
        "tool",
        "assistant",
        "user",
    ]


async def test_an_allowance_that_is_too_small_is_said_before_the_call() -> None:
    model = ScriptedModel(reply)
    with pytest.raises(ContextTooLong):
        await talk(agent(model, HistoryMiddleware(tokens=3)), "What of order-1182?")
    assert model.requests == []
