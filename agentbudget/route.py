"""Which model next: a pure function of what is known so far."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from agentbudget.models.base import Finish

Move = Literal["accept", "retry", "escalate", "stop"]


@dataclass(frozen=True, slots=True)
class Progress:
    """How far a step has come.

    ``rung`` is the model just tried and ``top`` the highest that the step may use (0 is the cheapest);
    ``finish`` how its answer ended; ``passed`` whether it was good enough; ``retries`` how often this rung
    was tried again because a cap had cut it.
    """

    rung: int
    top: int
    finish: Finish
    passed: bool
    retries: int = 0


def next_move(progress: Progress) -> Move:
    """Accept what passed; try once more what a cap cut short; climb while there is a rung; else stop."""
    if progress.passed:
        return "accept"
    if progress.finish in ("length", "budget") and progress.retries == 0:
        return "retry"
    if progress.rung < progress.top:
        return "escalate"
    return "stop"
