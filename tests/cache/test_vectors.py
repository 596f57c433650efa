"""Vectors that were paid for: a hosted model is asked for no text twice, and each hit says what it saved."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import pytest

from agentbudget.cache import Label, Store
from agentbudget.cache.vectors import KeptEmbedder
from agentbudget.context import OpenAIEmbedder, open_index, retrieve
from agentbudget.errors import Mistake
from agentbudget.ledger import Hold, HoldRecord, Ledger
from agentbudget.models.base import Meter, Price
from agentbudget.money import ZERO, Amount, Budget
from agentbudget.paying import paid
from agentbudget.prices import TokenPrice
from agentbudget.usage import Usage
from tests.models.provider_server import ProviderServer, Reply

pytest.importorskip("openai")
PRICE = TokenPrice.custom(input_usd_per_mtok="1", output_usd_per_mtok="0")


def vectors(*texts: str) -> Reply:
    """What the API says to these: a vector that begins with the text's length."""
    data = [{"object": "embedding", "index": i, "embedding": [len(t), 1.0, 0.5, 0.1]} for i, t in enumerate(texts)]
    return Reply.json({"object": "list", "model": "m", "data": data, "usage": {"prompt_tokens": 5, "total_tokens": 5}})


class Purse:
    """An account with room for two calls, and how it pays."""

    def __init__(self) -> None:
        self.ledger = Ledger.open("memory:")
        self.ledger.account("user/42", limit=Budget(usd="1", calls=2))

    def __call__(self, name: str, price: Price, most: Usage) -> AbstractContextManager[Meter]:
        return paid(self.reserve, name=name, price=price, most=most)

    def reserve(self, amount: Amount, meta: Any) -> Hold:
        return self.ledger.reserve(f"e{len(self.ledger.holds())}", amount, accounts=["user/42"], meta=meta)

    @property
    def hits(self) -> list[HoldRecord]:
        return [hold for hold in self.ledger.holds() if hold.detail.get("cached")]


@pytest.fixture
async def server() -> AsyncGenerator[ProviderServer]:
    async with ProviderServer(vectors("one", "three"), vectors("seven"), vectors("one")) as opened:
        yield opened


def kept(server: ProviderServer, store: Store, *, tenant: str = "default") -> KeptEmbedder:
    inner = OpenAIEmbedder(base_url=f"{server.url}/v1", price=PRICE, dim=4)
    return KeptEmbedder(inner, store, tenant=tenant)


async def test_only_what_is_new_is_bought_and_each_text_once(server: ProviderServer) -> None:
    purse, store = Purse(), Store()
    embedder = kept(server, store).paid_by(purse)
    first = await asyncio.to_thread(embedder.embed, ["one", "three", "one"])
    again = await asyncio.to_thread(embedder.embed, ["three", "seven"])
    assert [vector[0] for vector in first] == [3, 5, 3]
    assert [vector[0] for vector in again] == [5, 5]
    assert len(server.received) == 2


async def test_a_hit_is_an_entry_at_0_that_weighs_on_no_limit(server: ProviderServer) -> None:
    purse, store = Purse(), Store()
    embedder = kept(server, store).paid_by(purse)
    await asyncio.to_thread(embedder.embed, ["one", "three"])
    for _ in range(3):
        await asyncio.to_thread(embedder.embed, ["one", "three"])
    assert [(hit.settled, hit.detail["cache"]["kind"]) for hit in purse.hits] == [(ZERO, "embedding")] * 3
    assert purse.hits[0].detail["saved_usd_nano"] == sum(PRICE.cost(Usage(input_tokens=1)) for _ in range(2))
    assert purse.ledger.balance("user/42").posted.calls == 1


async def test_questions_and_passages_are_kept_apart(server: ProviderServer) -> None:
    embedder = kept(server, Store()).paid_by(Purse())
    await asyncio.to_thread(embedder.embed, ["one", "three"])
    assert (await asyncio.to_thread(embedder.embed_query, "one"))[0] == 5  # asked anew
    assert len(server.received) == 2


async def test_tenants_do_not_share_vectors(server: ProviderServer) -> None:
    store = Store()
    await asyncio.to_thread(kept(server, store).paid_by(Purse()).embed, ["one", "three"])
    await asyncio.to_thread(kept(server, store, tenant="other").paid_by(Purse()).embed, ["three"])
    assert len(server.received) == 2


async def test_vectors_that_cannot_be_read_are_bought_anew(
    server: ProviderServer, caplog: pytest.LogCaptureFixture
) -> None:
    store = Store()
    embedder = kept(server, store).paid_by(Purse())
    await asyncio.to_thread(embedder.embed, ["one", "three"])
    keys = [row[0] for row in store._db.execute("SELECT key FROM keys")]  # pyright: ignore[reportPrivateUsage] # to spoil them
    store.put(dict.fromkeys(keys), b"no vector", Label("embedding"), cost_usd_nano=1)
    await asyncio.to_thread(embedder.embed, ["three"])
    assert len(server.received) == 2
    assert "cannot be read" in caplog.text


async def test_without_anybody_who_pays_nothing_is_asked(server: ProviderServer) -> None:
    with pytest.raises(Mistake, match="nobody pays"):
        await asyncio.to_thread(kept(server, Store()).embed, ["one"])
    assert server.received == []


async def test_an_index_that_is_built_again_pays_for_no_vector_again(tmp_path: Path) -> None:
    docs = tmp_path / "docs"
    docs.mkdir()
    (docs / "refunds.md").write_text("# Refunds\n\nAn order can be refunded within 30 days.\n")
    purse, store = Purse(), Store()
    async with ProviderServer(vectors("a passage"), vectors("a question")) as server:
        for place in ("one", "two"):
            async with open_index(tmp_path / place, embedder=kept(server, store)) as index:
                await index.update(docs, pay=purse)
                found = await retrieve(index, "refunds?", tokens=200, pay=purse)
                assert "30 days" in found.text
    assert purse.ledger.balance("user/42").posted.calls == 2
    assert len(purse.hits) == 2
