"""Bring an index in step with its folder: embed only what is new, and survive being killed at any moment."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from threading import Event
from typing import Any, Final, Literal, Protocol, TypeVar

from agentbudget.context import chunk as chunking
from agentbudget.context import store as storing
from agentbudget.context.chunk import Chunk, Place
from agentbudget.context.classify import classified, is_current, label_of, looked_through
from agentbudget.context.document import Document
from agentbudget.context.embed import Embedder
from agentbudget.context.header import FileState, Header
from agentbudget.context.hosted import HostedEmbedder, destination_of
from agentbudget.context.load import File, Scan, Skipped, nothing_readable, read, scan
from agentbudget.context.metadata import Labels, Metadata, labelled
from agentbudget.context.report import IndexReport, OnProgress, Progress, Work
from agentbudget.context.store import Held, Point, Store, Words, point_id
from agentbudget.privacy import Label, Privacy

T = TypeVar("T")

BATCH: Final = 32
"""Chunks embedded between two writes: about a second of work is lost if the process is killed."""


class Stopped(Exception):
    """The update was told to stop; what it has embedded is kept."""


class Alone(Protocol):
    """Runs one call on the engine while nobody else uses it."""

    def __call__(self, act: Callable[..., T], *args: Any) -> T: ...


@dataclass(slots=True)
class _Wanted:
    """What the folder asks for: point id → chunk, at every place where it stands; and the files that were read."""

    chunks: dict[str, Chunk]
    files: dict[str, FileState]
    skipped: tuple[Skipped, ...]

    @property
    def documents(self) -> int:
        return sum(state.unreadable is None for state in self.files.values())


@dataclass(frozen=True, slots=True, kw_only=True)
class Update:
    """One update of one store, in the thread that calls `run`."""

    store: Store
    embedder: Embedder
    words: Words
    tenant: str
    alone: Alone
    stop: Event
    labels: Labels | None
    privacy: Privacy
    progress: OnProgress | None

    def run(self, folder: str | Path, *, rebuild: bool) -> IndexReport:
        """Read, compare, embed, drop. Nothing is touched before the folder has been read."""
        started = time.perf_counter()
        found = scan(folder)
        header = None if rebuild else self._header(found.folder)
        if header is not None and self._unchanged(header, found):
            return self._kept_all(header, found, started)
        wanted = self._read(found)
        self._require_allowed(wanted)
        if header is None:
            self.alone(self.store.create, self.embedder.dim)
            header = Header(self.embedder.fingerprint, str(found.folder))
        self._write(replace(header, whole=False))
        report = self._apply(wanted, found, started)
        self._write(
            replace(header, format=storing.FORMAT, whole=True, chunks=len(wanted.chunks), files=wanted.files),
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
        self.alone(self.store.write_header, header.dump())

    def _unchanged(self, header: Header, found: Scan) -> bool:
        return (
            header.whole
            and len(header.files) == len(found.files)
            and all(self._same(header.files.get(file.source), file) for file in found.files)
            and self.alone(self.store.count) == header.chunks
        )

    def _same(self, state: FileState | None, file: File) -> bool:
        """Whether a file is as it was, and everything that is known of it too."""
        return (
            state is not None
            and (state.digest, state.size, state.modified_ns) == (file.digest, file.size, file.modified_ns)
            and is_current(state.stated, self.privacy)
            and state.metadata == self._labelled(file, state.stated)
        )

    def _labelled(self, file: File, stated: Metadata) -> dict[str, str]:
        """All that is known of a file, its data class too."""
        known = labelled(file.source, stated, file.modified_ns, self.labels)
        return classified(file.source, stated, known, self.privacy)

    def _require_allowed(self, wanted: _Wanted) -> None:
        """Raise `DataRefused`, before anything is sent, if a chunk may not go where it would be embedded or kept."""
        places = [destination_of(self.embedder), self.store.destination]
        for destination in filter(None, places):
            label = Label()
            for chunk in wanted.chunks.values():
                label = label.joined(label_of(chunk, self.privacy))
            self.privacy.require(destination, label, what="a document")

    def _kept_all(self, header: Header, found: Scan, started: float) -> IndexReport:
        wanted = _Wanted({}, dict(header.files), found.skipped)
        return IndexReport(
            documents=wanted.documents,
            kept=header.chunks or 0,
            moved=0,
            relabelled=0,
            embedded=0,
            deleted=0,
            skipped=(*found.skipped, *_unreadable(header.files)),
            ignored=found.ignored,
            tokens=0,
            compute_ns=0,
            seconds=time.perf_counter() - started,
        )

    def _read(self, found: Scan) -> _Wanted:
        chunks: dict[str, Chunk] = {}
        files: dict[str, FileState] = {}
        for done, file in enumerate(found.files):
            self._tell("read", done, len(found.files))
            files[file.source], read_here = self._read_file(file)
            for chunk in read_here:
                key = point_id(self.tenant, chunk.id)
                first = chunks.setdefault(key, chunk)
                if first is not chunk:
                    chunks[key] = replace(first, also=(*first.also, *chunk.places))
        wanted = _Wanted(chunks, files, (*found.skipped, *_unreadable(files)))
        if not wanted.documents:
            raise nothing_readable(found.folder, wanted.skipped)
        self._tell("read", len(found.files), len(found.files))
        return wanted

    def _read_file(self, file: File) -> tuple[FileState, tuple[Chunk, ...]]:
        document = read(file)
        if isinstance(document, Document):
            document = looked_through(document, self.privacy)
        stated: Metadata = {} if isinstance(document, Skipped) else document.metadata
        metadata = self._labelled(file, stated)
        state = FileState(file.digest, file.size, file.modified_ns, stated, metadata)
        if isinstance(document, Skipped):
            return replace(state, unreadable=document.reason), ()
        chunks = chunking.chunk(replace(document, metadata=metadata), self.embedder.count_tokens)
        return replace(state, chunks=len(chunks)), chunks

    def _apply(self, wanted: _Wanted, found: Scan, started: float) -> IndexReport:
        held = self.alone(self.store.held)
        new = [(key, chunk) for key, chunk in wanted.chunks.items() if key not in held]
        places = {key: chunk.places for key, chunk in wanted.chunks.items() if key in held}
        changed = {key: standing for key, standing in places.items() if held[key].places != standing}
        moved = sum(_spans(standing) != _spans(held[key].places) for key, standing in changed.items())
        gone = [key for key in held if key not in wanted.chunks]
        self._make_filterable(wanted, held)
        work = self._embed(new)
        if changed:
            self.alone(self.store.move, changed)
        if gone:
            self.alone(self.store.delete, gone)
        self.alone(self.store.tidy, len(new) + len(gone))
        return IndexReport(
            documents=wanted.documents,
            kept=len(places),
            moved=moved,
            relabelled=len(changed) - moved,
            embedded=len(new),
            deleted=len(gone),
            skipped=wanted.skipped,
            ignored=found.ignored,
            tokens=work.tokens,
            compute_ns=work.compute_ns,
            seconds=time.perf_counter() - started,
        )

    def _make_filterable(self, wanted: _Wanted, held: Mapping[str, Held]) -> None:
        """Index the metadata keys that no chunk had so far."""
        known = Counter(key for chunk in held.values() for place in chunk.places for key in place.metadata)
        asked = {key for state in wanted.files.values() for key in state.metadata}
        if new := sorted(asked - set(known)):
            self.alone(self.store.filterable, new)

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


def _unreadable(files: Mapping[str, FileState]) -> tuple[Skipped, ...]:
    return tuple(Skipped(source, state.unreadable) for source, state in files.items() if state.unreadable is not None)


def _spans(places: Sequence[Place]) -> list[tuple[str, int, int]]:
    return [(place.source, place.start, place.end) for place in places]
