"""Which model next: a pure function of what is known so far."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, get_args

from agentbudget.errors import SkillError
from agentbudget.models.base import Finish

Start = Literal["tier", "learned"]
"""On which rung a skill's steps begin: always its tier's, or the one from which they have cost least."""

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


def checked_start(value: Start) -> Start:
    """`value`, if a step may begin so. Raises `SkillError`."""
    if value not in get_args(Start):
        raise SkillError(f"start must be 'tier' or 'learned', not {value!r}")
    return value


def checked_confidence(value: float | None) -> float | None:
    """`value`, if an answer may have to be so sure. Raises `SkillError`."""
    if value is not None and (isinstance(value, bool) or not isinstance(value, int | float) or not 0 < value <= 1):
        raise SkillError(f"confidence must be a number above 0, at most 1, not {value!r}")
    return value
