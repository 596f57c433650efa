"""From the skill's tier upward, until an answer is good enough."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Final, assert_never, cast

from agentbudget.errors import InvalidOutput, ModelError
from agentbudget.holding import Fixed
from agentbudget.models.base import Completion, Message, Model, Request
from agentbudget.output import Output
from agentbudget.route import Move, Progress, next_move
from agentbudget.settling import amount_of
from agentbudget.skills import MAX_OUTPUT_TOKENS, AnyCheck, Skill, positive
from agentbudget.step.calls import Purpose, ask
from agentbudget.step.guarding import ways
from agentbudget.step.outages import absence
from agentbudget.step.reply import Reply
from agentbudget.usage import Usage
from agentbudget.verify import Check, Verdict, judge

if TYPE_CHECKING:
    from agentbudget.step.transaction import Step


class _Unreadable:
    """Stands for an output that does not fit its type."""


_UNREADABLE: Final = _Unreadable()


def request_of(
    skill: Skill[Any, Any],
    messages: tuple[Message, ...],
    output: Output,
    max_output_tokens: int | None = None,
    *,
    fixed: int = 0,
) -> Request:
    """What is asked of a model for `skill`: a call may lower the skill's cap, not raise it. Raises `SkillError`.

    The first `fixed` messages are the same in every call of the skill.
    """
    cap = skill.max_output_tokens
    if max_output_tokens is not None:
        cap = min(cap, positive("max_output_tokens", max_output_tokens, MAX_OUTPUT_TOKENS))
    return Request(messages, cap, schema=output.schema, temperature=skill.temperature, fixed=fixed)


@dataclass(frozen=True, slots=True)
class _Tried:
    """One model's answer, and what was thought of it.

    ``ours`` says that a cap cut it which its hold had set; ``absent``, that the model could not be had: there is none.
    """

    model: Model
    answer: Completion
    value: Any
    verdict: Verdict
    ours: bool = False
    absent: bool = False

    @property
    def readable(self) -> bool:
        return self.value is not _UNREADABLE


async def climb(step: Step, request: Request, output: Output, checks: tuple[AnyCheck, ...]) -> Reply[Any]:
    """Try the rungs from the skill's tier upward until an answer is accepted."""
    rungs = ways(step, request)
    drafts: list[int] = []  # how long the answers of weaker models were tells how long a stronger one's will be
    rung, retries, purpose, asked, used = 0, 0, cast(Purpose, "draft"), rungs[0].request, list[Usage]()
    while True:
        way, spare = rungs[rung], rung < len(rungs) - 1
        try:
            answer, cap = await ask(
                step, way, asked, output, purpose, trust_history=retries == 0, drafts=drafts, spare=spare
            )
        except InvalidOutput as error:  # the model saw for itself that it is no answer
            tried = _spoilt(way.model, error)
        except ModelError as error:
            if not (spare and error.retryable):
                raise
            tried = _absent(step, way.model, error)
        else:
            ours = _is_ours(answer, cap, way.request)
            tried = await _judged(step, way.model, answer, output, checks, ours=ours, spare=spare)
        if not tried.verdict.ok:
            step.reject(tried.model, tried.verdict.reason)
        used.append(tried.answer.usage)
        move = _next(step, tried, rung=rung, top=len(rungs) - 1, retries=retries)
        match move:
            case "accept" | "stop":
                return _conclude(step, tried, output, used)
            case "retry":
                retries, purpose = retries + 1, "retry"
                asked = way.request if tried.readable or tried.ours else _with_complaint(way.request, tried)
            case "escalate":
                if not tried.absent:
                    drafts.append(tried.answer.usage.output_tokens)
                rung, retries, purpose, asked = rung + 1, 0, "escalation", rungs[rung + 1].request
                step.climbed_to(rungs[rung].model)
            case _:
                assert_never(move)


