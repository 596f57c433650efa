"""The seam to the engines that hold an index: points in, the best chunks out."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, Protocol, cast
from uuid import UUID

from agentbudget.context._extra import needs
from agentbudget.context.chunk import Chunk, Place, meaning
from agentbudget.context.embed import Vector
from agentbudget.context.metadata import Where, matches
from agentbudget.context.unspaced import spaced
from agentbudget.errors import IndexFault
from agentbudget.privacy import Destination

if TYPE_CHECKING:
    from qdrant_edge import Bm25

FORMAT: Final = 2
"""Version of what is stored with each chunk. The first knew one place of a chunk, no metadata; an update lifts it."""

PLACES: Final = "places"
"""The field of a payload that lists where a chunk stands."""

SOURCE: Final = f"{PLACES}[].source"
"""The path in a payload to the files in which a chunk stands."""

CANDIDATES: Final = 100
"""Chunks that each of the two searches hands to the fusion, at least. Their scores are put on one scale by mean and
deviation and added up (distribution-based score fusion): the best chunk came first for 95.7 % of XQuAD's and 91.3 % of
NQ's questions, against 92.9 % and 87.0 % by reciprocal ranks with k = 60, and 93.8 % and 89.0 % with k = 2."""

AMONG: Final = 4
"""Diverse chunks are chosen among so many times as many as are asked for: further down, unlike is also irrelevant."""

_MEAN_WORDS: Final = 80.0
"""Words of a usual chunk, stop words left out: BM25's average length."""


@dataclass(frozen=True, slots=True)
class Hit:
    """A chunk that answers a question, with its fused score; higher is better, comparable within one search only.

    Of a search for diverse chunks, the score is the cosine with the question.
    """

    chunk: Chunk
    score: float

    @property
    def stale(self) -> bool:
        """Whether the chunk's file has changed since it was read."""
        return self.chunk.stale


@dataclass(frozen=True, slots=True)
class Held:
    """What an update must know of a chunk that is there: where it stands, its tokens, and the hash of what it says."""

    places: tuple[Place, ...]
    tokens: int
    meaning: str | None = None


@dataclass(frozen=True, slots=True)
class Sparse:
    """Weights of the words of a text, by the words' hashes."""

    indices: list[int]
    values: list[float]


@dataclass(frozen=True, slots=True)
class Point:
    """A chunk with what it is found by."""

    id: str
    chunk: Chunk
    dense: Vector
    sparse: Sparse


Header = Mapping[str, Any]
"""What an index was built with: plain JSON values."""


class Store(Protocol):
    """One tenant's points in an engine. Blocking; calls come one at a time. Raises `IndexFault`."""

    @property
    def location(self) -> str:
        """Where it is, for messages."""
        ...

    @property
    def destination(self) -> Destination | None:
        """The server that keeps the points; None if they stay on this machine."""
        ...

    @property
    def exclusive(self) -> bool:
        """Whether nobody else can write to it while it is open."""
        ...

    def header(self) -> Header | None:
        """What was last written with `write_header`; None if there is nothing yet."""
        ...

    def write_header(self, header: Header) -> None:
        """Durably, and after everything written before it."""
        ...

    def create(self, dim: int) -> None:
        """Make room for vectors of `dim` numbers; what this tenant had is gone."""
        ...

    def held(self) -> dict[str, Held]:
        """Point id → what is held of it, of every chunk."""
        ...

    def add(self, points: Sequence[Point]) -> None:
        """Add points, or replace those of the same id."""
        ...

    def vectors(self, ids: Sequence[str]) -> dict[str, Vector]:
        """Point id → the vector of its meaning, of those that are there."""
        ...

    def move(self, places: Mapping[str, tuple[Place, ...]]) -> None:
        """Note new places, or other metadata, of points that are there. Their vectors stay."""
        ...

    def filterable(self, keys: Sequence[str]) -> None:
        """Keep an index of the files, and of these keys of the metadata; one that is there already is left as it is."""
        ...

    def delete(self, ids: Sequence[str]) -> None:
        """Remove points."""
        ...

    def count(self) -> int:
        """Chunks that are there."""
        ...

    def search(
        self, dense: Vector, sparse: Sparse, limit: int, where: Where | None = None, *, diversity: float = 0.0
    ) -> list[Hit]:
        """Both searches, fused by the engine, among chunks that stand in a file which `where` matches, best first.

        With ``diversity``, in the order of maximal marginal relevance, chosen from `AMONG` times as many.
        """
        ...

    def beside(self, places: Sequence[Place], near: int) -> list[Chunk]:
        """The chunks that end at most `near` characters before one of `places`, or begin as near behind it."""
        ...

    def tidy(self, changed: int) -> None:
        """After an update of so many points: whatever the engine needs to stay quick."""
        ...

    def close(self) -> None:
        """Let go of files and connections. Calling it twice does no harm."""
        ...


