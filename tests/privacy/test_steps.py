"""A step sends what it carries only where that may go: refused before it is sent, and in the books."""

from __future__ import annotations

from collections.abc import Generator
from typing import Any

import pytest

from agentbudget.cache import Answers
from agentbudget.errors import DataRefused, InvalidArgument, SkillError
from agentbudget.ledger import HoldRecord, Ledger
from agentbudget.models.base import Message, ToolCall
from agentbudget.models.ladder import Ladder
from agentbudget.money import Budget
from agentbudget.prices import ComputePrice
from agentbudget.privacy import Label, Privacy
from agentbudget.skills import skill
from agentbudget.statement import Statement
from agentbudget.step import Context, Engine, Scope
from agentbudget.testing import ScriptedModel, capture_spans

PAY = Label("confidential", ("hr/pay.md",))
NO = "no idea"


@skill(escalate="frontier", max_output_tokens=20, accept=lambda text: text != NO)
async def answer(ctx: Context, question: str) -> str:
    """Answer."""
    ...


@skill(tier="frontier", max_output_tokens=20)
async def conclude(ctx: Context, findings: str) -> str:
    """Conclude."""
    ...


@skill(tier="frontier", max_output_tokens=20)
async def tell(ctx: Context, what: str) -> str:
    """Tell as a stream."""
    async with ctx.stream(what) as pieces:
        return (await pieces.whole()).text


@skill(escalate="frontier", max_output_tokens=20, data_class="confidential")
async def diagnose(ctx: Context, record: str) -> str:
    """Diagnose."""
    ...


@pytest.fixture
def ledger() -> Generator[Ledger]:
    with Ledger.open("memory:") as opened:
        yield opened


@pytest.fixture
def small() -> ScriptedModel:
    return ScriptedModel(lambda _: "local says so", name="scripted:small")


@pytest.fixture
def cloud() -> ScriptedModel:
    return ScriptedModel(lambda _: "the cloud says so", name="scripted:cloud", place="remote")


def context(ledger: Ledger, *models: ScriptedModel, run: str = "r", **rules: Any) -> Context:
    ledger.account(f"run/{run}", limit=Budget(usd="1"))
    machine = ComputePrice("0.10", 100, 10)  # pyright: ignore[reportArgumentType]
    engine = Engine(ledger, Ladder(models), Answers(), machine, privacy=Privacy(**rules))
    return Context(engine, Scope(run))


def notes(ledger: Ledger, kind: str = "refusal") -> list[HoldRecord]:
    return [hold for hold in ledger.holds() if hold.meta.get("kind") == kind]


async def test_what_is_internal_climbs_to_the_cloud_as_ever(ledger: Ledger, cloud: ScriptedModel) -> None:
    ctx = context(ledger, ScriptedModel([NO], name="scripted:small"), cloud)
    assert await answer(ctx, question="lunch?") == "the cloud says so"
    assert notes(ledger) == []


async def test_confidential_text_never_reaches_a_model_elsewhere(ledger: Ledger, cloud: ScriptedModel) -> None:
    ctx = context(ledger, ScriptedModel([NO], name="scripted:small"), cloud)
    ctx.saw(PAY)
    assert await answer(ctx, question="pay?") == NO
    assert cloud.requests == []
    (step,) = (hold for hold in ledger.holds() if hold.meta.get("kind") == "step")
    assert step.detail["status"] == "unaccepted"


async def test_the_hold_has_no_room_for_a_rung_that_is_shut(ledger: Ledger, small: ScriptedModel, cloud: Any) -> None:
    ctx = context(ledger, small, cloud)
    await answer(ctx, question="lunch?")
    ctx.saw(PAY)
    await answer(ctx, question="lunch!")
    wide, narrow = (hold.amount for hold in ledger.holds() if hold.meta.get("kind") == "step")
    assert narrow.usd_nano < wide.usd_nano


async def test_a_tier_that_is_shut_is_answered_by_the_strongest_that_is_open(
    ledger: Ledger, small: ScriptedModel, cloud: ScriptedModel
) -> None:
    middle = ScriptedModel(["the middle says so"], name="scripted:middle")
    ctx = context(ledger, small, middle, cloud)
    ctx.saw(PAY)
    assert await conclude(ctx, findings="…") == "the middle says so"
    assert small.requests == cloud.requests == []


