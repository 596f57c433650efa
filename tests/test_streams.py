"""Streams that cannot overrun: they begin on little, grow while they run, and end with the truth, however they end."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Generator
from contextlib import aclosing
from dataclasses import dataclass, field
from typing import Any

import pytest

from agentbudget.cache import Answers
from agentbudget.errors import BudgetExceeded, ModelUnavailable, OutcomeUnknown, SkillError
from agentbudget.ledger import Entry, HoldRecord, Ledger
from agentbudget.models.base import Completion, Delta, Meter, Request
from agentbudget.models.ladder import Ladder
from agentbudget.money import ZERO, Amount, Budget
from agentbudget.prices import ComputePrice
from agentbudget.skills import skill
from agentbudget.step import Context, Engine, Reply, Scope
from agentbudget.testing import ScriptedModel, ScriptedReply, capture_spans
from agentbudget.usage import Usage

LONG = "word " * 500
"""An answer of 500 tokens."""


@pytest.fixture
def ledger() -> Generator[Ledger]:
    with Ledger.open("memory:") as opened:
        yield opened


def context(ledger: Ledger, model: ScriptedModel, *, budget: Budget | None = None, share: bool = True) -> Context:
    ledger.account("run/r", limit=budget or Budget(usd="1"))
    machine = ComputePrice("0.10", 100, 10)  # pyright: ignore[reportArgumentType]
    return Context(Engine(ledger, Ladder((model,)), Answers(), machine, share_answers=share), Scope("r"))


@dataclass
class Seen:
    """What the reader of a stream got."""

    pieces: list[str] = field(default_factory=list[str])
    replies: list[Reply[str]] = field(default_factory=list[Reply[str]])
    held: list[Amount] = field(default_factory=list[Amount])


def reader(seen: Seen, *, leave_after: int | None = None, hold: Any = "grow") -> Any:
    """A skill that reads a stream, and leaves it after so many pieces."""

    @skill(hold=hold, max_output_tokens=1000, max_input_tokens=10)
    async def tell(ctx: Context, what: str) -> str:
        """Tell."""
        async with ctx.stream(what) as stream:
            async for piece in stream:
                seen.pieces.append(piece)
                seen.held.append(ctx.engine.ledger.balance("run/r").held)
                if len(seen.pieces) == leave_after:
                    break
        seen.replies.append(stream.reply)
        return stream.reply.text

    return tell


def call(ledger: Ledger) -> HoldRecord:
    """The only call."""
    (found,) = (record for record in ledger.holds(prefix="r/") if record.meta.get("kind") == "call")
    return found


def extensions(ledger: Ledger, hold_id: str) -> list[Entry]:
    return [entry for entry in ledger.entries(subject=hold_id) if entry.kind == "extend"]


async def test_a_stream_gives_its_pieces_and_then_the_reply(ledger: Ledger) -> None:
    seen = Seen()
    assert await reader(seen)(context(ledger, ScriptedModel(["one two three"])), what="x") == "one two three"
    assert seen.pieces == ["one ", "two ", "three"]
    assert (seen.replies[0].finish, seen.replies[0].accepted) == ("stop", True)
    assert call(ledger).settled == Amount(4_000 + 30_000, 4 + 3, 1)
    assert ledger.balance("run/r").held == ZERO
    assert ledger.verify().ok


async def test_a_stream_begins_on_a_modest_hold_that_grows_with_it(ledger: Ledger) -> None:
    seen = Seen()
    await reader(seen)(context(ledger, ScriptedModel([LONG])), what="x")
    held = [amount.tokens for amount in seen.held]
    assert held[0] == 10 + 64  # the step's, in which the stream's own 4 + 64 are
    assert held == sorted(held)
    assert max(held) <= 4 + 1000 + 10
    assert len(extensions(ledger, call(ledger).id)) == 3  # 64, 128, 256, 512: a few transactions, not one a token
    assert call(ledger).overrun == ZERO
    assert ledger.verify().ok


async def test_the_hold_is_never_below_what_the_stream_has_used(ledger: Ledger) -> None:
    seen = Seen()
    await reader(seen)(context(ledger, ScriptedModel([LONG])), what="x")
    assert all(held.tokens >= 4 + number for number, held in enumerate(seen.held, 1))


async def test_a_refused_extension_cuts_the_stream_and_says_who_refused(ledger: Ledger) -> None:
    seen = Seen()
    await reader(seen)(context(ledger, ScriptedModel([LONG]), budget=Budget(tokens=150)), what="x")
    reply = seen.replies[0]
    assert reply.finish == "cut"
    assert not reply.accepted
    assert isinstance(reply.refusal, BudgetExceeded)
    assert reply.refusal.account == "run/r"
    assert reply.text == "".join(seen.pieces) == "word " * 145
    balance = ledger.balance("run/r")
    assert balance.posted.tokens <= 150
    assert balance.posted.tokens >= 4 + len(seen.pieces)
    assert call(ledger).overrun == ZERO
    assert ledger.verify().ok


async def test_a_step_whose_stream_was_cut_is_unaccepted_and_says_why(ledger: Ledger) -> None:
    await reader(Seen())(context(ledger, ScriptedModel([LONG]), budget=Budget(tokens=150)), what="x")
    (step,) = (record for record in ledger.holds(prefix="r/") if record.meta.get("kind") == "step")
    assert step.detail["status"] == "unaccepted"
    assert "run/r has" in step.detail["rejected"][0]["reason"]


async def test_a_stream_that_does_not_fit_at_all_is_refused_before_it_is_sent(ledger: Ledger) -> None:
    model = ScriptedModel([LONG])
    with pytest.raises(BudgetExceeded):
        await reader(Seen())(context(ledger, model, budget=Budget(tokens=20)), what="x")
    assert model.requests == []


async def test_a_stream_grows_through_the_steps_above_it(ledger: Ledger) -> None:
    seen = Seen()
    inner = reader(seen)

    @skill(hold="grow", max_output_tokens=10, max_input_tokens=10)
    async def outer(ctx: Context, what: str) -> str:
        """Ask another."""
        return await inner(ctx, what=what)

    await outer(context(ledger, ScriptedModel([LONG])), what="x")
    assert seen.replies[0].finish == "stop"
    assert all(record.overrun == ZERO for record in ledger.holds(prefix="r/"))
    (top,) = (record for record in ledger.holds(prefix="r/") if record.parent is None)
    assert top.amount.tokens >= 504
    assert ledger.verify().ok


async def test_a_skills_own_budget_cuts_its_stream(ledger: Ledger) -> None:
    @skill(hold="grow", max_output_tokens=1000, max_input_tokens=10, budget=Budget(tokens=100))
    async def tell(ctx: Context, what: str) -> str:
        """Tell."""
        reply = await ctx.stream(what).whole()
        assert "budget of skill 'tell'" in str(reply.refusal)
        return reply.text

    assert len((await tell(context(ledger, ScriptedModel([LONG])), what="x")).split()) == 95


async def test_a_fixed_hold_caps_a_stream_and_does_not_grow(ledger: Ledger) -> None:
    model = ScriptedModel([LONG])
    await reader(Seen(), hold=Budget(tokens=60))(context(ledger, model), what="x")
    assert model.requests[0].max_output_tokens == 60 - 4
    assert call(ledger).amount.tokens == 60


async def test_a_fixed_hold_cuts_what_takes_more_time_than_it_pays_for(ledger: Ledger) -> None:
    class Timed(ScriptedModel):
        async def stream(self, request: Request, meter: Meter) -> AsyncGenerator[Delta, None]:
            meter.leaving()
            used = Usage(4, 1, compute_ns=60 * 10**9)
            meter.used(used)
            yield Delta("slow")
            assert not meter.may_go_on(used)
            yield Delta(completion=Completion("slow", "cut", used, self.name))

    seen = Seen()
    model = Timed([], price=ComputePrice("0.10", 100, 10))  # pyright: ignore[reportArgumentType]
    await reader(seen, hold=Budget(usd="0.001"))(context(ledger, model), what="x")
    assert "the fixed hold of skill 'tell'" in str(seen.replies[0].refusal)


async def test_the_worst_case_is_held_where_the_policy_says_so(ledger: Ledger) -> None:
    seen = Seen()
    await reader(seen, hold="worst")(context(ledger, ScriptedModel([LONG])), what="x")
    assert call(ledger).amount.tokens == 4 + 1000


async def test_the_worst_case_is_held_where_nobody_says_that_leaving_stops_the_bill(ledger: Ledger) -> None:
    model = ScriptedModel([LONG], stream_lead_tokens=None)
    await reader(Seen())(context(ledger, model), what="x")
    assert call(ledger).amount.tokens == 4 + 1000


async def test_a_stream_holds_what_others_of_its_skill_have_used(ledger: Ledger) -> None:
    ctx = context(ledger, ScriptedModel(lambda _: "word " * 200), share=False)
    tell = reader(Seen())
    for number in range(30):
        await tell(ctx, what=f"{number}")
    last = [record for record in ledger.holds(prefix="r/") if record.meta.get("kind") == "call"][-1]
    assert extensions(ledger, last.id) == []
    assert last.amount.tokens < 4 + 300


async def test_leaving_a_stream_books_what_was_used_and_frees_the_rest(ledger: Ledger) -> None:
    seen = Seen()
    await reader(seen, leave_after=5)(context(ledger, ScriptedModel([LONG])), what="x")
    assert seen.replies[0].text == "word " * 5
    assert call(ledger).settled == Amount(4_000 + 50_000, 9, 1)
    assert call(ledger).detail["finish"] == "left"
    assert ledger.balance("run/r").held == ZERO


async def test_leaving_an_answer_that_was_paid_for_gives_what_came_of_it(ledger: Ledger) -> None:
    seen, ctx = Seen(), context(ledger, ScriptedModel(["word " * 20]))
    tell = reader(seen, leave_after=25)  # five pieces into the second, which the cache gives
    await tell(ctx, what="x")
    await tell(ctx, what="x")
    assert [(reply.finish, len(reply.text.split())) for reply in seen.replies] == [("stop", 20), ("cut", 5)]


async def test_a_stream_that_the_skill_left_open_is_settled_with_the_step(ledger: Ledger) -> None:
    @skill(hold="grow", max_output_tokens=1000)
    async def first(ctx: Context, what: str) -> str:
        """Tell."""
        async for piece in ctx.stream(what):
            return piece
        return ""

    assert await first(context(ledger, ScriptedModel([LONG])), what="x") == "word "
    assert call(ledger).settled == Amount(4_000 + 10_000, 5, 1)
    assert not call(ledger).presumed


class Silent(ScriptedModel):
    """A provider that does not say what a stream used before it ends."""

    async def stream(self, request: Request, meter: Meter) -> AsyncGenerator[Delta, None]:
        """As scripted; what is known is a bound."""
        said = Meter(on_leaving=meter.on_leaving, gate=meter.gate)
        lead = self.stream_lead_tokens or 0
        ended = False
        try:
            async with aclosing(super().stream(request, said)) as deltas:
                async for delta in deltas:
                    ended = delta.completion is not None and delta.completion.finish != "cut"
                    yield delta
        finally:
            meter.sent = said.sent
            known = said.usage or said.presumed or Usage()
            if ended:
                meter.used(known)
            else:
                meter.usage, meter.presumed = None, known + Usage(output_tokens=lead)


async def test_leaving_a_stream_of_unknown_use_presumes_what_arrived_and_the_lead(ledger: Ledger) -> None:
    await reader(Seen(), leave_after=5)(context(ledger, Silent([LONG], stream_lead_tokens=20)), what="x")
    assert call(ledger).settled == Amount(4_000 + 250_000, 29, 1)
    assert call(ledger).presumed


async def test_leaving_where_nobody_says_that_it_stops_the_bill_presumes_the_hold(ledger: Ledger) -> None:
    await reader(Seen(), leave_after=5)(context(ledger, Silent([LONG], stream_lead_tokens=None)), what="x")
    assert call(ledger).settled == call(ledger).amount
    assert call(ledger).presumed


async def test_a_cut_stream_of_unknown_use_is_presumed_at_its_bound(ledger: Ledger) -> None:
    model = Silent([LONG], stream_lead_tokens=0)
    await reader(Seen())(context(ledger, model, budget=Budget(tokens=150)), what="x")
    assert call(ledger).presumed
    assert ledger.balance("run/r").posted.tokens <= 151


async def test_a_stream_that_breaks_off_raises_after_its_pieces_and_is_presumed(ledger: Ledger) -> None:
    seen = Seen()
    dropped = ScriptedReply("word word", error=OutcomeUnknown("dropped", model="m"))
    with pytest.raises(OutcomeUnknown):
        await reader(seen)(context(ledger, ScriptedModel([dropped])), what="x")
    assert len(seen.pieces) == 2
    assert call(ledger).presumed
    assert call(ledger).settled == Amount(4_000 + 20_000, 6, 1)
    assert ledger.balance("run/r").held == ZERO


async def test_a_stream_that_says_not_how_it_ended_is_an_unknown_outcome(ledger: Ledger) -> None:
    class Truncated(ScriptedModel):
        async def stream(self, request: Request, meter: Meter) -> AsyncGenerator[Delta, None]:
            meter.leaving()
            yield Delta("half ")

    with pytest.raises(OutcomeUnknown):
        await reader(Seen())(context(ledger, Truncated([])), what="x")
    assert call(ledger).presumed


async def test_a_stream_that_fails_before_it_began_is_tried_again(
    ledger: Ledger, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("agentbudget.step.calls.BACKOFF_S", 0.001)
    down = ScriptedReply(error=ModelUnavailable("down", model="m", usage=Usage()))
    assert await reader(Seen())(context(ledger, ScriptedModel([down, "fine"])), what="x") == "fine"


async def test_cancelling_a_stream_books_what_was_used(ledger: Ledger) -> None:
    seen = Seen()

    class Slow(ScriptedModel):
        async def stream(self, request: Request, meter: Meter) -> AsyncGenerator[Delta, None]:
            async with aclosing(super().stream(request, meter)) as deltas:
                async for delta in deltas:
                    yield delta
                    await asyncio.sleep(0 if len(seen.pieces) < 3 else 30)

    task = asyncio.create_task(reader(seen)(context(ledger, Slow([LONG])), what="x"))
    while len(seen.pieces) < 3:
        await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert call(ledger).settled == Amount(4_000 + 30_000, 7, 1)
    assert ledger.balance("run/r").held == ZERO


async def test_a_whole_answer_is_kept_and_streams_again_for_nothing(ledger: Ledger) -> None:
    seen, model = Seen(), ScriptedModel(["one two\nthree"])
    ctx, tell = context(ledger, model), reader(seen)
    await tell(ctx, what="x")
    paid = ledger.balance("run/r").posted
    assert await tell(ctx, what="x") == "one two\nthree"
    assert "".join(seen.pieces[3:]) == "one two\nthree"
    assert len(seen.pieces) > 4
    assert ledger.balance("run/r").posted == paid
    assert len(model.requests) == 1


async def test_an_answer_that_was_cut_is_not_kept(ledger: Ledger) -> None:
    model = ScriptedModel([LONG, "whole"])
    ctx, tell = context(ledger, model, budget=Budget(tokens=100)), reader(Seen())
    await tell(ctx, what="x")
    ledger.set_limit("run/r", Budget(tokens=1000))
    assert await tell(ctx, what="x") == "whole"


async def test_a_frozen_account_cuts_a_stream(ledger: Ledger) -> None:
    seen = Seen()

    @skill(hold="grow", max_output_tokens=1000)
    async def tell(ctx: Context, what: str) -> str:
        """Tell."""
        async with ctx.stream(what) as stream:
            async for piece in stream:
                seen.pieces.append(piece)
                ledger.freeze("run/r", reason="enough")
        return str(stream.reply.refusal)

    assert "frozen" in await tell(context(ledger, ScriptedModel([LONG])), what="x")


async def test_twenty_streams_at_once_share_a_budget_and_never_overspend(ledger: Ledger) -> None:
    model = ScriptedModel(lambda _: ScriptedReply(LONG, delay_s=0.001))
    ctx, seen = context(ledger, model, budget=Budget(tokens=2000), share=False), Seen()
    tell = reader(seen)
    ended = await asyncio.gather(*(tell(ctx, what=f"{n}") for n in range(20)), return_exceptions=True)
    assert all(isinstance(e, str | BudgetExceeded) for e in ended)
    balance = ledger.balance("run/r")
    assert balance.held == ZERO
    assert 1900 < balance.posted.tokens <= 2000
    assert ledger.verify().ok


async def test_the_reply_of_a_stream_that_goes_on_is_an_error(ledger: Ledger) -> None:
    @skill(hold="grow")
    async def hasty(ctx: Context, what: str) -> str:
        """Tell."""
        return ctx.stream(what).reply.text

    with pytest.raises(SkillError, match="has not ended"):
        await hasty(context(ledger, ScriptedModel([LONG])), what="x")


async def test_a_streams_span_says_what_it_used_and_is_not_around_its_reader(ledger: Ledger) -> None:
    with capture_spans() as telemetry:
        await reader(Seen())(context(ledger, ScriptedModel(["one two"])), what="x")
    span = telemetry.span("chat model")
    assert span.attributes["gen_ai.usage.output_tokens"] == 2
    assert span.parent == "step tell"
