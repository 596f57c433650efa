from __future__ import annotations

import os
from collections.abc import Generator
from pathlib import Path

import pytest

from agentbudget.cache import Answers
from agentbudget.errors import BudgetExceeded
from agentbudget.evals.nearest import BATCH, Example, Nearest
from agentbudget.ledger import Ledger
from agentbudget.models.ladder import Ladder
from agentbudget.money import Budget
from agentbudget.prices import ComputePrice
from agentbudget.step import Context, Engine, Scope
from agentbudget.testing import ScriptedModel
from tests.context.conftest import WordEmbedder

EXAMPLES = (
    Example("where is my new card", "card_arrival"),
    Example("my card has not come", "card_arrival"),
    Example("why was I charged twice", "double_charge"),
)


@pytest.fixture
def ctx() -> Generator[Context]:
    with Ledger.open("memory:") as ledger:
        ledger.account("run/r", limit=Budget(usd="1"))
        machine = ComputePrice("0.10", 100, 10)  # pyright: ignore[reportArgumentType]
        yield Context(Engine(ledger, Ladder((ScriptedModel([]),)), Answers(), machine), Scope("r"))


def quiet(done: int, total: int) -> None:
    assert done <= total


def test_the_most_similar_example_comes_first(ctx: Context, tmp_path: Path) -> None:
    nearest = Nearest(EXAMPLES, tmp_path, WordEmbedder())
    nearest.prepare(ctx, quiet)
    found = nearest.search(ctx, "charged twice, why?", 2)
    assert found[0].label == "double_charge"
    assert len(found) == 2


def test_vectors_are_made_once_for_the_same_examples_and_model(ctx: Context, tmp_path: Path) -> None:
    Nearest(EXAMPLES, tmp_path, WordEmbedder()).prepare(ctx, quiet)
    again, other = WordEmbedder(), WordEmbedder(dim=32)
    Nearest(EXAMPLES, tmp_path, again).prepare(ctx, quiet)
    assert again.embedded == []
    Nearest(EXAMPLES, tmp_path, other).prepare(ctx, quiet)
    assert len(other.embedded) == len(EXAMPLES)


@pytest.mark.parametrize("left", [0, 200])
def test_vectors_that_are_not_whole_are_made_anew(ctx: Context, tmp_path: Path, left: int) -> None:
    Nearest(EXAMPLES, tmp_path, WordEmbedder()).prepare(ctx, quiet)
    (kept,) = tmp_path.glob("*.npy")
    os.truncate(kept, left)
    ctx.engine.ledger.account("run/q", limit=Budget(usd="1"))
    again, once_more = WordEmbedder(), WordEmbedder()
    Nearest(EXAMPLES, tmp_path, again).prepare(Context(ctx.engine, Scope("q")), quiet)
    assert len(again.embedded) == len(EXAMPLES)
    Nearest(EXAMPLES, tmp_path, once_more).prepare(ctx, quiet)
    assert once_more.embedded == []


def test_preparing_and_searching_are_paid_for_by_the_second(ctx: Context, tmp_path: Path) -> None:
    nearest = Nearest(EXAMPLES, tmp_path, WordEmbedder())
    nearest.prepare(ctx, quiet)
    nearest.search(ctx, "card", 1)
    holds = ctx.engine.ledger.holds(prefix="r/")
    assert [hold.meta["kind"] for hold in holds] == ["index", "retrieval"]
    assert all(hold.settled is not None and hold.settled.usd_nano > 0 for hold in holds)
    assert ctx.engine.ledger.verify().ok


def test_progress_is_told_batch_by_batch(ctx: Context, tmp_path: Path) -> None:
    many = tuple(Example(f"text {n}", "label") for n in range(BATCH + 1))
    heard: list[tuple[int, int]] = []
    Nearest(many, tmp_path, WordEmbedder()).prepare(ctx, lambda done, total: heard.append((done, total)))
    assert heard == [(BATCH, BATCH + 1), (BATCH + 1, BATCH + 1)]


def test_what_does_not_fit_the_budget_is_not_embedded(ctx: Context, tmp_path: Path) -> None:
    ctx.engine.ledger.set_limit("run/r", Budget(usd="0.00001"))
    embedder = WordEmbedder()
    with pytest.raises(BudgetExceeded):
        Nearest(EXAMPLES, tmp_path, embedder).prepare(ctx, quiet)
    assert embedder.embedded == []
