"""Verify: does an answer follow from a sentence of the passages that it was given?"""

from __future__ import annotations

import re

from pydantic import BaseModel, Field

from agentbudget import Context, skill

_NUMBER = re.compile(r"\d+(?:[.,:]\d+)*")
_GAP = re.compile(r"…|\.\.\.")


class Finding(BaseModel):
    """A sentence copied from the passages, and the answer that follows from it."""

    quote: str = Field(min_length=1, max_length=400)
    answer: str = Field(min_length=1, max_length=300)


def plain(text: str) -> str:
    """Words alone, so that markup, punctuation and line breaks do not matter."""
    return " ".join(re.findall(r"\w+", text.casefold()))


def quotes(quote: str, source: str) -> bool:
    """True if each part of `quote` stands in `source`, word for word."""
    parts = [words for part in _GAP.split(quote) if (words := plain(part))]
    return bool(parts) and all(f" {part} " in f" {plain(source)} " for part in parts)


def unsupported_numbers(answer: str, source: str) -> set[str]:
    """Numbers of `answer` that do not stand in `source`: the mistakes that matter most, found for free."""
    return set(_NUMBER.findall(answer)) - set(_NUMBER.findall(source))


@skill(max_output_tokens=4, max_input_tokens=400)
async def verify(ctx: Context, question: str, passages: str, answer: Finding) -> bool:
    """Does the answer follow from the quote, and does it answer the question? Answer true or false."""
    if not quotes(answer.quote, passages) or unsupported_numbers(answer.answer, f"{answer.quote} {question}"):
        return False
    reply = await ctx.complete(f"Quote: {answer.quote}\n\nQuestion: {question}\n\nAnswer: {answer.answer}", output=bool)
    return reply.value
