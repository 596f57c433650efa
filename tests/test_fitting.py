"""A conversation in a token allowance, inside a step."""

from __future__ import annotations

from collections.abc import Generator, Sequence
from typing import Any

import pytest

from agentbudget.cache import Answers
from agentbudget.errors import ContextTooLong, Mistake, SkillError
from agentbudget.ledger import Ledger
from agentbudget.models.base import Message, Request
from agentbudget.models.ladder import Ladder
from agentbudget.money import Budget
from agentbudget.prices import ComputePrice
from agentbudget.prices.tokens import TokenPrice
from agentbudget.skills import skill
from agentbudget.statement import Statement
from agentbudget.step import Context, Engine, Scope
from agentbudget.step.fitting import Fitted
from agentbudget.testing import ScriptedModel, capture_spans
from tests.history.talk import TALK, says, user

NEARLY_FREE = TokenPrice.custom(input_usd_per_mtok="0.001", output_usd_per_mtok="0.001")
LONG = (
    *TALK,
    *(message for n in range(20) for message in (says(f"Noted as case-{n}."), user(f"And what of case-{n}?"))),
)


@pytest.fixture
def ledger() -> Generator[Ledger]:
    with Ledger.open("memory:") as opened:
        yield opened


def context(ledger: Ledger, *models: ScriptedModel, share: bool = True) -> Context:
    ledger.account("run/r", limit=Budget(usd="1"))
    machine = ComputePrice("0.10", 100, 10)  # pyright: ignore[reportArgumentType]
    return Context(Engine(ledger, Ladder(models), Answers(), machine, share_answers=share), Scope("r"))


@skill(tier="frontier", max_output_tokens=20)
async def fitting(ctx: Context, tokens: int, messages: Sequence[Message], turns: int | None) -> Fitted:
    """Fit."""
    return await ctx.fit(messages, tokens=tokens, turns=turns)


async def fit(ctx: Context, tokens: int, messages: Sequence[Message], turns: int | None = 0) -> Fitted:
    return await fitting(ctx, tokens=tokens, messages=list(messages), turns=turns)


def small(*script: Any) -> ScriptedModel:
    return ScriptedModel(script, name="scripted:small", price=NEARLY_FREE)


async def test_a_conversation_that_fits_stays_whole(ledger: Ledger) -> None:
    found = await fit(context(ledger, small()), 5000, TALK)
    assert found.messages == TALK
    assert found.exact


async def test_the_model_that_reads_it_counts_it(ledger: Ledger) -> None:
    model = small()
    found = await fit(context(ledger, model), 120, LONG)
    count = await model.count_input(Request(found.messages, 1))
    assert found.tokens == count.tokens <= 120
    assert found.compacted.left_out > 0


async def test_an_allowance_for_less_than_what_must_stay_is_refused(ledger: Ledger) -> None:
    with pytest.raises(ContextTooLong, match="give it at least"):
        await fit(context(ledger, small()), 5, TALK)


async def test_an_allowance_of_nothing_is_refused(ledger: Ledger) -> None:
    with pytest.raises(Mistake, match="holds nothing"):
        await fit(context(ledger, small()), 0, TALK)


async def test_fitting_belongs_inside_a_skill(ledger: Ledger) -> None:
    with pytest.raises(SkillError, match=r"ctx\.fit belongs inside a skill"):
        await context(ledger, small()).fit(TALK, tokens=100)


async def test_old_lines_are_summed_up_by_the_local_model_where_that_pays(ledger: Ledger) -> None:
    local, large = small("They spoke of many cases."), ScriptedModel([], name="scripted:large")
    found = await fit(context(ledger, local, large), 250, LONG, turns=50)
    assert found.summary is not None
    assert found.summary.pays
    assert "They spoke of many cases.\nalso: " in found.messages[1].text
    assert "case-1" in found.messages[1].text
    (call,) = [hold for hold in ledger.holds(prefix="r/") if hold.meta.get("kind") == "call"]
    assert call.meta["purpose"] == "summary"
    assert call.meta["model"] == "scripted:small"
    assert large.requests == []


async def test_nothing_is_summed_up_where_no_turns_are_to_come(ledger: Ledger) -> None:
    local = small()
    found = await fit(context(ledger, local, ScriptedModel([], name="scripted:large")), 250, LONG, turns=0)
    assert found.summary is not None
    assert not found.summary.pays
    assert local.requests == []


async def test_the_next_turn_finds_the_summary_paid_for(ledger: Ledger) -> None:
    local, large = small("They spoke of many cases."), ScriptedModel([], name="scripted:large")
    ctx = context(ledger, local, large)
    first = await fit(ctx, 250, LONG, turns=50)
    second = await fit(ctx, 250, (*LONG, says("Fine."), user("Well?")), turns=50)
    assert len(local.requests) == 1
    summary = "They spoke of many cases.\nalso: "
    assert first.messages[1].text.partition(summary)[2][:80] == second.messages[1].text.partition(summary)[2][:80]


@skill(max_output_tokens=20)
async def tell(ctx: Context, question: str) -> str:
    """Answer briefly."""
    return (await ctx.complete(question, turns=[says("So far."), user("And now, at last?")])).text


async def test_a_statement_says_what_prompts_were_made_of(ledger: Ledger) -> None:
    ctx = context(ledger, small("It is done."))
    await tell(ctx, question="What of it?")
    found = Statement.of(ledger, "r")
    assert [(part.name, part.tokens) for part in found.made_of.parts] == [
        ("system", 4),
        ("history", 7),
        ("task", 4),
        ("output", 3),
    ]
    assert found.made_of.exact
    assert sum(part.usd_nano for part in found.made_of.parts) == found.totals.settled.usd_nano
    (line,) = found.lines
    assert found.prompts[line.id] == found.made_of
    assert "What the calls were made of" in str(found)
    assert "What the calls were made of" in found._repr_html_()  # pyright: ignore[reportPrivateUsage]
    assert found.to_dict()["made_of"]["parts"]["task"] == [4, 4]


async def test_a_call_tells_its_span_what_it_was_made_of(ledger: Ledger) -> None:
    with capture_spans() as captured:
        await tell(context(ledger, small("It is done.")), question="What of it?")
    told = captured.span("chat small").attributes
    assert told["agentbudget.prompt.history.tokens"] == 7
    assert told["agentbudget.prompt.exact"] is True


async def test_what_was_recalled_is_a_part_of_its_own(ledger: Ledger) -> None:
    ctx = context(ledger, small("It is done."))
    ctx.engine.retrieved.append("[1] Refunds take a week.")
    await tell(ctx, question="What of it?\n\n[1] Refunds take a week.")
    parts = {part.name: part.tokens for part in Statement.of(ledger, "r").made_of.parts}
    assert parts["retrieved"] == 5
