"""Put the best chunks into a token allowance, counted exactly, headers included."""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Final

from agentbudget.context import sentences
from agentbudget.context.chunk import Chunk
from agentbudget.context.store import Hit

CountTokens = Callable[[str], int]

_BETWEEN: Final = "\n\n"
_WORTHWHILE: Final = 24
"""Tokens left below which no chunk is cut: its header alone would take half of them."""


@dataclass(frozen=True, slots=True)
class Passage:
    """A chunk as it was given to the model. ``text`` is all of it, or its best sentences with ``…`` where some left."""

    number: int
    chunk: Chunk
    text: str
    score: float

    @property
    def whole(self) -> bool:
        """Whether nothing of the chunk was left out."""
        return self.text == self.chunk.text

    def __str__(self) -> str:
        return f"[{self.number}] {self.chunk.title}\n{self.text}"


@dataclass(frozen=True, slots=True)
class Packed:
    """Passages that fit, the text made of them and its exact tokens; ``left_out`` candidates did not fit."""

    passages: tuple[Passage, ...]
    text: str
    tokens: int
    left_out: int


def pack(question: str, hits: Sequence[Hit], *, tokens: int, count_tokens: CountTokens) -> Packed:
    """The best of `hits` (best first) within `tokens`. A chunk that does not fit gives its best sentences."""
    packer = _Packer(question, tokens, count_tokens)
    candidates = _distinct(hits)
    for hit in candidates:
        packer.offer(hit)
    return Packed(tuple(packer.passages), packer.text, packer.used, len(candidates) - len(packer.passages))


def _distinct(hits: Sequence[Hit]) -> list[Hit]:
    """Without chunks that say the same under other headings."""
    by_text: dict[str, Hit] = {}
    for hit in hits:
        by_text.setdefault(" ".join(hit.chunk.text.split()).casefold(), hit)
    return list(by_text.values())


class _Packer:
    def __init__(self, question: str, tokens: int, count_tokens: CountTokens) -> None:
        self._question = question
        self._allowance = tokens
        self._count = count_tokens
        self._cut_one = False
        self.passages: list[Passage] = []
        self.text = ""
        self.used = 0

    def offer(self, hit: Hit) -> None:
        """Take the chunk, or once the best sentences of one that does not fit: more would be scraps out of context."""
        if self._take(hit, hit.chunk.text) or self._cut_one or self._allowance - self.used < _WORTHWHILE:
            return
        best = self._best_sentences(hit)
        self._cut_one = bool(best) and self._take(hit, best)

    def _take(self, hit: Hit, text: str) -> bool:
        passage = Passage(len(self.passages) + 1, hit.chunk, text, hit.score)
        longer, tokens = self._with(passage)
        if tokens > self._allowance:
            return False
        self.passages.append(passage)
        self.text, self.used = longer, tokens
        return True

    def _with(self, passage: Passage) -> tuple[str, int]:
        # Counted as one text: tokens may join across the seam, so that a sum of parts would be wrong.
        longer = f"{self.text}{_BETWEEN}{passage}" if self.text else str(passage)
        return longer, self._count(longer)

    def _best_sentences(self, hit: Hit) -> str:
        """Sentences added by relevance while they fit, given in their own order."""
        text = hit.chunk.text
        spans = list(sentences.sentences(text))
        chosen: list[int] = []
        for number in _by_relevance(self._question, [text[start:end] for start, end in spans]):
            attempt = sorted([*chosen, number])
            passage = Passage(len(self.passages) + 1, hit.chunk, _joined(text, spans, attempt), hit.score)
            if self._with(passage)[1] <= self._allowance:
                chosen = attempt
        return _joined(text, spans, chosen) if chosen else ""


def _joined(text: str, spans: list[sentences.Span], chosen: list[int]) -> str:
    """The chosen sentences with what stands between them; an ellipsis where some are left out."""
    parts: list[str] = []
    for place, number in enumerate(chosen):
        start, end = spans[number]
        if place:
            between = text[spans[number - 1][1] : start]
            gap = "\n…\n" if "\n" in between else " … "
            parts.append(between if chosen[place - 1] == number - 1 else gap)
        parts.append(text[start:end])
    return "".join(parts)


# --- which sentence answers: by the question's words, rarer ones counting more --------------------------------------

_WORD: Final = re.compile(r"\w+")
_FUNCTION_WORDS: Final = frozenset(
    (
        "a", "an", "and", "are", "as", "at", "be", "been", "by", "can", "did", "do", "does", "for", "from", "had",
        "has", "have", "how", "i", "if", "in", "is", "it", "its", "me", "my", "not", "of", "on", "or", "that", "the",
        "their", "there", "they", "this", "to", "was", "we", "were", "what", "when", "where", "which", "who", "whom",
        "why", "will", "with", "you", "your",
    )
)  # fmt: skip


def _by_relevance(question: str, candidates: list[str]) -> Iterator[int]:
    """Numbers of the candidates that share a word with the question, best first."""
    wanted = set(_stems(question))
    words = [Counter(_stems(text)) for text in candidates]
    spread = Counter(stem for counts in words for stem in counts)
    scores = [_score(counts, wanted, spread, len(candidates)) for counts in words]
    ranked = sorted(range(len(candidates)), key=lambda number: (-scores[number], number))
    return (number for number in ranked if scores[number] > 0)


def _score(counts: Counter[str], wanted: set[str], spread: Counter[str], total: int) -> float:
    """Shared words by rarity among the candidates, damped by the sentence's length."""
    shared = sum(math.log(1 + total / spread[stem]) for stem in wanted if stem in counts)
    return shared / math.log(8 + counts.total())


def _stems(text: str) -> Iterator[str]:
    """Words cut to their first six letters, enough to meet a plural or a past tense; function words are dropped."""
    return (word[:6] for word in _WORD.findall(text.casefold()) if word not in _FUNCTION_WORDS)
