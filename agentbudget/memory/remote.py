"""Memories at a Qdrant server: every point carries its tenant and user, and every request asks for both."""

from __future__ import annotations

import os
from collections.abc import Generator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Final, Self

from agentbudget.context._extra import needs
from agentbudget.context.embed import Vector
from agentbudget.context.store import Sparse
from agentbudget.errors import IndexFault, IndexMismatch
from agentbudget.memory.record import Memory, Owner
from agentbudget.memory.store import Point, payload
from agentbudget.privacy import Destination

if TYPE_CHECKING:
    from qdrant_client import QdrantClient
    from qdrant_client.conversions.common_types import PointId
    from qdrant_client.http import models

COLLECTION: Final = "agentbudget-memories"
_PAGE: Final = 1000
_TIMEOUT_S: Final = 30


class RemoteStores:
    """A collection that all users of all tenants share."""

    def __init__(self, client: QdrantClient, *, location: str, collection: str = COLLECTION) -> None:
        self._client = client
        self._location = location
        self._collection = collection

    @classmethod
    def connect(cls, url: str, *, api_key: str | None = None) -> Self:
        """The memories at a server. ``api_key`` None reads ``QDRANT_API_KEY``. Nothing is sent yet."""
        with needs("a Qdrant server"):
            from qdrant_client import QdrantClient
        key = api_key or os.environ.get("QDRANT_API_KEY") or None
        return cls(QdrantClient(url=url, api_key=key, timeout=_TIMEOUT_S, check_compatibility=False), location=url)

    @property
    def location(self) -> str:
        """The server's address and the collection."""
        return f"{self._location}/collections/{self._collection}"

    @property
    def destination(self) -> Destination:
        """The server."""
        return Destination.at(self._location, self._location)

    @contextmanager
    def open(self, owner: Owner, *, fingerprint: str, dim: int) -> Generator[RemoteStore]:
        """See `Stores.open`."""
        with self._server():
            self._create(dim)
            store = RemoteStore(self._client, self._collection, owner, fingerprint=fingerprint)
            store.check()
            yield store

    def owners(self) -> list[Owner]:
        """See `Stores.owners`."""
        found: set[tuple[str, str]] = set()
        offset: PointId | None = None
        with self._server():
            if not self._client.collection_exists(self._collection):
                return []
            while True:
                records, offset = self._client.scroll(
                    self._collection, limit=_PAGE, offset=offset, with_payload=["tenant", "user"]
                )
                found |= {(record.payload["tenant"], record.payload["user"]) for record in records if record.payload}
                if offset is None:
                    return [Owner(tenant, user) for tenant, user in sorted(found)]

    def destroy(self, owner: Owner) -> None:
        """See `Stores.destroy`."""
        with self._server():
            if self._client.collection_exists(self._collection):
                store = RemoteStore(self._client, self._collection, owner, fingerprint="")
                store.destroy()
                if store.every():
                    raise IndexFault(f"memories of {owner.user!r} are still at {self.location}; try again")

    def close(self) -> None:
        """See `Stores.close`."""
        self._client.close()

    def _create(self, dim: int) -> None:
        from qdrant_client.http import models

        if self._client.collection_exists(self._collection):
            vectors = self._client.get_collection(self._collection).config.params.vectors
            dense = vectors.get("dense") if isinstance(vectors, dict) else None
            if dense is None or dense.size != dim:
                raise IndexMismatch(
                    f"{self.location} does not hold vectors named 'dense' of {dim} numbers; use the embedding model "
                    "that it was made with, or another server"
                )
            return
        self._client.create_collection(
            self._collection,
            vectors_config={"dense": models.VectorParams(size=dim, distance=models.Distance.COSINE)},
            sparse_vectors_config={"bm25": models.SparseVectorParams(modifier=models.Modifier.IDF)},
        )
        keyword = models.KeywordIndexType.KEYWORD
        tenant = models.KeywordIndexParams(type=keyword, is_tenant=True)
        self._client.create_payload_index(self._collection, "tenant", tenant)
        self._client.create_payload_index(self._collection, "user", models.KeywordIndexParams(type=keyword))

    @contextmanager
    def _server(self) -> Generator[None]:
        """Say which server failed, and how."""
        from qdrant_client.common.client_exceptions import QdrantException
        from qdrant_client.http.exceptions import ApiException, UnexpectedResponse

        try:
            yield
        except UnexpectedResponse as error:
            raise IndexFault(
                f"the Qdrant server {self._location} refused ({error.status_code} {error.reason_phrase}); check its "
                "address, version and QDRANT_API_KEY"
            ) from error
        except (ApiException, QdrantException, OSError) as error:
            raise IndexFault(f"the Qdrant server {self._location} does not answer: {error}") from error


