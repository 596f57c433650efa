"""A model that cannot be had is climbed past, and for a while not asked again; without another its error is raised."""

from __future__ import annotations

import socket
from collections.abc import Generator
from typing import Any, Final

import pytest

from agentbudget.cache import Answers
from agentbudget.errors import AuthenticationFailed, ModelError, ModelUnavailable, OutcomeUnknown, RateLimited
from agentbudget.ledger import HoldRecord, Ledger
from agentbudget.models.base import Model
from agentbudget.models.ladder import Ladder
from agentbudget.models.openai.model import OpenAIModel
from agentbudget.models.servers import LLAMA_SERVER
from agentbudget.money import ZERO, Budget
from agentbudget.prices import ComputePrice
from agentbudget.skills import skill
from agentbudget.statement import Statement
from agentbudget.step import Context, Engine, Scope
from agentbudget.step.outages import LONGEST_REST_S, REST_S, Outages
from agentbudget.testing import ScriptedModel, ScriptedReply
from agentbudget.usage import Usage

DOWN: Final = ScriptedReply(error=ModelUnavailable("refused", model="m", sent=False), sent=False)
LOST: Final = ScriptedReply(error=OutcomeUnknown("timeout", model="m"))
DAILY: Final = ScriptedReply(error=RateLimited("no more today", model="m", usage=Usage(), retry_after_s=43_200))


@skill(escalate="frontier", max_output_tokens=20)
async def answer(ctx: Context, question: str) -> str:
    """Answer."""
    ...


@pytest.fixture
def ledger() -> Generator[Ledger]:
    with Ledger.open("memory:") as opened:
        yield opened


@pytest.fixture(autouse=True)
def at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("agentbudget.step.calls.BACKOFF_S", 0.001)


class Clock:
    def __init__(self) -> None:
        self.now_s = 100.0

    def __call__(self) -> float:
        return self.now_s


@pytest.fixture
def clock() -> Clock:
    return Clock()


def model(name: str, *script: Any) -> ScriptedModel:
    return ScriptedModel(script, name=f"scripted:{name}")


def unserved() -> OpenAIModel:
    """A model of a server that would say how large its window is, and is not up."""
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        port = unused.getsockname()[1]
    price = ComputePrice("0.10", 100, 10)  # pyright: ignore[reportArgumentType]
    return OpenAIModel("m", base_url=f"http://127.0.0.1:{port}/v1", profile=LLAMA_SERVER, price=price)


def context(ledger: Ledger, *models: Model, clock: Clock | None = None, budget: Budget | None = None) -> Context:
    ledger.account("run/r", limit=budget or Budget(usd="1"))
    machine = ComputePrice("0.10", 100, 10)  # pyright: ignore[reportArgumentType]
    engine = Engine(ledger, Ladder(models), Answers(), machine)
    if clock is not None:
        engine.outages = Outages(clock)
    return Context(engine, Scope("r"))


def holds(ledger: Ledger, kind: str) -> list[HoldRecord]:
    return [hold for hold in ledger.holds(prefix="r/") if hold.meta.get("kind") == kind]


async def test_a_model_that_stays_down_is_climbed_past_and_costs_nothing(ledger: Ledger) -> None:
    small, large = model("small", DOWN, DOWN, DOWN), model("large", "yes")
    assert await answer(context(ledger, small, large), question="well?") == "yes"
    assert (len(small.requests), len(large.requests)) == (3, 1)
    assert [call.state for call in holds(ledger, "call")] == ["voided"] * 3 + ["settled"]
    (step,) = holds(ledger, "step")
    assert (step.detail["status"], step.detail["escalated"]) == ("ok", True)
    assert step.settled == holds(ledger, "call")[-1].settled
    assert ledger.verify().ok


async def test_the_statement_says_who_could_not_be_had(ledger: Ledger) -> None:
    await answer(context(ledger, model("small", DOWN, DOWN, DOWN), model("large", "yes")), question="well?")
    (line,) = Statement.of(ledger, "r").lines
    assert [(r.model, r.reason) for r in line.rejected] == [("scripted:small", "ModelUnavailable: refused")]


