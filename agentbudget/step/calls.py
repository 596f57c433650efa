"""One model call of a step: an answer that was paid for before, else attempts, each with its own hold."""

from __future__ import annotations

import asyncio
import itertools
import logging
import random
import time
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Final, Literal

from agentbudget import telemetry
from agentbudget.cache import CachedAnswer, answer_key
from agentbudget.errors import ModelError, StoreError
from agentbudget.estimate import CallEstimate, tag
from agentbudget.ledger import HoldRecord
from agentbudget.models.base import Completion, Meter, Model, Request
from agentbudget.money import ZERO, Amount
from agentbudget.privacy.classes import narrow, outlives_its_run
from agentbudget.settling import amount_of, answered, settle_failure, settle_left, settled
from agentbudget.skills import Output
from agentbudget.step.guarding import Way
from agentbudget.step.sizing import size_call

if TYPE_CHECKING:
    from agentbudget.step.transaction import Step

_log = logging.getLogger(__name__)

ATTEMPTS: Final = 3
"""Billable attempts at one model call: the first, and two more after errors that may pass."""

BACKOFF_S: Final = 0.5

Purpose = Literal["draft", "retry", "escalation"]


async def ask(
    step: Step,
    way: Way,
    request: Request,
    output: Output,
    purpose: Purpose,
    *,
    trust_history: bool,
    drafts: Sequence[int] = (),
) -> tuple[Completion, int]:
    """One answer of one model, kept as that to the request of `way`, and the output cap that it was given.

    `drafts` are the output tokens of what weaker models said to the same.
    """
    model, kept_under = way.model, way.request
    keys = answer_keys(step, model, kept_under)
    found = kept(step, keys, request.max_output_tokens)
    if found is not None:
        book_free(step, model, purpose, found.completion, found.cost_usd_nano, replayed=found.key == keys[0])
        return found.completion, request.max_output_tokens
    for number in itertools.count(1):
        estimate = None
        if trust_history and request is kept_under and not drafts:  # as the step itself was estimated a moment ago
            estimate = step.estimates.pop(model.name, None)
        if estimate is None:
            estimate = await size_call(step.engine, step.skill, model, request, whole=not trust_history, drafts=drafts)
        attempt = Attempt(step, way, estimate, estimate.hold, purpose)
        try:
            return await attempt.complete(output, keys), estimate.output_cap
        except ModelError as error:
            await pause(error, number)
            step.funds.make_good(attempt.lost)
    raise AssertionError("unreachable: the loop above returns or raises")


async def pause(error: ModelError, attempt: int) -> None:
    """Wait before the next attempt; raise what went wrong where there is none."""
    if not error.retryable or attempt == ATTEMPTS:
        raise error
    await asyncio.sleep(error.retry_after_s or BACKOFF_S * 2 ** (attempt - 1) * (1 + random.random()))


def answer_keys(step: Step, model: Model, request: Request) -> tuple[str, ...]:
    """Where this answer may stand already: as this run's own, and, if that is wanted, shared between runs."""
    data_class = step.context.carries.data_class
    # An answer about confidential text must not come to a run that does not know that it carries such.
    version = step.skill.version + (f"#{data_class}" if narrow(data_class) else "")
    shared = answer_key(request, model, tenant=step.scope.tenant, skill_version=version)
    own = f"{step.base}#{shared}"
    return (own, shared) if step.engine.share_answers and outlives_its_run(data_class) else (own,)


def kept(step: Step, keys: tuple[str, ...], max_output_tokens: int) -> CachedAnswer | None:
    """An answer under the first of these keys that has one."""
    try:
        return step.engine.answers.first(keys, max_output_tokens=max_output_tokens)
    except StoreError as error:
        _log.warning("answers already paid for cannot be read, so this one is bought: %s", error)
        return None


def keep(step: Step, answer: Completion, output: Output, keys: tuple[str, ...], cost_usd_nano: int) -> None:
    """A whole answer for whoever asks again; one cut at a cap only for this run, should it be resumed.

    What cannot be read is not kept: asking again must ask. A cache that fails loses a saving, not the answer.
    """
    whole = answer.finish in ("stop", "tools")
    if not (whole or answer.finish == "length") or not (answer.calls or output.reads(answer.text)):
        return
    try:
        step.engine.answers.put_under(keys if whole else keys[:1], answer, cost_usd_nano=cost_usd_nano)
    except StoreError as error:
        _log.warning("an answer that was paid for cannot be kept: %s", error)


