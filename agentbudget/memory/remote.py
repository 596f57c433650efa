"""Memories at a Qdrant server: every point carries its tenant and user, and every request asks for both."""

from __future__ import annotations

from collections.abc import Generator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Final, Self

from agentbudget.context.collection import Collection, connect
from agentbudget.context.collection import point as stored
from agentbudget.context.embed import Vector
from agentbudget.context.store import Sparse
from agentbudget.errors import IndexFault, IndexMismatch
from agentbudget.memory.record import Memory, Owner
from agentbudget.memory.store import Point, payload
from agentbudget.privacy import Destination

if TYPE_CHECKING:
    from qdrant_client import QdrantClient
    from qdrant_client.http import models

COLLECTION: Final = "agentbudget-memories"


class RemoteStores:
    """A collection that all users of all tenants share."""

    def __init__(self, client: QdrantClient, *, location: str, collection: str = COLLECTION) -> None:
        self._points = Collection(client, collection, address=location)

    @classmethod
    def connect(cls, url: str, *, api_key: str | None = None) -> Self:
        """The memories at a server. ``api_key`` None reads ``QDRANT_API_KEY``. Nothing is sent yet."""
        return cls(connect(url, api_key), location=url)

    @property
    def location(self) -> str:
        """The server's address and the collection."""
        return self._points.location

    @property
    def destination(self) -> Destination | None:
        """The server; None for the client's own engine, in memory."""
        return self._points.destination

    @contextmanager
    def open(self, owner: Owner, *, fingerprint: str, dim: int) -> Generator[RemoteStore]:
        """See `Stores.open`."""
        with self._points.guarded():
            if self._points.create(dim):
                self._points.index("user")
            store = RemoteStore(self._points, owner, fingerprint=fingerprint)
            store.check()
            yield store

    def owners(self) -> list[Owner]:
        """See `Stores.owners`."""
        with self._points.guarded():
            if not self._points.exists():
                return []
            records = self._points.records(payload=["tenant", "user"])
            found = {(record.payload["tenant"], record.payload["user"]) for record in records if record.payload}
        return [Owner(tenant, user) for tenant, user in sorted(found)]

    def destroy(self, owner: Owner) -> None:
        """See `Stores.destroy`."""
        with self._points.guarded():
            if self._points.exists():
                store = RemoteStore(self._points, owner, fingerprint="")
                store.destroy()
                if store.every():
                    raise IndexFault(f"memories of {owner.user!r} are still at {self.location}; try again")

    def close(self) -> None:
        """See `Stores.close`."""
        self._points.client.close()


class RemoteStore:
    """See `Store`."""

    def __init__(self, points: Collection, owner: Owner, *, fingerprint: str) -> None:
        self._points = points
        self._owner = owner
        self._fingerprint = fingerprint

    def check(self) -> None:
        """Raise `IndexMismatch` if this user has vectors of another model."""
        from qdrant_client.http import models

        others = models.FieldCondition(key="embedder", match=models.MatchValue(value=self._fingerprint))
        foreign = models.Filter(must=self._conditions(), must_not=[others])
        if self._points.client.count(self._points.name, count_filter=foreign, exact=True).count:
            raise IndexMismatch(
                f"memories of {self._owner.user!r} have vectors of another model than {self._fingerprint}; use that "
                "model, or export them, forget them and remember them again"
            )

    def put(self, points: Sequence[Point]) -> None:
        """See `Store.put`."""
        self._points.add(
            [
                stored(
                    point.memory.id, point.dense, point.sparse, payload(self._owner, point.memory, self._fingerprint)
                )
                for point in points
            ]
        )

    def get(self, ids: Sequence[str]) -> list[Memory]:
        """See `Store.get`."""
        return [*map(_memory, self._points.records(self._ours(ids)))]

    def every(self) -> list[Memory]:
        """See `Store.every`."""
        return [*map(_memory, self._points.records(self._ours()))]

    def nearest(self, dense: Vector, limit: int) -> list[tuple[Memory, float]]:
        """See `Store.nearest`."""
        answer = self._points.client.query_points(
            self._points.name, query=dense, using="dense", query_filter=self._ours(), limit=limit, with_payload=True
        )
        return [(_memory(point), point.score) for point in answer.points]

    def search(self, dense: Vector, sparse: Sparse, limit: int) -> list[Memory]:
        """See `Store.search`. A word's rarity is counted within the user's own."""
        ours = self._ours()
        found = self._points.hybrid(dense, sparse, limit=limit, each=limit, which=ours, corpus=ours)
        return [_memory(point) for point in found]

    def delete(self, ids: Sequence[str]) -> None:
        """See `Store.delete`: the server removes them from its files when it optimizes the segments that have them."""
        from qdrant_client.http import models

        self._points.client.delete(self._points.name, models.FilterSelector(filter=self._ours(ids)), wait=True)

    def destroy(self) -> None:
        """See `Store.destroy`."""
        from qdrant_client.http import models

        self._points.client.delete(self._points.name, models.FilterSelector(filter=self._ours()), wait=True)

    def _conditions(self) -> list[Any]:
        from qdrant_client.http import models

        told = (("tenant", self._owner.tenant), ("user", self._owner.user))
        return [models.FieldCondition(key=key, match=models.MatchValue(value=value)) for key, value in told]

    def _ours(self, ids: Sequence[str] | None = None) -> models.Filter:
        from qdrant_client.http import models

        named = [] if ids is None else [models.HasIdCondition(has_id=list(ids))]
        return models.Filter(must=[*self._conditions(), *named])


def _memory(point: models.Record | models.ScoredPoint) -> Memory:
    return Memory.from_dict((point.payload or {}).get("memory") or {})
