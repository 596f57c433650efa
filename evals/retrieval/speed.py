"""How long a question takes over 100,000 chunks: searching, reading, buying; its embedding is told apart."""

from __future__ import annotations

import random
import time
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from statistics import median, quantiles
from typing import Final

import numpy as np
from numpy.typing import NDArray

from agentbudget.context.chunk import Chunk, chunk_id
from agentbudget.context.edge import EdgeStore
from agentbudget.context.pack import pack
from agentbudget.context.retrieve import NEIGHBOURS
from agentbudget.context.store import Point, Sparse, Words, point_id
from evals.retrieval.corpora import Corpus, KeptEmbedder, Question, Text, load
from evals.retrieval.neighbours import beside
from evals.retrieval.packers import CountTokens, qwen_tokens

CHUNKS: Final = 100_000
QUESTIONS: Final = 200
WARM_UP: Final = 300
"""Other questions, asked before: most of the index's files is then in memory, as where questions are asked all day."""

TOKENS: Final = 256

_BATCH: Final = 1000
_NOISE: Final = 0.03
"""A copy's vector is its document's, each number moved by so much: near it, as other documents of a subject are."""

_LIMIT: Final = 24


@dataclass(frozen=True, slots=True)
class _Times:
    search_ms: float
    pack_ms: float
    processor_ms: float


def run(data: Path, cache: Path) -> str:
    """The table; the index is built at first use, of copies of NQ's documents with some words exchanged."""
    corpus = load("nq", data)
    embedder = KeptEmbedder(cache / "vectors.db")
    store = EdgeStore(cache / "speed", collection="speed", tenant="default")
    words = Words()
    counters = {
        "the index's model counts tokens, as `ctx.retrieve` does": embedder.count_tokens,
        "Qwen2.5's vocabulary counts them": qwen_tokens(),
    }
    try:
        if store.count() < CHUNKS:
            _build(store, corpus, embedder, words)
        store.filterable([])
        drawn = iter(random.Random(0).sample(corpus.questions, len(counters) * (WARM_UP + QUESTIONS)))
        lines = [f"{store.count():,} chunks, {QUESTIONS} questions, {TOKENS} tokens"]
        for title, count in counters.items():
            asked = islice(drawn, WARM_UP + QUESTIONS)
            times = [_one(store, embedder, words, question, count) for question in asked]
            lines += ["", title, "", *_table(times[WARM_UP:])]
    finally:
        store.close()
    return "\n".join(lines)


def _table(times: Sequence[_Times]) -> list[str]:
    columns = {
        "search": [each.search_ms for each in times],
        "pack": [each.pack_ms for each in times],
        "both": [each.search_ms + each.pack_ms for each in times],
        "both, processor time": [each.processor_ms for each in times],
    }
    return [
        "| | p50 ms | p90 ms |",
        "|---|--:|--:|",
        *(f"| {name} | {median(each):.1f} | {quantiles(each, n=10)[8]:.1f} |" for name, each in columns.items()),
    ]


def _one(
    store: EdgeStore, embedder: KeptEmbedder, words: Words, question: Question, count_tokens: CountTokens
) -> _Times:
    dense, sparse = embedder.embed_query(question.text), words.query(question.text)
    processor, start = time.process_time(), time.perf_counter()
    hits = beside(store, store.search(dense, sparse, _LIMIT), NEIGHBOURS)
    searched = time.perf_counter()
    pack(question.text, hits, tokens=TOKENS, count_tokens=count_tokens)
    end = time.perf_counter()
    return _Times((searched - start) * 1000, (end - searched) * 1000, (time.process_time() - processor) * 1000)


def _build(store: EdgeStore, corpus: Corpus, embedder: KeptEmbedder, words: Words) -> None:
    dice, noise = random.Random(0), np.random.default_rng(0)
    texts = corpus.documents
    chunks = [_chunk(text, text.text, embedder) for text in texts]
    vectors = np.stack(embedder.vectors([chunk.embedded for chunk in chunks]))
    sparse = [words.document(chunk.embedded) for chunk in chunks]
    store.create(embedder.dim)
    for first in range(0, CHUNKS, _BATCH):
        points: list[Point] = []
        for number in range(first, first + _BATCH):
            origin = number % len(texts)
            if number < len(texts):
                points.append(_point(chunks[origin], vectors[origin], sparse[origin]))
                continue
            copy = _exchanged(texts[origin], texts[dice.randrange(len(texts))], number, dice, chunks[origin].tokens)
            moved: NDArray[np.float64] = vectors[origin] + noise.normal(0, _NOISE, embedder.dim)
            points.append(_point(copy, moved / np.linalg.norm(moved), words.document(copy.embedded)))
        store.add(points)
    store.tidy(CHUNKS)


def _chunk(text: Text, body: str, embedder: KeptEmbedder) -> Chunk:
    path = (text.title,)
    return Chunk(chunk_id(path, body), text.id, path, body, 0, len(body), embedder.count_tokens(body))


def _exchanged(text: Text, other: Text, number: int, dice: random.Random, tokens: int) -> Chunk:
    """The document with every third word from another."""
    donor = other.text.split()
    body = " ".join(dice.choice(donor) if n % 3 == 0 and donor else word for n, word in enumerate(text.text.split()))
    path = (f"{text.title} {number}",)
    return Chunk(chunk_id(path, body), f"{text.id}-{number}", path, body, 0, len(body), tokens)


def _point(chunk: Chunk, vector: NDArray[np.floating], sparse: Sparse) -> Point:
    return Point(point_id("default", chunk.id), chunk, vector.tolist(), sparse)
