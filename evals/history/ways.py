"""Ways to make a conversation shorter: ours, and those that people use."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Final

from langchain_core.messages import BaseMessage
from langchain_core.messages.utils import trim_messages  # pyright: ignore[reportUnknownVariableType] as it is typed

from agentbudget.history import Policy, compact
from agentbudget.models.base import Message
from agentbudget.models.langchain.messages import from_langchain, to_langchain
from evals.history.conversations import RULES, count

Way = Callable[[Sequence[Message]], Sequence[Message]]

CLEARED: Final = "[cleared]"


def full(messages: Sequence[Message]) -> Sequence[Message]:
    """Everything, each time."""
    return messages


def last(turns: int) -> Way:
    """The system prompt and the last `turns` messages, from a user's or a model's on: no result without its call."""

    def shortened(messages: Sequence[Message]) -> Sequence[Message]:
        start = max(1, len(messages) - turns)
        while messages[start].role == "tool" and start > 1:
            start -= 1
        return (messages[0], *messages[start:])

    return shortened


def trimmed(tokens: int) -> Way:
    """LangChain's `trim_messages` to `tokens`, as its documentation uses it: the last ones, beginning with a user's."""

    def sizes(messages: Sequence[BaseMessage]) -> int:
        return sum(map(count, from_langchain(messages)))

    def shortened(messages: Sequence[Message]) -> Sequence[Message]:
        kept = trim_messages(
            to_langchain(messages),
            max_tokens=tokens,
            token_counter=sizes,
            strategy="last",
            start_on="human",
            include_system=True,
        )
        return from_langchain(kept)

    return shortened


def cleared(keep: int) -> Way:
    """All results of tools but the last `keep` replaced by a word."""

    def shortened(messages: Sequence[Message]) -> Sequence[Message]:
        results = [n for n, message in enumerate(messages) if message.role == "tool"]
        old = set(results[: len(results) - keep])
        return [replace(message, text=CLEARED) if n in old else message for n, message in enumerate(messages)]

    return shortened


def compacted(policy: Policy) -> Way:
    """Ours."""
    return lambda messages: compact(messages, policy, count=count).messages


WAYS: Final[dict[str, Way]] = {
    "full history": full,
    "last 6 messages": last(6),
    "last 12 messages": last(12),
    "trim_messages to 2,000": trimmed(2000),
    "trim_messages to 3,000": trimmed(3000),
    "tool results cleared but the last": cleared(1),
    "compact, steps of 1,000": compacted(Policy(step_tokens=1000)),
    "compact": compacted(Policy()),
    "compact, rules on demand": compacted(Policy(rules=RULES)),
}
