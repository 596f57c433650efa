from __future__ import annotations

from collections.abc import Generator
from pathlib import Path

import pytest

from agentbudget.cache import Answers
from agentbudget.evals.gsm8k import Gsm8k
from agentbudget.evals.policies import PolicyName, policy
from agentbudget.evals.tasks import Guess
from agentbudget.ledger import Ledger
from agentbudget.models.ladder import Ladder
from agentbudget.money import ZERO, Budget
from agentbudget.prices import ComputePrice
from agentbudget.step import Context, Engine, Scope
from agentbudget.step.starts import ENOUGH
from agentbudget.testing import ScriptedModel

SURE = 0.9
"""The confidence of every `ScriptedModel`."""


def says(number: int) -> str:
    return f'{{"reasoning": "so", "answer": {number}}}'


@pytest.fixture
def ledger() -> Generator[Ledger]:
    with Ledger.open("memory:") as opened:
        opened.account("run/r", limit=Budget(usd="1"))
        yield opened


async def decide(ledger: Ledger, name: PolicyName, threshold: float, *models: ScriptedModel) -> Guess:
    machine = ComputePrice("0.10", 100, 10)  # pyright: ignore[reportArgumentType]
    ctx = Context(Engine(ledger, Ladder(models), Answers(), machine), Scope("r"))
    return await policy(name, Gsm8k(items=()), threshold=threshold)(ctx, {"question": "1 + 1?"})


def small(*script: str) -> ScriptedModel:
    return ScriptedModel(script, name="scripted:small")


def large(*script: str) -> ScriptedModel:
    return ScriptedModel(script, name="scripted:large")


async def test_all_cheap_asks_the_first_rung_and_all_strong_the_last(ledger: Ledger) -> None:
    assert (await decide(ledger, "all-cheap", SURE, small(says(1)), large())).answer == "1"
    assert (await decide(ledger, "all-strong", SURE, small(), large(says(2)))).answer == "2"


async def test_a_cascade_keeps_a_draft_that_is_sure_enough(ledger: Ledger) -> None:
    strong = large()
    guess = await decide(ledger, "cascade", SURE, small(says(1)), strong)
    assert guess == Guess("1", SURE)
    assert strong.requests == []


async def test_a_cascade_asks_the_strong_rung_where_the_draft_is_unsure(ledger: Ledger) -> None:
    assert (await decide(ledger, "cascade", SURE + 0.01, small(says(1)), large(says(2)))).answer == "2"


async def test_a_cascade_asks_the_strong_rung_where_the_draft_fits_no_type(ledger: Ledger) -> None:
    assert (await decide(ledger, "cascade", 0.0, small("no number", "none again"), large(says(2)))).answer == "2"
    cheap, again, strong = (hold for hold in ledger.holds(prefix="r/") if hold.meta["kind"] == "call")
    assert cheap.settled is not None
    assert cheap.settled.usd_nano > 0
    assert again.meta["purpose"] == "retry"
    assert strong.meta["model"] == "scripted:large"


async def test_a_cascade_is_one_step_that_holds_both_rungs_before_the_draft(ledger: Ledger) -> None:
    await decide(ledger, "cascade", 1.0, small(says(1)), large(says(2)))
    (outer, *_) = ledger.holds(prefix="r/")
    inner = [hold for hold in ledger.holds(prefix="r/") if hold.parent == outer.id]
    assert [hold.meta["skill"] for hold in inner] == ["solve", "solve"]
    assert outer.amount.usd_nano >= sum(hold.amount.usd_nano for hold in inner)
    assert ledger.balance("run/r").held == ZERO
    assert ledger.verify().ok


def test_the_same_prompt_serves_both_rungs() -> None:
    exam = Gsm8k(items=())
    assert exam.skill("local").version == exam.skill("frontier").version


@pytest.mark.parametrize("name", ["best", ""])
def test_an_unknown_policy_is_refused(name: str) -> None:
    with pytest.raises(AssertionError):
        policy(name, Gsm8k(items=()), threshold=0.5)  # pyright: ignore[reportArgumentType]


def test_the_data_folder_is_not_needed_to_import_a_dataset(tmp_path: Path) -> None:
    assert Gsm8k(items=()).baseline({}) is None
    assert list(tmp_path.glob("*.gz")) == []


async def test_learned_is_a_cascade_that_begins_with_the_strong_rung_once_its_drafts_do_not_pay(ledger: Ledger) -> None:
    cheap = ScriptedModel(lambda _: says(1), name="scripted:small")
    strong = ScriptedModel(lambda _: says(2), name="scripted:large")
    machine = ComputePrice("0.10", 100, 10)  # pyright: ignore[reportArgumentType]
    ctx = Context(Engine(ledger, Ladder((cheap, strong)), Answers(), machine), Scope("r"))
    ask = policy("learned", Gsm8k(items=()), threshold=SURE + 0.01)
    guesses = [await ask(ctx, {"question": f"{number} + 1?"}) for number in range(ENOUGH + 5)]
    assert {guess.answer for guess in guesses} == {"2"}
    assert (len(cheap.requests), len(strong.requests)) == (ENOUGH, ENOUGH + 5)


async def test_learned_keeps_a_draft_that_is_sure_enough(ledger: Ledger) -> None:
    strong = large()
    assert await decide(ledger, "learned", SURE, small(says(1)), strong) == Guess("1", SURE)
    assert strong.requests == []
