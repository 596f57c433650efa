"""Estimates: exact where that is possible, safe where it is not, tighter with experience."""

from __future__ import annotations

import random
from dataclasses import replace
from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agentbudget.errors import ContextTooLong, InvalidArgument
from agentbudget.estimate import ENOUGH, Estimator, conformal_upper, tag
from agentbudget.ledger import Ledger
from agentbudget.models.base import InputCount, Message, Request
from agentbudget.money import Amount
from agentbudget.prices import ComputePrice, TokenPrice
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


async def test_a_level_holds_a_quantile_and_leaves_the_cap_to_a_call_whose_hold_grows() -> None:
    model, estimator = ScriptedModel([]), Estimator(Ledger.open("memory:"))
    for tokens in random.Random(7).sample(range(1, 61), 60):
        estimator.learn("say", model, Usage(4, tokens), "stop")
    grows = await estimator.call("say", model, ASK, level=0.9, grows=True)
    assert grows.output_cap == 100
    assert grows.bound == Amount(4 * 1_000 + 100 * 10_000, 104, 1)
    assert 40 <= grows.hold_tokens <= 60
    assert grows.hold == Amount(4 * 1_000 + grows.hold_tokens * 10_000, 4 + grows.hold_tokens, 1)


async def test_a_call_whose_hold_stays_is_capped_at_what_its_level_covers() -> None:
    model, estimator = ScriptedModel([]), Estimator(Ledger.open("memory:"))
    for tokens in random.Random(7).sample(range(1, 61), 60):
        estimator.learn("say", model, Usage(4, tokens), "stop")
    capped = await estimator.call("say", model, ASK, level=0.9)
    assert capped.output_cap == capped.hold_tokens < 100
    assert capped.hold == capped.bound


@pytest.mark.parametrize("grows", [True, False])
async def test_a_level_holds_the_worst_case_until_enough_is_known(grows: bool) -> None:
    model, estimator = ScriptedModel([]), Estimator(Ledger.open("memory:"))
    for _ in range(ENOUGH - 1):
        estimator.learn("say", model, Usage(4, 10), "stop")
    cold = await estimator.call("say", model, ASK, level=0.9, grows=grows)
    assert cold.hold == cold.bound
    assert cold.output_cap == 100


@pytest.mark.parametrize("level", [0.0, 1.0, 90.0])
async def test_a_level_is_a_share(level: float) -> None:
    with pytest.raises(InvalidArgument, match=r"such as 0\.9"):
        await Estimator(Ledger.open("memory:")).call("say", ScriptedModel([]), ASK, level=level)


async def test_without_a_level_the_hold_is_the_bound() -> None:
    model, estimator = ScriptedModel([]), Estimator(Ledger.open("memory:"))
    for _ in range(ENOUGH):
        estimator.learn("say", model, Usage(4, 10), "stop")
    estimate = await estimator.call("say", model, ASK)
    assert estimate.hold == estimate.bound
    assert estimate.hold_tokens == estimate.output_cap


async def test_a_new_process_learns_what_was_known_of_the_prompts_too() -> None:
    ledger, model = Ledger.open("memory:"), ScriptedModel([])
    ledger.account("run/r")
    here = Estimator(ledger)
    for number in range(80):
        request = Request((Message("user", "word " * (1 + number % 40)),), max_output_tokens=500)
        estimate = await here.call("say", model, request, trust_history=False)
        hold = ledger.reserve(
            f"h{number}",
            estimate.hold,
            accounts=["run/r"],
            tag=tag("say", model.name),
            meta={"estimated": estimate.told},
        )
        usage = Usage(estimate.input.tokens, 5 * (1 + number % 40))
        here.learn("say", model, usage, "stop", estimate=estimate)
        hold.settle(Amount(1), detail={"usage": usage.to_dict(), "finish": "stop"})
    there = Estimator(ledger)
    for words in (2, 38):
        request = Request((Message("user", "word " * words),), max_output_tokens=500)
        assert await there.call("say", model, request, level=0.9) == await here.call("say", model, request, level=0.9)


async def test_a_longer_prompt_with_longer_answers_is_expected_to_cost_more() -> None:
    model, estimator = ScriptedModel([]), Estimator(Ledger.open("memory:"))
    requests = [Request((Message("user", "word " * words),), max_output_tokens=500) for words in range(1, 41)]
    for words in [*range(1, 41), *range(1, 41), *range(1, 41)]:
        estimate = await estimator.call("say", model, requests[words - 1], trust_history=False)
        estimator.learn("say", model, Usage(words, 5 * words), "stop", estimate=estimate)
    short, long = [await estimator.call("say", model, requests[n], level=0.9, grows=True) for n in (2, 37)]
    assert 2 * short.hold_tokens < long.hold_tokens
    assert 2 * (short.expected.tokens - short.input.tokens) < long.expected.tokens - long.input.tokens


