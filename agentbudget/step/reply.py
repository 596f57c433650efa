"""What comes of asking a skill's models."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Generic, TypeVar

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Reply(Generic[T]):
    """What came of ``ctx.complete``.

    ``value`` is the text, or the parsed output where a type was asked for; ``accepted`` is False if no model
    that the skill may use gave an answer that passed the checks: then this is the last one.
    """

    text: str
    value: T
    model: str
    accepted: bool
    confidence: float | None

    def __str__(self) -> str:
        return self.text
