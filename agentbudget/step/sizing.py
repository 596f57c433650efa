"""The most that a step, or one call of it, may cost before it runs: by the policy of its skill."""

from __future__ import annotations

from bisect import bisect_left
from dataclasses import replace
from typing import TYPE_CHECKING, Any, assert_never, cast

from agentbudget.estimate import CallEstimate
from agentbudget.holding import START_TOKENS, Fixed, Quantile, WorstCase
from agentbudget.ledger import limits, require_room, units
from agentbudget.models.base import Model, Request
from agentbudget.money import ZERO, Amount, Budget
from agentbudget.skills import Skill

if TYPE_CHECKING:
    from agentbudget.step.engine import Engine
    from agentbudget.verify import Verdict


async def size_call(
    engine: Engine, skill: Skill[Any, Any], model: Model, request: Request, *, whole: bool = False
) -> CallEstimate:
    """What a call holds, and the caps that it gets for it. `whole` leaves out what was learned: all that it may use.

    Raises `BudgetExceeded` where a fixed hold is too small for the input, `ContextTooLong`.
    """
    policy, estimator = skill.holding, engine.estimator
    if isinstance(policy, Quantile):
        return await estimator.call(skill.name, model, request, trust_history=not whole, level=policy.level)
    estimate = await estimator.call(skill.name, model, request, trust_history=False)
    if isinstance(policy, WorstCase):
        return estimate
    cap = _affordable(engine, skill, model, estimate, policy.budget)
    if cap == request.max_output_tokens:
        return estimate
    return await estimator.call(skill.name, model, replace(request, max_output_tokens=cap), trust_history=False)


def start_of_stream(engine: Engine, skill: Skill[Any, Any], model: Model, estimate: CallEstimate) -> int:
    """Output tokens for which a stream holds when it begins; `estimate` is of the whole call."""
    lead, cap, policy = model.stream_lead_tokens, estimate.output_cap, skill.holding
    if lead is None or not isinstance(policy, Quantile):
        return cap  # of a fixed hold too: it has lowered the request's cap
    learned = engine.estimator.upper(skill.name, model, level=policy.level)
    return min(cap, (learned or policy.start_tokens or START_TOKENS) + lead)


def size_body(engine: Engine, skill: Skill[Any, Any], model: Model) -> Amount:
    """What a step holds on one rung where its prompts are not known beforehand: one call of the skill's size."""
    return _sized(engine, skill, model, skill.max_input_tokens, _body_output(engine, skill, model))


def worst_case(engine: Engine, skill: Skill[Any, Any], input_tokens: int) -> Amount:
    """The most that one step of `skill` may cost with prompts of `input_tokens`: every rung, and its checks."""
    total = ZERO
    for model in engine.ladder.climb(skill.tier, skill.escalate):
        total = total + _sized(engine, skill, model, input_tokens, skill.max_output_tokens)
        total = total + checks_bound(engine, skill)
    return total if skill.budget is None else capped(total, skill.budget)


def checks_bound(engine: Engine, skill: Skill[Any, Any]) -> Amount:
    """The most that checking one answer of `skill` may cost."""
    total = ZERO
    for check in skill.accept:
        if isinstance(check, Skill):
            verifier = cast("Skill[..., bool | Verdict]", check)
            total = total + worst_case(engine, verifier, verifier.max_input_tokens)
    return total


def capped(amount: Amount, budget: Budget) -> Amount:
    """`amount`, and no more of a unit than `budget` has."""

    def least(value: int, limit: int | None) -> int:
        return value if limit is None else min(value, limit)

    return Amount(
        least(amount.usd_nano, budget.usd_nano), least(amount.tokens, budget.tokens), least(amount.calls, budget.calls)
    )


def _body_output(engine: Engine, skill: Skill[Any, Any], model: Model) -> int:
    policy, most = skill.holding, skill.max_output_tokens
    match policy:
        case WorstCase() | Fixed():
            return most
        case Quantile():
            learned = engine.estimator.upper(skill.name, model, level=policy.level)
            return min(most, learned or policy.start_tokens or most)
        case _:
            assert_never(policy)


def _sized(engine: Engine, skill: Skill[Any, Any], model: Model, input_tokens: int, output_tokens: int) -> Amount:
    amount = engine.estimator.sized(skill.name, model, input_tokens=input_tokens, output_tokens=output_tokens)
    return capped(amount, skill.holding.budget) if isinstance(skill.holding, Fixed) else amount


def _affordable(engine: Engine, skill: Skill[Any, Any], model: Model, estimate: CallEstimate, budget: Budget) -> int:
    """The most output tokens that a fixed hold pays for beside the input. Raises `BudgetExceeded` if there is none."""

    def bound(output_tokens: int) -> Amount:
        count = estimate.input.tokens
        return engine.estimator.sized(skill.name, model, input_tokens=count, output_tokens=output_tokens)

    def too_much(output_tokens: int) -> bool:
        amount = bound(output_tokens)
        return capped(amount, budget) != amount

    cap = bisect_left(range(1, estimate.output_cap + 1), True, key=too_much)
    if not cap:
        require_room(f"the fixed hold of skill {skill.name!r}", units(bound(1)), limit=limits(budget), used=(0, 0, 0))
    return cap
