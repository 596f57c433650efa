"""An answer as it arrives, on a hold that grows with it."""

from __future__ import annotations

import itertools
import re
from collections.abc import AsyncGenerator
from contextlib import aclosing
from dataclasses import dataclass
from functools import partial
from types import TracebackType
from typing import TYPE_CHECKING, Final, Self

from agentbudget.cache import Asked, CachedAnswer
from agentbudget.errors import AgentBudgetError, BudgetExceeded, ModelError, OutcomeUnknown, SkillError
from agentbudget.estimate import CallEstimate
from agentbudget.growing import LEAST_TOKENS, Growth
from agentbudget.holding import Fixed
from agentbudget.ledger import Hold, limits, require_room, units
from agentbudget.models.base import Completion, Model, Request
from agentbudget.money import Amount
from agentbudget.output import Output
from agentbudget.step.calls import Attempt, Purpose, call_meta, parts_of, pause
from agentbudget.step.guarding import Way, ways
from agentbudget.step.kept import asked_of, book_free, learn, paid_once
from agentbudget.step.outages import absence
from agentbudget.step.reply import Reply
from agentbudget.step.sizing import size_stream
from agentbudget.usage import Usage

if TYPE_CHECKING:
    from agentbudget.step.transaction import Step

_TEXT: Final = Output(str)
_WORDS: Final = re.compile(r"\s*\S+\s*|\s+")


@dataclass(frozen=True, slots=True)
class _Rung:
    """A model whose answer may be streamed, as what; with a ``spare``, another may be asked in its place."""

    way: Way
    purpose: Purpose
    spare: bool


