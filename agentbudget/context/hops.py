"""What to ask next, when a question leads from one document to another: its open words, and the names just found."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Final

from agentbudget.context.choose import Candidate
from agentbudget.context.readings import stem, stems
from agentbudget.context.worth import MONTHS

MOST_HOPS: Final = 4
"""Documents in a row that a question may lead through."""

BRANCHES: Final = 3
"""Chunks of each hop whose open ends are followed."""

ENDS: Final = 2
"""Chunks that one follow-up question offers to the next hop."""

_DOUBT: Final = 0.7
"""What is found a hop further is so much less likely."""

_IN_TITLE: Final = 2.0
_IN_SENTENCE: Final = 1.5
"""A chunk whose title has a name that was followed is so much likelier to be the next step; so is a sentence."""

_AFTER_THE_BEST: Final = 0.5
"""A step needs one sentence of a chunk: each but its likeliest is worth so much of what it would be to one question."""

_MOST: Final = 0.95
"""No chance is raised above this. These five were chosen on the tuning half of MuSiQue's questions."""

_WORD: Final = re.compile(r"\w+")
_MONTHS: Final = frozenset(MONTHS.split("|"))
_NAME: Final = re.compile(r"[A-Z][\w'’.-]*(?:\s+(?:(?:of|the|de|and|von)\s+)*[A-Z][\w'’.-]*)*")


@dataclass(frozen=True, slots=True)
class FollowUp:
    """What to ask next, and the names in it that lead on, each as its stems."""

    question: str
    names: tuple[frozenset[str], ...]

    def likelier(self, found: Sequence[Candidate]) -> list[Candidate]:
        """The same, with higher chances where one of the names stands."""
        return [replace(each, chances=self._chances(each)) for each in found]

    def _chances(self, candidate: Candidate) -> list[float]:
        titled = _IN_TITLE if self._named(candidate.reading.title_stems) else 1.0
        told = (_IN_SENTENCE if self._named(each.distinct) else 1.0 for each in candidate.reading.sentences)
        return [
            min(max(_MOST, chance), chance * titled * factor)
            for chance, factor in zip(candidate.chances, told, strict=True)
        ]

    def _named(self, stems: frozenset[str]) -> bool:
        return any(name <= stems for name in self.names)


def follow_up(question: str, candidate: Candidate) -> FollowUp | None:
    """The words of `question` that the chunk leaves open, with the names in the sentence that answers best.

    None if nothing is open, or nothing new is named: then the chunk leads nowhere.
    """
    if not candidate.chances:
        return None
    best = max(range(len(candidate.chances)), key=candidate.chances.__getitem__)
    asked = frozenset(stems(question))
    found = (name.rstrip(".") for name in _NAME.findall(candidate.reading.sentences[best].words))
    names = [name for name in dict.fromkeys(found) if name not in _MONTHS and not asked.issuperset(stems(name))]
    unanswered = [word for word in _WORD.findall(question) if stem(word) not in candidate.reading.stems]
    if not names or not any(stems(" ".join(unanswered))):
        return None
    return FollowUp(" ".join((*unanswered, *names)), tuple(frozenset(stems(name)) for name in names))


def merged(groups: Sequence[Sequence[Candidate]]) -> list[Candidate]:
    """One list, in which a chunk found by several questions counts by the likeliest of its readings."""
    best: dict[str, Candidate] = {}
    for candidate in (each for group in groups for each in group):
        other = best.get(candidate.chunk.id)
        if other is not None:
            together = [max(pair) for pair in zip(other.chances, candidate.chances, strict=True)]
            candidate = Candidate(max(other.hit, candidate.hit, key=lambda hit: hit.score), other.reading, together)
        best[candidate.chunk.id] = candidate
    return list(best.values())


def doubt(hop: int, end: Candidate, best: float) -> float:
    """How much less likely is what `end` led to, in so many hops: the road may be wrong.

    `best` is the chance of the likeliest of the ends that are followed beside it.
    """
    return _DOUBT**hop * math.sqrt(max(end.chances) / best)


def one_a_step(found: Sequence[Candidate]) -> list[Candidate]:
    """The same, with all but the likeliest sentence of each chunk worth less."""
    return [replace(each, chances=_best_first(each.chances)) for each in found]


def _best_first(chances: Sequence[float]) -> list[float]:
    best = max(range(len(chances)), key=chances.__getitem__, default=0)
    return [chance if n == best else chance * _AFTER_THE_BEST for n, chance in enumerate(chances)]


def less_likely(found: Sequence[Candidate], factor: float) -> list[Candidate]:
    """The same with every chance times `factor`."""
    return [replace(each, chances=[chance * factor for chance in each.chances]) for each in found]
