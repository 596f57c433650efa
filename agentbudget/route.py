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
    ``finish`` how its answer ended; ``passed`` whether it was good enough; ``readable`` whether it was of the type that
    was asked for; ``retries`` how often this rung was tried again because a cap had cut it, or it could not be read.
    """

    rung: int
    top: int
    finish: Finish
    passed: bool
    retries: int = 0
    readable: bool = True


def next_move(progress: Progress) -> Move:
    """Accept what passed; try once more what was cut or nobody can read; climb while there is a rung; or stop."""
    if progress.passed:
        return "accept"
    spoilt = progress.finish in ("length", "budget") or (progress.finish == "stop" and not progress.readable)
    if spoilt and progress.retries == 0:
        return "retry"
    if progress.rung < progress.top:
        return "escalate"
    return "stop"