async def test_calls_whose_outcome_nobody_knows_leave_the_room_for_the_stronger_model(ledger: Ledger) -> None:
    ctx = context(ledger, model("small", LOST, LOST, LOST), model("large", "yes"), budget=Budget(calls=5))
    assert await answer(ctx, question="well?") == "yes"
    assert [call.presumed for call in holds(ledger, "call")] == [True, True, True, False]
    (step,) = holds(ledger, "step")
    assert step.overrun == ZERO
    assert ledger.verify().ok


async def test_a_limit_by_the_day_leads_to_the_next_model_at_once(ledger: Ledger) -> None:
    small = model("small", DAILY)
    assert await answer(context(ledger, small, model("large", "yes")), question="well?") == "yes"
    assert len(small.requests) == 1


async def test_a_server_that_is_not_even_up_to_count_is_climbed_past(ledger: Ledger, clock: Clock) -> None:
    ctx = context(ledger, unserved(), model("large", "one", "two"), clock=clock)
    assert [await answer(ctx, question=which) for which in ("first?", "second?")] == ["one", "two"]
    lines = Statement.of(ledger, "r").lines
    assert ["no connection" in line.rejected[0].reason for line in lines] == [True, False]  # then it rested
    assert ledger.verify().ok


async def test_a_server_that_is_not_up_is_an_error_where_no_stronger_model_may_be_asked(ledger: Ledger) -> None:
    with pytest.raises(ModelUnavailable, match="no connection"):
        await answer(context(ledger, model("small", DOWN, DOWN, DOWN), unserved()), question="well?")
    assert ledger.balance("run/r").posted == ZERO
    with pytest.raises(ModelUnavailable, match="no connection"):
        await answer(context(ledger, unserved()), question="well?")


async def test_a_stronger_model_whose_server_is_not_up_does_not_stop_a_draft_that_is_good_enough(
    ledger: Ledger,
) -> None:
    assert await answer(context(ledger, model("small", "yes"), unserved()), question="well?") == "yes"


async def test_nothing_is_held_for_a_model_that_rests(ledger: Ledger, clock: Clock) -> None:
    ctx = context(ledger, model("small", DOWN, DOWN, DOWN), model("large", "one", "two"), clock=clock)
    await answer(ctx, question="first?")
    await answer(ctx, question="second?")
    first, second = (hold.amount for hold in holds(ledger, "step"))
    assert (first.calls, second.calls) == (2, 1)


async def test_nobody_climbs_past_a_wrong_key(ledger: Ledger) -> None:
    refused = ScriptedReply(error=AuthenticationFailed("no such key", model="m", sent=False), sent=False)
    large = model("large", "yes")
    with pytest.raises(AuthenticationFailed):
        await answer(context(ledger, model("small", refused), large), question="well?")
    assert large.requests == []


async def test_where_no_other_model_may_be_asked_its_error_is_raised(ledger: Ledger) -> None:
    large = model("large", DOWN, DOWN, DOWN)
    with pytest.raises(ModelUnavailable, match="refused"):
        await answer(context(ledger, model("small", DOWN, DOWN, DOWN), large), question="well?")
    assert len(large.requests) == 3
    assert ledger.balance("run/r").posted == ZERO


async def test_the_next_steps_pass_over_it_while_it_rests(ledger: Ledger, clock: Clock) -> None:
    small, large = model("small", DOWN, DOWN, DOWN), model("large", "one", "two")
    ctx = context(ledger, small, large, clock=clock)
    await answer(ctx, question="first?")
    clock.now_s += REST_S - 1
    assert await answer(ctx, question="second?") == "two"
    assert len(small.requests) == 3
    assert len(holds(ledger, "call")) == 5  # nothing was held for what was not asked
    assert ledger.balance("run/r").held == ZERO


async def test_once_it_rested_one_attempt_sees_whether_it_is_back(ledger: Ledger, clock: Clock) -> None:
    small, large = model("small", DOWN, DOWN, DOWN, DOWN, "back", "still"), model("large", "one", "two")
    ctx = context(ledger, small, large, clock=clock)
    await answer(ctx, question="first?")
    clock.now_s += REST_S
    assert await answer(ctx, question="second?") == "two"
    assert len(small.requests) == 4
    clock.now_s += REST_S
    assert await answer(ctx, question="third?") == "back"
    assert await answer(ctx, question="fourth?") == "still"
    assert ctx.engine.outages.attempts(small.name) == 3


