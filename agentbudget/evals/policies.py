"""Policies: which rung of the ladder answers an item."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from typing import TYPE_CHECKING, Any, Final, Literal, assert_never, get_args

from agentbudget.errors import InvalidOutput
from agentbudget.evals.tasks import Exam, Guess
from agentbudget.skills import Skill

if TYPE_CHECKING:
    from agentbudget.step import Context

PolicyName = Literal["all-cheap", "all-strong", "cascade", "learned"]

POLICIES: Final[tuple[PolicyName, ...]] = get_args(PolicyName)

USUAL: Final[tuple[PolicyName, ...]] = ("all-cheap", "all-strong", "cascade")
"""Those that are tried unless others are asked for: they answer an item alike however often, whatever came before."""

Policy = Callable[["Context", Mapping[str, Any]], Awaitable[Guess]]
"""Answers an item, given the arguments of the exam's skill."""


def policy(name: PolicyName, exam: Exam, *, threshold: float) -> Policy:
    """The policy of this name; `threshold` is the confidence from which a cascade keeps the cheap answer."""
    if name == "all-cheap":
        return _calling(exam.skill("local"))
    if name == "all-strong":
        return _calling(exam.skill("frontier"))
    if name == "cascade":
        return cascade(exam, threshold=threshold)
    if name == "learned":
        return _calling(learned(exam, threshold=threshold))
    assert_never(name)


def cascade(exam: Exam, *, threshold: float) -> Skill[[Mapping[str, Any]], Guess]:
    """One step that holds the money for both rungs: the cheap one answers, and the strong one again if that was poor.

    Poor is an answer that does not fit its type, or whose confidence is below `threshold` or not known.
    """
    cheap, strong = exam.skill("local"), exam.skill("frontier")

    async def cascade(ctx: Context, arguments: Mapping[str, Any]) -> Guess:
        try:
            draft = await ctx.call(cheap, arguments, key="cheap")
        except InvalidOutput:  # booked and paid for; the strong rung may do better
            draft = None
        if draft is not None and draft.confidence is not None and draft.confidence >= threshold:
            return draft
        return await ctx.call(strong, arguments, key="strong")

    cascade.__doc__ = cheap.prompt
    return Skill(
        cascade,
        tier="local",
        escalate="frontier",
        max_output_tokens=cheap.max_output_tokens,
        max_input_tokens=cheap.max_input_tokens,
    )


def learned(exam: Exam, *, threshold: float) -> Skill[..., Guess]:
    """The same as one skill that begins with the strong rung, once it is known that its cheap answers do not pay."""
    cheap = exam.skill("local")
    return Skill(
        cheap.function,
        tier="local",
        escalate="frontier",
        confidence=max(threshold, 1e-9),
        start="learned",
        max_output_tokens=cheap.max_output_tokens,
        max_input_tokens=cheap.max_input_tokens,
    )


def _calling(skill: Skill[..., Guess]) -> Policy:
    async def answer(ctx: Context, arguments: Mapping[str, Any]) -> Guess:
        return await ctx.call(skill, arguments)

    return answer
