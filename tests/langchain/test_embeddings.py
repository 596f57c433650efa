"""LangChain's embeddings with a budget: counted, held in batches, settled."""

from __future__ import annotations

from typing import Any, ClassVar

import pytest
from langchain_core.embeddings import DeterministicFakeEmbedding, Embeddings
from langchain_tests.integration_tests import EmbeddingsIntegrationTests
from langchain_tests.unit_tests import EmbeddingsUnitTests
from pydantic import Field

from agentbudget.errors import BudgetExceeded, InvalidOutput, Mistake, UnknownPrice
from agentbudget.langchain import BudgetedEmbeddings, budgeted_embeddings
from agentbudget.langchain import embeddings as paying
from agentbudget.ledger import HoldRecord, Ledger
from agentbudget.money import Amount, Budget
from agentbudget.prices import ComputePrice, TokenPrice

PRICE = TokenPrice.custom(input_usd_per_mtok="1", output_usd_per_mtok="0")
OPENAI = "openai:text-embedding-3-small"


class Recorded(DeterministicFakeEmbedding):
    """Vectors by the text alone, and what was asked."""

    asked: list[list[str]] = Field(default_factory=list[list[str]])

    def embed_documents(self, texts: list[str]) -> list[list[float]]:
        self.asked.append(texts)
        return super().embed_documents(texts)


class EmbedsAndPays(BudgetedEmbeddings):
    ledger: ClassVar[Ledger]

    def __new__(cls, **params: Any) -> BudgetedEmbeddings:  # pyright: ignore[reportInconsistentConstructor]
        inner = DeterministicFakeEmbedding(size=8, **params)
        accounts = {"suite": Budget(usd="1")}
        return budgeted_embeddings(inner, ledger=Ledger.open("memory:"), accounts=accounts, price=PRICE)


class TestUnits(EmbeddingsUnitTests):
    @property
    def embeddings_class(self) -> type[Embeddings]:
        return EmbedsAndPays


class TestIntegration(EmbeddingsIntegrationTests):
    @property
    def embeddings_class(self) -> type[Embeddings]:
        return EmbedsAndPays


@pytest.fixture
def ledger() -> Ledger:
    return Ledger.open("memory:")


def made(ledger: Ledger, *, usd: str = "1", **options: Any) -> tuple[Recorded, BudgetedEmbeddings]:
    inner = Recorded(size=4, asked=[])
    options = {"price": PRICE, "name": OPENAI, **options}
    return inner, budgeted_embeddings(inner, ledger=ledger, accounts={"user/42": Budget(usd=usd)}, **options)


def only(ledger: Ledger) -> HoldRecord:
    (hold,) = ledger.holds()
    return hold


def test_texts_are_charged_by_exactly_their_tokens(ledger: Ledger) -> None:
    _, model = made(ledger)
    assert len(model.embed_documents(["one two three", "four"])) == 2
    assert ledger.balance("user/42").posted == Amount(4_000, 4, 1)
    assert not only(ledger).presumed


async def test_async_calls_are_booked_too(ledger: Ledger) -> None:
    _, model = made(ledger)
    await model.aembed_query("one two three")
    await model.aembed_documents(["four"])
    assert ledger.balance("user/42").posted == Amount(4_000, 4, 2)


def test_a_model_without_a_public_vocabulary_is_presumed_at_a_bound(ledger: Ledger) -> None:
    _, model = made(ledger, name="other:embedder")
    model.embed_query("one two three")
    assert only(ledger).presumed
    assert only(ledger).settled == Amount(17_000, 17, 1)


