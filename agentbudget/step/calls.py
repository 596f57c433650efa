"""One model call of a step: an answer that was paid for before, else attempts, each with its own hold."""

from __future__ import annotations

import asyncio
import itertools
import random
import time
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Final, Literal

from agentbudget import telemetry
from agentbudget.cache import Asked
from agentbudget.errors import ModelError
from agentbudget.estimate import CallEstimate, tag
from agentbudget.history import InputParts, breakdown, input_parts
from agentbudget.ledger import HoldRecord
from agentbudget.models.base import Completion, Meter, Model, Request
from agentbudget.money import ZERO, Amount
from agentbudget.output import Output
from agentbudget.settling import amount_of, answered, settle_failure, settle_left, settled
from agentbudget.step.guarding import Way
from agentbudget.step.kept import asked_of, book_free, keep, learn, paid_once
from agentbudget.step.outages import ATTEMPTS
from agentbudget.step.sizing import size_call

if TYPE_CHECKING:
    from agentbudget.step.transaction import Step

BACKOFF_S: Final = 0.5

Purpose = Literal["draft", "retry", "escalation", "summary"]


async def ask(
    step: Step,
    way: Way,
    request: Request,
    output: Output,
    purpose: Purpose,
    *,
    trust_history: bool,
    drafts: Sequence[int] = (),
    spare: bool = False,
) -> tuple[Completion, int]:
    """One answer of one model, kept as that to the request of `way`, and the output cap that it was given.

    `drafts` are the output tokens of what weaker models said to the same. With a ``spare``, another that may be asked
    in its place, a model that could not be had a moment ago is not asked (`Outages`), and what failed attempts took is
    held anew for that other.
    """
    model, kept_under, outages = way.model, way.request, step.engine.outages
    asked = asked_of(step, model, kept_under)
    async with paid_once(step, asked, request.max_output_tokens) as found:
        if found is not None:
            book_free(step, asked, found, call_meta(step, model, purpose, None))
            return found.completion, request.max_output_tokens
        attempts = outages.allowed(model.name, spare=spare)
        for number in itertools.count(1):
            estimate = None
            if trust_history and request is kept_under and not drafts:  # as the step itself was estimated a moment ago
                estimate = step.estimates.pop(model.name, None)
            if estimate is None:
                whole = not trust_history
                estimate = await size_call(step.engine, step.skill, model, request, whole=whole, drafts=drafts)
            parts = await parts_of(step, model, estimate)
            attempt = Attempt(step, way, estimate, estimate.hold, purpose, parts=parts)
            try:
                answer = await attempt.complete(output, asked)
            except ModelError as error:
                if error.retryable and (spare or number < attempts):
                    step.funds.make_good(attempt.lost)
                await pause(error, number, attempts)
            else:
                outages.over(model.name)
                await learn(step, asked, answer)
                return answer, estimate.output_cap
    raise AssertionError("unreachable: the loop above returns or raises")


async def pause(error: ModelError, attempt: int, attempts: int = ATTEMPTS) -> None:
    """Wait before the next of so many attempts; raise what went wrong where there is none."""
    if not error.passes_soon or attempt >= attempts:
        raise error
    await asyncio.sleep(error.retry_after_s or BACKOFF_S * 2 ** (attempt - 1) * (1 + random.random()))


async def parts_of(step: Step, model: Model, estimate: CallEstimate) -> InputParts:
    """What the prompt of a call is made of."""
    engine = step.engine
    return await input_parts(
        model, estimate.request, estimate.input, retrieved=tuple(engine.retrieved), known=engine.system_counts
    )


