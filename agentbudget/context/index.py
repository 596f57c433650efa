"""An index of one folder of documents: kept in step with it, and searched by meaning and by words."""

from __future__ import annotations

import asyncio
import hashlib
import json
import time
from collections.abc import Callable, Mapping, Sequence, Set
from dataclasses import dataclass, replace
from pathlib import Path
from threading import Event, Lock
from types import TracebackType
from typing import ParamSpec, Protocol, Self, TypeVar

from agentbudget.context.embed import Embedder
from agentbudget.context.header import Header
from agentbudget.context.hosted import HostedEmbedder, Pay, destination_of, paid_for
from agentbudget.context.metadata import Labels, Where, asked
from agentbudget.context.neighbours import NEAR, leading, widened
from agentbudget.context.report import IndexPlan, IndexReport, OnProgress
from agentbudget.context.store import Hit, Store, Words
from agentbudget.context.update import Rebuild, Stopped, Update
from agentbudget.errors import DocumentsError, IndexFault, Mistake
from agentbudget.models import machine_price
from agentbudget.models.base import Price
from agentbudget.privacy import Destination, Privacy
from agentbudget.settings import Settings

P = ParamSpec("P")
T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Found:
    """The best chunks for a question, best first, and the wall time of embedding it and searching."""

    hits: tuple[Hit, ...]
    compute_ns: int


class Index(Protocol):
    """A folder of documents that can be searched. Safe to use from several tasks at once."""

    @property
    def location(self) -> str:
        """Where it is kept, for messages and spans; never with a key."""
        ...

    @property
    def goes_to(self) -> tuple[Destination, ...]:
        """Where passages and questions go outside this process: to a hosted embedder, to a server that keeps them."""
        ...

    async def update(
        self,
        folder: str | Path,
        *,
        rebuild: Rebuild = False,
        metadata: Labels | None = None,
        processes: int = 1,
        progress: OnProgress | None = None,
        pay: Pay | None = None,
        machine: Price | None = None,
    ) -> IndexReport:
        """Make the index mirror `folder`: embed new chunks, drop those that left, keep the rest.

        Chunks are recognised by a hash of their content, so an unchanged folder embeds nothing and an update that was
        cut short goes on where it stopped. ``metadata`` says what is known of files (see `open_index`) for this update;
        changing it embeds nothing. ``processes`` embed at once, on the cores that there are. ``progress`` is called
        from a worker thread after each batch; what it raises ends the update. ``pay`` pays for a hosted model,
        ``machine`` prices the seconds of one that runs here (None: as the environment says).

        Another embedding model or version of the chunker is refused with what it would cost. ``rebuild`` asks for it:
        True starts afresh, ``"changed"`` embeds what a new chunker cuts otherwise.
        Raises `DocumentsError`, `IndexMismatch` (another model, chunker or folder) or `IndexFault`.
        """
        ...

    async def plan(
        self,
        folder: str | Path,
        *,
        rebuild: Rebuild = False,
        metadata: Labels | None = None,
        progress: OnProgress | None = None,
        machine: Price | None = None,
    ) -> IndexPlan:
        """What `update` would do, and what that would cost. Nothing is written and nobody is paid."""
        ...

    async def search(
        self,
        question: str,
        *,
        limit: int = 24,
        where: Mapping[str, str | Sequence[str]] | None = None,
        diversity: float = 0.0,
        neighbours: int = 0,
        pay: Pay | None = None,
    ) -> Found:
        """The `limit` best chunks, among those of files whose metadata `where` matches: a value, or one of several, for
        every key. ``diversity`` above 0, up to 1, gives less alike ones: each is chosen for what it has of the question
        less what it has of those before it, which counts by that weight (maximal marginal relevance). The chunks
        before and after each of the ``neighbours`` best come along, in so far as those are short (up to 120 tokens).
        Raises `Mistake` for an empty question, `DocumentsError` for an empty index.
        """
        ...

    async def count(self) -> int:
        """Chunks in the index."""
        ...

    async def version(self) -> str | None:
        """A hash that changes with all that a search may find; None while that is not settled: before the first update,
        and while one is under way."""
        ...

    async def stale(self, sources: Set[str]) -> Set[str]:
        """Those of these files that are no longer as they were read; none where their folder is elsewhere."""
        ...

    def count_tokens(self, text: str) -> int:
        """Tokens of `text` by the embedding model: close to other models' counts, but not theirs."""
        ...

    async def aclose(self) -> None:
        """Free the index for other processes. Calling it twice does no harm."""
        ...

    async def __aenter__(self) -> Self: ...

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None: ...


