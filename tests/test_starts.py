"""A skill whose steps begin where they have cost least, and one that asks a stronger model when one is unsure."""

from __future__ import annotations

from collections.abc import Generator
from typing import Any, Final

import pytest

from agentbudget.cache import Answers
from agentbudget.errors import ModelUnavailable, SkillError
from agentbudget.ledger import HoldRecord, Ledger
from agentbudget.models.ladder import Ladder
from agentbudget.money import Budget
from agentbudget.prices import ComputePrice, TokenPrice
from agentbudget.route import Start
from agentbudget.skills import Skill, skill
from agentbudget.step import Context, Engine, Scope
from agentbudget.step.starts import ENOUGH, LOOK_AGAIN, TRIED
from agentbudget.testing import ScriptedModel, ScriptedReply

DOWN: Final = ScriptedReply(error=ModelUnavailable("refused", model="m", sent=False), sent=False)


def right(output: str) -> bool:
    return "right" in output


@skill(escalate="frontier", accept=right, max_output_tokens=20, start="learned")
async def answer(ctx: Context, question: str) -> str:
    """Answer."""
    ...


@pytest.fixture
def ledger() -> Generator[Ledger]:
    with Ledger.open("memory:") as opened:
        opened.account("run/r", limit=Budget(usd="1"))
        yield opened


def says(text: str, name: str, usd_per_mtok: str) -> ScriptedModel:
    price = TokenPrice.custom(input_usd_per_mtok=usd_per_mtok, output_usd_per_mtok=usd_per_mtok)
    return ScriptedModel(lambda _: text, name=f"scripted:{name}", price=price)


def wrong(usd_per_mtok: str = "1") -> ScriptedModel:
    return says("wrong", "small", usd_per_mtok)


def large(usd_per_mtok: str = "2") -> ScriptedModel:
    return says("right", "large", usd_per_mtok)


def context(ledger: Ledger, *models: ScriptedModel) -> Context:
    machine = ComputePrice("0.10", 100, 10)  # pyright: ignore[reportArgumentType]
    return Context(Engine(ledger, Ladder(models), Answers(), machine), Scope("r"))


async def ask(ctx: Context, times: int, which: Skill[Any, str] = answer, *, first: int = 0) -> None:
    for number in range(first, first + times):
        await which(ctx, question=f"number {number}?")


def steps(ledger: Ledger) -> list[HoldRecord]:
    return [hold for hold in ledger.holds(prefix="r/") if hold.meta.get("kind") == "step"]


async def test_steps_whose_drafts_do_not_pay_begin_with_the_stronger_model(ledger: Ledger) -> None:
    small, strong = wrong(), large()
    ctx = context(ledger, small, strong)
    await ask(ctx, ENOUGH)
    assert (len(small.requests), len(strong.requests)) == (ENOUGH, ENOUGH)
    await ask(ctx, 10, first=ENOUGH)
    assert (len(small.requests), len(strong.requests)) == (ENOUGH, ENOUGH + 10)
    before, after = steps(ledger)[ENOUGH - 1], steps(ledger)[-1]
    assert (before.detail["began"]["model"], before.detail["escalated"]) == ("scripted:small", True)
    assert (after.detail["began"]["model"], after.detail["escalated"]) == ("scripted:large", False)
    assert after.amount.calls < before.amount.calls  # nothing is held for a draft that is not made
    assert after.settled is not None
    assert before.settled is not None
    assert after.settled.usd_nano < before.settled.usd_nano
    assert ledger.verify().ok


async def test_now_and_then_one_begins_below_again(ledger: Ledger) -> None:
    small = wrong()
    await ask(context(ledger, small, large()), ENOUGH + 2 * (LOOK_AGAIN + 1))
    assert len(small.requests) == ENOUGH + 2


async def test_processes_of_few_steps_begin_below_no_more_often(ledger: Ledger) -> None:
    small, strong = wrong(), large()
    for number in range(0, ENOUGH + 4 * (LOOK_AGAIN + 1), 5):
        await ask(context(ledger, small, strong), 5, first=number)
    assert len(small.requests) <= ENOUGH + 5


async def test_a_weaker_model_that_became_good_is_found_again(ledger: Ledger) -> None:
    small, strong = wrong(), large()
    ctx = context(ledger, small, strong)
    await ask(ctx, ENOUGH + 1)
    small.script = lambda _: "right"
    await ask(ctx, 20 * LOOK_AGAIN, first=1000)
    asked = len(strong.requests)
    await ask(ctx, 10, first=5000)
    assert len(strong.requests) == asked


async def test_drafts_that_are_accepted_are_gone_on_with(ledger: Ledger) -> None:
    small, strong = says("right", "small", "1"), large("100")
    await ask(context(ledger, small, strong), ENOUGH + 10)
    assert (len(small.requests), strong.requests) == (ENOUGH + 10, [])