class Attempt:
    """One billable request: its hold, its meter and its span. However it ends, it is booked as far as it is known."""

    def __init__(
        self,
        step: Step,
        way: Way,
        estimate: CallEstimate,
        held: Amount,
        purpose: Purpose = "draft",
        *,
        parts: InputParts,
    ) -> None:
        self.model = model = way.model
        self.estimate = estimate
        meta = call_meta(step, model, purpose, estimate)
        if way.found:
            meta["found"] = dict(way.found)
        began = time.perf_counter()
        self.hold = step.funds.reserve(step.next_call_id(), held, tag(step.skill.name, model.name), meta)
        self._started = time.perf_counter()
        self.meter = Meter(on_leaving=self.hold.mark_sent)
        self.span = telemetry.model_call(
            model.provider,
            model.name,
            purpose=purpose,
            rung=step.engine.ladder.rung(model),
            input_tokens_estimated=estimate.input.tokens,
            max_output_tokens=estimate.output_cap,
            data_class=meta["data_class"],
            reserve_s=self._started - began,
        )
        way.tell(step.context.carries)
        self._step = step
        self._parts = parts

    @property
    def lost(self) -> Amount:
        """What a failed attempt cost."""
        return self.hold.record.settled or ZERO

    @property
    def _seconds(self) -> float:
        return time.perf_counter() - self._started

    async def complete(self, output: Output, asked: Asked) -> Completion:
        """Call and settle."""
        self._step.tell("call", model=self.model.name)
        with self.span:
            try:
                answer = await self.model.complete(self.estimate.request, self.meter)
            except BaseException as error:
                self.failed(error, asked)
                raise
            self.answered(answer, output, asked)
        return answer

    def answered(self, answer: Completion, output: Output, asked: Asked) -> None:
        """Keep the answer and settle what it used."""
        self.span.answered(finish=answer.finish, served_by=answer.served_by, confidence=answer.confidence)
        self.span.used(answer.usage)
        price = answer.price or self.estimate.price
        cost = amount_of(price, answer.usage)
        # A stream that was cut may have ended without the provider's word: then its usage is a bound.
        presumed = answer.finish == "cut" and self.meter.usage is None
        try:
            # Kept before it is settled: a crash in between costs a presumption, not a second call.
            keep(self._step, answer, output, asked, self._taken(asked, cost.usd_nano))
        finally:
            made_of = breakdown(self._parts, answer.usage, price, cost.usd_nano)
            self.span.made_of(made_of)
            detail = answered(answer, self._seconds) | {"price": price.terms, "made_of": made_of.to_dict()}
            settled(self.hold, cost, detail, presumed=presumed, span=self.span)
            self.span.cost(cost.usd_nano, presumed=presumed)
        skill, engine = self._step.skill.name, self._step.engine
        engine.estimator.learn(skill, self.model, answer.usage, answer.finish, estimate=self.estimate)
        engine.starts.called(skill, self.model.name, cost.usd_nano)

    def failed(self, error: BaseException, asked: Asked) -> None:
        """Settle what an attempt that raised has used."""
        record = settle_failure(self.hold, self.estimate.price, self.meter, error, seconds=self._seconds)
        self._ended(record)
        if not record.presumed:  # what a lost connection may have cost, an answer does not take by itself
            self._taken(asked, self.lost.usd_nano)

    def left(self) -> None:
        """Settle what a stream has used that its reader left."""
        self._ended(settle_left(self.hold, self.estimate.price, self.meter, seconds=self._seconds))

    def _taken(self, asked: Asked, usd_nano: int) -> int:
        """What an answer has taken with this attempt: whoever gets it from the cache saves the other tries, too."""
        took = self._step.took[asked.own] = self._step.took.get(asked.own, 0) + usd_nano
        return took

    def _ended(self, record: HoldRecord) -> None:
        self.span.closed(record)
        self.span.cost((record.settled or ZERO).usd_nano, presumed=record.presumed)


def call_meta(step: Step, model: Model, purpose: Purpose, estimate: CallEstimate | None) -> dict[str, Any]:
    meta: dict[str, Any] = {
        "kind": "call",
        "skill": step.skill.name,
        "model": model.name,
        "rung": step.engine.ladder.rung(model),
        "purpose": purpose,
        "price": (model if estimate is None else estimate).price.source,
        "data_class": step.context.carries.data_class,
    }
    if estimate is not None:
        meta["estimated"] = estimate.told
    return meta
