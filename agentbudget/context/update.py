"""Bring an index in step with its folder: embed only what is new, and survive being killed at any moment."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from pathlib import Path
from threading import Event
from typing import Any, Final, Literal, Protocol, TypeVar

from agentbudget.context import chunk as chunking
from agentbudget.context import store as storing
from agentbudget.context.chunk import Chunk, Place
from agentbudget.context.classify import classified, is_current, looked_through
from agentbudget.context.delta import Delta, Wanted, by_source, compare, unreadable
from agentbudget.context.document import Document
from agentbudget.context.embed import Embedder
from agentbudget.context.header import FileState, Header
from agentbudget.context.hosted import HostedEmbedder, destination_of
from agentbudget.context.load import File, Scan, Skipped, nothing_readable, read, scan
from agentbudget.context.metadata import Labels, Metadata, labelled
from agentbudget.context.pool import embed_in_order
from agentbudget.context.report import IndexPlan, IndexReport, OnProgress, Progress, Work
from agentbudget.context.store import Held, Point, Store, Words, point_id
from agentbudget.errors import IndexMismatch
from agentbudget.models.base import Price
from agentbudget.money import NANO, format_usd
from agentbudget.privacy import METADATA_KEY, Label, Privacy
from agentbudget.privacy.classes import claimed
from agentbudget.usage import Usage

T = TypeVar("T")

BATCH: Final = 32
"""Chunks embedded between two writes: about a second of work is lost if the process is killed."""

PAGE: Final = 256
"""Vectors that are taken from the engine at once."""

SAMPLE: Final = 8
"""Chunks by which the speed of a model is judged that has embedded nothing here yet."""

Rebuild = bool | Literal["changed"]
"""Whether an update starts afresh (True), or embeds what a new chunker cuts otherwise (``"changed"``)."""


class Stopped(Exception):
    """The update was told to stop; what it has embedded is kept."""


class Alone(Protocol):
    """Runs one call on the engine while nobody else uses it."""

    def __call__(self, act: Callable[..., T], *args: Any) -> T: ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Update:
    """One update of one store, in the thread that calls `run`; ``machine`` prices the seconds of this machine."""

    store: Store
    embedder: Embedder
    words: Words
    tenant: str
    alone: Alone
    stop: Event
    labels: Labels | None
    privacy: Privacy
    progress: OnProgress | None
    machine: Price
    processes: int = 1

    def run(self, folder: str | Path, *, rebuild: Rebuild) -> IndexReport:
        """Read, compare, embed, drop. Nothing is touched before the folder has been read."""
        started = time.perf_counter()
        found = scan(folder)
        header = self._header(found, rebuild)
        if header is not None and self._unchanged(header, found):
            return self._kept_all(header, found, started)
        wanted, delta = self._compared(header, found)
        self._require_allowed(wanted)
        if header is None:
            self.alone(self.store.create, self.embedder.dim)
            header = Header(self.embedder.fingerprint, str(found.folder))
        self._write(replace(header, whole=False))
        work = self._apply(header, wanted, delta)
        header = replace(
            header,
            format=storing.FORMAT,
            chunker=chunking.VERSION,
            whole=True,
            chunks=len(wanted.places),
            files=wanted.files,
            tokens=delta.full_tokens,
            ns_per_token=work.compute_ns / work.tokens if work.tokens else header.ns_per_token,
        )
        self._write(header)
        return self._report(header, delta, found, work, started)

    def plan(self, folder: str | Path, *, rebuild: Rebuild) -> IndexPlan:
        """What `run` would do and what that would cost. Nothing is written."""
        found = scan(folder)
        header = self._header(found, rebuild)
        wanted, delta = self._compared(header, found)
        ns_per_token = self._ns_per_token(header, delta)
        seconds, usd_nano = self._expected(delta, ns_per_token)
        return IndexPlan(
            documents=wanted.documents,
            kept=delta.kept,
            moved=delta.moved,
            relabelled=delta.relabelled,
            embedded=len(delta.new),
            deleted=delta.deleted,
            skipped=(*found.skipped, *wanted.unreadable),
            ignored=found.ignored,
            tokens=delta.tokens,
            full_tokens=delta.full_tokens,
            seconds=seconds,
            usd_nano=usd_nano,
            full_usd_nano=self._full_usd_nano(delta.full_tokens, ns_per_token),
        )

    # --- what is there, and what is wanted

    def _header(self, found: Scan, rebuild: Rebuild) -> Header | None:
        """What the index says of itself; None if it is to be made anew. Raises `IndexMismatch` with what that costs."""
        stored = None if rebuild is True else self.alone(self.store.header)
        if stored is None:
            return None
        header = Header.load(stored, self.store.location)
        header.check_folder(found.folder, self.store.location)
        mismatch = header.mismatch(self.embedder, self.store.location)
        same_model = header.embedder == self.embedder.fingerprint
        if mismatch is not None and not (same_model and rebuild == "changed"):
            raise self._priced(mismatch, replace(header, whole=False) if same_model else None, found)
        return header

    def _priced(self, mismatch: str, header: Header | None, found: Scan) -> IndexMismatch:
        """The error for an index that does not fit, with what it takes to make it fit."""
        _, delta = self._compared(header, found)
        seconds, usd_nano = self._expected(delta, self._ns_per_token(header, delta))
        takes = "" if seconds is None else f", about {seconds:,.1f} s"
        return IndexMismatch(
            f"{mismatch}: {len(delta.new):,} chunks, {delta.tokens:,} tokens{takes}, {format_usd(usd_nano)}",
            chunks=len(delta.new),
            tokens=delta.tokens,
            seconds=seconds,
            usd_nano=usd_nano,
        )

    def _write(self, header: Header) -> None:
        self.alone(self.store.write_header, header.dump())

    def _unchanged(self, header: Header, found: Scan) -> bool:
        return (
            header.whole
            and header.chunker == chunking.VERSION
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

    def _require_allowed(self, wanted: Wanted) -> None:
        """Raise `DataRefused`, before anything is sent, if a file may not go where it would be embedded or kept."""
        label = Label()
        for source, state in wanted.files.items():
            if state.unreadable is None:
                label = label.joined(Label(claimed(state.metadata[METADATA_KEY]), (source,)))
        for destination in filter(None, (destination_of(self.embedder), self.store.destination)):
            self.privacy.require(destination, label, what="a document")

    def _compared(self, header: Header | None, found: Scan) -> tuple[Wanted, Delta]:
        held = {} if header is None else self.alone(self.store.held)
        wanted = self._wanted(header, held, found)
        if not wanted.documents:
            raise nothing_readable(found.folder, (*found.skipped, *wanted.unreadable))
        return wanted, compare(wanted, held)

    def _wanted(self, header: Header | None, held: Mapping[str, Held], found: Scan) -> Wanted:
        """What the folder asks for. A file is read only if it is not as it was at the last complete update."""
        wanted = Wanted()
        whole = header is not None and header.whole and header.chunker == chunking.VERSION
        known: Mapping[str, FileState] = header.files if header is not None and whole else {}
        there = by_source(held) if known else {}
        for done, file in enumerate(found.files):
            self._tell("read", done, len(found.files))
            state, places = known.get(file.source), there.get(file.source, [])
            # Fewer chunks than it had: the engine lost some.
            same = state is not None and state.digest == file.digest and is_current(state.stated, self.privacy)
            if state is not None and same and len(places) == state.chunks:
                self._take(wanted, file, state, places)
            else:
                self._read(wanted, file)
        self._tell("read", len(found.files), len(found.files))
        return wanted

    def _take(self, wanted: Wanted, file: File, state: FileState, places: Sequence[tuple[Place, str]]) -> None:
        """A file that is as it was: where its chunks stand is known, only what is said of it may be new."""
        metadata = self._labelled(file, state.stated)
        wanted.files[file.source] = replace(state, size=file.size, modified_ns=file.modified_ns, metadata=metadata)
        for place, key in places:
            wanted.places.setdefault(key, []).append(replace(place, metadata=metadata))

    def _read(self, wanted: Wanted, file: File) -> None:
        document = read(file)
        if isinstance(document, Document):
            document = looked_through(document, self.privacy)
        stated: Metadata = {} if isinstance(document, Skipped) else document.metadata
        metadata = self._labelled(file, stated)
        state = FileState(file.digest, file.size, file.modified_ns, stated, metadata)
        if isinstance(document, Skipped):
            wanted.files[file.source] = replace(state, unreadable=document.reason)
            return
        chunks = chunking.chunk(replace(document, metadata=metadata), self.embedder.count_tokens)
        wanted.files[file.source] = replace(state, chunks=len(chunks))
        for chunk in chunks:
            key = point_id(self.tenant, chunk.id)
            wanted.chunks.setdefault(key, chunk)
            wanted.places.setdefault(key, []).extend(chunk.places)

    # --- what it takes

    def _apply(self, header: Header, wanted: Wanted, delta: Delta) -> Work:
        known = {key for state in header.files.values() for key in state.metadata}
        asked = {key for state in wanted.files.values() for key in state.metadata}
        self.alone(self.store.filterable, sorted(asked - known))
        self._respace(delta.respaced)
        work = self._embed(delta.new)
        if delta.changed:
            self.alone(self.store.move, delta.changed)
        if delta.gone:
            self.alone(self.store.delete, delta.gone)
        self.alone(self.store.tidy, len(delta.new) + len(delta.respaced) + len(delta.gone))
        return work

    def _respace(self, respaced: Sequence[tuple[str, Chunk, str]]) -> None:
        """Add chunks of which only the white space is new, with the vectors that are there."""
        for first in range(0, len(respaced), PAGE):
            page = respaced[first : first + PAGE]
            dense = self.alone(self.store.vectors, [alike for _, _, alike in page])
            self.alone(
                self.store.add,
                [Point(key, chunk, dense[alike], self.words.document(chunk.embedded)) for key, chunk, alike in page],
            )

    def _embed(self, new: Sequence[tuple[str, Chunk]]) -> Work:
        """Embed and add in batches; returns what that was."""
        work = Work.of([chunk for _, chunk in new])
        if not new:
            return work
        self._load()
        batches = [new[first : first + BATCH] for first in range(0, len(new), BATCH)]
        texts = [[chunk.embedded for _, chunk in batch] for batch in batches]
        self._tell("embed", 0, len(new), work)
        started, done = time.perf_counter_ns(), 0
        with closing(embed_in_order(self.embedder, texts, processes=self.processes)) as coming:
            for batch, dense in zip(batches, coming, strict=True):
                done += len(batch)
                work = replace(
                    work,
                    done_tokens=work.done_tokens + sum(chunk.tokens for _, chunk in batch),
                    compute_ns=time.perf_counter_ns() - started,
                )
                points = [
                    Point(key, chunk, vector, self.words.document(chunk.embedded))
                    for (key, chunk), vector in zip(batch, dense, strict=True)
                ]
                self.alone(self.store.add, points)
                self._tell("embed", done, len(new), work)
        return work

    def _load(self) -> None:
        """Load the model: seconds that no chunk costs. A hosted one has nothing to load; workers do it themselves."""
        if not isinstance(self.embedder, HostedEmbedder) and self.processes == 1:
            self.embedder.embed(["ready"])

    def _ns_per_token(self, header: Header | None, delta: Delta) -> float | None:
        """How long a token takes to embed here: as it did so far, else measured on a few chunks; None if elsewhere."""
        if isinstance(self.embedder, HostedEmbedder):
            return None
        if header is not None and header.ns_per_token is not None:
            return header.ns_per_token
        sample = [chunk for _, chunk in delta.new[:SAMPLE]]
        if not sample:
            return None
        self.embedder.embed(["ready"])
        started = time.perf_counter_ns()
        self.embedder.embed([chunk.embedded for chunk in sample])
        return (time.perf_counter_ns() - started) / max(1, sum(chunk.tokens for chunk in sample))

    def _expected(self, delta: Delta, ns_per_token: float | None) -> tuple[float | None, int]:
        """Seconds and nano-dollars of embedding what is new. Where there is something, its speed here is known."""
        seconds = None if ns_per_token is None else ns_per_token * delta.tokens / NANO
        return seconds, self._usd_nano(delta.tokens, (ns_per_token or 0) * delta.tokens)

    def _full_usd_nano(self, tokens: int, ns_per_token: float | None) -> int | None:
        """What embedding all `tokens` again costs; None where it takes this machine, and nobody knows how long."""
        if ns_per_token is None and not isinstance(self.embedder, HostedEmbedder):
            return None
        return self._usd_nano(tokens, (ns_per_token or 0) * tokens)

    def _usd_nano(self, tokens: int, compute_ns: float) -> int:
        if isinstance(self.embedder, HostedEmbedder):
            return self.embedder.price.cost(Usage(input_tokens=tokens))
        return self.machine.cost(Usage(compute_ns=round(compute_ns)))

    # --- what is said of it

    def _report(self, header: Header, delta: Delta, found: Scan, work: Work, started: float) -> IndexReport:
        return IndexReport(
            documents=sum(state.unreadable is None for state in header.files.values()),
            kept=delta.kept,
            moved=delta.moved,
            relabelled=delta.relabelled,
            embedded=len(delta.new),
            deleted=delta.deleted,
            skipped=(*found.skipped, *unreadable(header.files)),
            ignored=found.ignored,
            tokens=work.tokens,
            full_tokens=header.tokens,
            compute_ns=work.compute_ns,
            usd_nano=self._usd_nano(work.tokens, work.compute_ns),
            full_usd_nano=self._full_usd_nano(header.tokens, header.ns_per_token),
            seconds=time.perf_counter() - started,
        )

    def _kept_all(self, header: Header, found: Scan, started: float) -> IndexReport:
        nothing = Delta((), (), {}, 0, header.chunks or 0, (), 0, header.tokens)
        return self._report(header, nothing, found, Work(0, 0, 0), started)

    def _tell(self, stage: Literal["read", "embed"], done: int, total: int, work: Work | None = None) -> None:
        if self.stop.is_set():
            raise Stopped
        if self.progress is not None:
            self.progress(Progress(stage, done, total, work))