def _is_ours(answer: Completion, cap: int, request: Request) -> bool:
    """Whether a cap cut the answer that its hold had set, not the skill."""
    return answer.finish == "budget" or (answer.finish == "length" and cap < request.max_output_tokens)


def _spoilt(model: Model, error: InvalidOutput) -> _Tried:
    answer = Completion("", "stop", error.usage or Usage(), served_by=model.name)
    return _Tried(model, answer, _UNREADABLE, Verdict(False, error.fact))


def _absent(step: Step, model: Model, error: ModelError) -> _Tried:
    """A model that cannot be had is climbed past like one whose answer is not good enough."""
    step.engine.outages.began(model.name, error)
    answer = Completion("", "stop", error.usage or Usage(), served_by=model.name)
    return _Tried(model, answer, _UNREADABLE, Verdict(False, absence(error)), absent=True)


async def _judged(
    step: Step,
    model: Model,
    answer: Completion,
    output: Output,
    checks: tuple[AnyCheck, ...],
    *,
    ours: bool,
    spare: bool,
) -> _Tried:
    unsure = _unsure(step.skill, answer) if spare else None
    # What is to be asked of a stronger model anyway is only read: its checks may cost money.
    value, verdict = await _read(step, answer, output, () if unsure else checks)
    if unsure and verdict.ok:
        verdict = Verdict(False, unsure)
    if ours and verdict.ok:
        verdict = Verdict(False, "cut at the cap that its hold paid for")
    return _Tried(model, answer, value, verdict, ours)


def _unsure(skill: Skill[Any, Any], answer: Completion) -> str | None:
    """Why an answer is to be asked of a stronger model, though nothing else is wrong with it."""
    if skill.confidence is None or answer.finish != "stop":
        return None
    if answer.confidence is None:
        return "the model does not say how sure it is"
    return None if answer.confidence >= skill.confidence else f"sure at {answer.confidence:.2f}, not {skill.confidence}"


def _next(step: Step, tried: _Tried, *, rung: int, top: int, retries: int) -> Move:
    answer = tried.answer
    spoilt = answer.finish == "stop" and not tried.readable
    # A call that a fixed hold caps would be cut there again.
    may_retry = (spoilt and not tried.absent) or (tried.ours and not isinstance(step.skill.holding, Fixed))
    progress = Progress(
        rung=rung,
        top=top,
        finish=answer.finish,
        passed=tried.verdict.ok,
        retries=retries if may_retry else 1,
        readable=tried.readable,
    )
    move = next_move(progress)
    if (
        move == "retry"
        and spoilt
        and not step.funds.make_good(amount_of(tried.model.price, answer.usage))
        and rung < top
    ):
        return "escalate"  # what is left pays for a stronger model or for a second try, not for both
    return move


def _with_complaint(request: Request, tried: _Tried) -> Request:
    """The request again, with what was wrong: the same words would bring the same answer."""
    said = (Message("assistant", tried.answer.text),) if tried.answer.text else ()
    wrong = Message(
        "user", f"That cannot be read ({tried.verdict.reason}). Answer again in the form that was asked for."
    )
    return replace(request, messages=(*request.messages, *said, wrong))


def _conclude(step: Step, tried: _Tried, output: Output, used: Sequence[Usage]) -> Reply[Any]:
    answer = tried.answer
    if not tried.readable:
        raise InvalidOutput(
            f"{step.skill.name!r}: {tried.model.name} gave no {output.name}: {tried.verdict.reason}",
            model=tried.model.name,
            usage=sum(used, Usage()),
            advice="raise max_output_tokens, or let the skill escalate to a stronger model",
        )
    step.accepted = step.accepted and tried.verdict.ok
    return Reply(
        answer.text, tried.value, tried.model.name, tried.verdict.ok, answer.confidence, answer.finish, answer.calls
    )


async def _read(step: Step, answer: Completion, output: Output, checks: tuple[AnyCheck, ...]) -> tuple[Any, Verdict]:
    if answer.finish == "tools":
        return answer.text, Verdict(True)
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
