"""The chunks before and after one that was found: an answer may stand across the border at which a document was cut."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace
from typing import Final

from agentbudget.context.chunk import Chunk, Place
from agentbudget.context.store import Hit

NEAR: Final = 400
"""Characters between two chunks that still are neighbours: room for the headings that stand between them."""

_BEHIND: Final = 0.3
"""A neighbour's score is so much less than that of the chunk that led to it; more, if it was found by itself. Chosen
on the tuning half of XQuAD's questions (``python -m evals.retrieval neighbours``)."""


_SHORT: Final = 120
"""Chunks of more tokens mostly hold what they lead to: beside those of the usual sizes, neighbours bring nothing."""


def leading(hits: Sequence[Hit], count: int) -> list[Hit]:
    """Those of the `count` best whose neighbours may pay: the short ones."""
    return [hit for hit in hits[:count] if hit.chunk.tokens <= _SHORT]


def next_to(place: Place, chunks: Iterable[Chunk]) -> list[Chunk]:
    """The one of `chunks` that ends last before `place`, and the one that begins first after it, in its file."""
    here = [_at(chunk, stands) for chunk in chunks for stands in chunk.places if stands.source == place.source]
    before = [chunk for chunk in here if place.start - NEAR <= chunk.end <= place.start]
    after = [chunk for chunk in here if place.end <= chunk.start <= place.end + NEAR]
    nearest = max(before, key=_end, default=None), min(after, key=_start, default=None)
    return [chunk for chunk in nearest if chunk is not None]


def widened(hits: Sequence[Hit], around: Sequence[Hit], chunks: Sequence[Chunk]) -> list[Hit]:
    """`hits` with the neighbours, among `chunks`, of those `around`: best first, each by the better of its scores."""
    best = {hit.chunk.id: hit for hit in hits}
    for hit in around:
        for chunk in next_to(hit.chunk.places[0], chunks):
            found, score = best.get(chunk.id), hit.score - _BEHIND
            if found is None:
                best[chunk.id] = Hit(replace(chunk, stale=hit.stale), score)
            elif found.score < score:
                best[chunk.id] = replace(found, score=score)
    return sorted(best.values(), key=lambda hit: (-hit.score, hit.chunk.id))


def _at(chunk: Chunk, place: Place) -> Chunk:
    """The chunk, seen at one of its places."""
    if place == chunk.places[0]:
        return chunk
    also = tuple(other for other in chunk.places if other != place)
    return replace(chunk, source=place.source, start=place.start, end=place.end, metadata=place.metadata, also=also)


def _start(chunk: Chunk) -> int:
    return chunk.start


def _end(chunk: Chunk) -> int:
    return chunk.end
