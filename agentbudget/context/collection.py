"""A collection at a Qdrant server, as documents and memories use it: vectors and words, told apart by payload."""

from __future__ import annotations

import os
from collections.abc import Generator, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Final

from agentbudget.context._extra import needs
from agentbudget.context.embed import Vector
from agentbudget.context.store import Sparse
from agentbudget.errors import IndexFault, IndexMismatch
from agentbudget.models.remote import is_loopback
from agentbudget.privacy import Destination

if TYPE_CHECKING:
    from qdrant_client import QdrantClient
    from qdrant_client.conversions.common_types import PointId
    from qdrant_client.http import models

_PAGE: Final = 1000
_TIMEOUT_S: Final = 30


def connect(url: str, api_key: str | None) -> QdrantClient:
    """A client of the server at `url`. ``api_key`` None reads ``QDRANT_API_KEY``. Nothing is sent yet."""
    with needs("a Qdrant server"):
        from qdrant_client import QdrantClient
    key = api_key or os.environ.get("QDRANT_API_KEY") or None
    # Nothing on its way to a server on this machine passes the proxy of the environment, which would read it.
    heeds = not is_loopback(url)
    return QdrantClient(url=url, api_key=key, timeout=_TIMEOUT_S, check_compatibility=False, trust_env=heeds)


class Collection:
    """A collection by name; ``address`` is the server's, for messages and rules."""

    def __init__(self, client: QdrantClient, name: str, *, address: str) -> None:
        self.client = client
        self.name = name
        self._address = address

    @property
    def location(self) -> str:
        """The server's address and the collection."""
        return f"{self._address}/collections/{self.name}"

    @property
    def destination(self) -> Destination | None:
        """The server, by its address; None for the client's own engine, in memory."""
        served = self._address.startswith(("http://", "https://"))
        return Destination.at(self._address, self._address) if served else None

    def exists(self) -> bool:
        """Whether it is there."""
        return self.client.collection_exists(self.name)

    def create(self, dim: int) -> bool:
        """Make it, for vectors of `dim` numbers; False if it is there. Raises `IndexMismatch` if it holds others."""
        from qdrant_client.http import models

        if self.exists():
            self._check(dim)
            return False
        self.client.create_collection(
            self.name,
            vectors_config={"dense": models.VectorParams(size=dim, distance=models.Distance.COSINE)},
            sparse_vectors_config={"bm25": models.SparseVectorParams(modifier=models.Modifier.IDF)},
        )
        tenant = models.KeywordIndexParams(type=models.KeywordIndexType.KEYWORD, is_tenant=True)
        self.client.create_payload_index(self.name, "tenant", tenant)
        return True

    def index(self, key: str) -> None:
        """Make points quick to find by a payload key."""
        from qdrant_client.http import models

        self.client.create_payload_index(self.name, key, models.PayloadSchemaType.KEYWORD)

    def add(self, points: Sequence[models.PointStruct]) -> None:
        """Add points, or replace those of the same id."""
        self.client.upsert(self.name, list(points), wait=True)

    def records(
        self, which: models.Filter | None = None, *, payload: bool | Sequence[str] = True
    ) -> Iterator[models.Record]:
        """Every point that `which` matches, a page at a time."""
        offset: PointId | None = None
        while True:
            records, offset = self.client.scroll(
                self.name,
                scroll_filter=which,
                limit=_PAGE,
                offset=offset,
                with_payload=payload if isinstance(payload, bool) else list(payload),
            )
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
        which: models.Filter,
        corpus: models.Filter,
        among: int = 0,
        diversity: float = 0.0,
    ) -> list[models.ScoredPoint]:
        """The `limit` best of `which` by meaning and by words: `each` of both, fused by the spread of their scores.

        A word's rarity is counted within `corpus`: what others have does not shine through. With ``diversity`` those of
        the best ``among`` that are each unlike those before it: maximal marginal relevance.
        """
        from qdrant_client.http import models

        by_words = models.SparseVector(indices=sparse.indices, values=sparse.values)
        rarity = models.SearchParams(idf=models.IdfCorpusParams(corpus=corpus))
        both = [
            models.Prefetch(query=dense, using="dense", filter=which, limit=each),
            models.Prefetch(query=by_words, using="bm25", filter=which, limit=each, params=rarity),
        ]
        fused = models.FusionQuery(fusion=models.Fusion.DBSF)
        if diversity:
            unlike = models.Mmr(diversity=diversity, candidates_limit=among)
            answer = self.client.query_points(
                self.name,
                prefetch=models.Prefetch(prefetch=both, query=fused, limit=among),
                query=models.NearestQuery(nearest=dense, mmr=unlike),
                using="dense",
                limit=limit,
                with_payload=True,
            )
        else:
            answer = self.client.query_points(self.name, prefetch=both, query=fused, limit=limit, with_payload=True)
        return answer.points

    @contextmanager
    def guarded(self) -> Generator[None]:
        """Say which server failed, and how, as `IndexFault`."""
        from qdrant_client.common.client_exceptions import QdrantException
        from qdrant_client.http.exceptions import ApiException, UnexpectedResponse

        try:
            yield
        except UnexpectedResponse as error:
            raise IndexFault(
                f"the Qdrant server {self._address} refused ({error.status_code} {error.reason_phrase}); check its "
                "address, version and QDRANT_API_KEY"
            ) from error
        except (ApiException, QdrantException, OSError) as error:
            raise IndexFault(f"the Qdrant server {self._address} does not answer: {error}") from error

    def _check(self, dim: int) -> None:
        vectors = self.client.get_collection(self.name).config.params.vectors
        dense = vectors.get("dense") if isinstance(vectors, dict) else None
        if dense is None or dense.size != dim:
            raise IndexMismatch(
                f"{self.location} does not hold vectors named 'dense' of {dim} numbers; use the embedding model that "
                "it was made with, name another collection or server, or delete this one"
            )


def point(key: str, dense: Vector, sparse: Sparse, payload: dict[str, Any]) -> models.PointStruct:
    """A point as a collection takes it."""
    from qdrant_client.http import models

    words = models.SparseVector(indices=sparse.indices, values=sparse.values)
    return models.PointStruct(id=key, vector={"dense": dense, "bm25": words}, payload=payload)
