"""Fit the weights of `agentbudget.context.worth`: which sentence of what was found holds the answer."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Final

import numpy as np
from numpy.typing import NDArray

from agentbudget.context.readings import read
from agentbudget.context.worth import WEIGHTS, Features, features
from evals.retrieval.corpora import Name, Shelf, id_of, load

SETS: Final[tuple[Name, ...]] = ("nq", "xquad")

_LIMIT: Final = 24
_RIDGE: Final = 1.0
_ROUNDS: Final = 20

Row = tuple[Features, bool]


async def run(data: Path, cache: Path) -> str:
    """Weights from the tuning halves of both sets, beside those in use."""
    rows = [row for name in SETS async for row in _labelled(name, data, cache)]
    measured = np.array([row for row, _ in rows])
    weights = _logistic(measured, np.array([right for _, right in rows], float))
    lines = ["| feature | fitted | in use |", "|---|--:|--:|"]
    lines += [
        f"| {name} | {weight:.2f} | {used:.2f} |"
        for name, weight, used in zip(Features._fields, weights, WEIGHTS, strict=True)
    ]
    return "\n".join([*lines, "", f"{len(rows)} sentences, {sum(right for _, right in rows)} of them with the answer"])


async def _labelled(name: Name, data: Path, cache: Path) -> AsyncIterator[Row]:
    corpus = load(name, data)
    index = await Shelf(corpus, cache).index()
    try:
        for question in corpus.questions:
            if question.half != "tuning":
                continue
            hits = (await index.search(question.text, limit=_LIMIT)).hits
            readings = [read(hit.chunk) for hit in hits]
            for hit, reading, measured in zip(hits, readings, features(question.text, hits, readings), strict=True):
                gold = id_of(hit.chunk.source) in question.documents
                for sentence, row in zip(reading.sentences, measured, strict=True):
                    yield row, gold and question.answered_in(sentence.words)
    finally:
        await index.aclose()


def _logistic(rows: NDArray[np.floating], right: NDArray[np.floating]) -> NDArray[np.floating]:
    """Logistic regression with a ridge, by Newton's method."""
    weights = np.zeros(rows.shape[1])
    for _ in range(_ROUNDS):
        chance = 1 / (1 + np.exp(-rows @ weights))
        slope = rows.T @ (chance - right) + _RIDGE * weights
        curve = (rows * (chance * (1 - chance))[:, None]).T @ rows + _RIDGE * np.eye(rows.shape[1])
        weights -= np.linalg.solve(curve, slope)
    return weights
