"""Verify: does an answer follow from a sentence of the passages that it was given?"""

from __future__ import annotations

import re
from difflib import SequenceMatcher

from pydantic import BaseModel, Field

from agentbudget import Context, Verdict, skill

_PASSAGE = re.compile(r"\n\n(?=\[\d+\] )")
_NUMBER = re.compile(r"\d+(?:[.,:]\d+)*")
LIKENESS = 0.85
"""Share of a quote's words that must stand in its source in their order."""

FEWEST_WORDS = 3
"""A lone name is no sentence to answer from."""

_GAP = re.compile(r"…|\.\.\.")


class Finding(BaseModel):
    """A sentence copied from the passages, and the answer that follows from it."""

    quote: str = Field(min_length=1, max_length=400)
    answer: str = Field(min_length=1, max_length=300)


def plain(text: str) -> str:
    """Words alone, so that markup, punctuation and line breaks do not matter."""
    return " ".join(re.findall(r"\w+", text.casefold()))


def quotes(quote: str, source: str) -> bool:
    """True if each part of `quote` stands in `source`: its numbers exactly, its words all but a few in their order."""
    parts = [words for part in _GAP.split(quote) if (words := plain(part).split())]
    return sum(map(len, parts)) >= FEWEST_WORDS and all(_stands(part, plain(source).split()) for part in parts)


def _stands(part: list[str], source: list[str]) -> bool:
    """Whether a stretch of `source` as long as `part` is nearly the same: small models change an ending or a letter."""
    numbers = {word for word in part if word[0].isdigit()}
    matcher = SequenceMatcher(b=part, autojunk=False)
    for start in range(max(1, len(source) - len(part) + 1)):
        stretch = source[start : start + len(part)]
        if not numbers.issubset(stretch):
            continue
        matcher.set_seq1(stretch)
        if matcher.real_quick_ratio() >= LIKENESS and matcher.ratio() >= LIKENESS:
            return True
    return False


def unsupported_numbers(answer: str, source: str) -> set[str]:
    """Numbers of `answer` that do not stand in `source`: the mistakes that matter most, found for free."""
    return set(_NUMBER.findall(answer)) - set(_NUMBER.findall(source))


@skill(max_output_tokens=4, max_input_tokens=400)
async def verify(ctx: Context, question: str, passages: str, answer: Finding) -> Verdict:
    """Does the answer follow from the quote, and does it answer the question? Answer true or false."""
    source = next((p for p in _PASSAGE.split(passages) if quotes(answer.quote, p)), None)
    if source is None:
        return Verdict(False, "its quote does not stand in the passages")
    if invented := unsupported_numbers(answer.answer, f"{source} {question}"):
        return Verdict(False, f"{', '.join(sorted(invented))} does not stand in the passage that it quotes")
    reply = await ctx.complete(f"Quote: {answer.quote}\n\nQuestion: {question}\n\nAnswer: {answer.answer}", output=bool)
    return Verdict(reply.value, "" if reply.value else f"{reply.model} found that it does not follow from its quote")
