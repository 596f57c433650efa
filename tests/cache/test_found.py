"""Searches that were made before: the same documents, question and tenant cost nothing; anything else is made anew."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncGenerator, Generator, Sequence
from pathlib import Path

import pytest
from qdrant_client import QdrantClient

from agentbudget.cache import Answers, Which
from agentbudget.context import Index, open_index
from agentbudget.context.index import DocumentIndex
from agentbudget.context.remote import RemoteStore
from agentbudget.ledger import HoldRecord, Ledger
from agentbudget.models.ladder import Ladder
from agentbudget.money import ZERO, Budget
from agentbudget.prices import ComputePrice
from agentbudget.skills import skill
from agentbudget.statement import Statement
from agentbudget.step import Context, Engine, Scope
from agentbudget.testing import ScriptedModel

QUESTION = "When are orders refunded?"


class Letters:
    """An embedding model that counts letters, and what it was asked."""

    fingerprint, dim = "letters", 26

    def __init__(self) -> None:
        self.questions: list[str] = []

    def embed(self, texts: Sequence[str]) -> list[list[float]]:
        return [[0.01 + text.lower().count(chr(97 + n)) for n in range(26)] for text in texts]

    def embed_query(self, question: str) -> list[float]:
        if question != "ready":
            self.questions.append(question)
        return self.embed([question])[0]

    def count_tokens(self, text: str) -> int:
        return len(text.split())


@pytest.fixture
def letters() -> Letters:
    return Letters()


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    docs = tmp_path / "docs"
    docs.mkdir()
    (docs / "orders.md").write_text("# Orders\n\nOrders are refunded within thirty days of their arrival.\n")
    (docs / "parcels.md").write_text("# Parcels\n\nA parcel that is lost is sent again.\n")
    return docs


@pytest.fixture
async def index(folder: Path, letters: Letters, tmp_path: Path) -> AsyncGenerator[Index]:
    async with open_index(tmp_path / "index", embedder=letters) as opened:
        await opened.update(folder)
        yield opened


@pytest.fixture
def ledger() -> Generator[Ledger]:
    with Ledger.open("memory:") as opened:
        yield opened


def context(ledger: Ledger, index: Index, *script: str, share: bool = True) -> Context:
    for run in ("r", "q"):
        ledger.account(f"run/{run}", limit=Budget(usd="1"))
    machine = ComputePrice("0.10", 100, 10)  # pyright: ignore[reportArgumentType] # a text is a decimal here
    engine = Engine(ledger, Ladder((ScriptedModel(script),)), Answers(), machine, index=index, share_answers=share)
    return Context(engine, Scope("r"))


def other(ctx: Context, scope: Scope) -> Context:
    return Context(ctx.engine, scope)


def searches(ledger: Ledger) -> list[HoldRecord]:
    return [hold for hold in ledger.holds() if hold.meta.get("kind") == "retrieval"]


async def test_the_same_search_again_costs_nothing_and_says_what_it_saved(
    ledger: Ledger, index: Index, letters: Letters
) -> None:
    ctx = context(ledger, index)
    first = await ctx.retrieve(QUESTION, tokens=200)
    again = await other(ctx, Scope("q")).retrieve(QUESTION, tokens=200)
    assert again == first
    assert letters.questions == [QUESTION]
    bought, hit = searches(ledger)
    assert bought.settled is not None
    assert (hit.settled, hit.detail["saved_usd_nano"]) == (ZERO, bought.settled.usd_nano)
    statement = Statement.of(ledger, "q")
    assert [(one.kind, one.because) for one in statement.reused] == [("retrieval", "exact")]


async def test_a_search_of_two_hops_is_another(ledger: Ledger, index: Index, letters: Letters) -> None:
    ctx = context(ledger, index)
    await ctx.retrieve(QUESTION, tokens=200)
    found = await ctx.retrieve(QUESTION, tokens=200, hops=2)
    assert letters.questions[:2] == [QUESTION, QUESTION]
    assert found.chance is None
    assert [hold.detail["chance"] is None for hold in searches(ledger)] == [False, True]
    assert not any(hold.detail.get("cached") for hold in searches(ledger))


async def test_ten_equal_searches_at_once_are_made_once(ledger: Ledger, index: Index, letters: Letters) -> None:
    ctx = context(ledger, index)
    found = await asyncio.gather(*(ctx.retrieve(QUESTION, tokens=200) for _ in range(10)))
    assert len(letters.questions) == 1
    assert found == [found[0]] * 10


@pytest.mark.filterwarnings("ignore:Payload indexes have no effect in the local Qdrant")
async def test_a_file_that_another_process_read_anew_is_not_marked(
    ledger: Ledger, letters: Letters, folder: Path
) -> None:
    client = QdrantClient(":memory:")
    ours, theirs = (
        DocumentIndex(RemoteStore(client, location="memory", collection="c", tenant="t"), letters, tenant="t")
        for _ in range(2)
    )
    await theirs.update(folder)
    ctx = context(ledger, ours)
    await ctx.retrieve(QUESTION, tokens=200)
    (folder / "orders.md").write_text("# Orders\n\nOrders are refunded within forty-five days of their arrival.\n")
    await theirs.update(folder)
    for _ in ("bought", "found"):
        found = await ctx.retrieve(QUESTION, tokens=200)
        assert "forty-five days" in found.text
        assert not any(passage.stale for passage in found.passages)


async def test_a_file_that_changed_since_it_was_read_is_marked_in_a_hit_too(
    ledger: Ledger, index: Index, letters: Letters, folder: Path
) -> None:
    ctx = context(ledger, index)
    orders = folder / "orders.md"
    before, read_ns = orders.read_bytes(), orders.stat().st_mtime_ns
    assert not any(passage.stale for passage in (await ctx.retrieve(QUESTION, tokens=200)).passages)
    orders.write_text("# Orders\n\nOrders are refunded within ninety days of their arrival.\n")
    found = await ctx.retrieve(QUESTION, tokens=200)
    assert {passage.chunk.source for passage in found.passages if passage.stale} == {"orders.md"}
    orders.write_bytes(before)
    os.utime(orders, ns=(read_ns, read_ns))
    assert not any(passage.stale for passage in (await ctx.retrieve(QUESTION, tokens=200)).passages)
    assert letters.questions == [QUESTION]


async def test_documents_that_changed_are_searched_anew(
    ledger: Ledger, index: Index, letters: Letters, folder: Path
) -> None:
    ctx = context(ledger, index)
    await ctx.retrieve(QUESTION, tokens=200)
    (folder / "orders.md").write_text("# Orders\n\nOrders are refunded within ninety days of their arrival.\n")
    await index.update(folder)
    assert "ninety" in (await ctx.retrieve(QUESTION, tokens=200)).text
    assert len(letters.questions) == 2


async def test_another_allowance_tenant_or_question_is_another_search(
    ledger: Ledger, index: Index, letters: Letters
) -> None:
    ctx = context(ledger, index)
    await ctx.retrieve(QUESTION, tokens=200)
    await ctx.retrieve(QUESTION, tokens=201)
    await ctx.retrieve("And lost parcels?", tokens=200)
    await other(ctx, Scope("r", tenant="acme")).retrieve(QUESTION, tokens=200)
    assert len(letters.questions) == 4


async def test_without_sharing_each_run_searches_for_itself(ledger: Ledger, index: Index, letters: Letters) -> None:
    ctx = context(ledger, index, share=False)
    await ctx.retrieve(QUESTION, tokens=200)
    await ctx.retrieve(QUESTION, tokens=200)
    await other(ctx, Scope("q")).retrieve(QUESTION, tokens=200)
    assert len(letters.questions) == 2


async def test_a_search_that_cannot_be_read_is_made_anew(
    ledger: Ledger, index: Index, letters: Letters, caplog: pytest.LogCaptureFixture
) -> None:
    ctx = context(ledger, index)
    first = await ctx.retrieve(QUESTION, tokens=200)
    (key,) = (row[0] for row in ctx.engine.answers.store._db.execute("SELECT key FROM keys"))  # pyright: ignore[reportPrivateUsage] # to spoil it
    from agentbudget.cache import Label

    ctx.engine.answers.store.put({key: None}, b'{"question": "half a', Label("retrieval"), cost_usd_nano=1)
    assert (await ctx.retrieve(QUESTION, tokens=200)).passages == first.passages
    assert "cannot be read" in caplog.text


@pytest.mark.parametrize("inside", [True, False])
async def test_an_answer_knows_the_documents_it_was_made_of(ledger: Ledger, index: Index, inside: bool) -> None:
    @skill
    async def read(ctx: Context, question: str) -> str:
        """Answer."""
        found = await ctx.retrieve(question, tokens=200)
        return (await ctx.complete(f"In short: {len(found.passages)}")).text

    @skill
    async def told(ctx: Context, passages: str) -> str:
        """Answer."""
        ...

    ctx = context(ledger, index, "within thirty days", "another", "a third")
    if inside:
        await read(ctx, QUESTION)
    else:
        await told(ctx, passages=(await ctx.retrieve(QUESTION, tokens=200)).text)
    await told(ctx, passages="of something else")
    store = ctx.engine.answers.store
    assert store.invalidate(Which(kind="answer", document="orders.md")) == 1
    assert store.invalidate(Which(kind="retrieval", document="orders.md")) == 1
    assert store.invalidate(Which(kind="answer")) == 1


async def test_an_index_is_of_another_version_after_each_change_and_of_none_before_the_first(
    folder: Path, letters: Letters, tmp_path: Path
) -> None:
    async with open_index(tmp_path / "another", embedder=letters) as index:
        assert await index.version() is None
        await index.update(folder)
        first = await index.version()
        await index.update(folder)
        assert await index.version() == first is not None
        (folder / "orders.md").unlink()
        await index.update(folder)
        assert await index.version() not in (first, None)


async def test_a_search_from_the_cache_is_as_confidential_as_it_was(ledger: Ledger, index: Index, folder: Path) -> None:
    (folder / "orders.md").write_text("---\ndata_class: confidential\n---\n# Orders\n\nOrders are refunded by hand.\n")
    await index.update(folder)
    ctx = context(ledger, index)
    await ctx.retrieve(QUESTION, tokens=200)
    again = of_run(ctx, "q")
    await again.retrieve(QUESTION, tokens=200)
    assert [hold.detail["data_class"] for hold in searches(ledger)] == ["confidential"] * 2
    assert again.scope.mark.label.data_class == "confidential"


async def test_no_word_of_what_is_restricted_is_kept_for_other_runs(
    ledger: Ledger, index: Index, folder: Path, tmp_path: Path
) -> None:
    (folder / "keys.md").write_text(
        "---\ndata_class: restricted\n---\n# Keys\n\nA lost parcel is sent again by code 7731.\n"
    )
    await index.update(folder)
    ctx = context(ledger, index)
    ctx.engine.answers = Answers(tmp_path / "kept" / "cache.db")
    found = await ctx.retrieve("Is a lost parcel sent again?", tokens=10)
    assert [passage.chunk.source for passage in found.passages] == ["parcels.md"]
    kept = [path.read_bytes() for path in (tmp_path / "kept").iterdir()]
    assert any(b"parcels.md" in data for data in kept)
    assert not any(b"7731" in data for data in kept)


def of_run(ctx: Context, run: str) -> Context:
    return other(ctx, Scope(run))
