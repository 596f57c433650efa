"""How likely a sentence of a found chunk holds what was asked for: a linear model over what can be seen in passing."""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from operator import mul
from typing import Final, NamedTuple

from agentbudget.context.readings import Reading, stem, stems
from agentbudget.context.store import Hit

# --- what kind of answer a question asks for, and what such an answer looks like ------------------------------------

MONTHS: Final = "January|February|March|April|May|June|July|August|September|October|November|December"
"""Their names, as an alternation."""

_TIME: Final = re.compile(rf"\b(?:1\d{{3}}|20\d\d|{MONTHS}|\d{{1,2}}(?:st|nd|rd|th)|centur(?:y|ies)|BC|AD)\b")
_NUMBER: Final = re.compile(
    r"\d|\b(?:one|two|three|four|five|six|seven|eight|nine|ten|eleven|twelve|dozen|hundred|thousand|million|billion|"
    r"half|third|quarter|twice|once)\b",
    re.IGNORECASE,
)
_NAME: Final = re.compile(r"(?<![.!?] )(?<!^)\b[A-Z][\w'’-]+")
_PLACE: Final = re.compile(r"\b(?:in|at|near|from|to|of|between)\s+(?:the\s+)?[A-Z]\w+")

_ASKS_TIME: Final = re.compile(
    r"\bwhen\b|\b(?:what|which|of) (?:year|date|day|month|century|decade|time)", re.IGNORECASE
)
_ASKS_NUMBER: Final = re.compile(
    r"\bhow (?:many|much|long|far|old|tall|big|large|high|often|fast|deep|wide|heavy)\b|\bnumber of\b|\bpercent|"
    r"\bwhat (?:size|population|age|share|price)\b|\bcosts?\b",
    re.IGNORECASE,
)
_ASKS_NAME: Final = re.compile(r"\bwho(?:m|se)?\b", re.IGNORECASE)
_ASKS_PLACE: Final = re.compile(
    r"\bwhere\b|\b(?:what|which|in) (?:country|city|state|town|place|county|continent|region|river)\b", re.IGNORECASE
)


class Features(NamedTuple):
    """What is measured of a sentence, each about between -1 and 1.

    ``score`` to ``chunk`` are the same for a chunk's sentences: the search's score, how far it is behind the best, one
    over the rank, and what share of the question (by the rarity of its words) is in the headings, and in headings and
    text. ``words``, ``before`` and ``after`` are the share that is in the sentence and in its neighbours; ``pairs`` the
    pairs of words that follow each other in the question too. ``others`` counts the words that neither the question nor
    a heading has. ``time`` to ``place`` are 1 if the question asks for such a thing and the sentence has one, -1 if it
    has none.
    """

    always: float
    score: float
    behind: float
    rank: float
    title: float
    chunk: float
    words: float
    before: float
    after: float
    pairs: float
    others: float
    time: float
    number: float
    name: float
    place: float
    length: float
    first: float


WEIGHTS: Final = Features(
    always=-4.72,
    score=0.52,
    behind=-3.86,
    rank=1.77,
    title=-0.15,
    chunk=-1.11,
    words=2.69,
    before=-0.15,
    after=-0.69,
    pairs=0.14,
    others=-1.08,
    time=0.96,
    number=0.76,
    name=0.54,
    place=0.29,
    length=0.76,
    first=0.57,
)
"""Logistic regression of "the answer is in this sentence" (``python -m evals.retrieval fit``)."""


def chances(question: str, hits: Sequence[Hit], readings: Sequence[Reading]) -> list[list[float]]:
    """For each hit, for each of its sentences: the estimated probability that the answer is in it."""
    return [[chance(row) for row in rows] for rows in features(question, hits, readings)]


def chance(row: Features, weights: Features = WEIGHTS) -> float:
    """The logistic of a sentence's features by their weights."""
    return 1 / (1 + math.exp(-sum(map(mul, row, weights))))


def features(question: str, hits: Sequence[Hit], readings: Sequence[Reading]) -> list[list[Features]]:
    """What is measured of each sentence of each hit, the best hit first."""
    asked = _Asked.of(question, [reading.stems for reading in readings])
    best = max((hit.score for hit in hits), default=0.0)
    return [
        _of_chunk(asked, reading, (hit.score, best - hit.score, 1 / (1 + rank)))
        for rank, (hit, reading) in enumerate(zip(hits, readings, strict=True))
    ]


@dataclass(frozen=True, slots=True)
class _Asked:
    """What a question asks for; ``rarity`` shares 1 among its words, rarer ones (in what was found) counting more."""

    rarity: Mapping[str, float]
    pairs: frozenset[tuple[str, str]]
    time: bool
    number: bool
    name: bool
    place: bool

    @classmethod
    def of(cls, question: str, found: Sequence[frozenset[str]]) -> _Asked:
        wanted = list(stems(question))
        spread = Counter(stem for stem in wanted for chunk in found if stem in chunk)
        rarity = {stem: math.log(1 + (1 + len(found)) / (1 + spread[stem])) for stem in dict.fromkeys(wanted)}
        total = sum(rarity.values()) or 1.0
        return cls(
            {stem: value / total for stem, value in rarity.items()},
            frozenset(pairwise(wanted)),
            time=bool(_ASKS_TIME.search(question)),
            number=bool(_ASKS_NUMBER.search(question)),
            name=bool(_ASKS_NAME.search(question)),
            place=bool(_ASKS_PLACE.search(question)),
        )

    def share(self, found: frozenset[str]) -> float:
        """How much of the question is said."""
        return sum([value for stem, value in self.rarity.items() if stem in found])


def _of_chunk(asked: _Asked, reading: Reading, hit: tuple[float, float, float]) -> list[Features]:
    score, behind, rank = hit
    title, chunk = asked.share(reading.title_stems), asked.share(reading.stems)
    known = reading.title_stems.union(asked.rarity)
    shares = [0.0, *(asked.share(sentence.distinct) for sentence in reading.sentences), 0.0]
    rows: list[Features] = []
    for place, sentence in enumerate(reading.sentences):
        pairs = sum(map(asked.pairs.__contains__, pairwise(sentence.stems))) if shares[place + 1] else 0
        rows.append(
            Features(
                always=1.0,
                score=score,
                behind=behind,
                rank=rank,
                title=title,
                chunk=chunk,
                words=shares[place + 1],
                before=shares[place],
                after=shares[place + 2],
                pairs=min(pairs, 4) / 4,
                others=math.log1p(len(sentence.distinct - known)) / 3,
                time=_met(_TIME, sentence.words) if asked.time else 0.0,
                number=_met(_NUMBER, sentence.words) if asked.number else 0.0,
                name=_named(sentence.words, known) if asked.name else 0.0,
                place=_met(_PLACE, sentence.words) if asked.place else 0.0,
                length=math.log1p(len(sentence.words) / 30),
                first=float(place == 0),
            )
        )
    return rows


def _met(pattern: re.Pattern[str], words: str) -> float:
    return 1.0 if pattern.search(words) else -1.0


def _named(words: str, known: frozenset[str]) -> float:
    """Whether a name stands there that neither the question nor a heading has."""
    return 1.0 if any(stem(name) not in known for name in _NAME.findall(words)) else -1.0