async def test_an_answer_cut_at_a_learned_cap_does_not_count_as_that_short() -> None:
    model, estimator = ScriptedModel([]), Estimator(Ledger.open("memory:"))
    for tokens in range(41, 61):
        estimator.learn("say", model, Usage(4, tokens), "stop")
    before = await estimator.call("say", model, ASK, level=0.5)
    assert before.output_cap < 100
    for _ in range(40):
        estimator.learn("say", model, Usage(4, 5), "length", estimate=before)
    after = await estimator.call("say", model, ASK, level=0.5)
    assert after.output_cap >= before.output_cap


async def test_what_a_step_may_cost_at_a_level_does_not_need_its_prompt() -> None:
    model, estimator = ScriptedModel([]), Estimator(Ledger.open("memory:"))
    for tokens in random.Random(7).sample(range(1, 61), 60):
        estimator.learn("say", model, Usage(4, tokens), "stop")
    worst = estimator.sized("say", model, input_tokens=10, output_tokens=100)
    assert worst == Amount(10 * 1_000 + 100 * 10_000, 110, 1)
    assert estimator.sized("say", model, input_tokens=10, output_tokens=100, level=0.9).tokens < worst.tokens


async def test_what_a_step_may_cost_at_a_level_covers_prompts_of_every_length() -> None:
    model, estimator = ScriptedModel([]), Estimator(Ledger.open("memory:"))
    for words in [*range(101, 141)] * 3:
        request = Request((Message("user", "word " * words),), max_output_tokens=500)
        estimate = await estimator.call("say", model, request, trust_history=False)
        estimator.learn("say", model, Usage(words, 2 * words), "stop", estimate=estimate)
    held = estimator.sized("say", model, input_tokens=0, output_tokens=500, level=0.9).tokens
    assert sum(2 * words <= held for words in range(101, 141)) >= 0.9 * 40
    assert held <= 280


class Bounded(ScriptedModel):
    """A model whose input is bounded at four times its words, as bytes bound Claude's."""

    async def count_input(self, request: Request) -> InputCount:
        """Four tokens a word."""
        return InputCount(4 * (await super().count_input(request)).tokens, exact=False)


async def test_a_bound_on_the_input_becomes_tight_as_what_is_expected_and_stays_what_is_held_for_the_worst_case() -> (
    None
):
    model, estimator = Bounded([]), Estimator(Ledger.open("memory:"))
    for _ in range(3):
        estimate = await estimator.call("say", model, ASK)
        assert estimate.input.tokens == 16
        estimator.learn("say", model, Usage(4, 100), "stop", estimate=estimate)
    estimate = await estimator.call("say", model, ASK)
    assert estimate.expected == Amount(4 * 1_000 + 100 * 10_000, 104, 1)
    assert estimate.hold == Amount(16 * 1_000 + 100 * 10_000, 116, 1)


async def test_at_a_level_a_learned_share_of_the_input_is_held_for_text_no_stranger_than_what_was_seen() -> None:
    model, estimator = Bounded([]), Estimator(Ledger.open("memory:"))
    for _ in range(100):
        estimate = await estimator.call("say", model, ASK)
        estimator.learn("say", model, Usage(4, 100), "stop", estimate=estimate)
    like = await estimator.call("say", model, ASK, level=0.9)
    assert like.hold.usd_nano == 5 * 1_000 + 100 * 10_000  # 16 × 1.1 × the largest share of 4/16
    strange = Request((Message("user", "один два три"),), max_output_tokens=100)
    assert (await estimator.call("say", model, strange, level=0.9)).hold.usd_nano == 16 * 1_000 + 100 * 10_000


async def test_only_a_cache_of_an_hour_is_held_at_its_price() -> None:
    model = ScriptedModel([], price=TokenPrice.known("anthropic", "claude-haiku-4-5"))
    asked = Request((Message("user", "word " * 1000),), max_output_tokens=10)
    estimator = Estimator(Ledger.open("memory:"))
    short = await estimator.call("s", model, asked)
    hour = await estimator.call("s", model, replace(asked, cache_time="1h"))
    # Writes cost 1.25 and 2 times what input does: $1 per million tokens; output costs $5.
    assert short.bound.usd_nano == 1.25 * 1000 * short.input.tokens + 5000 * 10
    assert hour.bound.usd_nano == 2 * 1000 * hour.input.tokens + 5000 * 10