async def test_a_skill_that_does_not_ask_for_it_always_begins_with_its_tier(ledger: Ledger) -> None:
    @skill(escalate="frontier", accept=right, max_output_tokens=20)
    async def plain(ctx: Context, question: str) -> str:
        """Answer."""
        ...

    small = wrong()
    await ask(context(ledger, small, large()), ENOUGH + 10, plain)
    assert len(small.requests) == ENOUGH + 10
    assert all("began" not in step.detail for step in steps(ledger))


async def test_another_process_learns_it_from_the_ledger(ledger: Ledger) -> None:
    await ask(context(ledger, wrong(), large()), ENOUGH)
    small = wrong()
    await ask(context(ledger, small, large()), 3, first=ENOUGH)
    assert small.requests == []


async def test_where_the_stronger_model_rests_a_step_begins_below(ledger: Ledger, monkeypatch: Any) -> None:
    monkeypatch.setattr("agentbudget.step.calls.BACKOFF_S", 0.001)
    small, strong = wrong(), large()
    ctx = context(ledger, small, strong)
    await ask(ctx, ENOUGH)
    strong.script = lambda _: DOWN
    with pytest.raises(ModelUnavailable):
        await ask(ctx, 1, first=500)
    ctx.engine.outages.began(strong.name, ModelUnavailable("refused", model=strong.name))
    small.script = lambda _: "right"
    await ask(ctx, 1, first=501)
    assert steps(ledger)[-1].detail["began"]["model"] == small.name


async def test_what_was_paid_for_before_counts_at_what_it_cost(ledger: Ledger) -> None:
    small, strong = wrong(), large()
    ctx = context(ledger, small, strong)
    for _ in range(ENOUGH):
        await ask(ctx, 1)
    assert (len(small.requests), len(strong.requests)) == (1, 1)
    first, again = (step.detail["began"] for step in steps(ledger)[:2])
    assert first == again
    assert again["usd_nano"] > 0
    await ask(ctx, 1, first=1)
    assert (len(small.requests), len(strong.requests)) == (1, 2)


async def test_a_body_goes_on_where_it_began(ledger: Ledger) -> None:
    @skill(escalate="frontier", max_output_tokens=20, start="learned")
    async def twice(ctx: Context, question: str) -> str:
        """Answer."""
        first = await ctx.complete(f"first {question}", accept=right)
        async with ctx.stream(f"then {question}") as pieces:
            then = await pieces.whole()
        return f"{first.model} {then.model}"

    ctx = context(ledger, wrong("3"), large("2"))
    await ask(ctx, ENOUGH + TRIED + 1, twice)
    assert await twice(ctx, question="last?") == "scripted:large scripted:large"


async def test_confidential_text_stays_below_though_that_costs_more(ledger: Ledger) -> None:
    small, strong = wrong(), large()
    strong.place = "remote"
    ctx = context(ledger, small, strong)
    await ask(ctx, ENOUGH)
    ctx.mark("confidential", "a row")
    await ask(ctx, 1, first=ENOUGH)
    assert (len(small.requests), len(strong.requests)) == (ENOUGH + 1, ENOUGH)


# --- how sure a model is


def sure(confidence: float | None, name: str = "small") -> ScriptedModel:
    return ScriptedModel(lambda _: ScriptedReply(name, confidence=confidence), name=f"scripted:{name}")


@skill(escalate="frontier", max_output_tokens=20, confidence=0.9)
async def certain(ctx: Context, question: str) -> str:
    """Answer."""
    ...


@pytest.mark.parametrize(
    ("confidence", "model", "why"),
    [
        (0.9, "small", None),
        (0.89, "large", "sure at 0.89, not 0.9"),
        (None, "large", "the model does not say how sure it is"),
    ],
)
async def test_an_answer_that_is_not_sure_enough_is_asked_of_a_stronger_model(
    ledger: Ledger, confidence: float | None, model: str, why: str | None
) -> None:
    assert await certain(context(ledger, sure(confidence), sure(0.1, "large")), question="well?") == model
    (step,) = steps(ledger)
    assert step.detail["status"] == "ok"  # the strongest model's word is taken, however sure it is
    assert [rejected["reason"] for rejected in step.detail["rejected"]] == ([] if why is None else [why])


async def test_an_unsure_answer_is_not_checked_at_a_price(ledger: Ledger) -> None:
    checked: list[str] = []

    def check(output: str) -> bool:
        checked.append(output)
        return True

    @skill(escalate="frontier", max_output_tokens=20, confidence=0.9, accept=check)
    async def both(ctx: Context, question: str) -> str:
        """Answer."""
        ...

    assert await both(context(ledger, sure(0.5), sure(0.5, "large")), question="well?") == "large"
    assert checked == ["large"]


@pytest.mark.parametrize("confidence", [0, -0.1, 1.01, "high", True, float("nan")])
def test_a_confidence_is_a_share(confidence: Any) -> None:
    with pytest.raises(SkillError, match="confidence must be"):
        Skill(answer.function, confidence=confidence)


@pytest.mark.parametrize("start", ["cheapest", None, 1])
def test_a_start_is_one_of_two(start: Start) -> None:
    with pytest.raises(SkillError, match="start must be"):
        Skill(answer.function, start=start)