def _says_something(question: str) -> bool:
    try:
        return isinstance(question, str) and bool(question.strip() and question.encode())
    except UnicodeEncodeError:  # half a character, as a model may write it
        return False


async def _stoppable(act: Callable[[Event], T]) -> T:
    """Run `act` in a thread; if the caller is cancelled, it is told to stop and waited for."""
    stop = Event()
    work = asyncio.create_task(asyncio.to_thread(act, stop))
    try:
        return await asyncio.shield(work)
    except asyncio.CancelledError:
        # The thread must have let go of the engine before the caller closes it.
        stop.set()
        await asyncio.wait([work])
        if not work.cancelled() and not isinstance(work.exception(), Stopped | None):
            work.result()
        raise


@dataclass(frozen=True, slots=True)
class _Wanted:
    question: str
    limit: int
    where: Where | None
    diversity: float
    neighbours: int


class DocumentIndex:
    """The one `Index`: everything but the engine, which is its `Store`."""

    def __init__(
        self,
        store: Store,
        embedder: Embedder,
        *,
        tenant: str,
        metadata: Labels | None = None,
        privacy: Privacy | None = None,
    ) -> None:
        self._store = store
        self._embedder = embedder
        self._tenant = tenant
        self._labels = metadata
        self._privacy = privacy or Privacy()
        self._words = Words()
        self._engine = Lock()
        self._updating = Lock()
        self._ready = False
        self._header: Header | None = None
        self._version: str | None = None
        self._closed = False

    @property
    def location(self) -> str:
        """Where it is kept."""
        return self._store.location

    @property
    def goes_to(self) -> tuple[Destination, ...]:
        """See `Index.goes_to`."""
        return tuple(filter(None, (destination_of(self._embedder), self._store.destination)))

    async def update(
        self,
        folder: str | Path,
        *,
        rebuild: Rebuild = False,
        metadata: Labels | None = None,
        processes: int = 1,
        progress: OnProgress | None = None,
        pay: Pay | None = None,
        machine: Price | None = None,
    ) -> IndexReport:
        """See `Index.update`."""
        embedder = paid_for(self._embedder, pay)

        def act(stop: Event) -> IndexReport:
            with self._updating:
                self._version = None
                report = self._work(embedder, metadata, stop, progress, machine, processes).run(folder, rebuild=rebuild)
                self._learn()
            return report

        return await _stoppable(act)

    async def plan(
        self,
        folder: str | Path,
        *,
        rebuild: Rebuild = False,
        metadata: Labels | None = None,
        progress: OnProgress | None = None,
        machine: Price | None = None,
    ) -> IndexPlan:
        """See `Index.plan`."""

        def act(stop: Event) -> IndexPlan:
            with self._updating:
                return self._work(self._embedder, metadata, stop, progress, machine).plan(folder, rebuild=rebuild)

        return await _stoppable(act)

    async def search(
        self,
        question: str,
        *,
        limit: int = 24,
        where: Mapping[str, str | Sequence[str]] | None = None,
        diversity: float = 0.0,
        neighbours: int = 0,
        pay: Pay | None = None,
    ) -> Found:
        """See `Index.search`."""
        if not _says_something(question):
            raise Mistake(f"{question!r} is no question; ask for something that the documents may say")
        if limit < 1:
            raise Mistake(f"limit must be at least 1, not {limit}")
        if not 0 <= diversity <= 1:
            raise Mistake(f"diversity must be between 0 (the best) and 1 (the least alike), not {diversity}")
        if neighbours < 0 or (neighbours and diversity):
            raise Mistake("neighbours must be 0 or more, and 0 in a diverse search: they are alike; give one of both")
        wanted = _Wanted(question, limit, asked(where), diversity, neighbours)
        return await asyncio.to_thread(self._search, wanted, paid_for(self._embedder, pay))

    async def count(self) -> int:
        """See `Index.count`."""
        return await asyncio.to_thread(self._alone, self._store.count)

    async def version(self) -> str | None:
        """See `Index.version`."""
        return self._version or await asyncio.to_thread(self._read_version)

    async def stale(self, sources: Set[str]) -> Set[str]:
        """See `Index.stale`."""
        return await asyncio.to_thread(self._stale, sources)

    def count_tokens(self, text: str) -> int:
        """See `Index.count_tokens`."""
        return self._embedder.count_tokens(text)

    async def aclose(self) -> None:
        """See `Index.aclose`."""
        await asyncio.to_thread(self._close)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.aclose()

    def _work(
        self,
        embedder: Embedder,
        metadata: Labels | None,
        stop: Event,
        progress: OnProgress | None,
        machine: Price | None,
        processes: int = 1,
    ) -> Update:
        if processes < 1:
            raise Mistake(f"processes must be at least 1, not {processes}")
        return Update(
            store=self._store,
            embedder=embedder,
            words=self._words,
            tenant=self._tenant,
            alone=self._alone,
            stop=stop,
            labels=self._labels if metadata is None else metadata,
            privacy=self._privacy,
            progress=progress,
            machine=machine or machine_price(Settings.from_env()),
            processes=processes,
        )

    def _learn(self) -> None:
        """Note what the index holds now: how its files were when it was made."""
        stored = self._alone(self._store.header)
        self._header = None if stored is None else Header.load(stored, self.location)

    def _read_version(self) -> str | None:
        stored = self._alone(self._store.header)
        header = None if stored is None else Header.load(stored, self.location)
        if header is None or not header.whole:
            return None
        self._header = header  # another process may have read files anew
        told = json.dumps(stored, sort_keys=True).encode(errors="surrogatepass")
        version = hashlib.blake2b(told, digest_size=16).hexdigest()
        if self._store.exclusive and not self._updating.locked():
            self._version = version
        return version

    def _search(self, wanted: _Wanted, embedder: Embedder) -> Found:
        self._prepare(embedder)
        started = time.perf_counter_ns()
        dense, sparse = embedder.embed_query(wanted.question), self._words.query(wanted.question)
        search = self._store.search
        hits = self._alone(search, dense, sparse, wanted.limit, wanted.where, diversity=wanted.diversity)
        stale = self._stale({hit.chunk.source for hit in hits})
        hits = [
            replace(hit, chunk=replace(hit.chunk, stale=True)) if hit.chunk.source in stale else hit for hit in hits
        ]
        if not wanted.diversity:  # then the order is not that of the scores
            hits.sort(key=lambda hit: (-hit.score, hit.chunk.id))  # the engine leaves the order of equals to chance
        if around := leading(hits, wanted.neighbours):
            beside = self._alone(self._store.beside, [hit.chunk.places[0] for hit in around], NEAR)
            hits = widened(hits, around, beside)
        return Found(tuple(hits), time.perf_counter_ns() - started)

    def _prepare(self, embedder: Embedder) -> None:
        """Before the first search: the index is whole, the model fits, and is loaded: no question pays for that."""
        if self._ready:
            return
        self._learn()
        header = self._header
        if header is None or header.chunks is None:
            raise DocumentsError(
                f"the index {self.location} is empty or its first update was cut short; run update(folder)"
            )
        header.check(self._embedder, self.location)
        header.check_format(self.location)
        held = self._alone(self._store.count)
        if header.whole and held != header.chunks:
            raise IndexFault(
                f"the index {self.location} lost {header.chunks - held} chunks; run update(folder) to mend it"
            )
        if not isinstance(embedder, HostedEmbedder):  # which has nothing to load, and would be paid for it
            embedder.embed_query("ready")
        self._ready = True

    def _stale(self, sources: Set[str]) -> Set[str]:
        """Those of these files that are no longer as they were read. Where the folder is elsewhere, nobody knows."""
        if self._header is None:
            self._learn()
        header = self._header
        if header is None or not Path(header.folder).is_dir():
            return frozenset()
        return {source for source in sources if header.is_stale(source)}

    def _alone(self, act: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """Use the engine while nobody else does."""
        with self._engine:
            if self._closed:
                raise Mistake(f"the index {self.location} is closed; open it again")
            return act(*args, **kwargs)

    def _close(self) -> None:
        with self._engine:
            self._closed = True
            self._store.close()
