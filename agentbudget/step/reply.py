"""What comes of asking a skill's models."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Generic, TypeVar

from agentbudget.errors import AgentBudgetError
from agentbudget.models.base import Finish, Message, ToolCall

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Reply(Generic[T]):
    """What came of ``ctx.complete`` or ``ctx.stream``.

    ``value`` is the text, or the parsed output where a type was asked for; ``accepted`` is False if no model
    that the skill may use gave an answer that passed the checks: then this is the last one. ``finish`` says how it
    ended (see `Completion`), ``calls`` what tools it asks for. ``refusal`` is why a stream was cut: the account that
    could not give its hold more. A stream that its reader left ends as ``"cut"`` without one.
    """

    text: str
    value: T
    model: str
    accepted: bool
    confidence: float | None
    finish: Finish = "stop"
    calls: tuple[ToolCall, ...] = ()
    refusal: AgentBudgetError | None = None

    @property
    def message(self) -> Message:
        """The answer as a turn of the conversation, for a call that goes on from it."""
        return Message("assistant", self.text, calls=self.calls)

    def __str__(self) -> str:
        return self.text
