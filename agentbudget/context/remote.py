"""A Qdrant server, shared by processes and tenants: every point carries its tenant, and every query asks for it."""

from __future__ import annotations

import os
from collections.abc import Generator, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Final, Self

from agentbudget.context._extra import needs
from agentbudget.context.chunk import Place
from agentbudget.context.embed import Vector
from agentbudget.context.metadata import Where
from agentbudget.context.store import (
    CANDIDATES,
    HELD_FIELDS,
    PLACES,
    Header,
    Held,
    Hit,
    Point,
    Sparse,
    chunk_of,
    dense_of,
    header_id,
    held_of,
    payload,
    placed,
)
from agentbudget.errors import IndexFault, IndexMismatch
from agentbudget.privacy import Destination

if TYPE_CHECKING:
    from qdrant_client import QdrantClient
    from qdrant_client.conversions.common_types import PointId
    from qdrant_client.http import models

_PAGE: Final = 1000
_TIMEOUT_S: Final = 30


class RemoteStore:
    """One tenant's points in a collection that it may share with others."""

    def __init__(self, client: QdrantClient, *, location: str, collection: str, tenant: str) -> None:
        self._client = client
        self._location = location
        self._collection = collection
        self._tenant = tenant

    @classmethod
    def connect(cls, url: str, *, collection: str, tenant: str, api_key: str | None = None) -> Self:
        """A store at a server. ``api_key`` None reads ``QDRANT_API_KEY``. The first call finds out if it is there."""
        with needs("a Qdrant server"):
            from qdrant_client import QdrantClient
        key = api_key or os.environ.get("QDRANT_API_KEY") or None
        client = QdrantClient(url=url, api_key=key, timeout=_TIMEOUT_S, check_compatibility=False)
        return cls(client, location=url, collection=collection, tenant=tenant)

    @property
    def location(self) -> str:
        """The server's address and the collection."""
        return f"{self._location}/collections/{self._collection}"

    @property
    def destination(self) -> Destination | None:
        """The server, by its address; None for the client's own engine, in memory."""
        served = self._location.startswith(("http://", "https://"))
        return Destination.at(self._location, self._location) if served else None

    @property
    def exclusive(self) -> bool:
        """False: any host may update it."""
        return False

    def header(self) -> Header | None:
        """See `Store.header`."""
        with self._server():
            if not self._client.collection_exists(self._collection):
                return None
            records = self._client.retrieve(self._collection, [header_id(self._tenant)], with_payload=True)
            return (records[0].payload or {}).get("header") if records else None

    def write_header(self, header: Header) -> None:
        """See `Store.write_header`."""
        from qdrant_client.http import models

        point = models.PointStruct(id=header_id(self._tenant), vector={}, payload={"header": dict(header)})
        with self._server():
            self._client.upsert(self._collection, [point], wait=True)

    def create(self, dim: int) -> None:
        """See `Store.create`. Raises `IndexMismatch` if the collection holds vectors of another length."""
        from qdrant_client.http import models

        with self._server():
            if self._client.collection_exists(self._collection):
                self._check_vectors(dim)
                doomed = [*self.held(), header_id(self._tenant)]
                self.delete(doomed)
                return
            self._client.create_collection(
                self._collection,
                vectors_config={"dense": models.VectorParams(size=dim, distance=models.Distance.COSINE)},
                sparse_vectors_config={"bm25": models.SparseVectorParams(modifier=models.Modifier.IDF)},
            )
            self._client.create_payload_index(
                self._collection,
                "tenant",
                models.KeywordIndexParams(type=models.KeywordIndexType.KEYWORD, is_tenant=True),
            )

    def held(self) -> dict[str, Held]:
        """See `Store.held`."""
        found: dict[str, Held] = {}
        offset: PointId | None = None
        with self._server():
            while True:
                records, offset = self._client.scroll(
                    self._collection,
                    scroll_filter=self._ours(),
                    limit=_PAGE,
                    offset=offset,
                    with_payload=HELD_FIELDS,
                )
                found.update((str(record.id), held_of(record.payload or {})) for record in records)
                if offset is None:
                    return found

    def add(self, points: Sequence[Point]) -> None:
        """See `Store.add`."""
        from qdrant_client.http import models

        with self._server():
            self._client.upsert(
                self._collection,
                [
                    models.PointStruct(
                        id=point.id,
                        vector={
                            "dense": point.dense,
                            "bm25": models.SparseVector(indices=point.sparse.indices, values=point.sparse.values),
                        },
                        payload=payload(point, self._tenant),
                    )
                    for point in points
                ],
                wait=True,
            )

    def vectors(self, ids: Sequence[str]) -> dict[str, Vector]:
        """See `Store.vectors`."""
        with self._server():
            records = self._client.retrieve(self._collection, list(ids), with_payload=False, with_vectors=["dense"])
            return {str(record.id): dense_of(record.vector) for record in records}

    def move(self, places: Mapping[str, tuple[Place, ...]]) -> None:
        """See `Store.move`."""
        from qdrant_client.http import models

        operations = [
            models.SetPayloadOperation(set_payload=models.SetPayload(payload=placed(standing), points=[key]))
            for key, standing in places.items()
        ]
        with self._server():
            for first in range(0, len(operations), _PAGE):
                self._client.batch_update_points(self._collection, operations[first : first + _PAGE], wait=True)

    def filterable(self, keys: Sequence[str]) -> None:
        """See `Store.filterable`."""
        from qdrant_client.http import models

        with self._server():
            for path in (f"{PLACES}[].metadata.{key}" for key in keys):
                self._client.create_payload_index(self._collection, path, models.PayloadSchemaType.KEYWORD)

    def delete(self, ids: Sequence[str]) -> None:
        """See `Store.delete`."""
        with self._server():
            for first in range(0, len(ids), _PAGE):
                self._client.delete(self._collection, list(ids[first : first + _PAGE]), wait=True)

    def count(self) -> int:
        """See `Store.count`."""
        with self._server():
            if not self._client.collection_exists(self._collection):
                return 0
            return self._client.count(self._collection, count_filter=self._ours(), exact=True).count

    def search(self, dense: Vector, sparse: Sparse, limit: int, where: Where | None = None) -> list[Hit]:
        """See `Store.search`. A word's rarity is counted within the tenant: others' documents do not shine through."""
        from qdrant_client.http import models

        ours = self._ours()
        wanted = self._standing(where) if where else ours
        each = max(limit, CANDIDATES)
        by_words = models.SparseVector(indices=sparse.indices, values=sparse.values)
        within = models.SearchParams(idf=models.IdfCorpusParams(corpus=ours))
        with self._server():
            answer = self._client.query_points(
                self._collection,
                prefetch=[
                    models.Prefetch(query=dense, using="dense", filter=wanted, limit=each),
                    models.Prefetch(query=by_words, using="bm25", filter=wanted, limit=each, params=within),
                ],
                query=models.FusionQuery(fusion=models.Fusion.DBSF),
                limit=limit,
                with_payload=True,
            )
        return [Hit(chunk_of(point.payload or {}, where), point.score) for point in answer.points]

    def tidy(self, changed: int) -> None:
        """Nothing: the server optimizes by itself."""

    def close(self) -> None:
        """See `Store.close`."""
        self._client.close()

    def _ours(self) -> models.Filter:
        from qdrant_client.http import models

        return models.Filter(must=self._ours_alone())

    def _ours_alone(self) -> list[models.Condition]:
        from qdrant_client.http import models

        return [models.FieldCondition(key="tenant", match=models.MatchValue(value=self._tenant))]

    def _standing(self, where: Where) -> models.Filter:
        """Our chunks of which one place matches all of `where`."""
        from qdrant_client.http import models

        def conditions(path: str) -> list[models.Condition]:
            return [
                models.FieldCondition(key=f"{path}.{key}", match=models.MatchAny(any=list(values)))
                for key, values in where.items()
            ]

        # By the indexes of the keys; that one place has all of several is seen in the payload, which takes its time.
        wanted = [*self._ours_alone(), *conditions(f"{PLACES}[].metadata")]
        if len(where) > 1:
            one_place = models.Nested(key=PLACES, filter=models.Filter(must=conditions("metadata")))
            wanted.append(models.NestedCondition(nested=one_place))
        return models.Filter(must=wanted)

    def _check_vectors(self, dim: int) -> None:
        vectors = self._client.get_collection(self._collection).config.params.vectors
        dense = vectors.get("dense") if isinstance(vectors, dict) else None
        if dense is None or dense.size != dim:
            raise IndexMismatch(
                f"the collection {self._collection} at {self._location} does not hold vectors named 'dense' of {dim} "
                "numbers; name another collection, or delete this one"
            )

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
