"""Estimates: exact where that is possible, safe where it is not, tighter with experience."""

from __future__ import annotations

from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agentbudget.errors import ContextTooLong
from agentbudget.estimate import ENOUGH, Estimator, conformal_upper, tag
from agentbudget.ledger import Ledger
from agentbudget.models.base import Message, Request
from agentbudget.money import Amount
from agentbudget.prices import ComputePrice
from agentbudget.testing import ScriptedModel
from agentbudget.usage import Usage

ASK = Request((Message("user", "one two three"),), max_output_tokens=100)
NS = 10**9


def timed(safety: int = 6) -> ScriptedModel:
    """A model paid by the second: 100 tokens a second in, 10 out, 3.60 USD an hour."""
    return ScriptedModel([], price=ComputePrice(Decimal("3.6"), 100, 10, safety=safety))


async def test_the_bound_is_the_counted_input_and_the_whole_cap() -> None:
    estimate = await Estimator(Ledger.open("memory:")).call("say", ScriptedModel([]), ASK)
    assert estimate.bound == Amount(4 * 1_000 + 100 * 10_000, 104, 1)
    assert estimate.output_cap == 100


async def test_what_does_not_fit_the_context_says_by_how_much() -> None:
    with pytest.raises(ContextTooLong, match="4 too many") as refused:
        await Estimator(Ledger.open("memory:")).call("say", ScriptedModel([], context_window=100), ASK)
    assert (refused.value.input_tokens, refused.value.output_tokens) == (4, 100)


async def test_settled_calls_lower_the_cap_of_their_skill_and_model_only() -> None:
    model, estimator = ScriptedModel([]), Estimator(Ledger.open("memory:"))
    for _ in range(ENOUGH):
        estimator.learn("say", model, Usage(4, 10), "stop")
    assert (await estimator.call("say", model, ASK)).output_cap < 25
    assert (await estimator.call("say", model, ASK, trust_history=False)).output_cap == 100
    assert (await estimator.call("other", model, ASK)).output_cap == 100


async def test_a_new_process_learns_from_the_ledger() -> None:
    ledger, model = Ledger.open("memory:"), ScriptedModel([])
    ledger.account("run/r")
    for number in range(ENOUGH):
        hold = ledger.reserve(f"h{number}", Amount(9), accounts=["run/r"], tag=tag("say", model.name))
        hold.settle(Amount(5), detail={"usage": Usage(4, 10).to_dict(), "finish": "stop"})
    assert (await Estimator(ledger).call("say", model, ASK)).output_cap < 25


async def test_a_slow_machine_widens_the_bound_from_the_first_call_on() -> None:
    model, estimator = timed(), Estimator(Ledger.open("memory:"))
    cold = (await estimator.call("say", model, ASK)).bound.usd_nano
    estimator.learn("say", model, Usage(100, 10, compute_ns=40 * NS), "stop")  # 20 times as slow as stated
    warm = await estimator.call("say", model, ASK)
    assert warm.bound.usd_nano > 6 * cold
    assert warm.request.max_compute_s is not None


async def test_experience_lets_less_money_idle() -> None:
    model, estimator = timed(), Estimator(Ledger.open("memory:"))
    cold = (await estimator.call("say", model, ASK)).bound.usd_nano
    for _ in range(ENOUGH):
        estimator.learn("say", model, Usage(100, 100, compute_ns=11 * NS), "stop")
    assert (await estimator.call("say", model, ASK)).bound.usd_nano < cold / 2


async def test_a_local_model_is_cut_before_its_hold_is_used_up() -> None:
    model = timed()
    estimate = await Estimator(Ledger.open("memory:")).call("say", model, ASK)
    assert estimate.request.max_compute_s is not None
    compute_ns = int(estimate.request.max_compute_s * NS)
    assert model.price.cost(Usage(compute_ns=compute_ns)) < estimate.bound.usd_nano


@given(st.lists(st.integers(0, 1000), min_size=1), st.floats(0.5, 0.99))
def test_the_conformal_bound_is_one_of_the_values_and_covers_their_share(values: list[int], level: float) -> None:
    bound = conformal_upper(values, level)
    assert bound in values
    assert sum(v <= bound for v in values) >= min(len(values), level * len(values))
