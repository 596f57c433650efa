"""Ways to fill an allowance: the best whole documents or chunks by words, meaning or both, and the library's."""

from __future__ import annotations

import math
import re
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Final, Protocol

import numpy as np
from numpy.typing import NDArray

from agentbudget.context import Index, retrieve
from agentbudget.errors import Mistake
from agentbudget.models import catalog
from agentbudget.models.llama.vocabulary import Vocabulary
from evals.retrieval.corpora import KeptEmbedder, Question, Text, id_of

CountTokens = Callable[[str], int]

MOST: Final = 60
"""Documents or chunks that a baseline may pack."""


@dataclass(frozen=True, slots=True)
class Context:
    """What a reader gets: the text of each document that is inside (some of it, perhaps), and the tokens in all."""

    text: str
    tokens: int
    documents: Mapping[str, str]
    chance: float | None = None


class Packer(Protocol):
    """Fills an allowance for a question."""

    async def __call__(self, question: Question, tokens: int) -> Context:
        """The context within `tokens`."""
        ...


def qwen_tokens() -> CountTokens:
    """Qwen2.5's vocabulary: the one tokenizer that all figures are counted with."""
    vocabulary = Vocabulary(catalog.ensure("qwen2.5-coder-0.5b"))
    return lambda text: len(vocabulary.tokenize(text))


class TopK:
    """The best by some ranking, whole, title and text, until the next does not fit."""

    def __init__(self, rank: Callable[[Question], Sequence[Text]], count_tokens: CountTokens) -> None:
        self._rank = cache(rank)
        self._count = cache(count_tokens)

    async def __call__(self, question: Question, tokens: int) -> Context:
        """See `Packer`."""
        taken: list[Text] = []
        used = 0
        for text in self._rank(question):
            if used + self._count(text.whole) > tokens:
                break
            taken.append(text)
            used += self._count(text.whole)
        return Context(
            "\n".join(text.whole for text in taken), used, _by_document((each.id, each.text) for each in taken)
        )


class Ours:
    """`retrieve`, which a skill calls, with its tokens counted as the others' are."""

    def __init__(self, index: Index, count_tokens: CountTokens, *, hops: int = 1) -> None:
        self._index = index
        self._count = count_tokens
        self._hops = hops

    async def __call__(self, question: Question, tokens: int) -> Context:
        """See `Packer`. An allowance that holds no good sentence counts as an empty context."""
        try:
            found = await retrieve(self._index, question.text, tokens=tokens, count_tokens=self._count, hops=self._hops)
        except Mistake:
            return Context("", 0, {}, 0.0)
        inside = _by_document((id_of(passage.chunk.source), passage.text) for passage in found.passages)
        return Context(found.text, found.tokens, inside, found.chance)


async def hybrid_chunks(index: Index, questions: Iterable[Question]) -> Callable[[Question], Sequence[Text]]:
    """The index's own order of whole chunks."""
    found = {question.id: (await index.search(question.text, limit=MOST)).hits for question in questions}

    def rank(question: Question) -> Sequence[Text]:
        chunks = [hit.chunk for hit in found[question.id]]
        return [Text(id_of(chunk.source), chunk.heading_path[-1], chunk.text) for chunk in chunks]

    return rank


def by_meaning(texts: Sequence[Text], embedder: KeptEmbedder) -> Callable[[Question], Sequence[Text]]:
    """Documents by the cosine of their vectors with the question's."""
    vectors = np.stack(embedder.vectors([text.whole for text in texts]))

    def rank(question: Question) -> Sequence[Text]:
        return _best(vectors @ np.array(embedder.embed_query(question.text), np.float32), texts)

    return rank


def by_words(texts: Sequence[Text]) -> Callable[[Question], Sequence[Text]]:
    """Documents by BM25 (k1 = 1.5, b = 0.75) over lower-case words, titles included."""
    words = [Counter(_words(text.whole)) for text in texts]
    lengths = np.array([counts.total() for counts in words], float)
    postings: dict[str, list[tuple[int, int]]] = defaultdict(list)
    for number, counts in enumerate(words):
        for word, times in counts.items():
            postings[word].append((number, times))

    def rank(question: Question) -> Sequence[Text]:
        scores = np.zeros(len(texts))
        for word in _words(question.text):
            if word in postings:
                numbers, times = np.array(postings[word]).T
                rarity = math.log(1 + (len(texts) - len(numbers) + 0.5) / (len(numbers) + 0.5))
                damped = times + 1.5 * (0.25 + 0.75 * lengths[numbers] / lengths.mean())
                scores[numbers] += rarity * times * 2.5 / damped
        return _best(scores, texts)

    return rank


def _best(scores: NDArray[np.floating], texts: Sequence[Text]) -> list[Text]:
    return [texts[int(number)] for number in np.argsort(-scores, kind="stable")[:MOST]]


def _words(text: str) -> list[str]:
    return re.findall(r"\w+", text.lower())


def _by_document(parts: Iterable[tuple[str, str]]) -> dict[str, str]:
    inside: dict[str, str] = {}
    for document, text in parts:
        inside[document] = f"{inside[document]}\n{text}" if document in inside else text
    return inside