async def test_where_no_rung_may_see_it_the_error_says_what_to_change(ledger: Ledger, cloud: ScriptedModel) -> None:
    ctx = context(ledger, cloud)
    ctx.saw(PAY)
    why = r"'conclude' asks is confidential \(hr/pay.md\).*scripted:cloud.*allow="
    with capture_spans() as captured, pytest.raises(DataRefused, match=why):
        await conclude(ctx, findings="…")
    assert cloud.requests == []
    assert [name for span in captured.spans for name, _ in span.events].count("agentbudget.data_class") == 1
    assert [(note.meta["skill"], note.meta["model"]) for note in notes(ledger)] == [("conclude", "scripted:cloud")]
    balance = ledger.balance("run/r")
    assert (balance.posted.usd_nano, balance.held.usd_nano) == (0, 0)
    assert ledger.verify().ok


async def test_a_refusal_is_an_entry_of_the_journal_a_line_of_the_statement_and_an_event(
    ledger: Ledger, small: ScriptedModel, cloud: ScriptedModel
) -> None:
    with capture_spans() as captured:
        ctx = context(ledger, small, cloud)
        ctx.saw(PAY)
        await answer(ctx, question="what does Ada earn?")
    (refused,) = notes(ledger)
    reason = "confidential (hr/pay.md) may not go to scripted:cloud"
    assert (refused.state, refused.meta["model"], refused.detail["reason"]) == ("voided", "scripted:cloud", reason)
    statement = Statement.of(ledger, "r")
    (line,) = statement.lines
    assert (line.data_class, [one.destination for one in line.refused]) == ("confidential", ["scripted:cloud"])
    shown = str(statement)
    assert "confidential: 1 step" in shown
    assert "may not go to scripted:cloud" in shown
    events = [event for span in captured.spans for event in span.events]
    told = {
        "agentbudget.data_class": "confidential",
        "agentbudget.data_class.decision": "refused",
        "agentbudget.data_class.destination": "scripted:cloud",
    }
    assert events == [("agentbudget.data_class", told)]
    assert "Ada" not in captured.dump()
    assert "pay.md" not in captured.dump()


async def test_a_call_says_the_class_of_what_it_sent(ledger: Ledger, small: ScriptedModel) -> None:
    with capture_spans() as captured:
        ctx = context(ledger, small)
        await answer(ctx, question="lunch?")
        ctx.saw(PAY)
        await answer(ctx, question="pay?")
    calls = [hold.meta["data_class"] for hold in ledger.holds() if hold.meta.get("kind") == "call"]
    assert calls == ["internal", "confidential"]
    chats = [span.attributes or {} for span in captured.spans if span.name.startswith("chat")]
    assert [chat["agentbudget.data_class"] for chat in chats] == ["internal", "confidential"]


async def test_a_rung_that_is_named_for_it_by_code_may_see_it(ledger: Ledger, cloud: ScriptedModel) -> None:
    ctx = context(ledger, cloud, allow={"scripted:cloud": "confidential"})
    ctx.saw(PAY)
    assert await conclude(ctx, findings="…") == "the cloud says so"
    ctx.saw(Label("restricted"))
    with pytest.raises(DataRefused):
        await conclude(ctx, findings="more")


async def test_a_stream_goes_where_a_call_would(ledger: Ledger, small: ScriptedModel, cloud: ScriptedModel) -> None:
    ctx = context(ledger, small, cloud)
    assert await tell(ctx, what="lunch") == "the cloud says so"
    ctx.saw(PAY)
    assert await tell(ctx, what="pay") == "local says so"
    assert len(cloud.requests) == 1
    assert len(notes(ledger)) == 1


async def test_a_stream_that_no_model_may_see_is_refused_before_it_begins(ledger: Ledger, cloud: ScriptedModel) -> None:
    ctx = context(ledger, cloud)
    ctx.saw(PAY)
    with pytest.raises(DataRefused):
        await tell(ctx, what="pay")
    assert cloud.requests == []
    assert ledger.balance("run/r").posted.usd_nano == 0


