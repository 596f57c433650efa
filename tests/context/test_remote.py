"""What is particular to a Qdrant server: it may be away, refuse the key, or hold something else."""

from __future__ import annotations

import socket
import threading
import warnings
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from agentbudget.context import collection, open_index
from agentbudget.context.index import DocumentIndex
from agentbudget.context.remote import RemoteStore
from agentbudget.errors import IndexFault, IndexMismatch
from tests.context.conftest import WordEmbedder, Write


class _Refusing(BaseHTTPRequestHandler):
    """Answers as Qdrant does to a missing key, and notes the key that was sent."""

    keys: list[str | None] = []  # noqa: RUF012 one list for the class, as its instances live for one request each

    def do_GET(self) -> None:
        self.keys.append(self.headers.get("api-key"))
        self.send_response(401)
        self.end_headers()
        self.wfile.write(b"Must provide an API key or an Authorization bearer token")

    def log_message(self, format: str, *args: object) -> None:
        pass


@pytest.fixture
def refusing() -> Iterator[str]:
    _Refusing.keys.clear()
    server = ThreadingHTTPServer(("127.0.0.1", 0), _Refusing)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    thread.join()
    server.server_close()


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


async def test_a_server_that_is_away_is_a_fault_that_names_it(write: Write, words: WordEmbedder) -> None:
    url = f"http://127.0.0.1:{_free_port()}"
    async with open_index(url, embedder=words) as index:
        assert index.location == f"{url}/collections/agentbudget"
        with pytest.raises(IndexFault, match=rf"the Qdrant server {url} does not answer"):
            await index.update(write({"a.md": "text"}))


class _Slow(BaseHTTPRequestHandler):
    """Answers when the test is over."""

    over = threading.Event()

    def do_GET(self) -> None:
        self.over.wait(60)

    def log_message(self, format: str, *args: object) -> None:
        pass


@pytest.fixture
def slow() -> Iterator[str]:
    _Slow.over.clear()
    server = ThreadingHTTPServer(("127.0.0.1", 0), _Slow)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}"
    _Slow.over.set()
    server.shutdown()
    thread.join()
    server.server_close()


async def test_a_server_that_is_slow_is_given_up(
    slow: str, write: Write, words: WordEmbedder, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(collection, "_TIMEOUT_S", 1)
    async with open_index(slow, embedder=words) as index:
        with pytest.raises(IndexFault, match=rf"the Qdrant server {slow} does not answer: .*timed out"):
            await index.update(write({"a.md": "text"}))


async def test_a_server_that_refuses_the_key_is_a_fault_that_does_not_show_it(
    refusing: str, words: WordEmbedder, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("QDRANT_API_KEY", "sesame")
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Api key is used with an insecure connection")
        async with open_index(refusing, embedder=words) as index:
            with pytest.raises(IndexFault, match=r"refused \(401 Unauthorized\); .*QDRANT_API_KEY") as caught:
                await index.search("anything")
    assert _Refusing.keys == ["sesame"]
    assert "sesame" not in str(caught.value)


async def test_a_collection_of_other_vectors_is_left_alone(write: Write, words: WordEmbedder) -> None:
    from qdrant_client import QdrantClient
    from qdrant_client.http import models

    client = QdrantClient(":memory:")
    client.create_collection("theirs", vectors_config=models.VectorParams(size=8, distance=models.Distance.DOT))
    store = RemoteStore(client, location="memory", collection="theirs", tenant="t")
    async with DocumentIndex(store, words, tenant="t") as index:
        with pytest.raises(IndexMismatch, match="name another collection"):
            await index.update(write({"a.md": "text"}))


def test_a_rare_word_is_rare_within_the_tenant(words: WordEmbedder) -> None:
    """Word weights must not tell one tenant what the others write about."""
    from qdrant_client import QdrantClient

    client = QdrantClient(":memory:")
    scores = list[float]()
    for others in (0, 20):
        scores.append(_score_beside(client, words, others))
    assert scores[0] == pytest.approx(scores[1])


def _score_beside(client: object, words: WordEmbedder, others: int) -> float:
    """The score of a tenant's chunk in a collection where another tenant has `others` chunks of the same word."""
    from qdrant_client import QdrantClient

    from agentbudget.context.chunk import Chunk, chunk_id
    from agentbudget.context.store import Point, Words, point_id

    assert isinstance(client, QdrantClient)
    bm25 = Words()

    def point(tenant: str, text: str) -> Point:
        chunk = Chunk(chunk_id((), text), "a.md", (), text, 0, len(text), 3)
        return Point(point_id(tenant, chunk.id), chunk, words.embed_query(text), bm25.document(text))

    name = f"c{others}"
    ours = RemoteStore(client, location="memory", collection=name, tenant="ours")
    theirs = RemoteStore(client, location="memory", collection=name, tenant="theirs")
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Payload indexes have no effect in the local Qdrant")
        ours.create(words.dim)
    ours.add([point("ours", text) for text in ("kettle boils", "water is cold", "tea is green")])
    if others:
        theirs.add([point("theirs", f"kettle number {n}") for n in range(others)])
    hits = ours.search(words.embed_query("kettle"), bm25.query("kettle"), 3)
    return next(hit.score for hit in hits if hit.chunk.text == "kettle boils")
