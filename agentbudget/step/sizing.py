"""The most that a step may cost, before it runs."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, cast

from agentbudget.money import ZERO, Amount, Budget
from agentbudget.skills import Skill

if TYPE_CHECKING:
    from agentbudget.step.engine import Engine
    from agentbudget.verify import Verdict


def worst_case(engine: Engine, skill: Skill[Any, Any], input_tokens: int) -> Amount:
    """The most that one step of `skill` may cost with prompts of `input_tokens`: every rung, and its checks."""
    total = ZERO
    for model in engine.ladder.climb(skill.tier, skill.escalate):
        call = engine.estimator.sized(
            skill.name, model, input_tokens=input_tokens, output_tokens=skill.max_output_tokens
        )
        total = total + call + checks_bound(engine, skill)
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
    def least(value: int, limit: int | None) -> int:
        return value if limit is None else min(value, limit)

    return Amount(
        least(amount.usd_nano, budget.usd_nano), least(amount.tokens, budget.tokens), least(amount.calls, budget.calls)
    )
