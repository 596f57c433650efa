"""How long a semantic look-up takes beside the embedding of the question: `python -m evals.cache semantic-speed`.

Among 100,000 questions and 20,000 verified outcomes in a file: search by signs, exact cosines of 32 questions and 64
outcomes, eight questions judged by all features, and the decision.
The vectors are random directions; what is asked has a cosine of about 0.85 with one of them, which has to be found.
"""

from __future__ import annotations

import argparse
import random
import resource
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Final

import numpy as np

from agentbudget.cache.semantic import Place, Semantic, SemanticCache
from agentbudget.cache.semantic.features import NAMES
from agentbudget.cache.semantic.nearby import signs_of
from agentbudget.cache.semantic.store import TRIALS

DIMENSIONS: Final = 384
WORDS: Final = 12
"""Words of a question."""

PLACE: Final = Place(tenant="default", skill="answer", form="form")
POLICY: Final = Semantic(wrong=0.02)


class Given:
    """An embedder that says at once what vector a text has."""

    fingerprint = "given"
    dim = DIMENSIONS

    def __init__(self, questions: dict[str, list[float]]) -> None:
        self._questions = questions

    def embed_query(self, question: str) -> list[float]:
        """The vector that was given."""
        return self._questions[question]

    def embed(self, texts: Sequence[str]) -> list[list[float]]:
        """The vectors that were given."""
        return [self._questions[text] for text in texts]

    def count_tokens(self, text: str) -> int:
        """About."""
        return len(text.split())


def main(arguments: Sequence[str] | None = None) -> None:
    """Fill, ask, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--entries", type=int, default=100_000, help="questions that are kept [100000]")
    parser.add_argument("--looks", type=int, default=1_000, help="questions that are asked [1000]")
    given = parser.parse_args(arguments)
    chance, words = np.random.default_rng(0), random.Random(0)
    vectors = chance.standard_normal((given.entries, DIMENSIONS), np.float32)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    targets = words.choices(range(given.entries), k=given.looks)
    asked = vectors[targets] + 0.62 * _directions(chance, given.looks)
    questions = {f"{number} {_words(words)}": vector.tolist() for number, vector in enumerate(asked)}
    with tempfile.TemporaryDirectory() as folder, SemanticCache(Path(folder) / "s.db", Given(questions)) as cache:
        space = cache.look(PLACE, next(iter(questions)), POLICY).space
        for number, vector in enumerate(vectors):
            cache.store.add(
                space,
                key=str(number),
                question=_words(words),
                vector=vector,
                signs=signs_of(vector),
                most=given.entries,
            )
        _learn(cache, space, vectors[:TRIALS])
        started = time.perf_counter()
        cache.look(PLACE, next(iter(questions)), POLICY)
        print(f"{given.entries:,} entries; the first look-up, which reads their signs: {_since(started):.0f} ms")
        found, took, used = 0, list[float](), list[float]()
        for question, target in zip(questions, targets, strict=True):
            started, worked = time.perf_counter(), time.thread_time()
            look = cache.look(PLACE, question, POLICY)
            took.append(_since(started))
            used.append(1e3 * (time.thread_time() - worked))
            found += look.similarity > 0.5 and look.entry is not None and look.entry.key == str(target)
    print("| a look-up | p50 ms | p90 ms | p99 ms |\n| --- | --: | --: | --: |")
    for name, values in (("by the clock", took), ("of the processor", used)):
        print(f"| {name} | {' | '.join(f'{value:.2f}' for value in np.percentile(values, [50, 90, 99]))} |")
    memory_mb = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print(f"the nearest was found in {found / given.looks:.1%} of them; largest memory {memory_mb:,.0f} MB,")
    print("the vectors that the questions were made of included")


def _learn(cache: SemanticCache, space: int, middles: np.ndarray[tuple[int, int], np.dtype[np.float32]]) -> None:
    """Outcomes at these places."""
    nothing = [0.0] * len(NAMES)
    for entry, middle in enumerate(middles, 1):
        cache.store.compared(space, entry, nothing, same=True, middle=middle, expected=0.5)


def _directions(chance: np.random.Generator, count: int) -> np.ndarray[tuple[int, int], np.dtype[np.float32]]:
    drawn = chance.standard_normal((count, DIMENSIONS), np.float32)
    return drawn / np.linalg.norm(drawn, axis=1, keepdims=True)


def _words(chance: random.Random) -> str:
    return " ".join("".join(chance.choices("abcdefghij", k=5)) for _ in range(WORDS))


def _since(started: float) -> float:
    return 1e3 * (time.perf_counter() - started)
