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


def quoted(quote: str, source: str) -> str | None:
    """What `source` itself says where `quote` stands in it; None if it does not.

    Each part of the quote must be there: its numbers exactly, its words all but a few in their order, since small
    models change an ending or a letter, and at times a word that matters. So go by what is returned, not by `quote`.
    """
    parts = [words for part in _GAP.split(quote) if (words := plain(part).split())]
    if sum(map(len, parts)) < FEWEST_WORDS:
        return None
    found = [_stretch(part, source) for part in parts]
    return " … ".join(part for part in found if part is not None) if None not in found else None


def _stretch(part: list[str], source: str) -> str | None:
    """The stretch of `source` with as many words as `part` that is most like it, if any is nearly the same."""
    words = list(re.finditer(r"\w+", source))
    said = [word.group().casefold() for word in words]
    numbers = {word for word in part if word[0].isdigit()}
    matcher = SequenceMatcher(b=part, autojunk=False)
    best, place = 0.0, None
    for start in range(max(1, len(said) - len(part) + 1)):
        stretch = said[start : start + len(part)]
        if not numbers.issubset(stretch):
            continue
        matcher.set_seq1(stretch)
        likeness = matcher.ratio() if matcher.real_quick_ratio() >= LIKENESS else 0.0
        if likeness >= LIKENESS and likeness > best:
            best, place = likeness, start
    return None if place is None else source[words[place].start() : words[min(place + len(part), len(words)) - 1].end()]


def unsupported_numbers(answer: str, source: str) -> set[str]:
    """Numbers of `answer` that do not stand in `source`: the mistakes that matter most, found for free."""
    return set(_NUMBER.findall(answer)) - set(_NUMBER.findall(source))


@skill(max_output_tokens=4, max_input_tokens=400)
async def verify(ctx: Context, question: str, passages: str, answer: Finding) -> Verdict:
    """Does the answer follow from the quote, and does it answer the question? Answer true or false."""
    stands = ((passage, quoted(answer.quote, passage)) for passage in _PASSAGE.split(passages))
    source, words = next((pair for pair in stands if pair[1] is not None), (None, None))
    if source is None:
        return Verdict(False, "its quote does not stand in the passages")
    if invented := unsupported_numbers(answer.answer, f"{source} {question}"):
        return Verdict(False, f"{', '.join(sorted(invented))} does not stand in the passage that it quotes")
    reply = await ctx.complete(f"Quote: {words}\n\nQuestion: {question}\n\nAnswer: {answer.answer}", output=bool)
    return Verdict(reply.value, "" if reply.value else f"{reply.model} found that it does not follow from its quote")
