"""The embedded engine: Qdrant's own, in this process, in a folder that one process has open at a time."""

from __future__ import annotations

import fcntl
import hashlib
import importlib
import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, Final, cast

from agentbudget.context._extra import needs
from agentbudget.context.chunk import Chunk, Place
from agentbudget.context.embed import Vector
from agentbudget.context.metadata import Where
from agentbudget.context.shard import Shard
from agentbudget.context.shard import point as stored
from agentbudget.context.store import (
    HELD_FIELDS,
    PLACES,
    SOURCE,
    Header,
    Held,
    Hit,
    Point,
    Sparse,
    chunk_of,
    dense_of,
    held_of,
    payload,
    placed,
    quick_fields,
    reach,
)
from agentbudget.errors import IndexBusy, IndexFault
from agentbudget.forks import Owned

if TYPE_CHECKING:
    import qdrant_edge

BIG: Final = 20_000
"""Chunks from which on a graph of neighbours pays: below, Qdrant looks at every vector in about a millisecond."""

_MOST_BESIDE: Final = 1000
"""Chunks that may stand beside those of one search: few, unless they are a few characters long."""

_OPTIMIZE: Final = (
    "import sys; from qdrant_edge import EdgeShard as S; s = S.load(sys.argv[1]); s.optimize(); s.close()"
)


class EdgeStore:
    """One tenant's index in a folder of its own: ``lock``, ``header.json`` and the engine's ``shard``.

    Raises `IndexBusy` at once if another process has it open; the lock ends with the process, however it ends.
    """

    def __init__(self, location: Path, *, collection: str, tenant: str) -> None:
        with needs("an embedded index"):
            importlib.import_module("qdrant_edge")  # if it is missing, say so before anything is locked
        # A hash, for a tenant's name may be anything and must not lead out of the folder.
        name = f"{re.sub(r'[^A-Za-z0-9_-]', '_', collection)[:60]}-{_short_hash(collection, tenant)}"
        self._folder = location.expanduser() / name
        self._tenant = tenant
        self._location = str(location)
        mend = "if it is damaged embed everything again with update(folder, rebuild=True)"
        self._shard = Shard(self._folder / "shard", what=f"the index {location}", mend=mend)
        self._lock: IO[str] | None = self._locked()
        self._owned = Owned(self._lock)

    @property
    def location(self) -> str:
        """The folder that was asked for."""
        return self._location

    @property
    def destination(self) -> None:
        """Nowhere: this engine is on this machine."""
        return None

    @property
    def exclusive(self) -> bool:
        """True: its lock keeps others out."""
        return True

    def header(self) -> Header | None:
        """See `Store.header`."""
        if not self._header_path.exists():
            return None
        with self._shard.guarded("read"):
            header: object = json.loads(self._header_path.read_text())
            if not isinstance(header, dict):
                raise ValueError("its header is not an object")
            return cast("dict[str, Any]", header)

    def write_header(self, header: Header) -> None:
        """See `Store.write_header`: the engine's log first, then the header, whole or not at all."""
        with self._shard.guarded("written"):
            self._shard.engine.flush()
            draft = self._header_path.with_suffix(".draft")
            with draft.open("w") as stream:
                json.dump(header, stream)
                stream.flush()
                os.fsync(stream.fileno())
            draft.replace(self._header_path)

    def create(self, dim: int) -> None:
        """See `Store.create`."""
        self._shard.close()
        with self._shard.guarded("created"):
            self._header_path.unlink(missing_ok=True)
            if self._shard.path.exists():
                shutil.rmtree(self._shard.path)
            self._shard.create(dim)

    def held(self) -> dict[str, Held]:
        """See `Store.held`."""
        with self._shard.guarded("read"):
            records = self._shard.records(payload=HELD_FIELDS)
            return {str(record.id): held_of(record.payload or {}) for record in records}

    def add(self, points: Sequence[Point]) -> None:
        """See `Store.add`."""
        with self._shard.guarded("written"):
            self._shard.add(
                stored(point.id, point.dense, point.sparse, payload(point, self._tenant)) for point in points
            )

    def vectors(self, ids: Sequence[str]) -> dict[str, Vector]:
        """See `Store.vectors`."""
        with self._shard.guarded("read"):
            records = self._shard.engine.retrieve(list(ids), with_payload=False, with_vector=["dense"])
            return {str(record.id): dense_of(record.vector) for record in records}

    def move(self, places: Mapping[str, tuple[Place, ...]]) -> None:
        """See `Store.move`."""
        from qdrant_edge import UpdateOperation

        with self._shard.guarded("written"):
            for key, standing in places.items():
                self._shard.engine.update(UpdateOperation.set_payload([key], placed(standing)))

    def filterable(self, keys: Sequence[str]) -> None:
        """See `Store.filterable`."""
        from qdrant_edge import PayloadSchemaType, UpdateOperation

        with self._shard.guarded("written"):
            for path in quick_fields(keys):
                self._shard.engine.update(UpdateOperation.create_field_index(path, PayloadSchemaType.Keyword))

    def delete(self, ids: Sequence[str]) -> None:
        """See `Store.delete`."""
        from qdrant_edge import UpdateOperation

        with self._shard.guarded("written"):
            self._shard.engine.update(UpdateOperation.delete_points(list(ids)))

    def count(self) -> int:
        """See `Store.count`."""
        import qdrant_edge as edge

        with self._shard.guarded("read"):
            return self._shard.engine.count(edge.CountRequest()) if self._shard.path.exists() else 0

    def search(
        self, dense: Vector, sparse: Sparse, limit: int, where: Where | None = None, *, diversity: float = 0.0
    ) -> list[Hit]:
        """See `Store.search`."""
        within = _standing(where) if where else None
        among, each = reach(limit, diversity)
        with self._shard.guarded("searched"):
            found = self._shard.hybrid(
                dense, sparse, limit=limit, among=among, each=each, within=within, diversity=diversity
            )
            return [Hit(chunk_of(point.payload or {}, where), point.score) for point in found]

    def beside(self, places: Sequence[Place], near: int) -> list[Chunk]:
        """See `Store.beside`."""
        import qdrant_edge as edge

        request = edge.ScrollRequest(limit=_MOST_BESIDE, filter=_beside(places, near), with_payload=True)
        with self._shard.guarded("searched"):
            records, _ = self._shard.engine.scroll(request)
            return [chunk_of(record.payload or {}) for record in records]

    def tidy(self, changed: int) -> None:
        """Build a big index's graph if a tenth changed, in a child process: here it would stop every thread."""
        total = self.count()
        if total < BIG or changed < total // 10:
            return
        self._shard.engine.flush()
        self._shard.close()
        command = [sys.executable, "-c", _OPTIMIZE, str(self._shard.path)]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode != 0:
            raise IndexFault(f"the index {self._location} could not be optimized: {done.stderr.strip()[-500:]}")

    def close(self) -> None:
        """See `Store.close`."""
        self._shard.close()
        if self._lock is not None:
            self._lock.close()
            self._lock = None

    @property
    def _header_path(self) -> Path:
        return self._folder / "header.json"

    def _locked(self) -> IO[str]:
        try:
            self._folder.mkdir(parents=True, exist_ok=True)
            lock = (self._folder / "lock").open("a+")
        except OSError as error:
            raise IndexFault(f"the index {self._location} cannot be opened: {error.strerror or error}") from error
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            lock.seek(0)
            holder = lock.read().strip() or "unknown"
            lock.close()
            raise IndexBusy(
                f"the index {self._location} is open in process {holder}; wait until it ends, close the other index "
                "object, or use another index folder or a Qdrant server (http://…) that several processes can share"
            ) from None
        with suppress(OSError):  # a full disk: only what others are told is lost, and there may be nothing to write
            os.ftruncate(lock.fileno(), 0)
            os.write(lock.fileno(), f"{os.getpid()}\n".encode())
        return lock


