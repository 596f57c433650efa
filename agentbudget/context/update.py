"""Bring an index in step with its folder: embed only what is new, and survive being killed at any moment."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from threading import Event
from typing import Any, Final, Literal, Protocol, Self, TypeVar

from agentbudget.context import chunk as chunking
from agentbudget.context import store as storing
from agentbudget.context.chunk import Chunk
from agentbudget.context.document import Document
from agentbudget.context.embed import Embedder
from agentbudget.context.hosted import HostedEmbedder
from agentbudget.context.load import Scan, Skipped, nothing_readable, read, scan
from agentbudget.context.store import Place, Point, Store, Words, point_id
from agentbudget.errors import IndexMismatch

T = TypeVar("T")

BATCH: Final = 32
"""Chunks embedded between two writes: about a second of work is lost if the process is killed."""


class Stopped(Exception):
    """The update was told to stop; what it has embedded is kept."""


class Alone(Protocol):
    """Runs one call on the engine while nobody else uses it."""

    def __call__(self, act: Callable[..., T], *args: Any) -> T: ...


@dataclass(frozen=True, slots=True)
class Work:
    """What an update embeds: chunks of so many files, with ``characters`` and ``tokens`` in all.

    ``done_tokens`` of them were embedded in ``compute_ns`` nanoseconds of wall time.
    """

    files: int
    characters: int
    tokens: int
    done_tokens: int = 0
    compute_ns: int = 0

    @classmethod
    def of(cls, chunks: Sequence[Chunk]) -> Self:
        """The work of embedding these chunks, before the first."""
        return cls(
            files=len({chunk.source for chunk in chunks}),
            characters=sum(len(chunk.text) for chunk in chunks),
            tokens=sum(chunk.tokens for chunk in chunks),
        )

    @property
    def expected_ns(self) -> int | None:
        """What all of it takes at the speed measured so far; None before anything was embedded."""
        return self.compute_ns * self.tokens // self.done_tokens if self.done_tokens else None


@dataclass(frozen=True, slots=True)
class Progress:
    """How far an update got: files read, then chunks embedded. ``work`` is known from the second stage on."""

    stage: Literal["read", "embed"]
    done: int
    total: int
    work: Work | None = None


OnProgress = Callable[[Progress], None]


@dataclass(frozen=True, slots=True)
class IndexReport:
    """What an update did, in chunks: ``kept`` as they were (``moved`` of them to another place), ``embedded`` and
    ``deleted``; ``skipped`` names files that could not be read and ``ignored`` counts those of other kinds.

    ``tokens`` were embedded, in ``compute_ns`` nanoseconds of wall time; the whole update took ``seconds``.
    """

    documents: int
    kept: int
    moved: int
    embedded: int
    deleted: int
    skipped: tuple[Skipped, ...]
    ignored: int
    tokens: int
    compute_ns: int
    seconds: float

    @property
    def chunks(self) -> int:
        """Chunks in the index now."""
        return self.kept + self.embedded


@dataclass(frozen=True, slots=True)
class Header:
    """What an index was built with, and from what.

    ``digest`` is the folder's at the last complete update, and None while one is under way; ``chunks`` is None until
    the first is complete. So whoever is killed in between leaves a mark, and the next update looks at everything.
    """

    embedder: str
    folder: str
    format: int = storing.FORMAT
    chunker: str = chunking.VERSION
    digest: str | None = None
    chunks: int | None = None
    documents: int = 0
    skipped: tuple[Skipped, ...] = ()

    @classmethod
    def load(cls, stored: storing.Header, location: str) -> Self:
        """From what `Store.header` gave. Raises `IndexMismatch` if another version wrote it."""
        from pydantic import TypeAdapter, ValidationError

        try:
            header = TypeAdapter(cls).validate_python(stored)
        except ValidationError as error:
            raise IndexMismatch(f"the index {location} was written by another version; {_REBUILD}") from error
        if header.format != storing.FORMAT:
            raise IndexMismatch(f"the index {location} has format {header.format}, not {storing.FORMAT}; {_REBUILD}")
        return header

    def check(self, embedder: Embedder, location: str) -> None:
        """Raises `IndexMismatch` if vectors or chunks made now would not fit those that are there."""
        if self.embedder != embedder.fingerprint:
            raise IndexMismatch(
                f"the index {location} was embedded by {self.embedder}, not by {embedder.fingerprint}; "
                f"open it with that model, or {_REBUILD}"
            )
        if self.chunker != chunking.VERSION:
            raise IndexMismatch(
                f"the index {location} was cut by chunker {self.chunker}, this is {chunking.VERSION}; {_REBUILD}"
            )

    def check_folder(self, folder: Path, location: str) -> None:
        """Raises `IndexMismatch` if the index mirrors another folder, whose chunks would all be dropped."""
        if self.folder != str(folder):
            raise IndexMismatch(
                f"the index {location} holds {self.folder}, not {folder}; give each folder an index of its own "
                f"(another path, collection or tenant), or {_REBUILD}"
            )


_REBUILD: Final = "embed everything again with update(folder, rebuild=True)"


@dataclass(frozen=True, slots=True)
class _Wanted:
    """What the folder asks for: point id → chunk. Content that stands in several places is kept once."""

    chunks: dict[str, Chunk]
    documents: int
    skipped: tuple[Skipped, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Update:
    """One update of one store, in the thread that calls `run`."""

    store: Store
    embedder: Embedder
    words: Words
    tenant: str
    alone: Alone
    stop: Event
    progress: OnProgress | None

    def run(self, folder: str | Path, *, rebuild: bool) -> IndexReport:
        """Read, compare, embed, drop. Nothing is touched before the folder has been read."""
        started = time.perf_counter()
        found = scan(folder)
        header = None if rebuild else self._header(found.folder)
        if header is not None and self._unchanged(header, found):
            return self._kept_all(header, found, started)
        wanted = self._read(found)
        if header is None:
            self.alone(self.store.create, self.embedder.dim)
            header = Header(self.embedder.fingerprint, str(found.folder))
        self._write(replace(header, digest=None))
        report = self._apply(wanted, found, started)
        self._write(
            replace(
                header,
                digest=found.digest,
                chunks=len(wanted.chunks),
                documents=wanted.documents,
                skipped=wanted.skipped,
            )
        )
        return report

    def _header(self, folder: Path) -> Header | None:
        stored = self.alone(self.store.header)
        if stored is None:
            return None
        header = Header.load(stored, self.store.location)
        header.check(self.embedder, self.store.location)
        header.check_folder(folder, self.store.location)
        return header

    def _write(self, header: Header) -> None:
        self.alone(self.store.write_header, asdict(header))

    def _unchanged(self, header: Header, found: Scan) -> bool:
        return header.digest == found.digest and self.alone(self.store.count) == header.chunks

    def _kept_all(self, header: Header, found: Scan, started: float) -> IndexReport:
        unreadable = {item.source for item in found.skipped}
        skipped = found.skipped + tuple(item for item in header.skipped if item.source not in unreadable)
        return IndexReport(
            documents=header.documents,
            kept=header.chunks or 0,
            moved=0,
            embedded=0,
            deleted=0,
            skipped=skipped,
            ignored=found.ignored,
            tokens=0,
            compute_ns=0,
            seconds=time.perf_counter() - started,
        )

    def _read(self, found: Scan) -> _Wanted:
        chunks: dict[str, Chunk] = {}
        skipped, documents = list(found.skipped), 0
        for done, file in enumerate(found.files):
            self._tell("read", done, len(found.files))
            document = read(file)
            if not isinstance(document, Document):
                skipped.append(document)
                continue
            documents += 1
            for chunk in chunking.chunk(document, self.embedder.count_tokens):
                chunks.setdefault(point_id(self.tenant, chunk.id), chunk)
        if not documents:
            raise nothing_readable(found.folder, tuple(skipped))
        self._tell("read", len(found.files), len(found.files))
        return _Wanted(chunks, documents, tuple(skipped))

    def _apply(self, wanted: _Wanted, found: Scan, started: float) -> IndexReport:
        held = self.alone(self.store.places)
        new = [(key, chunk) for key, chunk in wanted.chunks.items() if key not in held]
        places = {key: Place(c.source, c.start, c.end) for key, c in wanted.chunks.items() if key in held}
        moved = {key: place for key, place in places.items() if held[key] != place}
        gone = [key for key in held if key not in wanted.chunks]
        work = self._embed(new)
        if moved:
            self.alone(self.store.move, moved)
        if gone:
            self.alone(self.store.delete, gone)
        self.alone(self.store.tidy, len(new) + len(gone))
        return IndexReport(
            documents=wanted.documents,
            kept=len(places),
            moved=len(moved),
            embedded=len(new),
            deleted=len(gone),
            skipped=wanted.skipped,
            ignored=found.ignored,
            tokens=work.tokens,
            compute_ns=work.compute_ns,
            seconds=time.perf_counter() - started,
        )

    def _embed(self, new: Sequence[tuple[str, Chunk]]) -> Work:
        """Embed and add in batches; returns what that was."""
        work = Work.of([chunk for _, chunk in new])
        if new and not isinstance(self.embedder, HostedEmbedder):
            self.embedder.embed(["ready"])  # loads the model: seconds that no chunk costs
        for done in range(0, len(new), BATCH):
            self._tell("embed", done, len(new), work)
            batch = new[done : done + BATCH]
            started = time.perf_counter_ns()
            dense = self.embedder.embed([chunk.embedded for _, chunk in batch])
            work = replace(
                work,
                done_tokens=work.done_tokens + sum(chunk.tokens for _, chunk in batch),
                compute_ns=work.compute_ns + time.perf_counter_ns() - started,
            )
            points = [
                Point(key, chunk, vector, self.words.document(chunk.embedded))
                for (key, chunk), vector in zip(batch, dense, strict=True)
            ]
            self.alone(self.store.add, points)
        if new:
            self._tell("embed", len(new), len(new), work)
        return work

    def _tell(self, stage: Literal["read", "embed"], done: int, total: int, work: Work | None = None) -> None:
        if self.stop.is_set():
            raise Stopped
        if self.progress is not None:
            self.progress(Progress(stage, done, total, work))
