"""Question pairs as a stream of requests to a cache: what is asked, what is known, and whether its answer would do."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final, Literal

import numpy as np
from pydantic import BaseModel

from agentbudget.cache.semantic.around import Around
from agentbudget.cache.semantic.features import Record, features
from agentbudget.cache.semantic.words import differences, read
from agentbudget.context.embed import Embedder, FastEmbedder
from agentbudget.evals.tasks import read_rows

if TYPE_CHECKING:
    from numpy.typing import NDArray

Half = Literal["tune", "report"]

HALVES: Final[tuple[Half, ...]] = ("tune", "report")

BLOCK: Final = 2048
"""Questions embedded before they are written to disk: an eval that is stopped goes on from there."""


NEAREST: Final = 128
"""So many of the pairs nearest to a question are looked at: about half of them have been played when it is asked."""


class Pair(BaseModel):
    """Two questions, and whether people thought that one answer serves both."""

    id: int
    text_a: str
    text_b: str
    same: bool

    @property
    def half(self) -> Half:
        """Which half it belongs to, by a hash of its id.

        Settings were chosen on the tuning half; which features to offer was looked at on both, early on.
        """
        return HALVES[hashlib.blake2b(str(self.id).encode(), digest_size=1).digest()[0] % 2]


@dataclass(frozen=True, slots=True)
class Requests:
    """A request for each pair: its second question is asked while the answer to its first, its `entry`, is known.

    ``features`` are those of a pair of which no outcome is known; ``differ`` says that the two differ in a number, a
    name, a negation or a time. ``near`` are the numbers of those that may teach something of each, a row each, and
    ``nearness`` the cosines of where the pairs lie, the largest first.
    """

    entry: NDArray[np.int64]
    cosine: NDArray[np.float64]
    features: NDArray[np.float64]
    differ: NDArray[np.bool_]
    same: NDArray[np.bool_]
    near: NDArray[np.int64]
    nearness: NDArray[np.float32]

    def __len__(self) -> int:
        return len(self.same)


def requests_of(pairs: Sequence[Pair], vectors: dict[str, NDArray[np.float32]]) -> Requests:
    """The requests that these pairs stand for."""
    entries = {text: number for number, text in enumerate(sorted({pair.text_a for pair in pairs}))}
    cosines = [float(vectors[pair.text_a] @ vectors[pair.text_b]) for pair in pairs]
    read_pairs = [(read(pair.text_b), read(pair.text_a)) for pair in pairs]
    told = [features(*both, c, Record(), Around()) for both, c in zip(read_pairs, cosines, strict=True)]
    differ = np.array([bool(differences(*both)) for both in read_pairs])
    asked = np.stack([vectors[pair.text_b] for pair in pairs])
    near, nearness = _near(asked, asked + np.stack([vectors[pair.text_a] for pair in pairs]), ~differ)
    return Requests(
        entry=np.array([entries[pair.text_a] for pair in pairs]),
        cosine=np.array(cosines),
        features=np.array(told),
        differ=differ,
        same=np.array([pair.same for pair in pairs]),
        near=near,
        nearness=nearness,
    )


def _near(
    asked: NDArray[np.float32], between: NDArray[np.float32], tried: NDArray[np.bool_]
) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
    """For each question the pairs, of those tried, that lie nearest to it, ordered by how near they lie to its pair."""
    middles = (between / np.linalg.norm(between, axis=1, keepdims=True)).astype(np.float32)
    teachers = np.flatnonzero(tried)
    near = np.empty((len(asked), min(NEAREST, len(teachers) - 1)), np.int64)
    nearness = np.empty(near.shape, np.float32)
    for start in range(0, len(asked), 512):
        rows = np.arange(start, min(start + 512, len(asked)))
        cosines = asked[rows] @ middles[teachers].T
        cosines[rows[:, None] == teachers] = -1  # none teaches itself
        found = teachers[np.argpartition(-cosines, near.shape[1], axis=1)[:, : near.shape[1]]]
        apart = np.einsum("rnd,rd->rn", middles[found], middles[rows])
        order = np.argsort(-apart, axis=1)
        near[rows], nearness[rows] = (np.take_along_axis(column, order, 1) for column in (found, apart))
    return near, nearness


def pairs_of(data: Path, half: Half) -> list[Pair]:
    """The pairs of one half. Raises `DocumentsError` where there are none."""
    return [pair for pair in read_rows(data, "cache/qqp.jsonl.gz", Pair) if pair.half == half]


def disputed(pairs: Sequence[Pair]) -> tuple[int, int]:
    """Pairs whose questions have the same words in the same order, and how many of them are labelled as different.

    Nothing tells these apart: what share of them is so labelled is about what no method can stay below.
    """
    alike = [pair for pair in pairs if read(pair.text_a).words == read(pair.text_b).words]
    return len(alike), sum(not pair.same for pair in alike)


def vectors_of(
    texts: Sequence[str], folder: Path, *, embedder: Embedder | None = None
) -> dict[str, NDArray[np.float32]]:
    """A vector for each text, kept in `folder` block by block: about ten minutes of one processor the first time."""
    embedder = embedder or FastEmbedder(threads=1)
    folder.mkdir(parents=True, exist_ok=True)
    ordered = sorted(set(texts))
    rows: list[NDArray[np.float32]] = []
    for start in range(0, len(ordered), BLOCK):
        block = ordered[start : start + BLOCK]
        name = hashlib.blake2b("\0".join([embedder.fingerprint, *block]).encode(), digest_size=12).hexdigest()
        path = folder / f"{name}.npy"
        if not path.exists():
            print(f"embedding questions {start:,} to {start + len(block):,} of {len(ordered):,} …", flush=True)
            draft = path.with_suffix(".part.npy")
            np.save(draft, np.asarray(embedder.embed(block), np.float32))
            draft.replace(path)
        rows.append(np.asarray(np.load(path), np.float32))
    every: NDArray[np.float32] = np.concatenate(rows)
    return {text: every[place] for place, text in enumerate(ordered)}
