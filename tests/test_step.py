"""A step is one transaction: what is held before, what may be spent during, what is booked after."""

from __future__ import annotations

import asyncio
import gc
import weakref
from collections.abc import Generator
from dataclasses import replace
from typing import Any, Literal

import pytest

from agentbudget.cache import Answers
from agentbudget.errors import (
    BudgetExceeded,
    ContextTooLong,
    InvalidOutput,
    Mistake,
    ModelUnavailable,
    OutcomeUnknown,
    RateLimited,
    SkillError,
)
from agentbudget.ledger import HoldRecord, Ledger
from agentbudget.models.base import Completion, Message, Meter, Request, Tool, ToolCall
from agentbudget.models.ladder import Ladder
from agentbudget.money import ZERO, Amount, Budget
from agentbudget.prices import ComputePrice, TokenPrice
from agentbudget.skills import Skill, skill
from agentbudget.step import Context, Engine, Scope, Step
from agentbudget.testing import ScriptedModel, ScriptedReply
from agentbudget.usage import Usage
from agentbudget.verify import Verdict, cites


@skill(max_output_tokens=8)
async def triage(ctx: Context, message: str) -> Literal["billing", "bug"]:
    """Say which team should handle this message."""
    ...


@skill(escalate="frontier", max_output_tokens=20, accept=cites)
async def answer(ctx: Context, question: str) -> str:
    """Answer with a citation."""
    ...


@skill(tier="local", escalate="frontier", max_output_tokens=20, max_input_tokens=50)
async def research(ctx: Context, question: str) -> str:
    """Answer in two calls."""
    first = await ctx.complete(f"first: {question}")
    second = await ctx.complete(f"second: {first.text}", accept=lambda text: "good" in text)
    return second.text


@pytest.fixture
def ledger() -> Generator[Ledger]:
    with Ledger.open("memory:") as opened:
        yield opened


def context(ledger: Ledger, *models: ScriptedModel, budget: Budget | None = None, share: bool = True) -> Context:
    ledger.account("run/r", limit=budget or Budget(usd="1"))
    machine = ComputePrice("0.10", 100, 10)  # pyright: ignore[reportArgumentType]
    engine = Engine(ledger, Ladder(models), Answers(), machine, share_answers=share)
    return Context(engine, Scope("r", user="42", feature="support"))


def local(*script: Any) -> ScriptedModel:
    return ScriptedModel(script, name="scripted:small")


def frontier(*script: Any) -> ScriptedModel:
    return ScriptedModel(script, name="scripted:large")


def steps(ledger: Ledger) -> list[HoldRecord]:
    return [h for h in ledger.holds(prefix="r/") if h.meta.get("kind") == "step"]


def calls(ledger: Ledger) -> list[HoldRecord]:
    return [h for h in ledger.holds(prefix="r/") if h.meta.get("kind") == "call"]


async def test_a_step_settles_what_its_call_used_on_run_user_feature_and_skill(ledger: Ledger) -> None:
    ctx = context(ledger, local('"bug"'))
    assert await triage(ctx, message="it crashes") == "bug"
    (call,) = calls(ledger)
    assert call.settled is not None
    for account in ("run/r", "user/42", "feature/support", "skill/triage"):
        balance = ledger.balance(account)
        assert (balance.posted, balance.held) == (call.settled, ZERO)
    (step,) = steps(ledger)
    assert step.detail["status"] == "ok"
    assert ledger.verify().ok


async def test_nothing_is_sent_when_the_step_does_not_fit(ledger: Ledger) -> None:
    model = local('"bug"')
    ctx = context(ledger, model, budget=Budget(usd="0.00001"))
    with pytest.raises(BudgetExceeded, match=r"run/r has .* raise the limit by at least"):
        await triage(ctx, message="it crashes")
    assert model.requests == []
    assert ledger.holds(prefix="r/") == []


