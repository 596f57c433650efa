"""A Qdrant server, shared by processes and tenants: every point carries its tenant, and every query asks for it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Final, Self

from agentbudget.context.chunk import Chunk, Place
from agentbudget.context.collection import Collection, connect
from agentbudget.context.collection import point as stored
from agentbudget.context.embed import Vector
from agentbudget.context.metadata import Where
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
    header_id,
    held_of,
    payload,
    placed,
    quick_fields,
    reach,
)
from agentbudget.privacy import Destination

if TYPE_CHECKING:
    from qdrant_client import QdrantClient
    from qdrant_client.http import models

_PAGE: Final = 1000


class RemoteStore:
    """One tenant's points in a collection that it may share with others."""

    def __init__(self, client: QdrantClient, *, location: str, collection: str, tenant: str) -> None:
        self._points = Collection(client, collection, address=location)
        self._tenant = tenant

    @classmethod
    def connect(cls, url: str, *, collection: str, tenant: str, api_key: str | None = None) -> Self:
        """A store at a server. ``api_key`` None reads ``QDRANT_API_KEY``. The first call finds out if it is there."""
        return cls(connect(url, api_key), location=url, collection=collection, tenant=tenant)

    @property
    def location(self) -> str:
        """The server's address and the collection."""
        return self._points.location

    @property
    def destination(self) -> Destination | None:
        """The server, by its address; None for the client's own engine, in memory."""
        return self._points.destination

    @property
    def exclusive(self) -> bool:
        """False: any host may update it."""
        return False

    def header(self) -> Header | None:
        """See `Store.header`."""
        with self._points.guarded():
            if not self._points.exists():
                return None
            records = self._points.client.retrieve(self._points.name, [header_id(self._tenant)], with_payload=True)
            return (records[0].payload or {}).get("header") if records else None

    def write_header(self, header: Header) -> None:
        """See `Store.write_header`."""
        from qdrant_client.http import models

        point = models.PointStruct(id=header_id(self._tenant), vector={}, payload={"header": dict(header)})
        with self._points.guarded():
            self._points.add([point])

    def create(self, dim: int) -> None:
        """See `Store.create`. Raises `IndexMismatch` if the collection holds vectors of another length."""
        with self._points.guarded():
            if not self._points.create(dim):
                self.delete([*self.held(), header_id(self._tenant)])

    def held(self) -> dict[str, Held]:
        """See `Store.held`."""
        with self._points.guarded():
            records = self._points.records(self._ours(), payload=HELD_FIELDS)
            return {str(record.id): held_of(record.payload or {}) for record in records}

    def add(self, points: Sequence[Point]) -> None:
        """See `Store.add`."""
        made = [stored(point.id, point.dense, point.sparse, payload(point, self._tenant)) for point in points]
        with self._points.guarded():
            self._points.add(made)

    def vectors(self, ids: Sequence[str]) -> dict[str, Vector]:
        """See `Store.vectors`."""
        with self._points.guarded():
            records = self._points.client.retrieve(
                self._points.name, list(ids), with_payload=False, with_vectors=["dense"]
            )
            return {str(record.id): dense_of(record.vector) for record in records}

    def move(self, places: Mapping[str, tuple[Place, ...]]) -> None:
        """See `Store.move`."""
        from qdrant_client.http import models

        operations = [
            models.SetPayloadOperation(set_payload=models.SetPayload(payload=placed(standing), points=[key]))
            for key, standing in places.items()
        ]
        with self._points.guarded():
            for first in range(0, len(operations), _PAGE):
                self._points.client.batch_update_points(self._points.name, operations[first : first + _PAGE], wait=True)

    def filterable(self, keys: Sequence[str]) -> None:
        """See `Store.filterable`."""
        with self._points.guarded():
            for path in quick_fields(keys):
                self._points.index(path)

    def delete(self, ids: Sequence[str]) -> None:
        """See `Store.delete`."""
        with self._points.guarded():
            for first in range(0, len(ids), _PAGE):
                self._points.client.delete(self._points.name, list(ids[first : first + _PAGE]), wait=True)

    def count(self) -> int:
        """See `Store.count`."""
        with self._points.guarded():
            if not self._points.exists():
                return 0
            return self._points.client.count(self._points.name, count_filter=self._ours(), exact=True).count

    def search(
        self, dense: Vector, sparse: Sparse, limit: int, where: Where | None = None, *, diversity: float = 0.0
    ) -> list[Hit]:
        """See `Store.search`. A word's rarity is counted within the tenant."""
        ours, (among, each) = self._ours(), reach(limit, diversity)
        which = self._standing(where) if where else ours
        with self._points.guarded():
            found = self._points.hybrid(
                dense, sparse, limit=limit, among=among, each=each, which=which, corpus=ours, diversity=diversity
            )
        return [Hit(chunk_of(point.payload or {}, where), point.score) for point in found]

    def beside(self, places: Sequence[Place], near: int) -> list[Chunk]:
        """See `Store.beside`."""
        with self._points.guarded():
            records, _ = self._points.client.scroll(
                self._points.name, scroll_filter=self._beside(places, near), limit=_PAGE, with_payload=True
            )
            return [chunk_of(record.payload or {}) for record in records]

    def tidy(self, changed: int) -> None:
        """Nothing: the server optimizes by itself."""

    def close(self) -> None:
        """See `Store.close`."""
        self._points.client.close()

    def _ours(self) -> models.Filter:
        from qdrant_client.http import models

        return models.Filter(must=self._ours_alone())

    def _ours_alone(self) -> list[models.Condition]:
        from qdrant_client.http import models

        return [models.FieldCondition(key="tenant", match=models.MatchValue(value=self._tenant))]

    def _beside(self, places: Sequence[Place], near: int) -> models.Filter:
        """Our chunks of which one place stands just before or behind one of `places`."""
        from qdrant_client.http import models

        def standing(place: Place, key: str, reach: models.Range) -> models.NestedCondition:
            same_file = models.FieldCondition(key="source", match=models.MatchValue(value=place.source))
            within = models.Filter(must=[same_file, models.FieldCondition(key=key, range=reach)])
            return models.NestedCondition(nested=models.Nested(key=PLACES, filter=within))

        sources = sorted({place.source for place in places})
        ends = [standing(at, "end", models.Range(gte=at.start - near, lte=at.start)) for at in places]
        starts = [standing(at, "start", models.Range(gte=at.end, lte=at.end + near)) for at in places]
        by_index = models.FieldCondition(key=SOURCE, match=models.MatchAny(any=sources))
        return models.Filter(must=[*self._ours_alone(), by_index], should=[*ends, *starts])

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
