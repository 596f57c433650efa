"""Qdrant's own engine in this process, as documents and memories use it: vectors and words in one folder."""

from __future__ import annotations

import shutil
from collections.abc import Generator, Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Literal

from agentbudget.context.embed import Vector
from agentbudget.context.store import Sparse
from agentbudget.errors import IndexFault
from agentbudget.forks import watch

if TYPE_CHECKING:
    import qdrant_edge
    from qdrant_edge import EdgeShard, Record, ScoredPoint

LEAST_FREE_BYTES: Final = 16 << 20
"""Without so much room on its disk nothing is written: more than a batch takes. The engine writes into files that are
mapped into memory and are mostly holes: where there is no room to fill one, the system ends the process (SIGBUS)."""

Act = Literal["created", "read", "searched", "written"]

_PAGE: Final = 1000

_inherited: Final[list[EdgeShard]] = []
"""Engines of the parent in a child that was forked: to free them would wait for threads that are not here."""


class Shard:
    """One shard, opened when it is first used. In errors ``what`` names it, and ``mend`` says what to do."""

    def __init__(self, path: Path, *, what: str, mend: str) -> None:
        self.path = path
        self._what = what
        self._mend = mend
        self._open: EdgeShard | None = None
        self._lost = False
        watch(self)

    def before_fork(self) -> None:
        """Nothing to bring to rest: the child uses nothing of it."""

    def after_fork(self, *, child: bool) -> None:
        """The folder, and the threads of an engine that is open, stay the parent's."""
        if child:
            self._lost = True
            if self._open is not None:
                _inherited.append(self._open)
                self._open = None

    @property
    def engine(self) -> EdgeShard:
        """The engine, with the shard open."""
        if self._open is None:
            from qdrant_edge import EdgeShard

            self._open = EdgeShard.load(str(self.path))
        return self._open

    def create(self, dim: int) -> None:
        """Make it, for vectors of `dim` numbers. Its folder must not be there yet."""
        import qdrant_edge as edge

        self.path.mkdir(parents=True)
        config = edge.EdgeConfig(
            vectors={"dense": edge.EdgeVectorParams(size=dim, distance=edge.Distance.Cosine)},
            sparse_vectors={"bm25": edge.EdgeSparseVectorParams(modifier=edge.Modifier.Idf)},
        )
        self._open = edge.EdgeShard.create(str(self.path), config)

    def add(self, points: Iterable[qdrant_edge.Point]) -> None:
        """Add points, or replace those of the same id."""
        from qdrant_edge import UpdateOperation

        self.engine.update(UpdateOperation.upsert_points(list(points)))

    def records(self, *, payload: bool | Sequence[str], vectors: bool = False) -> Iterator[Record]:
        """Every point, a page at a time."""
        import qdrant_edge as edge

        offset: qdrant_edge.PointId | None = None
        while True:
            request = edge.ScrollRequest(
                offset=offset,
                limit=_PAGE,
                with_payload=payload if isinstance(payload, bool) else list(payload),
                with_vector=vectors,
            )
            records, offset = self.engine.scroll(request)
            yield from records
            if offset is None:
                return

    def hybrid(
        self,
        dense: Vector,
        sparse: Sparse,
        *,
        limit: int,
        each: int,
        within: qdrant_edge.Filter | None = None,
        among: int = 0,
        diversity: float = 0.0,
    ) -> list[ScoredPoint]:
        """The `limit` best by meaning and by words: `each` of both searches, fused by the spread of their scores.

        With ``diversity`` those of the best ``among`` that are each unlike those before it: maximal marginal relevance.
        """
        import qdrant_edge as edge

        by_words = edge.SparseVector(sparse.indices, sparse.values)
        both = [
            edge.Prefetch(limit=each, query=edge.Query.Nearest(dense, using="dense"), filter=within),
            edge.Prefetch(limit=each, query=edge.Query.Nearest(by_words, using="bm25"), filter=within),
        ]
        fused = edge.Fusion.Dbsf()  # the stubs forget that it is a Fusion: hence what pyright is told
        if diversity:
            best = edge.Prefetch(limit=among, query=fused, prefetches=both)  # pyright: ignore[reportArgumentType]
            unlike = edge.Mmr(dense, 1 - diversity, among, using="dense")
            request = edge.QueryRequest(limit=limit, query=unlike, prefetches=[best], with_payload=True)
        else:
            request = edge.QueryRequest(
                limit=limit,
                query=fused,  # pyright: ignore[reportArgumentType]
                prefetches=both,
                with_payload=True,
            )
        return self.engine.query(request)

    def close(self) -> None:
        """Let go of the files. Calling it twice does no harm."""
        if self._open is not None:
            self._open.close()
            self._open = None

    @contextmanager
    def guarded(self, act: Act) -> Generator[None]:
        """Raise `IndexFault` for whatever the engine raises; a panic of its Rust code is no `Exception`. Where there is
        no room to write, too."""
        if self._lost:
            raise IndexFault(
                f"{self._what} was opened by the process that this one was forked from: open it again here"
            )
        if act in ("created", "written"):
            self._require_room(act)
        try:
            yield
        except IndexFault:
            raise
        except BaseException as error:
            if not isinstance(error, Exception) and type(error).__name__ != "PanicException":
                raise
            raise IndexFault(f"{self._what} cannot be {act} ({error}); check the disk, and {self._mend}") from error

    def _require_room(self, act: Act) -> None:
        folder = next(path for path in (self.path, *self.path.parents) if path.exists())
        free = shutil.disk_usage(folder).free
        if free < LEAST_FREE_BYTES:
            raise IndexFault(
                f"{self._what} cannot be {act}: {free / 1e6:,.1f} MB are free in {folder}, and it takes "
                f"{LEAST_FREE_BYTES / 1e6:,.0f} MB to write there safely; make room"
            )


def point(key: str, dense: Vector, sparse: Sparse, payload: dict[str, Any]) -> qdrant_edge.Point:
    """A point as a shard takes it."""
    import qdrant_edge as edge

    return edge.Point(key, {"dense": dense, "bm25": edge.SparseVector(sparse.indices, sparse.values)}, payload)