async def test_the_output_cap_is_what_was_paid_for(ledger: Ledger) -> None:
    model = local('"bug"')
    await triage(context(ledger, model), message="x")
    (request,) = model.requests
    assert request.max_output_tokens == 8
    (call,) = calls(ledger)
    words = sum(len(m.text.split()) + 1 for m in request.messages)
    assert call.amount.tokens == words + 8


async def test_escalation_is_priced_before_the_cheap_try(ledger: Ledger) -> None:
    large = frontier("sure [1]")
    ctx = context(ledger, local("no citation"), large)
    assert await answer(ctx, question="why?") == "sure [1]"
    (step,) = steps(ledger)
    both = [c.amount.usd_nano for c in calls(ledger)]
    assert step.amount.usd_nano >= sum(both)
    assert step.detail["escalated"] is True
    assert [c.meta["purpose"] for c in calls(ledger)] == ["draft", "escalation"]


async def test_what_could_not_pay_for_the_escalation_is_refused_at_once(ledger: Ledger) -> None:
    small = local("no citation")
    ctx = context(ledger, small, frontier("sure [1]"), budget=Budget(calls=1))
    with pytest.raises(BudgetExceeded):
        await answer(ctx, question="why?")
    assert small.requests == []


async def test_an_answer_that_no_rung_could_better_is_returned_and_marked(ledger: Ledger) -> None:
    ctx = context(ledger, local("none"), frontier("none either"))
    assert await answer(ctx, question="why?") == "none either"
    (step,) = steps(ledger)
    assert step.detail["status"] == "unaccepted"


async def test_a_step_keeps_why_each_answer_was_rejected(ledger: Ledger) -> None:
    def short(text: str) -> Verdict:
        return Verdict(len(text) < 9, f"{len(text)} characters are too many")

    @skill(escalate="frontier", max_output_tokens=20, accept=[cites, short])
    async def brief(ctx: Context, question: str) -> str:
        """Answer in a word, with a citation."""
        ...

    await brief(context(ledger, local("no mark"), frontier("at length [1]")), question="why?")
    (step,) = steps(ledger)
    assert step.detail["rejected"] == [
        {"model": "scripted:small", "reason": "did not pass cites"},
        {"model": "scripted:large", "reason": "short: 13 characters are too many"},
    ]


async def test_what_a_step_is_about_is_kept_with_it_alone(ledger: Ledger) -> None:
    @skill(max_output_tokens=4, max_input_tokens=60)
    async def right(ctx: Context, answer: str) -> bool:
        """Is the answer right?"""
        ...

    @skill(max_output_tokens=10, accept=right)
    async def reply(ctx: Context, question: str) -> str:
        """Answer."""
        ...

    ctx = context(ledger, local("yes", "true"))
    await reply(ctx.about("the weather"), question="q")
    assert [(step.meta["skill"], step.meta.get("about")) for step in steps(ledger)] == [
        ("reply", "the weather"),
        ("right", None),
    ]


async def test_an_accepted_answer_leaves_no_rejection(ledger: Ledger) -> None:
    await answer(context(ledger, local("sure [1]"), frontier()), question="why?")
    assert steps(ledger)[0].detail["rejected"] == []


async def test_output_that_fits_no_type_is_an_error_and_is_booked(ledger: Ledger) -> None:
    ctx = context(ledger, local("not json", "nor this one"))
    with pytest.raises(InvalidOutput, match=r"triage.*Invalid JSON") as failed:
        await triage(ctx, message="x")
    assert failed.value.usage is not None
    assert failed.value.usage.output_tokens == 2 + 3
    assert ledger.balance("run/r").posted.usd_nano > 0
    (step,) = steps(ledger)
    assert step.detail["status"] == "failed"


async def test_a_body_makes_several_calls_inside_one_hold(ledger: Ledger) -> None:
    ctx = context(ledger, local("one", "good"), frontier())
    assert await research(ctx, question="q") == "good"
    (step,) = steps(ledger)
    assert len(calls(ledger)) == 2
    assert all(c.parent == step.id for c in calls(ledger))


