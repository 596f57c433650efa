"""The conversations of tau-bench's airline agent (`agents/tau_airline_gpt4o`), and what its tool calls used."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any, Final, Literal, cast

from pydantic import BaseModel

from agentbudget.evals.tasks import read_rows
from agentbudget.history import Rule, facts
from agentbudget.models.base import Message, Role, ToolCall
from agentbudget.models.tokens import text_tokens

FILE: Final = "agents/tau_airline_gpt4o.jsonl.gz"

Half = Literal["tuned on", "held out"]

_CHANGE: Final = ("chang", "modif", "upgrad", "downgrad", "switch", "mov", "resched", "earlier", "later", "different")

RULES: Final = (
    Rule("## Domain Basic", ("status", "search_", "membership")),
    Rule("## Book flight", ("book", "buy", "purchas", "new reserv", "new flight")),
    Rule("- Checked bag allowance", ("bag", "luggage", "suitcase")),
    Rule("- Travel insurance", ("insur",)),
    Rule("## Modify flight", (*_CHANGE, "update_", "extend", "add", "remov", "bag", "passenger", "cabin")),
    Rule("- Change cabin", ("cabin", "class", "business", "econom", "upgrad", "downgrad", "update_")),
    Rule("- Change baggage", ("bag", "luggage", "suitcase", "insur")),
    Rule("- Change passengers", ("passenger", "name")),
    Rule("## Cancel flight", ("cancel", "refund")),
    Rule(
        "## Refund",
        ("compensat", "complain", "delay", "certificate", "voucher", "frustrat", "disappoint", "inconvenien"),
    ),
)
"""Rules of the airline's policy that wait until they are spoken of, as its developer would write them down."""

GOVERNED: Final = {
    "book_reservation": ("## Book flight",),
    "update_reservation_flights": ("## Modify flight", "- Change cabin"),
    "update_reservation_baggages": ("## Modify flight", "- Change baggage", "- Checked bag allowance"),
    "update_reservation_passengers": ("## Modify flight", "- Change passengers"),
    "cancel_reservation": ("## Cancel flight",),
    "send_certificate": ("## Refund",),
}
"""The rules that must be before the model when it calls a tool that changes something."""

_WRITTEN: Final = frozenset({"calculate", "think", "transfer_to_human_agents"})
"""Tools whose arguments are text that the model writes: the facts in it are values, not the text."""


class _Function(BaseModel):
    name: str
    arguments: str


class _Call(BaseModel):
    id: str
    function: _Function


class _Turn(BaseModel):
    role: Role
    content: str | None = None
    tool_calls: list[_Call] | None = None
    tool_call_id: str | None = None


class _Episode(BaseModel):
    task_id: int
    traj: list[_Turn]


@dataclass(frozen=True, slots=True)
class Episode:
    """One conversation. Those of a task, however often it was tried, are in the same half."""

    task: int
    messages: tuple[Message, ...]

    @property
    def half(self) -> Half:
        """Rules and steps were chosen on the tasks of even numbers."""
        return "held out" if self.task % 2 else "tuned on"

    def calls(self) -> Iterator[int]:
        """Where a model was asked: with all messages before."""
        return (n for n, message in enumerate(self.messages) if message.role == "assistant")


def episodes(data: Path) -> list[Episode]:
    """All conversations of the file. Raises `DocumentsError`."""
    return [Episode(row.task_id, tuple(map(_message, row.traj))) for row in read_rows(data, FILE, _Episode)]


def _message(turn: _Turn) -> Message:
    calls = tuple(ToolCall(call.id, call.function.name, call.function.arguments) for call in turn.tool_calls or ())
    return Message(turn.role, turn.content or "", calls=calls, answers=turn.tool_call_id)


def count(message: Message) -> int:
    """Tokens of a message in gpt-4o's vocabulary: 4 around it, 8 around each call of a tool."""
    calls = sum(_tokens(call.name) + _tokens(call.arguments) + 8 for call in message.calls)
    return _tokens(message.text) + 4 + calls


@lru_cache(maxsize=2**17)
def _tokens(text: str) -> int:
    return text_tokens("o200k_base", text)


def values(call: ToolCall) -> Iterator[tuple[str, str]]:
    """Kind and text of each value that a call of a tool uses. Numbers below ten stand everywhere, and do not count."""
    try:
        data: Any = json.loads(call.arguments)
    except ValueError:
        return
    for value in _leaves(data):
        if isinstance(value, str):
            yield from facts_of(value) if call.name in _WRITTEN else [(kind_of(value), value)]
        elif not isinstance(value, bool) and isinstance(value, int | float) and abs(value) >= 10:
            yield "amount", str(value)


def facts_of(text: str) -> Iterator[tuple[str, str]]:
    """The facts in what a model wrote."""
    return ((kind, fact) for kind, fact in facts(text) if len(fact) > 1)


def kind_of(value: str) -> str:
    """What a whole value is by its form; a word such as ``economy`` is a name or a choice."""
    found = list(facts(value))
    return found[0][0] if len(found) == 1 and found[0][1] == value else "name or choice"


def _leaves(data: Any) -> Iterator[Any]:
    if isinstance(data, dict):
        for value in cast("dict[str, Any]", data).values():
            yield from _leaves(value)
    elif isinstance(data, list):
        for value in cast("list[Any]", data):
            yield from _leaves(value)
    elif data is not None:
        yield data
