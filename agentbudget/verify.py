"""Is this answer good enough? Checks from free to costly; the first that fails decides."""

from __future__ import annotations

import inspect
import re
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any

Check = Callable[[Any], "bool | Awaitable[bool]"]
"""A predicate on a skill's output, plain or async. A `Skill` that returns a bool may stand for one."""


@dataclass(frozen=True, slots=True)
class Verdict:
    """Whether an answer was good enough, and if not, why."""

    ok: bool
    reason: str = ""


async def judge(output: object, checks: tuple[Check, ...]) -> Verdict:
    """Run `checks` in order until one fails."""
    for check in checks:
        passed = check(output)
        if inspect.isawaitable(passed):
            passed = await passed
        if not passed:
            return Verdict(False, f"did not pass {getattr(check, '__name__', repr(check))}")
    return Verdict(True)


_MARK = re.compile(r"\[\d+\]")


def cites(output: object) -> bool:
    """True if the text carries a citation mark such as ``[1]``, and says something beside it."""
    text, marks = _MARK.subn("", str(output))
    return marks > 0 and any(character.isalnum() for character in text)