async def test_a_step_that_needs_more_than_it_held_extends_its_hold(ledger: Ledger) -> None:
    ctx = context(ledger, local("one", "good"), frontier())
    await research(ctx, question="word " * 200)
    (step,) = steps(ledger)
    assert step.state == "settled"
    assert step.overrun == ZERO
    assert ledger.verify().ok


@pytest.mark.parametrize("wrong", [{"max_output_tokens": 0}, {"max_output_tokens": -5}, {"accept": "abc"}], ids=str)
async def test_what_cannot_be_asked_of_a_model_is_refused_before_it_is_sent(
    ledger: Ledger, wrong: dict[str, Any]
) -> None:
    @skill(max_output_tokens=8)
    async def ask(ctx: Context, question: str) -> str:
        """Ask."""
        return (await ctx.complete(question, **wrong)).text

    model = local("never")
    with pytest.raises(SkillError, match=r"max_output_tokens must be|cannot check an answer"):
        await ask(context(ledger, model), question="q")
    assert model.requests == []
    assert ledger.balance("run/r").posted == ZERO


async def test_an_extension_that_does_not_fit_is_refused_and_the_rest_is_settled(ledger: Ledger) -> None:
    ctx = context(ledger, local("one", "good"), frontier(), budget=Budget(tokens=200))
    with pytest.raises(BudgetExceeded):
        await research(ctx, question="word " * 200)
    balance = ledger.balance("run/r")
    assert balance.held == ZERO
    assert ledger.verify().ok


async def test_a_skills_own_budget_bounds_its_step(ledger: Ledger) -> None:
    @skill(budget=Budget(tokens=60), max_input_tokens=20, max_output_tokens=8)
    async def frugal(ctx: Context, question: str) -> str:
        """Ask."""
        return (await ctx.complete(question)).text

    ctx = context(ledger, local("fine"))
    with pytest.raises(BudgetExceeded, match="budget of skill 'frugal'"):
        await frugal(ctx, question="word " * 100)


@pytest.mark.parametrize(
    ("reply", "state", "posted"),
    [
        (ScriptedReply(error=ModelUnavailable("down", model="m", sent=False), sent=False), "voided", False),
        (ScriptedReply(error=RateLimited("slow", model="m", usage=Usage(), retry_after_s=0.001)), "settled", False),
        (ScriptedReply(error=OutcomeUnknown("timeout", model="m")), "settled", True),
        (ScriptedReply(error=ModelUnavailable("cut", model="m"), usage=Usage(7, 1)), "settled", True),
    ],
)
async def test_each_attempt_has_its_own_hold_and_ends_by_what_is_known(
    ledger: Ledger, monkeypatch: pytest.MonkeyPatch, reply: ScriptedReply, state: str, posted: bool
) -> None:
    monkeypatch.setattr("agentbudget.step.calls.BACKOFF_S", 0.001)
    ctx = context(ledger, local(reply, '"bug"'))
    assert await triage(ctx, message="x") == "bug"
    first, second = calls(ledger)
    assert (first.state, first.settled is not None and first.settled.usd_nano > 0) == (state, posted)
    assert first.presumed == isinstance(reply.error, OutcomeUnknown)
    assert second.state == "settled"


async def test_a_provider_that_asks_to_wait_for_hours_is_not_waited_for(ledger: Ledger) -> None:
    daily = RateLimited("no more today", model="m", usage=Usage(), retry_after_s=43_200)
    ctx = context(ledger, local(ScriptedReply(error=daily), '"bug"'))
    with pytest.raises(RateLimited) as caught:
        async with asyncio.timeout(30):
            await triage(ctx, message="x")
    assert caught.value.retry_after_s == 43_200
    assert [call.state for call in calls(ledger)] == ["settled"]


LOST = ScriptedReply(error=OutcomeUnknown("timeout", model="m"))


def taking_the_rest(ledger: Ledger, *replies: str | ScriptedReply, during: str) -> ScriptedModel:
    """A cheap model, while whose answer `during` somebody else takes all that is left of the run's calls."""
    script = list(replies)

    def reply(_request: Request) -> str | ScriptedReply:
        if script[0] == during:
            left = ledger.balance("run/r").available.calls
            assert left is not None
            ledger.reserve("others", Amount(calls=left), accounts=["run/r"])
        return script.pop(0)

    return ScriptedModel(reply, name="scripted:small")


