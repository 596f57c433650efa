"""The whole way on the shipped handbook, with the default model and engine: question → passages → citation."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from agentbudget.context import FastEmbedder, Index, cite, open_index, retrieve
from agentbudget.errors import Mistake
from tests.context.conftest import HANDBOOK


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("handbook")


@pytest.fixture
async def handbook(place: Path, minilm: FastEmbedder) -> AsyncIterator[Index]:
    async with open_index(place / "index", embedder=minilm) as index:
        await index.update(HANDBOOK)
        yield index


@pytest.mark.parametrize(
    ("question", "fact", "source"),
    [
        ("Can a kettle bought 40 days ago be returned?", "60 days of delivery", "returns.md"),
        ("Who pays the return shipping?", "The customer pays the return shipping", "returns.md"),
        ("What does express shipping to France cost?", "14.90 EUR", "shipping.md"),
        ("How long is the warranty of the Fjord 2?", "its warranty lasts 5", "warranty.md"),
        ("Whom do I call when a kettle gives off sparks?", "+47 21 00 42 77", "escalation.md"),
        ("Who has to approve a refund of 300 EUR?", "approval of the shift", "returns.md"),
        ("What do the order numbers of business customers look like?", "`NB-`", "orders.md"),
        ("Is support open on Sundays?", "support is closed", "support-hours.txt"),
        ("What does a lid for the Aurora cost?", "19 EUR", "products.html"),
        ("How much power does the Aurora have?", "3000 W", "products.html"),
        ("Checkout is down and the payment provider is red. What now?", "shopctl payments use backup", "on-call.md"),
        ("What happens with a returned product of grade B?", "30 % off", "warehouse.md"),
    ],
)
async def test_a_question_finds_its_fact_within_200_tokens(
    handbook: Index, question: str, fact: str, source: str
) -> None:
    found = await retrieve(handbook, question, tokens=200)
    assert found.tokens <= 200
    passage = next(passage for passage in found.passages if fact in passage.text)
    assert passage.chunk.source.endswith(source)
    citation = cite(f"As the handbook says [{passage.number}].", found).citations[0]
    assert (citation.source, citation.chunk_id) == (passage.chunk.source, passage.chunk.id)
    assert citation.spans == passage.spans
    if source.endswith((".md", ".txt")):
        shown = (HANDBOOK / citation.source).read_text()
        assert any(fact in shown[start:end] for start, end in citation.spans)


async def test_the_text_is_what_the_given_counter_counts(handbook: Index) -> None:
    found = await retrieve(handbook, "refund", tokens=900, count_tokens=len)
    assert found.tokens == len(str(found)) == len(found.text) <= 900
    assert found.left_out
    assert found.compute_ns > 0


async def test_an_allowance_too_small_for_a_sentence_says_what_it_would_take(handbook: Index) -> None:
    with pytest.raises(Mistake, match=r"holds not one sentence .* takes \d+ \(from returns.md .*give retrieve"):
        await retrieve(handbook, "Who pays the return shipping?", tokens=12)
    with pytest.raises(Mistake, match="holds nothing"):
        await retrieve(handbook, "Who pays the return shipping?", tokens=0)
