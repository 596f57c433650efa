"""In which order the sentences of what was found are bought: the likeliest answer for each token first."""

from __future__ import annotations

import heapq
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Final

from agentbudget.context.chunk import Chunk
from agentbudget.context.readings import Reading, Sentence, plain, read, says_all
from agentbudget.context.store import Hit
from agentbudget.context.worth import chances

_MARKS: Final = 6
"""Characters around a passage's title: brackets, number and line ends."""

_GAP_TOKENS: Final = 1.0

_ALIKE: Final = 0.8
_ALIKE_FROM: Final = 5
"""Sentences may say the same if they share so much of their words, and so many at least, and agree in those below."""

_DECIDES: Final = re.compile(
    r"\d+(?:[.,]\d+)*|\b(?:not|no|never|none|without|except|unless|cannot)\b|n['’]t\b", re.IGNORECASE
)


@dataclass(frozen=True, slots=True)
class Candidate:
    """A chunk that was found, read, with the chance of each sentence to hold the answer."""

    hit: Hit
    reading: Reading
    chances: Sequence[float]

    @property
    def chunk(self) -> Chunk:
        """The chunk itself."""
        return self.hit.chunk


@dataclass(frozen=True, slots=True)
class Purchase:
    """The next sentence to buy: number ``sentence`` of ``candidate``, with its table's header if that was not bought.

    ``tokens`` is an estimate, by the share of the chunk's characters: what is bought is counted as one text.
    """

    candidate: int
    sentences: tuple[int, ...]
    tokens: float
    chance: float


def candidates(question: str, hits: Sequence[Hit]) -> list[Candidate]:
    """The chunks that were found, without those that say the same under other headings."""
    by_text: dict[str, Hit] = {}
    for hit in hits:
        by_text.setdefault(plain(" ".join(hit.chunk.text.split())), hit)
    distinct = list(by_text.values())
    readings = [read(hit.chunk) for hit in distinct]
    found = chances(question, distinct, readings)
    return [Candidate(*each) for each in zip(distinct, readings, found, strict=True)]


def purchases(found: Sequence[Candidate]) -> Iterator[Purchase]:
    """Sentence after sentence, by chance for each token; what says the same as one before is passed over."""
    shelves = [_Shelf(number, candidate) for number, candidate in enumerate(found)]
    queue = [(-shelf.density, shelf.number) for shelf in shelves if shelf.waiting]
    heapq.heapify(queue)
    bought: list[Sentence] = []
    while queue:
        shelf = shelves[heapq.heappop(queue)[1]]
        sentence = shelf.next
        if not any(_says_no_more(sentence, other) for other in bought):
            bought.append(sentence)
            yield shelf.sell()
        else:
            shelf.pass_over()
        if shelf.waiting:
            heapq.heappush(queue, (-shelf.density, shelf.number))


@dataclass(slots=True)
class _Shelf:
    """The sentences of one candidate that are still to be had, the best last."""

    number: int
    candidate: Candidate
    waiting: list[int] = field(init=False)
    sold: set[int] = field(init=False, default_factory=set[int])
    _rate: float = field(init=False)

    def __post_init__(self) -> None:
        self._rate = self.candidate.chunk.tokens / max(1, len(self.candidate.chunk.embedded))
        worth = self.candidate.chances
        self.waiting = sorted(range(len(worth)), key=lambda n: (worth[n] / self._alone(n), -n))

    @property
    def next(self) -> Sentence:
        return self.candidate.reading.sentences[self.waiting[-1]]

    @property
    def density(self) -> float:
        number = self.waiting[-1]
        return self.candidate.chances[number] / self._price(number)

    def sell(self) -> Purchase:
        number = self.waiting.pop()
        head = self._missing_head(number)
        price = self._price(number)
        together = (number,) if head is None else (head, number)
        self.sold.update(together)
        if head is not None and head in self.waiting:
            self.waiting.remove(head)
        return Purchase(self.number, together, price, self.candidate.chances[number])

    def pass_over(self) -> None:
        self.waiting.pop()

    def _alone(self, number: int) -> float:
        sentence = self.candidate.reading.sentences[number]
        return (sentence.end - sentence.start) * self._rate + _GAP_TOKENS

    def _price(self, number: int) -> float:
        head = self._missing_head(number)
        price = self._alone(number) + (self._alone(head) if head is not None else 0.0)
        if not self.sold:
            title = self.candidate.chunk.heading_path or (self.candidate.chunk.source,)
            price += (len(title[0]) + (len(title[-1]) + 3 if len(title) > 1 else 0) + _MARKS) * self._rate
        return price

    def _missing_head(self, number: int) -> int | None:
        head = self.candidate.reading.sentences[number].head
        return None if head in self.sold else head


def _says_no_more(one: Sentence, bought: Sentence) -> bool:
    """Whether all words of a sentence stand in one that was bought, in their order: with another word it may be the
    other half of an answer ("before breakfast", "after dinner")."""
    shared = len(one.distinct & bought.distinct)
    if shared < _ALIKE_FROM or shared < _ALIKE * len(one.distinct | bought.distinct):
        return False
    if _DECIDES.findall(one.words) != _DECIDES.findall(bought.words):
        return False
    return says_all(bought.words, one.words)