async def test_a_failed_attempt_does_not_take_the_room_of_the_escalation(
    ledger: Ledger, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("agentbudget.step.calls.BACKOFF_S", 0.001)
    small = taking_the_rest(ledger, LOST, LOST, "no citation", during="no citation")
    ctx = context(ledger, small, frontier("sure [1]"), budget=Budget(calls=9))
    assert await answer(ctx, question="why?") == "sure [1]"
    (step,) = steps(ledger)
    assert step.amount.calls == 4
    assert step.overrun == ZERO
    assert ledger.verify().ok


async def test_a_failed_attempt_of_a_check_does_not_take_the_room_of_the_escalation(
    ledger: Ledger, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("agentbudget.step.calls.BACKOFF_S", 0.001)

    @skill(max_output_tokens=4, max_input_tokens=60)
    async def supported(ctx: Context, answer: str) -> bool:
        """Is the answer right?"""
        ...

    @skill(escalate="frontier", max_output_tokens=10, accept=supported)
    async def reply(ctx: Context, question: str) -> str:
        """Answer."""
        ...

    small = taking_the_rest(ledger, "wrong", LOST, "false", "true", during="false")
    ctx = context(ledger, small, frontier("right"), budget=Budget(calls=9))
    assert await reply(ctx, question="q") == "right"
    assert ledger.verify().ok


async def test_where_no_more_fits_a_failed_attempt_is_made_again_from_what_was_held(
    ledger: Ledger, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr("agentbudget.step.calls.BACKOFF_S", 0.001)
    ctx = context(ledger, local(LOST, "sure [1]"), frontier(), budget=Budget(calls=2))
    assert await answer(ctx, question="why?") == "sure [1]"
    assert "may not afford its escalation" in caplog.text


class Unreachable(ScriptedModel):
    """Believes that its request leaves, then finds nobody to take it."""

    async def complete(self, request: Request, meter: Meter) -> Completion:
        meter.leaving()
        meter.sent = False
        raise ModelUnavailable("refused", model=self.name, sent=False)


async def test_a_call_that_turned_out_not_to_have_left_costs_nothing(
    ledger: Ledger, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("agentbudget.step.calls.BACKOFF_S", 0.001)
    ctx = context(ledger, Unreachable([]))
    with pytest.raises(ModelUnavailable):
        await triage(ctx, message="x")
    assert ledger.balance("run/r").posted == ZERO
    assert not any(call.presumed for call in calls(ledger))


async def test_a_provider_that_stays_down_costs_nothing_and_is_named(
    ledger: Ledger, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("agentbudget.step.calls.BACKOFF_S", 0.001)
    down = ScriptedReply(error=ModelUnavailable("refused", model="m", sent=False), sent=False)
    ctx = context(ledger, local(down, down, down))
    with pytest.raises(ModelUnavailable):
        await triage(ctx, message="x")
    assert ledger.balance("run/r").posted == ZERO


async def test_cancelling_settles_what_was_used_and_frees_the_rest(ledger: Ledger) -> None:
    model = local(ScriptedReply('"bug"', delay_s=600))
    ctx = context(ledger, model)
    task = asyncio.create_task(ctx.call(triage, {"message": "x"}))
    while not model.requests:
        await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    (step,) = steps(ledger)
    (call,) = calls(ledger)
    assert step.detail["status"] == "cancelled"
    assert call.presumed  # sent, and this model does not say what it used
    assert ledger.balance("run/r").held == ZERO


async def test_the_same_question_again_costs_nothing_and_says_what_it_saved(ledger: Ledger) -> None:
    model = local('"bug"')
    ctx = context(ledger, model)
    await triage(ctx, message="x")
    paid = ledger.balance("run/r").posted
    assert await triage(ctx, message="x") == "bug"
    assert ledger.balance("run/r").posted == paid
    assert len(model.requests) == 1
    hit = calls(ledger)[-1]
    assert hit.detail["cached"] is True
    assert hit.detail["saved_usd_nano"] == paid.usd_nano


async def test_another_tenant_does_not_get_the_cached_answer(ledger: Ledger) -> None:
    model = local('"bug"', '"billing"')
    ctx = context(ledger, model)
    await triage(ctx, message="x")
    other = Context(ctx.engine, Scope("r", tenant="other"))
    assert await triage(other, message="x") == "billing"


async def test_without_sharing_a_run_still_replays_its_own_answers(ledger: Ledger) -> None:
    model = local('"bug"', '"billing"')
    ctx = context(ledger, model, share=False)
    await triage(ctx, message="x")
    assert await triage(ctx, message="x") == "bug"
    ledger.account("run/other", limit=Budget(usd="1"))
    other = Context(ctx.engine, Scope("other"))
    assert await triage(other, message="x") == "billing"


async def test_a_context_that_does_not_fit_is_refused_before_anything_is_spent(ledger: Ledger) -> None:
    ctx = context(ledger, local())
    with pytest.raises(ContextTooLong, match="too many"):
        await triage(ctx, message="word " * 9000)
    assert ledger.holds(prefix="r/") == []


async def test_a_cap_learned_from_history_is_lifted_when_it_cuts(ledger: Ledger) -> None:
    def reply(request: Request) -> ScriptedReply:
        wanted = 19 if "long" in request.messages[-1].text else 2
        used = min(wanted, request.max_output_tokens)
        return ScriptedReply("w " * used, finish="stop" if used == wanted else "length", usage=Usage(10, used))

    @skill(max_output_tokens=20)
    async def say(ctx: Context, what: str) -> str:
        """Say it."""
        ...

    model = ScriptedModel(reply)
    ctx = context(ledger, model)
    for i in range(25):
        await say(ctx, what=f"short {i}")
    assert model.requests[-1].max_output_tokens < 20
    text = await say(ctx, what="long")
    assert len(text.split()) == 19
    assert calls(ledger)[-1].meta["purpose"] == "retry"


async def test_landing_fuel_is_held_before_and_spent_later(ledger: Ledger) -> None:
    ctx = context(ledger, local('"bug"'), budget=Budget(tokens=200))
    ticket = await ctx.set_aside(triage, input_tokens=100)
    held = ledger.balance("run/r").held.tokens
    assert held == 108
    assert await triage(ctx.landing(ticket), message="x") == "bug"
    record = ledger.hold(ticket)
    assert record is not None
    assert record.state == "settled"
    assert ledger.balance("run/r").held == ZERO


async def test_a_skill_may_check_another_skills_output(ledger: Ledger) -> None:
    @skill(tier="local", max_output_tokens=4, max_input_tokens=60)
    async def supported(ctx: Context, question: str, answer: str) -> bool:
        """Is the answer right?"""
        ...

    @skill(tier="local", escalate="frontier", max_output_tokens=10, accept=supported)
    async def reply(ctx: Context, question: str) -> str:
        """Answer."""
        ...

    ctx = context(ledger, local("wrong", "false", "true"), frontier("right"))
    assert await reply(ctx, question="q") == "right"
    outer, *inner = steps(ledger)
    assert [h.parent for h in inner] == [outer.id, outer.id]
    assert outer.detail["rejected"] == [{"model": "scripted:small", "reason": "did not pass supported"}]
    assert ledger.verify().ok


async def test_a_checking_skill_may_say_why(ledger: Ledger) -> None:
    @skill(max_output_tokens=20, max_input_tokens=60)
    async def judged(ctx: Context, answer: str) -> Verdict:
        """Is the answer right? If not, say what is wrong."""
        ...

    @skill(escalate="frontier", max_output_tokens=10, accept=judged)
    async def reply(ctx: Context, question: str) -> str:
        """Answer."""
        ...

    verdicts = ('{"ok": false, "reason": "no such day"}', '{"ok": true, "reason": ""}')
    ctx = context(ledger, local("the 32nd", *verdicts), frontier("the 3rd"))
    assert await reply(ctx, question="q") == "the 3rd"
    assert steps(ledger)[0].detail["rejected"] == [{"model": "scripted:small", "reason": "judged: no such day"}]


async def test_steps_with_the_same_arguments_at_once_do_not_collide(ledger: Ledger) -> None:
    ctx = context(ledger, ScriptedModel(lambda _: ScriptedReply('"bug"', delay_s=0.01)), share=False)
    got = await asyncio.gather(*(triage(ctx, message="x") for _ in range(4)))
    assert got == ["bug"] * 4
    assert ledger.verify().ok
    assert ledger.balance("run/r").held == ZERO


async def test_fifty_concurrent_calls_with_room_for_ten_never_overspend(ledger: Ledger) -> None:
    model = ScriptedModel(lambda _: ScriptedReply('"bug"', delay_s=0.005))
    ctx = context(ledger, model, budget=Budget(calls=10), share=False)
    results = await asyncio.gather(*(triage(ctx, message=f"m{i}") for i in range(50)), return_exceptions=True)
    assert sum(r == "bug" for r in results) == 10
    assert sum(isinstance(r, BudgetExceeded) for r in results) == 40
    assert ledger.balance("run/r").posted.calls == 10


def test_a_skill_is_typed(ledger: Ledger) -> None:
    label: Skill[..., Literal["billing", "bug"]] = triage
    assert label.output.schema == {"enum": ["billing", "bug"], "type": "string"}
    assert Amount(1) + Amount(2) == Amount(3)


async def test_a_landing_ticket_serves_one_step_and_each_call_is_booked(ledger: Ledger) -> None:
    model = ScriptedModel(lambda _: ScriptedReply('"bug"', delay_s=0.02))
    ctx = context(ledger, model)
    landing = ctx.landing(await ctx.set_aside(triage, input_tokens=100))
    await asyncio.gather(triage(landing, message="x"), triage(landing, message="y"))
    assert len(model.requests) == ledger.balance("run/r").posted.calls == 2
    assert ledger.verify().ok


async def test_set_aside_again_is_the_same_ticket(ledger: Ledger) -> None:
    ctx = context(ledger, local())
    first = await ctx.set_aside(triage, input_tokens=100)
    assert await ctx.set_aside(triage, input_tokens=100) == first
    assert ledger.balance("run/r").held.tokens == 108


async def test_a_body_that_returns_a_constant_asks_no_model(ledger: Ledger) -> None:
    @skill
    async def fixed(ctx: Context, x: str) -> str:
        """Never needs a model."""
        return "fixed"

    model = local()
    assert await fixed(context(ledger, model), x="1") == "fixed"
    assert model.requests == []


async def test_an_answer_that_fits_no_type_is_not_kept(ledger: Ledger) -> None:
    ctx = context(ledger, local("garbage", "rubbish", '"bug"'))
    with pytest.raises(InvalidOutput):
        await triage(ctx, message="x")
    assert await triage(ctx, message="x") == "bug"


async def test_what_cannot_be_read_is_asked_for_once_more_and_told_why(ledger: Ledger) -> None:
    model = local("garbage", '"bug"')
    ctx = context(ledger, model)
    assert await triage(ctx, message="x") == "bug"
    said, wrong = model.requests[1].messages[-2:]
    assert (said.role, said.text) == ("assistant", "garbage")
    assert "Invalid JSON" in wrong.text
    assert [call.meta["purpose"] for call in calls(ledger)] == ["draft", "retry"]
    assert await triage(ctx, message="x") == "bug"  # kept as the answer to the question itself
    assert len(model.requests) == 2


async def test_a_second_try_that_would_take_the_room_of_the_escalation_is_left_out(ledger: Ledger) -> None:
    @skill(escalate="frontier", max_output_tokens=8)
    async def label(ctx: Context, message: str) -> Literal["billing", "bug"]:
        """Say which team."""
        ...

    ctx = context(ledger, local("garbage"), frontier('"bug"'), budget=Budget(calls=2))
    assert await label(ctx, message="x") == "bug"
    assert [call.meta["purpose"] for call in calls(ledger)] == ["draft", "escalation"]


async def test_what_a_model_finds_unreadable_itself_is_asked_for_once_more(ledger: Ledger) -> None:
    spoilt = ScriptedReply(error=InvalidOutput("half a JSON", model="m", usage=Usage(5, 3)))
    ctx = context(ledger, local(spoilt, '"bug"'))
    assert await triage(ctx, message="x") == "bug"
    assert calls(ledger)[0].settled == Amount(5_000 + 30_000, 8, 1)


async def test_a_skills_own_prompt_is_marked_as_fixed(ledger: Ledger) -> None:
    model = local('"bug"', "one", "good")
    ctx = context(ledger, model, frontier())
    await triage(ctx, message="x")
    await research(ctx, question="q")
    assert [request.fixed for request in model.requests] == [1, 1, 1]


async def test_tools_are_offered_asked_for_and_answered(ledger: Ledger) -> None:
    weather = Tool("weather", "The weather somewhere.", {"type": "object", "properties": {"city": {"type": "string"}}})

    @skill(max_output_tokens=20)
    async def report(ctx: Context, question: str) -> str:
        """Answer."""
        reply = await ctx.complete(question, tools=[weather])
        results = [Message("tool", "rain", answers=call.id) for call in reply.calls]
        return (await ctx.complete(question, tools=[weather], turns=[reply.message, *results])).text

    asks = ScriptedReply("", finish="tools", calls=(ToolCall("1", "weather", '{"city": "Rome"}'),))
    model = local(asks, "It rains.")
    ctx = context(ledger, model)
    assert await report(ctx, question="Rome?") == "It rains."
    assert await report(ctx, question="Rome?") == "It rains."  # both turns were paid for
    first, second = model.requests
    assert first.tools == (weather,)
    assert second.messages[-1] == Message("tool", "rain", answers="1")


@skill(hold="worst", max_output_tokens=100)
async def worst(ctx: Context, question: str) -> str:
    """Ask."""
    ...


@skill(hold=Budget(tokens=20), max_output_tokens=100)
async def fixed(ctx: Context, question: str) -> str:
    """Ask."""
    ...


async def test_the_worst_case_is_held_whatever_was_learned(ledger: Ledger) -> None:
    model = ScriptedModel(lambda _: "short")
    ctx = context(ledger, model, share=False)
    for number in range(25):
        await worst(ctx, question=f"{number}")
    assert {request.max_output_tokens for request in model.requests} == {100}


async def test_a_fixed_hold_caps_the_answer_and_is_not_exceeded(ledger: Ledger) -> None:
    model = local(ScriptedReply("word " * 16, finish="length"))
    ctx = context(ledger, model)
    await fixed(ctx, question="one two")
    assert model.requests[0].max_output_tokens == 20 - 5
    assert [call.amount.tokens for call in calls(ledger)] == [20]


async def test_a_fixed_hold_that_does_not_pay_for_the_input_is_refused(ledger: Ledger) -> None:
    model = local("never")
    with pytest.raises(BudgetExceeded, match="the fixed hold of skill 'fixed'"):
        await fixed(context(ledger, model), question="word " * 30)
    assert model.requests == []


async def test_a_listener_that_fails_changes_nothing(ledger: Ledger) -> None:
    def broken(_event: object) -> None:
        raise RuntimeError("boom")

    ctx = context(ledger, local('"bug"'))
    assert await triage(replace(ctx, listener=broken), message="x") == "bug"
    assert ledger.balance("run/r").held == ZERO


async def test_an_answer_cut_by_its_compute_cap_is_not_accepted(ledger: Ledger) -> None:
    @skill(max_output_tokens=20)
    async def say(ctx: Context, what: str) -> str:
        """Say it."""
        ...

    half = ScriptedReply("half a sent", finish="budget")
    await say(context(ledger, local(half, half)), what="x")
    (step,) = steps(ledger)
    assert step.detail["status"] == "unaccepted"


async def test_a_call_is_settled_by_the_price_that_was_in_force_when_it_was_reserved(ledger: Ledger) -> None:
    def reply(_request: Request) -> str:
        model.price = TokenPrice.custom(input_usd_per_mtok=50, output_usd_per_mtok=50, source="dearer")
        return '"bug"'

    model = ScriptedModel(reply, name="scripted:small")
    before = model.price
    ctx = context(ledger, model)
    await triage(ctx, message="it crashes")
    (first,) = calls(ledger)
    usage = Usage.from_dict(first.detail["usage"])
    assert first.settled == Amount(before.cost(usage), usage.total_tokens, 1)
    assert (first.meta["price"], first.detail["price"]) == (before.source, before.terms)
    await triage(ctx, message="it hangs")
    assert calls(ledger)[1].meta["price"] == "dearer"
    assert ledger.verify().ok


async def test_a_second_try_at_a_step_gets_a_name_of_its_own(ledger: Ledger) -> None:
    ctx = context(ledger, local())
    for _ in range(2):
        with pytest.raises(RuntimeError):
            await broken(ctx, message="it crashes")
    first, second = steps(ledger)
    assert second.id == f"{first.id}~2"


@skill(max_input_tokens=50)
async def broken(ctx: Context, message: str) -> str:
    """Break down after the call."""
    raise RuntimeError(message)


async def test_a_step_that_has_ended_is_freed_at_once(ledger: Ledger) -> None:
    steps: list[weakref.ref[Step]] = []

    @skill
    async def asks(ctx: Context, question: str) -> str:
        """Answer."""
        assert ctx.step is not None
        steps.append(weakref.ref(ctx.step))
        return (await ctx.complete(question)).text

    gc.disable()  # else it might be the one that finds it
    try:
        assert await asks(context(ledger, local("Yes.")), "Is it so?") == "Yes."
        assert steps[0]() is None
    finally:
        gc.enable()


async def test_a_call_by_name_takes_the_arguments_that_the_skill_has(ledger: Ledger) -> None:
    ctx = context(ledger, local('"bug"'))
    with pytest.raises(SkillError, match=r"triage\(message.*missing a required argument: 'message'"):
        await ctx.call(triage, {"text": "it crashes"})
    unnamed: Any = "it crashes"
    with pytest.raises(SkillError, match=r"arguments by name, such as \{'message': …\}, not 'it crashes'"):
        await ctx.call(triage, unnamed)
    no_skill: Any = len
    with pytest.raises(Mistake, match="'len' is no skill: write @skill"):
        await ctx.call(no_skill, {"message": "it crashes"})


@pytest.mark.parametrize(
    ("given", "why"),
    [
        ({"prompt": 5}, "a prompt is text; what was said before or since goes into turns"),
        ({"prompt": [Message("user", "x")]}, "a prompt is text"),
        (
            {"prompt": "x", "images": ["a.png"]},
            r"a picture is Image\(Path\('a\.png'\)\.read_bytes\(\), 'image/png'\), not str",
        ),
        ({"prompt": "x", "turns": ["hello"]}, r"a conversation is made of Message\(role, text\), not str"),
        ({"prompt": "x", "tools": [len]}, r"a tool is Tool\(name, description, schema"),
    ],
    ids=str,
)
@pytest.mark.parametrize("way", ["complete", "stream"])
async def test_a_part_of_a_prompt_of_another_kind_says_how_it_is_written(
    ledger: Ledger, given: dict[str, Any], why: str, way: Literal["complete", "stream"]
) -> None:
    @skill
    async def odd(ctx: Context) -> str:
        """Ask."""
        if way == "stream":
            return str(ctx.stream(**given))
        return (await ctx.complete(**given)).text

    with pytest.raises(Mistake, match=why):
        await odd(context(ledger, local("never asked")))
    assert ledger.balance("run/r").posted == ZERO