def point_id(tenant: str, chunk_id: str) -> str:
    """A chunk's id within a tenant, as the UUID that Qdrant asks for."""
    return str(UUID(bytes=hashlib.sha256(f"{tenant}\0{chunk_id}".encode()).digest()[:16]))


def header_id(tenant: str) -> str:
    """The id of the point that carries a tenant's header."""
    return point_id(tenant, "header")


def payload(point: Point, tenant: str) -> dict[str, Any]:
    """What is stored beside a chunk's vectors."""
    chunk = point.chunk
    return {
        "tenant": tenant,
        "chunk": chunk.id,
        "headings": list(chunk.heading_path),
        "text": chunk.text,
        "tokens": chunk.tokens,
        "meaning": meaning(chunk.embedded),
        **placed(chunk.places),
    }


def reach(limit: int, diversity: float) -> tuple[int, int]:
    """Among how many `limit` chunks are chosen, and how many each of the two searches finds for that."""
    among = AMONG * limit if diversity else limit
    return among, max(among, CANDIDATES)


def quick_fields(keys: Sequence[str]) -> list[str]:
    """The paths in a payload by which chunks must be quick to find: their files, and these keys of the metadata."""
    return [SOURCE, *(f"{PLACES}[].metadata.{key}" for key in keys)]


def placed(places: Sequence[Place]) -> dict[str, Any]:
    """The part of a payload that moves: an object for each place, so that a filter may ask one file several things."""
    return {
        PLACES: [
            {"source": place.source, "start": place.start, "end": place.end, "metadata": dict(place.metadata)}
            for place in places
        ]
    }


def chunk_of(payload: Mapping[str, Any], where: Where | None = None) -> Chunk:
    """The inverse of `payload`, at the first place that `where` matches. Raises `IndexFault` if a field is missing."""
    try:
        places = _places(payload)
        here = next((place for place in places if matches(where, place.metadata)), places[0])
        return Chunk(
            id=payload["chunk"],
            source=here.source,
            heading_path=tuple(payload["headings"]),
            text=payload["text"],
            start=here.start,
            end=here.end,
            tokens=payload["tokens"],
            metadata=here.metadata,
            also=tuple(place for place in places if place is not here),
        )
    except (KeyError, IndexError) as error:
        raise IndexFault(f"a stored chunk lacks {error}; run update(folder, rebuild=True)") from error


HELD_FIELDS: Final = [PLACES, "source", "start", "end", "tokens", "meaning"]
"""What `held_of` reads of a payload; three of them are the first format's."""


def held_of(payload: Mapping[str, Any]) -> Held:
    """What is held of a stored chunk. Raises `IndexFault` if a field is missing."""
    try:
        return Held(_places(payload), payload["tokens"], payload.get("meaning"))
    except KeyError as error:
        raise IndexFault(f"a stored chunk lacks {error}; run update(folder, rebuild=True)") from error


def dense_of(vectors: object) -> Vector:
    """The vector of a chunk's meaning among those that an engine gave of it. Raises `IndexFault` if it is not there."""
    found = cast("Mapping[str, object]", vectors).get("dense") if isinstance(vectors, Mapping) else None
    if not isinstance(found, list):
        raise IndexFault("a stored chunk lacks its vector; run update(folder, rebuild=True)")
    return cast("Vector", found)


def _places(payload: Mapping[str, Any]) -> tuple[Place, ...]:
    if PLACES not in payload:  # as the first format wrote it
        return (Place(payload["source"], payload["start"], payload["end"]),)
    return tuple(Place(at["source"], at["start"], at["end"], at["metadata"]) for at in payload[PLACES])


class Words:
    """BM25 weights of words, as Qdrant's engine computes them; the engine adds how rare each word is."""

    def __init__(self) -> None:
        self._model: Bm25 | None = None

    def _bm25(self) -> Bm25:
        if self._model is None:
            with needs("searching by words"):
                from qdrant_edge import Bm25, Bm25Config
            self._model = Bm25(Bm25Config(avg_len=_MEAN_WORDS))
        return self._model

    def document(self, text: str) -> Sparse:
        """Weights of a passage."""
        vector = self._bm25().embed_document(spaced(text))
        return Sparse(list(vector.indices), list(vector.values))

    def query(self, text: str) -> Sparse:
        """Weights of a question."""
        vector = self._bm25().embed_query(spaced(text))
        return Sparse(list(vector.indices), list(vector.values))