@pytest.mark.parametrize(("model", "variable"), [("bge-m3", ""), ("text-embedding-3-small", "http://127.0.0.1:9/v1")])
def test_openais_integration_counts_exactly_only_openais_models(
    ledger: Ledger, monkeypatch: pytest.MonkeyPatch, model: str, variable: str
) -> None:
    openai = pytest.importorskip("langchain_openai")
    monkeypatch.setenv("OPENAI_BASE_URL", variable or "https://api.openai.com/v1")

    class Played(openai.OpenAIEmbeddings):
        def embed_documents(self, texts: list[str], chunk_size: int | None = None, **kwargs: Any) -> list[list[float]]:
            return [[1.0] for _ in texts]

    inner = Played(model=model, api_key="none", max_retries=0)
    accounts, name = {"user/42": Budget(usd="1")}, f"openai:{model}"
    paying = budgeted_embeddings(inner, ledger=ledger, accounts=accounts, price=PRICE, name=name)
    assert paying.destination.address == (variable or None)
    paying.embed_documents(["世界世界"])
    assert only(ledger).presumed
    assert only(ledger).settled == Amount(16_000, 16, 1)  # 1.3 tokens a byte


def test_what_stands_elsewhere_has_no_price_of_openais(ledger: Ledger) -> None:
    openai = pytest.importorskip("langchain_openai")
    inner = openai.OpenAIEmbeddings(model="text-embedding-3-small", api_key="none", base_url="http://127.0.0.1:9/v1")
    with pytest.raises(UnknownPrice):
        budgeted_embeddings(inner, ledger=ledger, accounts=["user/42"])


def test_too_few_vectors_are_no_answer_and_billed(ledger: Ledger) -> None:
    class Forgetful(DeterministicFakeEmbedding):
        def embed_documents(self, texts: list[str]) -> list[list[float]]:
            return super().embed_documents(texts[1:])

    accounts = {"user/42": Budget(usd="1")}
    model = budgeted_embeddings(Forgetful(size=4), ledger=ledger, accounts=accounts, price=PRICE, name=OPENAI)
    with pytest.raises(InvalidOutput, match="gave 1 vectors for 2 texts"):
        model.embed_documents(["one two three", "four"])
    assert only(ledger).settled == Amount(4_000, 4, 1)


def test_a_model_on_this_machine_is_paid_for_by_the_second(ledger: Ledger) -> None:
    _, model = made(ledger, name="here:embedder", price=ComputePrice("0.10", 1000, 1000))  # pyright: ignore[reportArgumentType]
    model.embed_query("one two three")
    assert not only(ledger).presumed
    assert only(ledger).detail["usage"]["compute_ns"] > 0


def test_many_texts_go_in_batches_each_on_its_own_hold(ledger: Ledger, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(paying, "BATCH_TEXTS", 2)
    inner, model = made(ledger)
    assert len(model.embed_documents(["a", "b", "c"])) == 3
    assert inner.asked == [["a", "b"], ["c"]]
    assert len(ledger.holds()) == 2


def test_the_batch_that_does_not_fit_is_not_sent(ledger: Ledger, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(paying, "BATCH_TEXTS", 2)
    inner, model = made(ledger, usd="0.000002")
    with pytest.raises(BudgetExceeded):
        model.embed_documents(["a", "b", "c"])
    assert inner.asked == [["a", "b"]]


def test_a_model_that_nobody_prices_is_refused_when_it_is_made(ledger: Ledger) -> None:
    with pytest.raises(UnknownPrice):
        budgeted_embeddings(DeterministicFakeEmbedding(size=4), ledger=ledger, accounts=["user/42"])


def test_the_retries_of_openais_integration_are_switched_off(ledger: Ledger) -> None:
    openai = pytest.importorskip("langchain_openai")
    inner = openai.OpenAIEmbeddings(model="text-embedding-3-small", api_key="none", max_retries=4)
    model = budgeted_embeddings(inner, ledger=ledger, accounts=["user/42"])
    assert model.name == OPENAI
    assert getattr(model.inner, "client")._client.max_retries == 0  # noqa: B009 # the field is typed as Any elsewhere
    assert inner.client._client.max_retries == 4


def test_retries_that_cannot_be_switched_off_are_refused(ledger: Ledger) -> None:
    class Stubborn(DeterministicFakeEmbedding):
        max_retries: int = 2

    with pytest.raises(Mistake, match="max_retries"):
        budgeted_embeddings(Stubborn(size=4), ledger=ledger, accounts=["user/42"], price=PRICE)
