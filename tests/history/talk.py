"""A conversation to shorten: a customer, an airline's agent and its tools."""

from __future__ import annotations

import json
from typing import Any, Final

from agentbudget.models.base import Message, ToolCall

POLICY: Final = """# Policy

Be brief.

## Cancel

A flight can be cancelled within a day.

- Refunds take a week.

## Book

Book what is free."""


def system(text: str = POLICY) -> Message:
    return Message("system", text)


def user(text: str) -> Message:
    return Message("user", text)


def says(text: str) -> Message:
    return Message("assistant", text)


def uses(name: str, result: Any, /, **arguments: Any) -> tuple[Message, Message]:
    """A call of a tool, and its result."""
    number = f"{name}-{json.dumps(arguments)}"
    text = result if isinstance(result, str) else json.dumps(result)
    return (
        Message("assistant", "", calls=(ToolCall(number, name, json.dumps(arguments)),)),
        Message("tool", text, answers=number),
    )


FLIGHTS: Final = [
    {"flight": "HAT110", "from": "JFK", "prices": {"economy": 105, "business": 496}, "leaves": "14:00:00"},
    {"flight": "HAT172", "from": "JFK", "prices": {"economy": 211, "business": 360}, "leaves": "23:00:00"},
    {"flight": "HAT173", "from": "JFK", "prices": {"economy": 311, "business": 760}, "leaves": "03:00:00"},
]

BOOKING: Final = {"id": "M05KNL", "cabin": "business", "passenger": {"name": "Mia Li", "born": "1990-04-05"}}

TALK: Final = (
    system(),
    user("Hi, I am mia_li_3668 and want to fly from JFK on 2024-05-20."),
    *uses("find_booking", BOOKING, id="M05KNL"),
    *uses("search", FLIGHTS, origin="JFK", date="2024-05-20"),
    says("There is HAT110 for $105 or HAT172 for $211. Which one?"),
    user("The first one, paid with gift_card_8887175."),
    says("So HAT110 for Mia Li, $105. Shall I book it?"),
    user("Yes, please."),
)
