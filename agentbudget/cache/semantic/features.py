"""What is known of a pair of questions before their answers are compared, as numbers for the model that judges it."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from math import log1p
from typing import Final

from agentbudget.cache.semantic.around import Around
from agentbudget.cache.semantic.words import Reading

FORMAT: Final = 2
"""Version of these features: what was learned on others is not used."""

NAMES: Final = (
    "always",
    "cosine",
    "cosine above .8",
    "cosine above .9",
    "cosine above .95",
    "words shared",
    "pairs of words shared",
    "letters shared",
    "words lacking, fewer",
    "words lacking, more",
    "longest lacking, shorter",
    "longest lacking, longer",
    "asks otherwise",
    "begins otherwise",
    "ends otherwise",
    "same words",
    "same words in order",
    "length",
    "lengths apart",
    "entry right",
    "entry wrong",
    "right nearby",
    "wrong nearby",
)

PRIOR: Final = {
    "always": -11.7,
    "cosine": 14.49,
    "cosine above .8": -1.03,
    "cosine above .9": 3.84,
    "cosine above .95": 1.75,
    "words shared": 0.97,
    "pairs of words shared": -0.64,
    "letters shared": -2.09,
    "words lacking, fewer": 0.36,
    "words lacking, more": 0.04,
    "longest lacking, shorter": 0.23,
    "longest lacking, longer": 0.07,
    "asks otherwise": -0.32,
    "begins otherwise": -0.02,
    "ends otherwise": -0.7,
    "same words": -0.04,
    "same words in order": 1.14,
    "length": 0.92,
    "lengths apart": 0.48,
    "entry right": 2.75,
    "entry wrong": -1.22,
    "right nearby": 9.52,
    "wrong nearby": -0.43,
}
"""What is believed before any outcome is known, as log-odds: what half of Quora's question pairs taught
(`python -m evals.cache prior`). From there each space of questions learns its own."""


@dataclass(frozen=True, slots=True)
class Record:
    """How often an entry's answer was compared with a bought one, and was as good, or wrong."""

    right: int = 0
    wrong: int = 0


def features(asked: Reading, known: Reading, cosine: float, record: Record, nearby: Around) -> list[float]:
    """One number for each of `NAMES`, most of them between 0 and 1."""
    new, gone = asked.bag - known.bag, known.bag - asked.bag
    more, fewer = max(len(new), len(gone)), min(len(new), len(gone))
    longest = sorted((_longest(new), _longest(gone)))
    count, other = len(asked.words), len(known.words)
    return [
        1.0,
        cosine,
        max(0.0, cosine - 0.8),
        max(0.0, cosine - 0.9),
        max(0.0, cosine - 0.95),
        _shared(asked.bag, known.bag),
        _shared(_pairs(asked.words), _pairs(known.words)),
        _shared(_letters(asked.words), _letters(known.words)),
        fewer / 4,
        more / 4,
        longest[0] / 10,
        longest[1] / 10,
        float(asked.asking != known.asking),
        float(asked.words[:1] != known.words[:1]),
        float(asked.words[-1:] != known.words[-1:]),
        float(not (new or gone)),
        float(asked.words == known.words),
        (count + other) / 40,
        abs(count - other) / max(count, other, 1),
        *told_of(record, nearby),
    ]


def told_of(record: Record, nearby: Around) -> tuple[float, float, float, float]:
    """How often the entry's answer, and answers nearby, were right and wrong: the first times say most.

    What comes from nearby stays below 1: outcomes of one subject are no independent witnesses, and a model that counted
    all of them would be the surer, and the more often wrong, the longer it learned.
    """
    return (
        log1p(record.right),
        log1p(record.wrong),
        nearby.right / (1 + nearby.right),
        nearby.wrong / (1 + nearby.wrong),
    )


def _longest(words: Iterable[str]) -> int:
    return max(map(len, words), default=0)


def _pairs(words: tuple[str, ...]) -> set[tuple[str, str]]:
    return set(zip(("", *words), (*words, ""), strict=True))


def _letters(words: tuple[str, ...]) -> set[str]:
    """Runs of three letters: what is left of a word that is misspelt."""
    text = f" {' '.join(words)} "
    return {text[n : n + 3] for n in range(len(text) - 2)}


def _shared(one: Iterable[object], other: Iterable[object]) -> float:
    """Jaccard's index; 1 for two empty sets."""
    one, other = set(one), set(other)
    return len(one & other) / len(one | other) if one or other else 1.0