class ReplyStream:
    """Pieces of an answer, one by one; then the whole as `reply`.

    It asks the model of the skill's tier, or where that cannot be had, the next that the skill may climb to. What was
    shown cannot be taken back, so that nothing is checked, retried or escalated once a piece has come. As ``async
    with`` it is settled where the block ends, also if you leave it early; without, at the latest where the step ends.
    """

    def __init__(self, step: Step, request: Request) -> None:
        self.text = ""
        self._step = step
        self._asked = request
        self._reply: Reply[str] | None = None
        self._pieces = self._run()
        step.streams.append(self)

    @property
    def reply(self) -> Reply[str]:
        """What came of it. Raises `SkillError` while the stream goes on, or if it never began."""
        if self._reply is None:
            raise SkillError("the stream has not ended: read it to its end, or close it, before you ask for its reply")
        return self._reply

    async def whole(self) -> Reply[str]:
        """Read what is left, and return the reply."""
        async for _ in self:
            pass
        return self.reply

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> str:
        return await anext(self._pieces)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.aclose()

    async def aclose(self) -> None:
        """Leave the stream, if it has not ended: the provider's is closed, and what was used is booked."""
        await self._pieces.aclose()

    async def _run(self) -> AsyncGenerator[str, None]:
        step, opened = self._step, ways(self._step, self._asked)
        for number, way in enumerate(opened, start=1):
            rung = _Rung(way, "draft" if number == 1 else "escalation", spare=number < len(opened))
            try:
                async with aclosing(self._asked_of(rung)) as pieces:
                    async for piece in pieces:
                        self.text += piece
                        yield piece
                return
            except ModelError as error:
                if self.text or not (rung.spare and error.retryable):
                    raise
                step.engine.outages.began(way.model.name, error)
                step.reject(way.model, absence(error))
                step.climbed_to(opened[number].model)

    async def _asked_of(self, rung: _Rung) -> AsyncGenerator[str, None]:
        """The pieces of one model's answer, paid for before or now."""
        way = rung.way
        asked = asked_of(self._step, way.model, way.request)
        async with paid_once(self._step, asked, way.request.max_output_tokens, streams=True) as found:
            source = self._bought(rung, asked) if found is None else self._replayed(rung, asked, found)
            async with aclosing(source) as pieces:
                async for piece in pieces:
                    yield piece

    async def _replayed(self, rung: _Rung, asked: Asked, found: CachedAnswer) -> AsyncGenerator[str, None]:
        """An answer that was paid for, in pieces as a model would give it."""
        book_free(self._step, asked, found, call_meta(self._step, asked.model, rung.purpose, None))
        try:
            for piece in _WORDS.findall(found.completion.text):
                yield piece
        except GeneratorExit:
            self._leave(asked.model, Usage())
            return
        self._conclude(asked.model, found.completion)

    async def _bought(self, rung: _Rung, asked: Asked) -> AsyncGenerator[str, None]:
        outages, name = self._step.engine.outages, rung.way.model.name
        attempts = outages.allowed(name, spare=rung.spare)
        for number in itertools.count(1):
            attempt, growth = await self._begin(rung)
            try:
                async with aclosing(self._attempt(attempt, growth, asked)) as pieces:
                    async for piece in pieces:
                        yield piece
                outages.over(name)
                return
            except ModelError as error:
                if self.text:
                    raise
                if error.retryable and (rung.spare or number < attempts):
                    self._step.funds.make_good(attempt.lost)
                await pause(error, number, attempts)

    async def _begin(self, rung: _Rung) -> tuple[Attempt, Growth]:
        """Reserve what the stream begins on."""
        step, way, model = self._step, rung.way, rung.way.model
        estimate, tokens = await size_stream(step.engine, step.skill, model, way.request)
        bound, parts = partial(_bound, step, model, estimate), await parts_of(step, model, estimate)
        try:
            attempt = Attempt(step, way, estimate, bound(tokens), rung.purpose, parts=parts)
        except BudgetExceeded:
            least = min(tokens, LEAST_TOKENS + (model.stream_lead_tokens or tokens))
            if least == tokens:
                raise
            tokens = least
            attempt = Attempt(step, way, estimate, bound(tokens), rung.purpose, parts=parts)
        growth = Growth(
            attempt.hold.amount,
            tokens=tokens,
            cap=estimate.output_cap,
            input_tokens=estimate.input.tokens,
            price=estimate.price,
            cache_1h=estimate.request.cache_time == "1h",
            bound=bound,
            extend=partial(self._extend, attempt.hold),
        )
        attempt.meter.gate = growth.allows
        return attempt, growth

    def _extend(self, hold: Hold, to: Amount) -> None:
        skill = self._step.skill
        if isinstance(skill.holding, Fixed):
            policy = f"the fixed hold of skill {skill.name!r}"
            require_room(policy, units(to), limit=limits(skill.holding.budget), used=(0, 0, 0))
        self._step.funds.grow(hold, to)

    async def _attempt(self, attempt: Attempt, growth: Growth, asked: Asked) -> AsyncGenerator[str, None]:
        """One billable request. However it ends, its hold ends with what is known of it."""
        model, answer = attempt.model, None
        self._step.tell("call", model=model.name)
        with attempt.span.aside():
            try:
                async with aclosing(model.stream(attempt.estimate.request, attempt.meter)) as deltas:
                    async for delta in deltas:
                        answer = delta.completion or answer
                        if delta.text:
                            yield delta.text
                if answer is None:
                    raise OutcomeUnknown(f"{model.name} ended a stream without saying how", model=model.name)
            except GeneratorExit:
                _forget_bound(attempt)
                attempt.left()
                self._leave(model, attempt.meter.usage or Usage())
                return
            except BaseException as error:
                _forget_bound(attempt)
                attempt.failed(error, asked)
                raise
            attempt.answered(answer, _TEXT, asked)
            await learn(self._step, asked, answer)
        self._conclude(model, answer, growth)

    def _leave(self, model: Model, usage: Usage) -> None:
        """What arrived is the reply to a reader who left."""
        self._conclude(model, Completion(self.text, "cut", usage, model.name), left=True)

    def _conclude(self, model: Model, answer: Completion, growth: Growth | None = None, *, left: bool = False) -> None:
        whole = answer.finish in ("stop", "tools")
        refusal = growth.refusal if growth is not None and answer.finish == "cut" else None
        self._reply = Reply(
            answer.text, answer.text.strip(), model.name, whole, answer.confidence, answer.finish, answer.calls, refusal
        )
        if not whole and not left:
            self._step.accepted = False
            self._step.reject(model, _why_short(answer, refusal))


def _forget_bound(attempt: Attempt) -> None:
    """Where nobody says that a provider stops when its stream is closed, what arrived bounds nothing."""
    if attempt.model.stream_lead_tokens is None:
        attempt.meter.presumed = None


def _bound(step: Step, model: Model, estimate: CallEstimate, output_tokens: int) -> Amount:
    """The most that the call costs with so many output tokens."""
    return step.engine.estimator.sized(
        step.skill.name,
        model,
        input_tokens=estimate.input.tokens,
        output_tokens=output_tokens,
        price=estimate.price,
    )


def _why_short(answer: Completion, refusal: AgentBudgetError | None) -> str:
    if answer.finish == "refused":
        return "the model declined"
    if refusal is not None:
        return f"cut, for its hold could not grow: {refusal}"
    return f"cut at {answer.usage.output_tokens} output tokens"
