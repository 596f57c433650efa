"""The most that a step, or one call of it, may cost before it runs: by the policy of its skill."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any, Final, assert_never, cast

from agentbudget.estimate import CallEstimate
from agentbudget.growing import LEAST_TOKENS
from agentbudget.holding import START_TOKENS, Fixed, Quantile, WorstCase
from agentbudget.ledger import limits, require_room, units
from agentbudget.models.base import Model, Request
from agentbudget.money import ZERO, Amount, Budget
from agentbudget.skills import Skill

if TYPE_CHECKING:
    from agentbudget.step.engine import Engine
    from agentbudget.verify import Verdict

STREAM_LEVEL: Final = 0.9
"""The share of streams that end within what they begin on, unless the skill says: another costs an extension."""

BODY_LEVEL: Final = 0.99
"""The share of calls for which a step with a body has room before it begins, unless the skill says."""


async def size_call(
    engine: Engine,
    skill: Skill[Any, Any],
    model: Model,
    request: Request,
    *,
    whole: bool = False,
    drafts: Sequence[int] = (),
) -> CallEstimate:
    """What a call holds, and the caps that it gets for it. `whole` leaves out what was learned: all that it may use.

    `drafts` are the output tokens of what weaker models said to the same. Raises `BudgetExceeded` where a fixed hold
    is too small for the input, `ContextTooLong`.
    """
    policy, call = skill.holding, partial(engine.estimator.call, skill.name, model, drafts=drafts)
    match policy:
        case Quantile():
            return await call(request, trust_history=not whole, level=None if whole else policy.level)
        case WorstCase():
            return await call(request, trust_history=False)
        case Fixed(budget):
            estimate = await call(request, trust_history=False)
            cap = _affordable(engine, skill, model, estimate, budget)
            if cap == request.max_output_tokens:
                return estimate
            estimate = await call(replace(request, max_output_tokens=cap), trust_history=False)
            return replace(estimate, asked_tokens=request.max_output_tokens)
        case _:
            assert_never(policy)


async def size_stream(
    engine: Engine, skill: Skill[Any, Any], model: Model, request: Request
) -> tuple[CallEstimate, int]:
    """A stream as a whole, and the output tokens for which it holds when it begins."""
    lead, policy = model.stream_lead_tokens, skill.holding
    if lead is None or not isinstance(policy, Quantile):
        estimate = await size_call(engine, skill, model, request, whole=True)
        return estimate, estimate.output_cap  # of a fixed hold too: it has lowered the request's cap
    level = policy.level or STREAM_LEVEL
    estimate = await engine.estimator.call(skill.name, model, request, level=level, grows=True)
    learned = estimate.hold_tokens < estimate.output_cap
    tokens = estimate.hold_tokens + LEAST_TOKENS if learned else policy.start_tokens or START_TOKENS
    return estimate, min(estimate.output_cap, tokens + lead)


def size_body(engine: Engine, skill: Skill[Any, Any], model: Model) -> Amount:
    """What a step holds on one rung where its prompts are not known beforehand: one call of the skill's size."""
    policy, input_tokens, most = skill.holding, skill.max_input_tokens, skill.max_output_tokens
    if not isinstance(policy, Quantile):
        return _sized(engine, skill, model, input_tokens, most)
    level = policy.level or BODY_LEVEL
    sized = partial(engine.estimator.sized, skill.name, model, input_tokens=input_tokens)
    amount = sized(output_tokens=most, level=level)
    learned = amount.tokens < input_tokens + most
    if learned or policy.start_tokens is None:
        return amount
    return sized(output_tokens=min(most, policy.start_tokens))


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


def _sized(engine: Engine, skill: Skill[Any, Any], model: Model, input_tokens: int, output_tokens: int) -> Amount:
    amount = engine.estimator.sized(skill.name, model, input_tokens=input_tokens, output_tokens=output_tokens)
    return capped(amount, skill.holding.budget) if isinstance(skill.holding, Fixed) else amount


def _affordable(engine: Engine, skill: Skill[Any, Any], model: Model, estimate: CallEstimate, budget: Budget) -> int:
    """The most output tokens that a fixed hold pays for beside the input. Raises `BudgetExceeded` if there is none."""

    def bound(output_tokens: int) -> Amount:
        count = estimate.input.tokens
        return engine.estimator.sized(
            skill.name, model, input_tokens=count, output_tokens=output_tokens, price=estimate.price
        )

    def too_much(output_tokens: int) -> bool:
        amount = bound(output_tokens)
        return capped(amount, budget) != amount

    cap = bisect_left(range(1, estimate.output_cap + 1), True, key=too_much)
    if not cap:
        require_room(f"the fixed hold of skill {skill.name!r}", units(bound(1)), limit=limits(budget), used=(0, 0, 0))
    return cap
