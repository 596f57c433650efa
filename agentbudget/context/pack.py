"""Put the sentences worth most into a token allowance, counted exactly, headers included."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from functools import cache
from itertools import accumulate, islice
from typing import Final

from agentbudget.context.choose import Candidate, Purchase, candidates, purchases
from agentbudget.context.chunk import Chunk
from agentbudget.context.passages import BETWEEN, Kept, Passage, lay_out, shown
from agentbudget.context.store import Hit

CountTokens = Callable[[str], int]

MORE_TOKENS: Final = 100
"""How far ahead `More` looks."""

WORTHLESS: Final = 0.002
"""A sentence that is less likely than this to hold the answer is not worth its tokens, even where there is room."""

_SPARE: Final = 1.5
"""Sentences are ordered up to so many times the allowance: estimates of their tokens may be high."""

_LOOK_AHEAD: Final = 12
_TRIES: Final = 4
"""What is left of an allowance is offered to so many later sentences, of which so many are counted."""

_LEAST_START: Final = 0.25
"""Where the best sentence does not fit, one at least so likely may stand in for it; less would be a scrap."""


@dataclass(frozen=True, slots=True)
class LeftOut:
    """A chunk that was found, of which ``sentences`` were not packed, and the chance that the answer is in those."""

    chunk: Chunk
    sentences: int
    chance: float


@dataclass(frozen=True, slots=True)
class More:
    """What about the next 100 tokens would bring: the ``gain`` in the chance to have the answer, and the text."""

    tokens: int
    gain: float
    preview: str


@dataclass(frozen=True, slots=True)
class Packed:
    """Passages that fit, the text made of them and its exact tokens.

    ``chance`` is the estimated probability that they hold the answer; ``left_out`` the rest, likeliest first; ``more``
    what comes next, None if there is nothing of worth. ``least_tokens`` is what the smallest start would have taken if
    nothing fits, else None.
    """

    passages: tuple[Passage, ...]
    text: str
    tokens: int
    chance: float
    left_out: tuple[LeftOut, ...]
    more: More | None
    least_tokens: int | None = None


def pack(question: str, hits: Sequence[Hit], *, tokens: int, count_tokens: CountTokens) -> Packed:
    """The sentences of `hits` (best first) that are worth most within `tokens`."""
    return pack_candidates(candidates(question, hits), tokens=tokens, count_tokens=count_tokens)


def pack_candidates(
    found: Sequence[Candidate], *, tokens: int, count_tokens: CountTokens, least_chance: float = WORTHLESS
) -> Packed:
    """The sentences of `found` that are worth most within `tokens`; none that is less likely than `least_chance`."""
    offered = _up_to(purchases(found), (tokens + MORE_TOKENS) * _SPARE, least_chance)
    counter = _Counter(found, count_tokens)
    bought, rest = _fit(offered, tokens, counter)
    passages, text, used = _exact(bought, rest, tokens, counter)
    return Packed(
        passages=tuple(replace(each, tokens=count) for each, count in counter.counted(passages)),
        text=text,
        tokens=used,
        chance=_any(each.chance for each in bought),
        left_out=_left_out(found, bought),
        more=_more(found, bought, rest, counter),
        least_tokens=counter(offered[:1]) if offered and not bought else None,
    )


def _up_to(offers: Iterable[Purchase], tokens: float, least_chance: float) -> list[Purchase]:
    taken: list[Purchase] = []
    total = 0.0
    for offer in offers:
        if taken and (total > tokens or offer.chance < least_chance):
            break
        taken.append(offer)
        total += offer.tokens
    return taken


class _Counter:
    """Counts what is bought, passage by passage: to buy one more sentence is to count one passage anew.

    Tokens may join across a seam, though seldom behind the blank line that ends a passage; so the sum is all but exact,
    and what is bought at last is counted as one text.
    """

    def __init__(self, found: Sequence[Candidate], count_tokens: CountTokens) -> None:
        self._found = found
        self.count = cache(count_tokens)

    def __call__(self, bought: Sequence[Purchase]) -> int:
        return sum(count for _, count in self.counted(self.laid_out(bought)))

    def counted(self, passages: Sequence[Passage]) -> list[tuple[Passage, int]]:
        """Each passage with the tokens that it adds."""
        last = len(passages)
        return [(each, self.count(f"{each}{BETWEEN if n < last else ''}")) for n, each in enumerate(passages, 1)]

    def laid_out(self, bought: Sequence[Purchase]) -> tuple[Passage, ...]:
        """Passages in the reader's order."""
        return lay_out(_for_reader(self._found, bought))


