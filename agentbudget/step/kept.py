"""What a step need not pay for: an answer that was paid for before, or that somebody is paying for right now."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from functools import partial
from typing import TYPE_CHECKING, Any

from agentbudget import telemetry
from agentbudget.cache import Asked, CachedAnswer, Exact, Label, answer_key
from agentbudget.cache.flight import Once
from agentbudget.errors import StoreError
from agentbudget.models.base import Completion, Model, Request
from agentbudget.money import ZERO
from agentbudget.output import Output
from agentbudget.privacy.classes import narrow, outlives_its_run
from agentbudget.settling import answered, settled

if TYPE_CHECKING:
    from agentbudget.step.transaction import Step

_log = logging.getLogger(__name__)


def asked_of(step: Step, model: Model, request: Request) -> Asked:
    """Where this answer may stand already: as this run's own, and, if that is wanted, shared between runs."""
    skill, caching, tenant = step.skill, step.skill.caching, step.scope.tenant
    data_class = step.context.carries.data_class
    everybody = isinstance(caching, Exact) and caching.across_tenants and not narrow(data_class)
    # An answer about confidential text must not come to a run that does not know that it carries such.
    apart = f"#{data_class}" if narrow(data_class) else ""
    sample = step.sample if request.temperature else None
    whose = None if everybody else tenant
    key = answer_key(request, model, tenant=whose, skill_version=skill.version + apart, sample=sample)
    label = Label(
        kind=caching.kind if isinstance(caching, Exact) else "answer",
        tenant="" if everybody else tenant,
        skill=skill.name,
        skill_version=skill.version,
        model=model.name,
        sources=step.scope.reading.behind(step, request.messages),
    )
    shares = step.engine.share_answers and isinstance(caching, Exact) and outlives_its_run(data_class)
    shared = key if shares else None
    own = f"{step.base}#{key}"
    return Asked(request, model, caching, label, own=own, shared=shared, apart=apart, sample=sample)


def paid_once(step: Step, asked: Asked, max_output_tokens: int, *, streams: bool = False) -> Once[CachedAnswer]:
    """An answer that was paid for; or None for whoever has to pay now, and others wait until its block ends.

    While one waits nothing is held for the call, and nobody waits longer than a call may take. A skill that asks the
    same while it reads a stream does not wait for itself.
    """
    return Once(
        step.engine.answers.flights,
        asked.shared or asked.own,
        partial(_kept, step, asked, max_output_tokens),
        patience_s=asked.request.timeout_s,
        owner=step if streams else None,
        mine=(step, *step.above),
        further=partial(_alike, step, asked),
    )


def _kept(step: Step, asked: Asked, max_output_tokens: int) -> CachedAnswer | None:
    """An answer under the first of its keys that has one, no older than the skill wants; its own run's at any age."""
    answers = step.engine.answers
    try:
        found = answers.first(asked.keys, max_output_tokens=max_output_tokens)
    except StoreError as error:
        _log.warning("answers already paid for cannot be read, so this one is bought: %s", error)
        return None
    if found is None or not (found.key == asked.own or answers.is_fresh(found, asked.ttl_s)):
        return None
    answers.reused(found)
    return found


async def _alike(step: Step, asked: Asked) -> CachedAnswer | None:
    """The answer to a question that means the same, where the skill wants that; from now on it is this run's own."""
    found = None if step.engine.similar is None else await step.engine.similar.find(asked)
    if found is not None:
        _put(step, {asked.own: None}, found.completion, asked, found.cost_usd_nano)
    return found


async def learn(step: Step, asked: Asked, answer: Completion) -> None:
    """Let those who find answers to similar questions know of one that was bought."""
    if step.engine.similar is not None:
        await step.engine.similar.bought(asked, answer)


def keep(step: Step, answer: Completion, output: Output, asked: Asked, cost_usd_nano: int) -> None:
    """A whole answer for whoever asks again; one cut at a cap only for this run, should it be resumed.

    What cannot be read is not kept: asking again must ask. A cache that fails loses a saving, not the answer.
    """
    whole = answer.finish in ("stop", "tools")
    if not (whole or answer.finish == "length") or not (answer.calls or output.reads(answer.text)):
        return
    keys: dict[str, float | None] = {asked.own: None}
    if whole and asked.shared is not None:
        keys[asked.shared] = asked.ttl_s
    _put(step, keys, answer, asked, cost_usd_nano)


def _put(step: Step, keys: Mapping[str, float | None], answer: Completion, asked: Asked, cost_usd_nano: int) -> None:
    try:
        step.engine.answers.put_under(keys, answer, cost_usd_nano=cost_usd_nano, label=asked.label)
    except StoreError as error:
        _log.warning("an answer that was paid for cannot be kept: %s", error)


def book_free(step: Step, asked: Asked, found: CachedAnswer, meta: Mapping[str, Any]) -> None:
    """An entry for an answer that costs nothing: what it saved, and why it was trusted.

    It is a replay if this run paid for it before it was cut short; what it asked twice since is a saving.
    """
    replayed = found.key == asked.own and found.created_ns < step.scope.started_ns
    hold = step.funds.reserve(step.next_call_id(), ZERO, "", meta)
    detail = answered(found.completion, 0.0) | {
        "cached": True,
        "replayed": replayed,
        "saved_usd_nano": found.cost_usd_nano,
        "cache": {"kind": asked.label.kind, "because": found.trust.because, **found.trust.facts},
    }
    with telemetry.model_call(asked.model.provider, asked.model.name, purpose=meta["purpose"]) as span:
        span.cache_hit(saved_usd_nano=found.cost_usd_nano, kind=asked.label.kind, because=found.trust.because)
        settled(hold, ZERO, detail, span=span)
    step.saved_usd_nano += found.cost_usd_nano
    step.engine.starts.called(step.skill.name, asked.model.name, found.cost_usd_nano)
    step.tell("cached", model=asked.model.name)
