from __future__ import annotations

import warnings
from collections.abc import Iterator
from pathlib import Path

import pytest

from agentbudget.memory import Memories, Owner, Source
from agentbudget.memory.edge import EdgeStores
from agentbudget.memory.remote import RemoteStores
from agentbudget.memory.store import Stores
from agentbudget.testing import ManualClock
from tests.context.conftest import WordEmbedder

MIA = Owner("acme", "mia")
TOM = Owner("acme", "tom")


def said(text: str = "", *, at_ns: int = 1_700_000_000 * 10**9) -> Source:
    return Source("run-1", "run-1/ask.1", at_ns, text)


@pytest.fixture(params=["edge", "remote"])
def stores(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Stores]:
    """Both engines: Qdrant's own in this process, and the client of its server on the client's in-memory mode."""
    if request.param == "edge":
        pytest.importorskip("qdrant_edge")
        yield EdgeStores(tmp_path / "memories")
        return
    qdrant_client = pytest.importorskip("qdrant_client")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the in-memory mode says that it has no payload indexes
        client = qdrant_client.QdrantClient(":memory:")
        yield RemoteStores(client, location="http://memory")
        client.close()


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock()


@pytest.fixture
def memories(stores: Stores, clock: ManualClock) -> Memories:
    return Memories(lambda: stores, WordEmbedder(), clock=clock)