def _exact(
    bought: list[Purchase], rest: list[Purchase], allowance: int, counter: _Counter
) -> tuple[tuple[Passage, ...], str, int]:
    """The passages, their text and its tokens; should seams take it above `allowance`, the last go back to `rest`."""
    while True:
        passages = counter.laid_out(bought)
        text = shown(passages)
        used = counter.count(text) if bought else 0
        if used <= allowance:
            return passages, text, used
        rest.insert(0, bought.pop())


def _fit(offered: Sequence[Purchase], allowance: int, counter: _Counter) -> tuple[list[Purchase], list[Purchase]]:
    """As many as fit from the front, then what else fits into the rest; and those that do not."""
    number, used = _longest(offered, allowance, counter)
    bought, rest = list(offered[:number]), list(offered[number:])
    estimated = sum(each.tokens for each in bought)
    scale = used / estimated if estimated else 1.0
    least = 0.0 if bought else offered[0].chance * _LEAST_START if offered else 0.0
    small = (each for each in rest[:_LOOK_AHEAD] if each.chance >= least and each.tokens * scale <= allowance - used)
    for offer in islice(small, _TRIES):
        longer = counter([*bought, offer])
        if longer <= allowance:
            bought.append(offer)
            used = longer
    return bought, [offer for offer in rest if offer not in bought]


def _longest(offered: Sequence[Purchase], allowance: int, counter: _Counter) -> tuple[int, int]:
    """How many from the front fit, and their tokens: guessed from the estimates, put right by each count."""
    sums = [0.0, *accumulate(each.tokens for each in offered)]
    fits, used, too_many = 0, 0, len(offered) + 1
    scale = 1.0
    while too_many - fits > 1:
        guess = max(n for n, total in enumerate(sums) if n == 0 or total * scale <= allowance)
        number = min(max(guess, fits + 1), too_many - 1)
        counted = counter(offered[:number])
        scale = counted / sums[number]
        if counted <= allowance:
            fits, used = number, counted
        else:
            too_many = number
    return fits, used


def _for_reader(found: Sequence[Candidate], bought: Sequence[Purchase]) -> list[Kept]:
    """The likeliest document first; the parts of one document together, in its own order."""
    by_candidate: dict[int, list[Purchase]] = {}
    for each in bought:
        by_candidate.setdefault(each.candidate, []).append(each)
    kept = [_kept(found[number], parts) for number, parts in by_candidate.items()]
    best: dict[str, float] = {}
    for keep in kept:
        best[keep.chunk.source] = max(keep.chance, best.get(keep.chunk.source, 0.0))
    return sorted(kept, key=lambda keep: (-best[keep.chunk.source], keep.chunk.source, keep.chunk.start))


def _kept(candidate: Candidate, parts: Sequence[Purchase]) -> Kept:
    numbers = sorted({number for part in parts for number in part.sentences})
    spans = tuple((each.start, each.end) for each in (candidate.reading.sentences[number] for number in numbers))
    return Kept(candidate.chunk, candidate.hit.score, spans, _any(part.chance for part in parts))


def _left_out(found: Sequence[Candidate], bought: Sequence[Purchase]) -> tuple[LeftOut, ...]:
    packed = {(each.candidate, number) for each in bought for number in each.sentences}
    left: list[LeftOut] = []
    for number, candidate in enumerate(found):
        missing = [worth for n, worth in enumerate(candidate.chances) if (number, n) not in packed]
        if missing:
            left.append(LeftOut(candidate.chunk, len(missing), _any(missing)))
    return tuple(sorted(left, key=lambda each: -each.chance))


def _more(
    found: Sequence[Candidate], bought: Sequence[Purchase], rest: Sequence[Purchase], counter: _Counter
) -> More | None:
    sums = accumulate(offer.tokens for offer in rest)
    coming = [offer for offer, total in zip(rest, sums, strict=True) if total <= MORE_TOKENS] or list(islice(rest, 1))
    if not coming:
        return None
    gain = _any(each.chance for each in (*bought, *coming)) - _any(each.chance for each in bought)
    text = shown(counter.laid_out(coming))
    return More(counter.count(text), gain, text)


def _any(chances: Iterable[float]) -> float:
    """The chance that the answer is among them: mostly it stands in one sentence, so that chances add up."""
    return min(1.0, math.fsum(chances))
