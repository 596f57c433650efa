"""Is this answer good enough? Checks from free to costly; the first that fails decides."""

from __future__ import annotations

import inspect
import re
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, slots=True)
class Verdict:
    """Whether an answer was good enough, and if not, why. It is as true as its ``ok``."""

    ok: bool
    reason: str = ""

    def __bool__(self) -> bool:
        return self.ok


Check = Callable[[Any], "bool | Verdict | Awaitable[bool | Verdict]"]
"""A predicate on a skill's output, plain or async. A `Skill` that returns a bool or a `Verdict` may stand for one."""


async def judge(output: object, checks: tuple[Check, ...]) -> Verdict:
    """Run `checks` in order until one fails."""
    for check in checks:
        said = check(output)
        if inspect.isawaitable(said):
            said = await said
        if not said:
            return Verdict(False, _why(check, said))
    return Verdict(True)


def _why(check: Check, said: bool | Verdict) -> str:
    """What a check that did not pass has against an answer: its own reason, or else its name."""
    name = getattr(check, "__name__", repr(check))
    return f"{name}: {said.reason}" if isinstance(said, Verdict) and said.reason else f"did not pass {name}"


_MARK = re.compile(r"\[\d+\]")


def cites(output: object) -> bool:
    """True if the text carries a citation mark such as ``[1]``, and says something beside it."""
    text, marks = _MARK.subn("", str(output))
    return marks > 0 and any(character.isalnum() for character in text)
