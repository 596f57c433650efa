"""A hosted embedding model: counted, paid for in batches, tried again with a hold for each try."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any, NotRequired, TypedDict

import pytest
from langgraph.graph import END, START, StateGraph
from langgraph.runtime import Runtime

from agentbudget import Agent, Budget, Context, skill
from agentbudget.context import OpenAIEmbedder, hosted, open_index, retrieve
from agentbudget.errors import (
    BudgetExceeded,
    ContextTooLong,
    InvalidOutput,
    Mistake,
    OutcomeUnknown,
    RateLimited,
    UnknownModel,
)
from agentbudget.ledger import Hold, Ledger
from agentbudget.models.base import Meter, Price
from agentbudget.money import Amount
from agentbudget.paying import paid
from agentbudget.prices import TokenPrice
from agentbudget.testing import ScriptedModel
from agentbudget.usage import Usage
from tests.models.provider_server import ProviderServer, Reply

pytest.importorskip("openai")
PRICE = TokenPrice.custom(input_usd_per_mtok="1", output_usd_per_mtok="0")


def vectors(texts: int, *, tokens: int | None = 5) -> Reply:
    data = [{"object": "embedding", "index": i, "embedding": [float(i), 1.0, 0.5, 0.25]} for i in range(texts)]
    usage = {} if tokens is None else {"usage": {"prompt_tokens": tokens, "total_tokens": tokens}}
    return Reply.json({"object": "list", "model": "text-embedding-3-small", "data": data, **usage})


class Purse:
    """An account, and how it pays."""

    def __init__(self, usd: str = "1") -> None:
        self.ledger = Ledger.open("memory:")
        self.ledger.account("user/42", limit=Budget(usd=usd))

    def reserve(self, amount: Amount, meta: Any) -> Hold:
        return self.ledger.reserve(f"embed-{len(self.ledger.holds())}", amount, accounts=["user/42"], meta=meta)

    def __call__(self, name: str, price: Price, most: Usage) -> AbstractContextManager[Meter]:
        return paid(self.reserve, name=name, price=price, most=most)

    @property
    def posted(self) -> Amount:
        return self.ledger.balance("user/42").posted


async def embedded(replies: Sequence[Reply], texts: Sequence[str], purse: Purse, **options: Any) -> list[list[float]]:
    async with ProviderServer(*replies) as server:
        embedder = OpenAIEmbedder(base_url=f"{server.url}/v1", price=PRICE, dim=4, **options).paid_by(purse)
        return await asyncio.to_thread(embedder.embed, texts)


async def test_vectors_are_settled_at_what_the_api_says() -> None:
    purse = Purse()
    assert len(await embedded([vectors(2)], ["one two", "three"], purse)) == 2
    assert purse.posted == Amount(5_000, 5, 1)


async def test_an_api_that_does_not_say_is_presumed_spent() -> None:
    purse = Purse()
    await embedded([vectors(1, tokens=None)], ["one two"], purse)
    assert purse.ledger.holds()[0].presumed


@pytest.mark.parametrize("usage", [{"prompt_tokens": 0}, {"prompt_tokens": None}, {"total_tokens": 4}, {}])
async def test_a_server_that_does_not_count_is_presumed_spent(usage: dict[str, int | None]) -> None:
    purse = Purse()
    told = json.loads(vectors(2).body) | {"usage": usage}
    assert len(await embedded([Reply.json(told)], ["one two", "three"], purse)) == 2
    (hold,) = purse.ledger.holds()
    assert (hold.presumed, hold.settled) == (True, hold.amount)
    assert purse.posted.usd_nano > 0


async def test_vectors_of_another_length_are_no_answer_and_billed() -> None:
    purse = Purse()
    told = json.loads(vectors(1).body)
    told["data"][0]["embedding"] = [1.0, 2.0]
    with pytest.raises(InvalidOutput, match=r"vectors of 2 numbers, not of 4: pass dim=2"):
        await embedded([Reply.json(told)], ["one"], purse)
    assert purse.posted == Amount(5_000, 5, 1)


async def test_texts_that_do_not_fit_the_budget_are_not_sent() -> None:
    async with ProviderServer() as server:
        embedder = OpenAIEmbedder(base_url=f"{server.url}/v1", price=PRICE, dim=4).paid_by(Purse("0.000001"))
        with pytest.raises(BudgetExceeded):
            await asyncio.to_thread(embedder.embed, ["one two three"])
        assert server.received == []


async def test_nobody_pays_nobody_embeds() -> None:
    with pytest.raises(Mistake, match="nobody pays"):
        OpenAIEmbedder(api_key="none").embed(["one"])


async def test_many_texts_go_in_batches(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hosted, "BATCH_TEXTS", 2)
    purse = Purse()
    assert len(await embedded([vectors(2), vectors(1)], ["a", "b", "c"], purse)) == 3
    assert purse.posted.calls == 2


async def test_a_refusal_that_passes_is_tried_again_on_a_hold_of_its_own() -> None:
    purse = Purse()
    busy = Reply.json({"error": {"message": "slow down"}}, 429, retry_after_ms="1")
    await embedded([busy, vectors(1)], ["one"], purse)
    assert [hold.settled for hold in purse.ledger.holds()] == [Amount(0, 0, 1), Amount(5_000, 5, 1)]


async def test_a_refusal_until_tomorrow_is_not_waited_for() -> None:
    purse = Purse()
    with pytest.raises(RateLimited):
        await embedded([Reply.json({"error": {"message": "slow down"}}, 429, retry_after="86400")], ["one"], purse)
    assert purse.posted == Amount(0, 0, 1)


async def test_it_gives_up_after_three_tries() -> None:
    purse = Purse()
    busy = Reply.json({"error": {"message": "slow down"}}, 429, retry_after_ms="1")
    with pytest.raises(RateLimited):
        await embedded([busy] * 3, ["one"], purse)
    assert purse.posted == Amount(0, 0, 3)


async def test_an_answer_that_breaks_off_is_presumed_spent(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hosted, "ATTEMPTS", 1)
    purse = Purse()
    with pytest.raises(OutcomeUnknown):
        await embedded([Reply(vectors(1).body, headers={"content-type": "application/json"}, cut=20)], ["one"], purse)
    (hold,) = purse.ledger.holds()
    assert hold.presumed
    assert hold.settled == hold.amount


def test_a_text_that_is_too_long_is_refused_before_anything_is_sent() -> None:
    embedder = OpenAIEmbedder(api_key="none").paid_by(Purse())
    with pytest.raises(ContextTooLong):
        embedder.embed(["word " * 9_000])


def test_openais_models_are_priced_and_sized() -> None:
    embedder = OpenAIEmbedder("text-embedding-3-large")
    assert embedder.dim == 3072
    assert embedder.price.cost(Usage(1_000_000)) == 130_000_000
    assert embedder.count_tokens("one two three") == 3


def test_a_model_of_unknown_size_is_refused() -> None:
    with pytest.raises(UnknownModel, match="dim"):
        OpenAIEmbedder("some-embedder", price=PRICE)


def folder(path: Path) -> Path:
    path.mkdir()
    (path / "refunds.md").write_text("# Refunds\n\nAn order can be refunded within 30 days.\n")
    return path


async def test_an_index_embeds_and_searches_for_whoever_pays(tmp_path: Path) -> None:
    purse = Purse()
    async with ProviderServer(vectors(1, tokens=9), vectors(1, tokens=3)) as server:
        embedder = OpenAIEmbedder(base_url=f"{server.url}/v1", price=PRICE, dim=4)
        async with open_index(tmp_path / "index", embedder=embedder) as index:
            await index.update(folder(tmp_path / "docs"), pay=purse)
            found = await retrieve(index, "refunds?", tokens=200, pay=purse)
        assert "30 days" in found.text
    assert purse.posted == Amount(12_000, 12, 2)


@skill
async def look_up(ctx: Context, question: str) -> str:
    """Answer from the documents."""
    return (await ctx.retrieve(question, tokens=200)).text


class Task(TypedDict):
    task: str
    output: NotRequired[str]


async def test_an_agents_run_pays_for_embedding_its_documents_and_questions(tmp_path: Path) -> None:
    async def node(state: Task, runtime: Runtime[Context]) -> dict[str, str]:
        return {"output": await look_up(runtime.context, question=state["task"])}

    graph = StateGraph(Task, context_schema=Context)
    graph.add_node("look", node)
    graph.add_edge(START, "look")
    graph.add_edge("look", END)
    async with ProviderServer(vectors(1, tokens=9), vectors(1, tokens=3)) as server:
        embedder = OpenAIEmbedder(base_url=f"{server.url}/v1", price=PRICE, dim=4)
        models = [ScriptedModel([])]
        async with Agent(
            [look_up],
            models=models,
            index=folder(tmp_path / "docs"),
            embedder=embedder,
            graph=graph,
            home=tmp_path / "home",
        ) as agent:
            run = await agent.run("refunds?", budget=Budget(usd="0.10"), user="42")
            held = [hold for hold in agent.ledger.holds() if hold.meta.get("kind") == "embedding"]
    assert [hold.settled for hold in held] == [Amount(9_000, 9, 1), Amount(3_000, 3, 1)]
    assert "30 days" in run.output
