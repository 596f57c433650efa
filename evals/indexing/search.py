"""How long a hybrid query takes over many chunks, the embedding of the question apart."""

from __future__ import annotations

import random
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Final

import numpy as np

from agentbudget.context.chunk import Chunk, chunk_id
from agentbudget.context.edge import EdgeStore
from agentbudget.context.embed import Vector
from agentbudget.context.header import Header
from agentbudget.context.index import DocumentIndex
from agentbudget.context.store import Point, Words, point_id

DIM: Final = 384
PAGE: Final = 1000
TENANT: Final = "default"
VOCABULARY: Final = [f"{first}{second}{third}" for first in "bdfgk" for second in "aeiou" for third in "lmnprstvz"]


class Chance:
    """An embedding model without a model: a direction of its own for each text, which takes no time the second time."""

    fingerprint = "chance"
    dim = DIM

    def embed(self, texts: Sequence[str]) -> list[Vector]:
        """A vector for each text."""
        return [self.embed_query(text) for text in texts]

    def embed_query(self, question: str) -> Vector:
        """A vector that the text decides."""
        return _direction(question)

    def count_tokens(self, text: str) -> int:
        """Words."""
        return len(text.split())


@cache
def _direction(text: str) -> Vector:
    chance = random.Random(text)
    return [chance.random() - 0.5 for _ in range(DIM)]


async def measure(chunks: int, queries: int, *, kept: Path | None) -> None:
    """Ask an index of chunks of random words and directions; it is filled before, unless the folder `kept` has it."""
    with tempfile.TemporaryDirectory() as temporary:
        folder = (kept or Path(temporary)) / f"search-{chunks}"
        store = EdgeStore(folder, collection="c", tenant=TENANT)
        if store.header() is None:
            _make(store, folder, chunks)
        listed = _timed(store.held)
        print(f"{store.count():,} chunks, listed in {listed:.2f} s")
        print("| query | p50, ms | p95, ms | worst, ms |\n|---|--:|--:|--:|", flush=True)
        async with DocumentIndex(store, Chance(), tenant=TENANT) as index:
            for name, where in (("hybrid", None), ("hybrid, one team in ten", {"team": "3"})):
                print(_row(name, await _ask(index, queries, where)), flush=True)


def _make(store: EdgeStore, folder: Path, chunks: int) -> None:
    """The header comes last: what was cut short is made anew."""
    store.create(DIM)
    store.filterable(["team"])
    added = _timed(lambda: _fill(store, chunks))
    tidied = _timed(lambda: store.tidy(chunks))
    store.write_header(Header(Chance.fingerprint, str(folder), whole=True, chunks=chunks).dump())
    print(f"made: added in {added:.1f} s, optimized in a child in {tidied:.1f} s", flush=True)


async def _ask(index: DocumentIndex, queries: int, where: Mapping[str, str] | None) -> list[float]:
    chance = random.Random(7)
    questions = [" ".join(chance.choices(VOCABULARY, k=6)) for _ in range(queries)]
    took: list[float] = []
    for question in [*questions[:20], *questions]:  # the first ones warm up, and are left out
        _direction(question)  # its time is not the engine's
        started = time.perf_counter()
        found = await index.search(question, where=where)
        took.append(time.perf_counter() - started)
        assert len(found.hits) == 24
    return took[20:]


def _row(name: str, took: list[float]) -> str:
    ordered = sorted(took)
    p95 = ordered[int(len(ordered) * 0.95)]
    return f"| {name} | {1e3 * statistics.median(took):.2f} | {1e3 * p95:.2f} | {1e3 * ordered[-1]:.2f} |"


def _fill(store: EdgeStore, chunks: int) -> None:
    for first in range(0, chunks, PAGE):
        store.add(list(_points(first, min(first + PAGE, chunks))))


def _points(first: int, last: int) -> Iterator[Point]:
    words, dice = Words(), np.random.default_rng(first)
    directions = (dice.random((last - first, DIM)) - 0.5).tolist()
    spoken = dice.choice(VOCABULARY, (last - first, 40)).tolist()
    for number, dense, said in zip(range(first, last), directions, spoken, strict=True):
        text = f"{number} {' '.join(said)}"
        place = f"{number // 50}.md"
        chunk = Chunk(chunk_id((), text), place, (), text, 0, len(text), 41, {"team": str(number % 10)})
        yield Point(point_id(TENANT, chunk.id), chunk, dense, words.document(text))


def _timed(act: Callable[[], object]) -> float:
    started = time.perf_counter()
    act()
    return time.perf_counter() - started