class RemoteStore:
    """See `Store`."""

    def __init__(self, client: QdrantClient, collection: str, owner: Owner, *, fingerprint: str) -> None:
        self._client = client
        self._collection = collection
        self._owner = owner
        self._fingerprint = fingerprint

    def check(self) -> None:
        """Raise `IndexMismatch` if this user has vectors of another model."""
        from qdrant_client.http import models

        others = models.FieldCondition(key="embedder", match=models.MatchValue(value=self._fingerprint))
        foreign = models.Filter(must=self._conditions(), must_not=[others])
        if self._client.count(self._collection, count_filter=foreign, exact=True).count:
            raise IndexMismatch(
                f"memories of {self._owner.user!r} have vectors of another model than {self._fingerprint}; use that "
                "model, or export them, forget them and remember them again"
            )

    def put(self, points: Sequence[Point]) -> None:
        """See `Store.put`."""
        from qdrant_client.http import models

        stored = [
            models.PointStruct(
                id=point.memory.id,
                vector={
                    "dense": point.dense,
                    "bm25": models.SparseVector(indices=point.sparse.indices, values=point.sparse.values),
                },
                payload=payload(self._owner, point.memory, self._fingerprint),
            )
            for point in points
        ]
        self._client.upsert(self._collection, stored, wait=True)

    def get(self, ids: Sequence[str]) -> list[Memory]:
        """See `Store.get`."""
        return self._scrolled(self._ours(ids))

    def every(self) -> list[Memory]:
        """See `Store.every`."""
        return self._scrolled(self._ours())

    def nearest(self, dense: Vector, limit: int) -> list[tuple[Memory, float]]:
        """See `Store.nearest`."""
        answer = self._client.query_points(
            self._collection, query=dense, using="dense", query_filter=self._ours(), limit=limit, with_payload=True
        )
        return [(_memory(point), point.score) for point in answer.points]

    def search(self, dense: Vector, sparse: Sparse, limit: int) -> list[Memory]:
        """See `Store.search`. A word's rarity is counted within the user's own: others' do not shine through."""
        from qdrant_client.http import models

        ours = self._ours()
        by_words = models.SparseVector(indices=sparse.indices, values=sparse.values)
        within = models.SearchParams(idf=models.IdfCorpusParams(corpus=ours))
        answer = self._client.query_points(
            self._collection,
            prefetch=[
                models.Prefetch(query=dense, using="dense", filter=ours, limit=limit),
                models.Prefetch(query=by_words, using="bm25", filter=ours, limit=limit, params=within),
            ],
            query=models.FusionQuery(fusion=models.Fusion.DBSF),
            limit=limit,
            with_payload=True,
        )
        return [_memory(point) for point in answer.points]

    def delete(self, ids: Sequence[str]) -> None:
        """See `Store.delete`: the server removes them from its files when it optimizes the segments that have them."""
        from qdrant_client.http import models

        self._client.delete(self._collection, models.FilterSelector(filter=self._ours(ids)), wait=True)

    def destroy(self) -> None:
        """See `Store.destroy`."""
        from qdrant_client.http import models

        self._client.delete(self._collection, models.FilterSelector(filter=self._ours()), wait=True)

    def _scrolled(self, which: models.Filter) -> list[Memory]:
        found: list[Memory] = []
        offset: PointId | None = None
        while True:
            records, offset = self._client.scroll(
                self._collection, scroll_filter=which, limit=_PAGE, offset=offset, with_payload=True
            )
            found += map(_memory, records)
            if offset is None:
                return found

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
