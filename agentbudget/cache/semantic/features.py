"""What is known of a pair of questions before their answers are compared, as numbers for the model that judges it."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from math import log1p
from typing import Final

from agentbudget.cache.semantic.words import Reading

FORMAT: Final = 1
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
)

PRIOR: Final = dict.fromkeys(NAMES, 0.0) | {"always": -18.0, "cosine": 20.0, "entry right": 1.0, "entry wrong": -2.0}
"""What is believed before any outcome is known: even odds at a cosine of 0.9, and that an entry stays as it was."""


@dataclass(frozen=True, slots=True)
class Record:
    """How often an entry's answer was compared with a bought one, and was as good, or wrong."""

    right: int = 0
    wrong: int = 0


def features(asked: Reading, known: Reading, cosine: float, record: Record) -> list[float]:
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
        *told_of(record),
    ]


def told_of(record: Record) -> tuple[float, float]:
    """How often an entry's answer was right and wrong: the first times say most."""
    return log1p(record.right), log1p(record.wrong)


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
