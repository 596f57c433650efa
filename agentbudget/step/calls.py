"""One model call of a step: an answer that was paid for before, else attempts, each with its own hold."""

from __future__ import annotations

import asyncio
import itertools
import logging
import random
import time
from typing import TYPE_CHECKING, Any, Final, Literal

from agentbudget import telemetry
from agentbudget.cache import CachedAnswer, answer_key
from agentbudget.errors import ModelError, StoreError
from agentbudget.estimate import CallEstimate, tag
from agentbudget.ledger import Hold
from agentbudget.models.base import Completion, Meter, Model, Request
from agentbudget.money import ZERO, Amount
from agentbudget.settling import answered, settle_failure, settled
from agentbudget.skills import Output

if TYPE_CHECKING:
    from agentbudget.step.transaction import Step

_log = logging.getLogger(__name__)

ATTEMPTS: Final = 3
"""Billable attempts at one model call: the first, and two more after errors that may pass."""

BACKOFF_S: Final = 0.5

Purpose = Literal["draft", "retry", "escalation"]


async def ask(
    step: Step, model: Model, request: Request, output: Output, purpose: Purpose, *, trust_history: bool
) -> tuple[Completion, int]:
    """One answer of one model, and the output cap that it was given."""
    keys = _answer_keys(step, model, request)
    for key in keys:
        found = _kept(step, key, request.max_output_tokens)
        if found is not None:
            replayed = key == keys[0]
            _book_free(step, model, purpose, found.completion, found.cost_usd_nano, replayed=replayed)
            return found.completion, request.max_output_tokens
    for attempt in itertools.count(1):
        estimate = await step.engine.estimator.call(step.skill.name, model, request, trust_history=trust_history)
        hold = _hold_call(step, model, purpose, estimate)
        try:
            answer = await _attempt(step, hold, model, estimate=estimate, output=output, purpose=purpose, keys=keys)
            return answer, estimate.output_cap
        except ModelError as error:
            if not error.retryable or attempt == ATTEMPTS:
                raise
            await asyncio.sleep(error.retry_after_s or BACKOFF_S * 2 ** (attempt - 1) * (1 + random.random()))
            step.funds.make_good(hold.record.settled or ZERO)
    raise AssertionError("unreachable: the loop above returns or raises")


def _answer_keys(step: Step, model: Model, request: Request) -> tuple[str, ...]:
    """Where this answer may stand already: as this run's own, and, if that is wanted, shared between runs."""
    shared = answer_key(request, model, tenant=step.scope.tenant, skill_version=step.skill.version)
    own = f"{step.base}#{shared}"
    return (own, shared) if step.engine.share_answers else (own,)


def _kept(step: Step, key: str, max_output_tokens: int) -> CachedAnswer | None:
    try:
        return step.engine.answers.get(key, max_output_tokens=max_output_tokens)
    except StoreError as error:
        _log.warning("answers already paid for cannot be read, so this one is bought: %s", error)
        return None


def _keep(step: Step, answer: Completion, output: Output, keys: tuple[str, ...], cost_usd_nano: int) -> None:
    """A whole answer for whoever asks again; one cut at a cap only for this run, should it be resumed.

    What cannot be read is not kept: asking again must ask. A cache that fails loses a saving, not the answer.
    """
    if answer.finish not in ("stop", "length") or not output.reads(answer.text):
        return
    try:
        for key in keys if answer.finish == "stop" else keys[:1]:
            step.engine.answers.put(key, answer, cost_usd_nano=cost_usd_nano)
    except StoreError as error:
        _log.warning("an answer that was paid for cannot be kept: %s", error)


def _book_free(
    step: Step, model: Model, purpose: Purpose, answer: Completion, saved_usd_nano: int, *, replayed: bool
) -> None:
    hold = step.funds.reserve(step.next_call_id(), ZERO, "", _call_meta(step, model, purpose, None))
    detail = answered(answer, 0.0) | {"cached": True, "replayed": replayed, "saved_usd_nano": saved_usd_nano}
    with telemetry.model_call(model.provider, model.name, purpose=purpose) as span:
        span.cache_hit(saved_usd_nano=saved_usd_nano)
        settled(hold, ZERO, detail)
    step.tell("cached", model=model.name)


def _hold_call(step: Step, model: Model, purpose: Purpose, estimate: CallEstimate) -> Hold:
    meta = _call_meta(step, model, purpose, estimate)
    return step.funds.reserve(step.next_call_id(), estimate.bound, tag(step.skill.name, model.name), meta)


async def _attempt(
    step: Step,
    hold: Hold,
    model: Model,
    *,
    estimate: CallEstimate,
    output: Output,
    purpose: Purpose,
    keys: tuple[str, ...],
) -> Completion:
    """Call and settle: whatever happens in between, the hold ends with the truth as far as it is known."""
    meter = Meter(on_leaving=hold.mark_sent)
    step.tell("call", model=model.name)
    started = time.perf_counter()
    with telemetry.model_call(
        model.provider,
        model.name,
        purpose=purpose,
        rung=step.engine.ladder.rung(model),
        input_tokens_estimated=estimate.input.tokens,
        max_output_tokens=estimate.output_cap,
    ) as span:
        try:
            answer = await model.complete(estimate.request, meter)
        except BaseException as error:
            with telemetry.settlement(hold.id) as settling:
                seconds = time.perf_counter() - started
                record = settle_failure(hold, model.price, meter, error, seconds=seconds)
                settling.closed(record)
            span.cost((record.settled or ZERO).usd_nano, presumed=record.presumed)
            raise
        span.answered(finish=answer.finish, served_by=answer.served_by, confidence=answer.confidence)
        span.used(answer.usage)
        price = answer.price or model.price
        cost = price.cost(answer.usage)
        try:
            # Kept before it is settled: a crash in between costs a presumption, not a second call.
            _keep(step, answer, output, keys, cost)
        finally:
            detail = answered(answer, time.perf_counter() - started) | {"price": price.terms}
            settled(hold, Amount(cost, answer.usage.total_tokens, 1), detail)
            span.cost(cost)
        step.engine.estimator.learn(step.skill.name, model, answer.usage, answer.finish)
    return answer


def _call_meta(step: Step, model: Model, purpose: Purpose, estimate: CallEstimate | None) -> dict[str, Any]:
    meta: dict[str, Any] = {
        "kind": "call",
        "skill": step.skill.name,
        "model": model.name,
        "rung": step.engine.ladder.rung(model),
        "purpose": purpose,
        "price": model.price.source,
    }
    if estimate is not None:
        meta["estimated"] = {
            "usd_nano": estimate.expected.usd_nano,
            "input_tokens": estimate.input.tokens,
            "output_tokens": estimate.expected.tokens - estimate.input.tokens,
        }
    return meta
