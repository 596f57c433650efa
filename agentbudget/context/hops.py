"""What to ask next, when a question leads from one document to another: its open words, and the names just found."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import replace
from typing import Final

from agentbudget.context.choose import Candidate
from agentbudget.context.readings import stem, stems

MOST_HOPS: Final = 4
"""Documents in a row that a question may lead through."""

BRANCHES: Final = 3
"""Chunks of each hop whose open ends are followed."""

ENDS: Final = 2
"""Chunks that one follow-up question offers to the next hop."""

DOUBT: Final = 0.7
"""What is found a hop further is so much less likely."""

_WORD: Final = re.compile(r"\w+")
_NAME: Final = re.compile(r"[A-Z][\w'’.-]*(?:\s+(?:(?:of|the|de|and|von)\s+)*[A-Z][\w'’.-]*)*")


def follow_up(question: str, candidate: Candidate) -> str | None:
    """The words of `question` that the chunk leaves open, with the names in the sentence that answers best.

    None if nothing is open, or nothing new is named: then the chunk leads nowhere.
    """
    if not candidate.chances:
        return None
    best = max(range(len(candidate.chances)), key=candidate.chances.__getitem__)
    asked = frozenset(stems(question))
    names = [
        name for name in _NAME.findall(candidate.reading.sentences[best].words) if not asked.issuperset(stems(name))
    ]
    unanswered = [word for word in _WORD.findall(question) if stem(word) not in candidate.reading.stems]
    if not names or not any(stems(" ".join(unanswered))):
        return None
    return " ".join((*unanswered, *dict.fromkeys(names)))


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


def less_likely(found: Sequence[Candidate], factor: float) -> list[Candidate]:
    """The same with every chance times `factor`: the road to them may be wrong."""
    return [replace(each, chances=[chance * factor for chance in each.chances]) for each in found]
