"""Verify: does an answer follow from the passages that it was given?"""

from __future__ import annotations

import re
from typing import Any

from agentbudget import Context, skill

_NUMBER = re.compile(r"\d+(?:[.,:]\d+)*")


def unsupported_numbers(answer: str, source: str) -> set[str]:
    """Numbers of `answer` that do not stand in `source`: the mistakes that matter most, found for free."""
    known = set(_NUMBER.findall(source))
    return {number for number in _NUMBER.findall(answer) if number not in known}


@skill(max_output_tokens=4, max_input_tokens=1400)
async def verify(ctx: Context, question: str, passages: str, answer: Any) -> bool:
    """Does the answer say only what the passages say, and does it answer the question? Answer true or false."""
    text = str(getattr(answer, "answer", answer))
    numbers: list[int] = list(getattr(answer, "passages", []))
    given = passages.count("\n[") + passages.startswith("[")
    if not text.strip() or any(not 1 <= number <= given for number in numbers):
        return False
    if unsupported_numbers(text, f"{passages} {question}"):
        return False
    reply = await ctx.complete(f"Passages:\n{passages}\n\nQuestion: {question}\n\nAnswer: {text}", output=bool)
    return reply.value