async def test_a_skill_narrows_what_it_sends_and_all_that_comes_after_it(
    ledger: Ledger, small: ScriptedModel, cloud: ScriptedModel
) -> None:
    ctx = context(ledger, small, cloud)
    assert await conclude(ctx, findings="before") == "the cloud says so"
    diagnosis = await diagnose(ctx, record="…")
    assert await conclude(ctx, findings=diagnosis) == "local says so"
    assert ctx.carries == Label("confidential", ("skill diagnose",))


async def test_a_tools_result_is_as_narrow_as_code_says_it_is(
    ledger: Ledger, small: ScriptedModel, cloud: ScriptedModel
) -> None:
    @skill(tier="frontier", max_output_tokens=20)
    async def agent(ctx: Context, question: str) -> str:
        """Answer with a tool."""
        ctx.mark("confidential", "tool crm")
        turns = (Message("assistant", "", calls=(ToolCall("1", "crm", "{}"),)), Message("tool", "rich", answers="1"))
        return (await ctx.complete(question, turns=turns)).text

    ctx = context(ledger, small, cloud)
    assert await agent(ctx, question="who?") == "local says so"
    assert cloud.requests == []
    (label,) = notes(ledger, "label")
    assert label.detail["reason"] == "the run carries confidential (tool crm) from here on"


async def test_a_prompt_can_say_its_class(ledger: Ledger, small: ScriptedModel, cloud: ScriptedModel) -> None:
    @skill(tier="frontier", max_output_tokens=20)
    async def ask(ctx: Context, question: str) -> str:
        """Ask."""
        return (await ctx.complete(question, data_class="confidential")).text

    assert await ask(context(ledger, small, cloud), question="who?") == "local says so"


async def test_what_code_has_cleared_may_leave_and_only_that(
    ledger: Ledger, small: ScriptedModel, cloud: ScriptedModel
) -> None:
    ctx = context(ledger, small, cloud)
    ctx.saw(PAY)
    count = ctx.cleared("internal", reason="a count")
    assert await conclude(count, findings="there are 7") == "the cloud says so"
    assert await conclude(ctx, findings="they are …") == "local says so"
    count.saw(PAY)
    assert await conclude(count, findings="and they are …") == "local says so"
    (cleared,) = notes(ledger, "cleared")
    assert cleared.meta["was"] == "confidential (hr/pay.md)"


async def test_an_answer_about_confidential_text_is_not_kept_for_runs_that_know_of_none(
    ledger: Ledger, small: ScriptedModel
) -> None:
    ctx = context(ledger, small)
    ctx.saw(PAY)
    await answer(ctx, question="pay?")
    other = Context(ctx.engine, Scope("other"))
    ledger.account("run/other", limit=Budget(usd="1"))
    await answer(other, question="pay?")
    assert len(small.requests) == 2
    third = Context(ctx.engine, Scope("third"))
    ledger.account("run/third", limit=Budget(usd="1"))
    third.saw(PAY)
    await answer(third, question="pay?")
    assert len(small.requests) == 2


async def test_an_answer_about_restricted_text_is_kept_for_its_own_run_only(
    ledger: Ledger, small: ScriptedModel
) -> None:
    ctx = context(ledger, small)
    ctx.saw(Label("restricted", ("keys.md",)))
    await answer(ctx, question="key?")
    ledger.account("run/other", limit=Budget(usd="1"))
    other = Context(ctx.engine, Scope("other"))
    other.saw(Label("restricted", ("keys.md",)))
    await answer(other, question="key?")
    assert len(small.requests) == 2


async def test_a_class_that_is_none_is_a_mistake_of_whoever_wrote_it(ledger: Ledger, small: ScriptedModel) -> None:
    with pytest.raises(SkillError, match="data_class must be one of"):

        @skill(data_class="secret")  # pyright: ignore[reportArgumentType, reportCallIssue, reportUntypedFunctionDecorator]
        async def odd(ctx: Context) -> str:
            """Odd."""
            ...

    with pytest.raises(InvalidArgument):
        context(ledger, small).mark("hidden", "tool")  # pyright: ignore[reportArgumentType]