def _standing(where: Where) -> qdrant_edge.Filter:
    """Chunks of which one place matches all of `where`."""
    import qdrant_edge as edge

    def conditions(path: str) -> list[qdrant_edge.FieldCondition]:
        return [
            edge.FieldCondition(key=f"{path}.{key}", match=edge.MatchAny(list(values))) for key, values in where.items()
        ]

    # By the indexes of the keys; that one place has all of several is seen in the payload, which takes its time.
    indexed = conditions(f"{PLACES}[].metadata")
    if len(indexed) == 1:
        return edge.Filter(must=[*indexed])
    one_place = edge.NestedCondition(PLACES, edge.Filter(must=[*conditions("metadata")]))
    return edge.Filter(must=[*indexed, one_place])


def _beside(places: Sequence[Place], near: int) -> qdrant_edge.Filter:
    """Chunks of which one place stands just before or behind one of `places`."""
    import qdrant_edge as edge

    def standing(place: Place, key: str, reach: edge.RangeFloat) -> qdrant_edge.NestedCondition:
        same_file = edge.FieldCondition(key="source", match=edge.MatchValue(place.source))
        return edge.NestedCondition(PLACES, edge.Filter(must=[same_file, edge.FieldCondition(key=key, range=reach)]))

    sources = sorted({place.source for place in places})
    ends = [standing(at, "end", edge.RangeFloat(gte=at.start - near, lte=at.start)) for at in places]
    starts = [standing(at, "start", edge.RangeFloat(gte=at.end, lte=at.end + near)) for at in places]
    by_index = edge.FieldCondition(key=SOURCE, match=edge.MatchAny(sources))
    return edge.Filter(must=[by_index], should=[*ends, *starts])


def _short_hash(*parts: str) -> str:
    # A name that holds the separator could run into its neighbour: two tenants would share a folder.
    told = json.dumps(parts) if any("\0" in part for part in parts) else "\0".join(parts)
    return hashlib.sha256(told.encode(errors="surrogatepass")).hexdigest()[:16]