def book_free(
    step: Step, model: Model, purpose: Purpose, answer: Completion, saved_usd_nano: int, *, replayed: bool
) -> None:
    hold = step.funds.reserve(step.next_call_id(), ZERO, "", call_meta(step, model, purpose, None))
    detail = answered(answer, 0.0) | {"cached": True, "replayed": replayed, "saved_usd_nano": saved_usd_nano}
    with telemetry.model_call(model.provider, model.name, purpose=purpose) as span:
        span.cache_hit(saved_usd_nano=saved_usd_nano)
        settled(hold, ZERO, detail)
    step.tell("cached", model=model.name)


class Attempt:
    """One billable request: its hold, its meter and its span. However it ends, it is booked as far as it is known."""

    def __init__(self, step: Step, way: Way, estimate: CallEstimate, held: Amount, purpose: Purpose = "draft") -> None:
        self.model = model = way.model
        self.estimate = estimate
        meta = call_meta(step, model, purpose, estimate)
        if way.found:
            meta["found"] = dict(way.found)
        self.hold = step.funds.reserve(step.next_call_id(), held, tag(step.skill.name, model.name), meta)
        self.meter = Meter(on_leaving=self.hold.mark_sent)
        self.span = telemetry.model_call(
            model.provider,
            model.name,
            purpose=purpose,
            rung=step.engine.ladder.rung(model),
            input_tokens_estimated=estimate.input.tokens,
            max_output_tokens=estimate.output_cap,
            data_class=meta["data_class"],
        )
        self._step = step
        self._started = time.perf_counter()

    @property
    def lost(self) -> Amount:
        """What a failed attempt cost."""
        return self.hold.record.settled or ZERO

    @property
    def _seconds(self) -> float:
        return time.perf_counter() - self._started

    async def complete(self, output: Output, keys: tuple[str, ...]) -> Completion:
        """Call and settle."""
        self._step.tell("call", model=self.model.name)
        with self.span:
            try:
                answer = await self.model.complete(self.estimate.request, self.meter)
            except BaseException as error:
                self.failed(error)
                raise
            self.answered(answer, output, keys)
        return answer

    def answered(self, answer: Completion, output: Output, keys: tuple[str, ...]) -> None:
        """Keep the answer and settle what it used."""
        self.span.answered(finish=answer.finish, served_by=answer.served_by, confidence=answer.confidence)
        self.span.used(answer.usage)
        price = answer.price or self.model.price
        cost = amount_of(price, answer.usage)
        # A stream that was cut may have ended without the provider's word: then its usage is a bound.
        presumed = answer.finish == "cut" and self.meter.usage is None
        try:
            # Kept before it is settled: a crash in between costs a presumption, not a second call.
            keep(self._step, answer, output, keys, cost.usd_nano)
        finally:
            detail = answered(answer, self._seconds) | {"price": price.terms}
            settled(self.hold, cost, detail, presumed=presumed)
            self.span.cost(cost.usd_nano, presumed=presumed)
        self._step.engine.estimator.learn(
            self._step.skill.name, self.model, answer.usage, answer.finish, estimate=self.estimate
        )

    def failed(self, error: BaseException) -> None:
        """Settle what an attempt that raised has used."""
        self._ended(settle_failure(self.hold, self.model.price, self.meter, error, seconds=self._seconds))

    def left(self) -> None:
        """Settle what a stream has used that its reader left."""
        self._ended(settle_left(self.hold, self.model.price, self.meter, seconds=self._seconds))

    def _ended(self, record: HoldRecord) -> None:
        with telemetry.settlement(self.hold.id) as span:
            span.closed(record)
        self.span.cost((record.settled or ZERO).usd_nano, presumed=record.presumed)


def call_meta(step: Step, model: Model, purpose: Purpose, estimate: CallEstimate | None) -> dict[str, Any]:
    meta: dict[str, Any] = {
        "kind": "call",
        "skill": step.skill.name,
        "model": model.name,
        "rung": step.engine.ladder.rung(model),
        "purpose": purpose,
        "price": model.price.source,
        "data_class": step.context.carries.data_class,
    }
    if estimate is not None:
        meta["estimated"] = estimate.told
    return meta
