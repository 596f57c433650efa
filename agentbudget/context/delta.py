"""What stands between an index and its folder: chunks to embed, to move, to relabel and to drop. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

from agentbudget.context.chunk import Chunk, Place, meaning
from agentbudget.context.header import FileState
from agentbudget.context.load import Skipped
from agentbudget.context.store import Held


@dataclass(slots=True)
class Wanted:
    """What a folder asks for: point id → every place where that content stands, and the files that were looked at.

    ``chunks`` has the content of the files that were read; those that are as they were are known by their places.
    """

    places: dict[str, list[Place]] = field(default_factory=dict[str, list[Place]])
    chunks: dict[str, Chunk] = field(default_factory=dict[str, Chunk])
    files: dict[str, FileState] = field(default_factory=dict[str, FileState])

    @property
    def documents(self) -> int:
        """Files that could be read."""
        return sum(state.unreadable is None for state in self.files.values())

    @property
    def unreadable(self) -> tuple[Skipped, ...]:
        """Files that could not be read."""
        return unreadable(self.files)


@dataclass(frozen=True, slots=True)
class Delta:
    """What an update has to do. ``full_tokens`` is what a full re-index would embed.

    ``respaced`` are chunks that say what a point says which is there, with other white space: their ids, the chunks,
    and the points whose vectors serve them. They count as kept and moved.
    """

    new: Sequence[tuple[str, Chunk]]
    respaced: Sequence[tuple[str, Chunk, str]]
    changed: Mapping[str, tuple[Place, ...]]
    moved: int
    kept: int
    gone: Sequence[str]
    deleted: int
    full_tokens: int

    @property
    def relabelled(self) -> int:
        """Chunks of which the metadata changed, and not the place."""
        return len(self.changed) + len(self.respaced) - self.moved

    @property
    def tokens(self) -> int:
        """Tokens to embed."""
        return sum(chunk.tokens for _, chunk in self.new)


def compare(wanted: Wanted, held: Mapping[str, Held]) -> Delta:
    """What makes the chunks that are held those that are wanted."""
    new: list[tuple[str, Chunk]] = []
    respaced: list[tuple[str, Chunk, str]] = []
    said = {chunk.meaning: key for key, chunk in held.items() if chunk.meaning is not None}
    changed: dict[str, tuple[Place, ...]] = {}
    moved = full_tokens = 0
    for key, places in wanted.places.items():
        there = held.get(key)
        if there is None:
            chunk = at(wanted.chunks[key], places)
            if (alike := said.get(meaning(chunk.embedded))) is None:
                new.append((key, chunk))
            else:
                respaced.append((key, chunk, alike))
            full_tokens += chunk.tokens
            continue
        full_tokens += there.tokens
        if there.places != tuple(places):
            changed[key] = tuple(places)
            moved += _spans(there.places) != _spans(places)
    gone = [key for key in held if key not in wanted.places]
    replaced = {alike for _, _, alike in respaced}
    deleted = sum(key not in replaced for key in gone)
    kept = len(wanted.places) - len(new)
    return Delta(new, respaced, changed, moved + len(respaced), kept, gone, deleted, full_tokens)


def at(chunk: Chunk, places: Sequence[Place]) -> Chunk:
    """`chunk` as it stands at the first of `places`, and also at the others."""
    first, *others = places
    return replace(
        chunk, source=first.source, start=first.start, end=first.end, metadata=first.metadata, also=tuple(others)
    )


def by_source(held: Mapping[str, Held]) -> dict[str, list[tuple[Place, str]]]:
    """Source → the places in it and the points that stand there, in order."""
    found: dict[str, list[tuple[Place, str]]] = {}
    for key, chunk in held.items():
        for place in chunk.places:
            found.setdefault(place.source, []).append((place, key))
    for places in found.values():
        places.sort(key=lambda item: (item[0].start, item[0].end, item[1]))
    return found


def unreadable(files: Mapping[str, FileState]) -> tuple[Skipped, ...]:
    """Those of `files` that could not be read, and why."""
    return tuple(Skipped(source, state.unreadable) for source, state in files.items() if state.unreadable is not None)


def _spans(places: Sequence[Place]) -> list[tuple[str, int, int]]:
    return [(place.source, place.start, place.end) for place in places]