async def test_without_another_model_one_that_rests_is_asked_all_the_same(ledger: Ledger, clock: Clock) -> None:
    @skill(max_output_tokens=20)
    async def alone(ctx: Context, question: str) -> str:
        """Answer."""
        ...

    ctx = context(ledger, model("small", DOWN, DOWN, DOWN, DOWN, "back"), model("large", "one"), clock=clock)
    await answer(ctx, question="first?")
    assert await alone(ctx, question="second?") == "back"


@pytest.mark.parametrize(("asked_s", "rests_s"), [(None, REST_S), (90.0, 90.0), (43_200.0, LONGEST_REST_S)])
def test_a_model_rests_as_long_as_its_provider_asks_within_a_bound(
    clock: Clock, asked_s: float | None, rests_s: float
) -> None:
    outages = Outages(clock)
    error: ModelError = RateLimited("slow", model="m", retry_after_s=asked_s)
    outages.began("m", error)
    clock.now_s += rests_s - 0.5
    assert outages.attempts("m") == 0
    clock.now_s += 0.5
    assert outages.attempts("m") == 1
    outages.over("m")
    assert outages.attempts("m") == 3


# --- streams


@skill(escalate="frontier", max_output_tokens=20)
async def tell(ctx: Context, question: str) -> str:
    """Tell."""
    async with ctx.stream(question) as pieces:
        return " ".join([piece.strip() async for piece in pieces])


async def test_a_stream_that_cannot_begin_comes_from_the_next_model(ledger: Ledger) -> None:
    small, large = model("small", LOST, LOST, DOWN), model("large", "one two")
    assert await tell(context(ledger, small, large, budget=Budget(calls=4)), question="well?") == "one two"
    calls = holds(ledger, "call")
    assert [(call.state, call.presumed) for call in calls] == [
        ("settled", True),
        ("settled", True),
        ("voided", False),
        ("settled", False),
    ]
    assert [call.meta["purpose"] for call in calls] == ["draft"] * 3 + ["escalation"]
    (line,) = Statement.of(ledger, "r").lines
    assert [(r.model, r.reason) for r in line.rejected] == [("scripted:small", "ModelUnavailable: refused")]
    (step,) = holds(ledger, "step")
    assert (step.detail["status"], step.detail["escalated"], step.overrun) == ("ok", True, ZERO)
    assert ledger.verify().ok


async def test_streams_and_calls_learn_of_each_others_outages(ledger: Ledger, clock: Clock) -> None:
    small, large = model("small", DOWN, DOWN, DOWN, "back"), model("large", "one", "two", "three")
    ctx = context(ledger, small, large, clock=clock)
    assert [await tell(ctx, question="first?"), await answer(ctx, question="second?")] == ["one", "two"]
    assert await tell(ctx, question="third?") == "three"
    assert len(small.requests) == 3
    clock.now_s += REST_S
    assert await tell(ctx, question="fourth?") == "back"
    assert ctx.engine.outages.attempts(small.name) == 3


async def test_a_stream_that_breaks_off_after_a_piece_is_not_begun_again(ledger: Ledger) -> None:
    broken = ScriptedReply("one two", error=OutcomeUnknown("dropped", model="m"))
    large = model("large", "three")
    with pytest.raises(OutcomeUnknown, match="dropped"):
        await tell(context(ledger, model("small", broken), large), question="well?")
    assert large.requests == []


async def test_where_no_other_model_may_be_asked_the_error_of_a_stream_is_raised(ledger: Ledger) -> None:
    large = model("large", DOWN, DOWN, DOWN)
    with pytest.raises(ModelUnavailable, match="refused"):
        await tell(context(ledger, model("small", DOWN, DOWN, DOWN), large), question="well?")
    assert len(large.requests) == 3
    assert (ledger.balance("run/r").posted, ledger.balance("run/r").held) == (ZERO, ZERO)


async def test_a_stream_comes_from_the_next_model_where_a_server_is_not_even_up_to_count(
    ledger: Ledger, clock: Clock
) -> None:
    ctx = context(ledger, unserved(), model("large", "one", "two"), clock=clock)
    assert [await tell(ctx, question=which) for which in ("first?", "second?")] == ["one", "two"]
    assert ledger.verify().ok
