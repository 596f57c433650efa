"""Memories in this process: Qdrant's own engine, in a folder for each user, so that what is deleted is a file less."""

from __future__ import annotations

import fcntl
import json
import shutil
import time
from collections.abc import Generator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, cast

from agentbudget.context.embed import Vector
from agentbudget.context.shard import Shard
from agentbudget.context.shard import point as stored
from agentbudget.context.store import Sparse
from agentbudget.errors import IndexBusy, IndexFault, IndexMismatch
from agentbudget.memory.record import Memory, Owner
from agentbudget.memory.store import FORMAT, Point, payload

if TYPE_CHECKING:
    from qdrant_edge import Record, ScoredPoint

WAIT_S: Final = 10.0
"""How long a process waits for another that has the same user's memories open: it does for moments only."""

_LOOK_S: Final = 0.02


class EdgeStores:
    """A folder of users' folders: ``<key>/header.json`` and ``<key>/shard``, each with a lock beside it."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder.expanduser()

    @property
    def location(self) -> str:
        """The folder."""
        return str(self._folder)

    @property
    def destination(self) -> None:
        """Nowhere: they stay in this process."""

    @contextmanager
    def open(self, owner: Owner, *, fingerprint: str, dim: int) -> Generator[EdgeStore]:
        """See `Stores.open`."""
        with self._alone(owner):
            store = EdgeStore(self._folder / owner.key, owner, fingerprint=fingerprint, dim=dim)
            try:
                store.check()
                yield store
            finally:
                store.close()

    def owners(self) -> list[Owner]:
        """See `Stores.owners`."""
        found: list[dict[str, str]] = []
        for path in self._folder.glob("*/header.json"):
            try:
                found.append(_header(path))
            except IndexFault as error:
                if not isinstance(error.__cause__, FileNotFoundError):  # else it has just been forgotten elsewhere
                    raise
        return sorted(
            (Owner(one["tenant"], one["user"]) for one in found), key=lambda owner: (owner.tenant, owner.user)
        )

    def destroy(self, owner: Owner) -> None:
        """See `Stores.destroy`."""
        with self._alone(owner):
            _remove(self._folder / owner.key)

    def close(self) -> None:
        """Nothing: each use lets go by itself."""

    @contextmanager
    def _alone(self, owner: Owner) -> Generator[None]:
        """While nobody else has this user's memories open. The lock lies beside the folder, which may come and go."""
        locks = self._folder / "locks"
        try:
            locks.mkdir(parents=True, exist_ok=True)
            lock = (locks / owner.key).open("a")
        except OSError as error:
            raise IndexFault(f"the memories {self.location} cannot be opened: {error.strerror or error}") from error
        with lock:
            until = time.monotonic() + WAIT_S
            while not _is_locked(lock.fileno()):
                if time.monotonic() > until:
                    raise IndexBusy(
                        f"the memories of this user in {self.location} have been open in another process for "
                        f"{WAIT_S:.0f} s; end it, or use a Qdrant server (AGENTBUDGET_QDRANT_URL)"
                    )
                time.sleep(_LOOK_S)
            yield


