"""From the skill's tier upward, until an answer is good enough."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final, assert_never, cast

from agentbudget.errors import InvalidOutput
from agentbudget.models.base import Completion, Message, Model, Request
from agentbudget.route import Progress, next_move
from agentbudget.skills import MAX_OUTPUT_TOKENS, AnyCheck, Output, Skill, positive
from agentbudget.step.calls import Purpose, ask
from agentbudget.step.reply import Reply
from agentbudget.verify import Check, Verdict, judge

if TYPE_CHECKING:
    from agentbudget.step.transaction import Step


class _Unreadable:
    """Stands for an output that does not fit its type."""


_UNREADABLE: Final = _Unreadable()


def request_of(
    skill: Skill[Any, Any], messages: tuple[Message, ...], output: Output, max_output_tokens: int | None = None
) -> Request:
    """What is asked of a model for `skill`: a call may lower the skill's cap, not raise it. Raises `SkillError`."""
    cap = skill.max_output_tokens
    if max_output_tokens is not None:
        cap = min(cap, positive("max_output_tokens", max_output_tokens, MAX_OUTPUT_TOKENS))
    return Request(messages, cap, schema=output.schema, temperature=skill.temperature)


async def climb(step: Step, request: Request, output: Output, checks: tuple[AnyCheck, ...]) -> Reply[Any]:
    """Try the rungs from the skill's tier upward until an answer is accepted."""
    rungs = step.engine.ladder.climb(step.skill.tier, step.skill.escalate)
    rung, retries, purpose = 0, 0, cast(Purpose, "draft")
    while True:
        model = rungs[rung]
        answer, cap = await ask(step, model, request, output, purpose, trust_history=retries == 0)
        cut_by_us = answer.finish == "budget" or (answer.finish == "length" and cap < request.max_output_tokens)
        value, verdict = await _read(step, answer, output, checks)
        if cut_by_us and verdict.ok:
            verdict = Verdict(False, "cut at the cap that its hold paid for")
        if not verdict.ok:
            step.rejected.append({"model": model.name, "reason": verdict.reason})
        progress = Progress(
            rung=rung,
            top=len(rungs) - 1,
            finish=answer.finish,
            passed=verdict.ok,
            retries=retries if cut_by_us else 1,
        )
        move = next_move(progress)
        if move in ("accept", "stop"):
            return _conclude(step, answer, output, model, value, verdict)
        if move == "retry":
            retries, purpose = retries + 1, "retry"
        else:
            rung, retries, purpose = rung + 1, 0, "escalation"
            step.escalated = True
            step.tell("escalated", model=rungs[rung].name)


def _conclude(step: Step, answer: Completion, output: Output, model: Model, value: Any, verdict: Verdict) -> Reply[Any]:
    if value is _UNREADABLE:
        raise InvalidOutput(
            f"{step.skill.name!r}: {model.name} gave no {output.name}: {verdict.reason}",
            model=model.name,
            usage=answer.usage,
            advice="raise max_output_tokens, or let the skill escalate to a stronger model",
        )
    step.accepted = step.accepted and verdict.ok
    return Reply(answer.text, value, model.name, verdict.ok, answer.confidence)


async def _read(step: Step, answer: Completion, output: Output, checks: tuple[AnyCheck, ...]) -> tuple[Any, Verdict]:
    if answer.finish == "refused":
        return (answer.text if output.is_text else _UNREADABLE), Verdict(False, "the model declined")
    try:
        value = output.parse(answer.text)
    except ValueError as error:
        return _UNREADABLE, Verdict(False, _why_unreadable(answer, error))
    return value, await judge(value, tuple(_bound_check(step, check) for check in checks))


def _bound_check(step: Step, check: AnyCheck) -> Check:
    """A skill as a check: it gets the output as ``answer`` and those of our arguments that it names."""
    if not isinstance(check, Skill):
        return cast(Check, check)
    verifier = cast("Skill[..., bool | Verdict]", check)

    async def verified(value: object) -> bool | Verdict:
        known = {**step.arguments, "answer": value}
        wanted = {name: known[name] for name in verifier.signature.parameters if name in known}
        return await step.context.call(verifier, verifier.bind((), wanted))

    verified.__name__ = verifier.name
    return verified


def _why_unreadable(answer: Completion, error: ValueError) -> str:
    match answer.finish:
        case "length":
            return f"cut at {answer.usage.output_tokens} output tokens"
        case "budget":
            return f"cut after the {answer.usage.compute_ns / 1e9:.1f} s of compute that its hold paid for"
        case "cut":
            return "cut when its hold could not grow"
        case "stop" | "refused" | "tools":
            return f"not of the type: {error}"
        case _:
            assert_never(answer.finish)
