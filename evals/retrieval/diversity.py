"""What diversity costs, and what it brings: is the gold document among the best, and how alike are they?"""

from __future__ import annotations

from pathlib import Path
from statistics import mean
from typing import Final

import numpy as np

from agentbudget.context.store import Hit
from evals.retrieval.corpora import KeptEmbedder, Name, Shelf, id_of, load

LEVELS: Final = (0.0, 0.3, 0.5, 0.7)
BEST: Final = 8


async def run(name: Name, data: Path, cache: Path, limit: int | None) -> str:
    """The table of a set: its held-out questions, or the first `limit` of them."""
    shelf = Shelf(load(name, data), cache)
    questions = [question for question in shelf.corpus.questions if question.half == "held out"][:limit]
    lines = [f"| diversity | gold among the best {BEST} | mean cosine among them |", "|--:|--:|--:|"]
    index = await shelf.index()
    try:
        for level in LEVELS:
            found = [(await index.search(each.text, limit=BEST, diversity=level)).hits for each in questions]
            gold = mean(
                any(id_of(hit.chunk.source) in question.documents for hit in hits)
                for question, hits in zip(questions, found, strict=True)
            )
            alike = mean(_alike(hits, shelf.embedder) for hits in found)
            lines.append(f"| {level} | {gold:.3f} | {alike:.2f} |")
    finally:
        await index.aclose()
    return "\n".join([f"{name}, {len(questions)} held-out questions", "", *lines])


def _alike(hits: tuple[Hit, ...], embedder: KeptEmbedder) -> float:
    vectors = np.stack(embedder.vectors([hit.chunk.embedded for hit in hits]))
    cosines = vectors @ vectors.T
    return float(cosines[np.triu_indices(len(hits), 1)].mean())