class EdgeStore:
    """See `Store`. The folder comes into being with the first memory, and goes with the last."""

    def __init__(self, folder: Path, owner: Owner, *, fingerprint: str, dim: int) -> None:
        self._folder = folder
        self._owner = owner
        self._fingerprint = fingerprint
        self._dim = dim
        self._shard = self._shard_at(folder / "shard")

    def check(self) -> None:
        """Finish what a crash left half done. Raises `IndexMismatch` for vectors of another model."""
        new, old = self._folder / "shard.new", self._folder / "shard.old"
        try:
            if old.exists() and not self._shard.path.exists():  # `_rewrite` was cut short between its two moves
                new.rename(self._shard.path)
            for left in (new, old):
                if left.exists():
                    shutil.rmtree(left)
        except OSError as error:
            raise _undeletable(self._folder, error) from error
        header = self._folder / "header.json"
        if not header.exists():
            return
        made_by = _header(header)["embedder"]
        if made_by != self._fingerprint:
            raise IndexMismatch(
                f"the memories of {self._owner.user!r} have vectors of {made_by}, and are asked for with those of "
                f"{self._fingerprint}; use that model, or export them, forget them and remember them again"
            )

    def put(self, points: Sequence[Point]) -> None:
        """See `Store.put`."""
        with self._shard.guarded("written"):
            self._make()
            self._shard.add(
                stored(
                    point.memory.id, point.dense, point.sparse, payload(self._owner, point.memory, self._fingerprint)
                )
                for point in points
            )
            self._shard.engine.flush()

    def _make(self) -> None:
        """The folder's two parts, where they are not there yet. The header comes first, and each is whole or not there:
        what has no header is nobody's, and would be found by no one who wants to forget it.
        """
        header = self._folder / "header.json"
        if not header.exists():
            told = {"format": FORMAT, "tenant": self._owner.tenant, "user": self._owner.user}
            draft = header.with_suffix(".draft")
            self._folder.mkdir(parents=True, exist_ok=True)
            draft.write_text(json.dumps(told | {"embedder": self._fingerprint, "dim": self._dim}), encoding="utf-8")
            draft.replace(header)
        if not self._shard.path.exists():
            new = self._shard_at(self._folder / "shard.new")
            new.create(self._dim)
            new.close()
            new.path.rename(self._shard.path)

    def get(self, ids: Sequence[str]) -> list[Memory]:
        """See `Store.get`."""
        if not self._shard.path.exists():
            return []
        with self._shard.guarded("read"):
            return [
                _memory(record)
                for record in self._shard.engine.retrieve(list(ids), with_payload=True, with_vector=False)
            ]

    def every(self) -> list[Memory]:
        """See `Store.every`."""
        return [_memory(record) for record in self._records(vectors=False)]

    def nearest(self, dense: Vector, limit: int) -> list[tuple[Memory, float]]:
        """See `Store.nearest`."""
        import qdrant_edge as edge

        if not self._shard.path.exists():
            return []
        query = edge.Query.Nearest(dense, using="dense")
        with self._shard.guarded("searched"):
            found = self._shard.engine.query(edge.QueryRequest(limit=limit, query=query, with_payload=True))
            return [(_memory(point), point.score) for point in found]

    def search(self, dense: Vector, sparse: Sparse, limit: int) -> list[Memory]:
        """See `Store.search`."""
        if not self._shard.path.exists():
            return []
        with self._shard.guarded("searched"):
            return [_memory(point) for point in self._shard.hybrid(dense, sparse, limit=limit, each=limit)]

    def delete(self, ids: Sequence[str]) -> None:
        """See `Store.delete`: the engine's files are written anew without them, and the old ones removed."""
        gone = set(ids)
        kept = [record for record in self._records(vectors=True) if str(record.id) not in gone]
        if kept:
            self._rewrite(kept)
        else:
            self.destroy()

    def destroy(self) -> None:
        """See `Store.destroy`."""
        self.close()
        _remove(self._folder)

    def close(self) -> None:
        """Let go of the files."""
        self._shard.close()

    def _shard_at(self, path: Path) -> Shard:
        user = self._owner.user
        mend = f"if they are damaged forget them: agentbudget memory forget --user {user} --all"
        return Shard(path, what=f"the memories of {user!r}", mend=mend)

    def _records(self, *, vectors: bool) -> list[Record]:
        if not self._shard.path.exists():
            return []
        with self._shard.guarded("read"):
            return list(self._shard.records(payload=True, vectors=vectors))

    def _rewrite(self, kept: Sequence[Record]) -> None:
        """Put a shard with only these in the place of the old one: whole before, whole after, also after a crash."""
        import qdrant_edge as edge

        new, old = self._shard_at(self._folder / "shard.new"), self._folder / "shard.old"
        with self._shard.guarded("written"):
            new.create(self._dim)
            new.add(edge.Point(record.id, cast("Any", record.vector), record.payload or {}) for record in kept)
            new.engine.flush()
            new.close()
            self._shard.close()
            self._shard.path.rename(old)
            new.path.rename(self._shard.path)
            shutil.rmtree(old)


def _memory(record: Record | ScoredPoint) -> Memory:
    return Memory.from_dict((record.payload or {}).get("memory") or {})


def _header(path: Path) -> dict[str, str]:
    try:
        told: object = json.loads(path.read_text(encoding="utf-8"))
        if not isinstance(told, dict) or not {"tenant", "user", "embedder"} <= cast("dict[str, str]", told).keys():
            raise ValueError("it does not say whose they are")
    except (OSError, ValueError) as error:
        raise IndexFault(
            f"the memories in {path.parent} cannot be read ({error}); check the disk, and if they are damaged delete "
            "that folder"
        ) from error
    return cast("dict[str, str]", told)


def _remove(folder: Path) -> None:
    """Delete a folder, its header last: what is left by a crash is still found by its owner. Raises `IndexFault`."""
    try:
        for part in folder.glob("shard*"):
            shutil.rmtree(part)
        if folder.exists():
            shutil.rmtree(folder)
    except OSError as error:
        raise _undeletable(folder, error) from error


def _undeletable(folder: Path, error: OSError) -> IndexFault:
    return IndexFault(
        f"what is in {folder} cannot be deleted ({error}), so it is not forgotten yet: see who may write there, and "
        "try again"
    )


def _is_locked(descriptor: int) -> bool:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True
