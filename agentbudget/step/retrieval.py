"""A search in the documents, booked by the seconds that this machine works for it."""

from __future__ import annotations

import time
from collections.abc import Mapping
from contextlib import AbstractContextManager
from functools import partial
from typing import TYPE_CHECKING, Any, Final

from agentbudget import telemetry
from agentbudget.cache.flight import Once
from agentbudget.errors import Mistake
from agentbudget.ledger import Hold
from agentbudget.models.base import Meter, Price
from agentbudget.money import ZERO, Amount
from agentbudget.paying import paid
from agentbudget.privacy import METADATA_KEY, DataClass
from agentbudget.privacy.classes import wider, within
from agentbudget.settling import settled
from agentbudget.step.found import found_before, keep_found, search_key
from agentbudget.step.funds import base_of, reserve_embedding, reserve_within
from agentbudget.step.guarding import sendable
from agentbudget.step.identity import digest, unused_id
from agentbudget.usage import Usage

if TYPE_CHECKING:
    from agentbudget.context import Index, Retrieved
    from agentbudget.privacy import Label
    from agentbudget.step.context import Context

RETRIEVAL_CAP_NS: Final = 10 * 10**9
"""What a search may take of this machine, in nanoseconds: the hold of a retrieval."""


async def search(
    ctx: Context, index: Index, question: str, tokens: int, *, hops: int = 1, at_most: DataClass | None = None
) -> Retrieved:
    """Search and pack within a hold of its own; what was found before in the same documents costs nothing.

    Only what is no narrower than `at_most`, if that is given.
    """
    asked = {"question": question, "tokens": tokens, "hops": hops} | ({"at_most": at_most} if at_most else {})
    key = await search_key(ctx, index, **asked)
    if key is None:
        found, _ = await _bought(ctx, index, question, tokens, hops, at_most)
    else:
        flights = ctx.engine.answers.flights
        async with Once(flights, key, partial(found_before, ctx, key), patience_s=RETRIEVAL_CAP_NS / 1e9) as before:
            if before is not None:
                found, saved = before
                found = found.marked(await index.stale(found.sources))
                found = _free(ctx, question, tokens, found, saved)
            else:
                found, cost = await _bought(ctx, index, question, tokens, hops, at_most)
                if await search_key(ctx, index, **asked) == key:  # else they changed meanwhile
                    keep_found(ctx, key, found, cost_usd_nano=cost)
    label = found.label(ctx.engine.privacy)
    if at_most is not None and not within(label.data_class, at_most):
        raise Mistake(f"the index does not know yet that this is {label.told}: update it under this agent's rules")
    found = found.without_narrower(ctx.engine.privacy)
    ctx.engine.retrieved.append(found.text)
    ctx.scope.reading.add(found.passages, ctx.step)
    return found


async def _bought(
    ctx: Context, index: Index, question: str, tokens: int, hops: int, at_most: DataClass | None
) -> tuple[Retrieved, int]:
    """What is found, and what it cost in nano-dollars, an API that embedded the question included."""
    from agentbudget.context import retrieve

    engine = ctx.engine
    sent = sendable(ctx, index.goes_to, question, what="the question")
    hold, embedded = _reserve(ctx, question, _cap(ctx)), list[Hold]()
    started = time.perf_counter()
    with hold, telemetry.retrieval(engine.documents, tokens=tokens) as span:
        where = None if at_most is None else {METADATA_KEY: wider(at_most)}
        pay = partial(_pay, ctx, hold, embedded)
        found = await retrieve(index, sent, tokens=tokens, hops=hops, where=where, pay=pay)
        cost = engine.machine.cost(Usage(compute_ns=found.compute_ns))
        seconds = round(time.perf_counter() - started, 4)
        label = found.label(engine.privacy)
        ctx.saw(label)
        settled(hold, Amount(cost), _detail(found, label, seconds=seconds), span=span)
        told = label.data_class
        span.found(passages=len(found.passages), tokens=found.tokens, cost_usd_nano=cost, data_class=told)
    return found, cost + sum((one.record.settled or ZERO).usd_nano for one in embedded)


def _free(ctx: Context, question: str, tokens: int, found: Retrieved, saved_usd_nano: int) -> Retrieved:
    """An entry for a search that costs nothing, with what it saved."""
    hold = _reserve(ctx, question, ZERO)
    with hold, telemetry.retrieval(ctx.engine.documents, tokens=tokens) as span:
        label = found.label(ctx.engine.privacy)
        ctx.saw(label)
        kept = {"cached": True, "saved_usd_nano": saved_usd_nano, "cache": {"kind": "retrieval", "because": "exact"}}
        settled(hold, ZERO, _detail(found, label, seconds=0.0) | kept, span=span)
        told = label.data_class
        span.found(passages=len(found.passages), tokens=found.tokens, cost_usd_nano=0, data_class=told)
        span.cache_hit(saved_usd_nano=saved_usd_nano)
    return found


def _detail(found: Retrieved, label: Label, *, seconds: float) -> dict[str, object]:
    """What the ledger keeps of a search: how much was found, and of which class."""
    size = {"passages": len(found.passages), "tokens": found.tokens, "seconds": seconds}
    chance = None if found.chance is None else round(found.chance, 3)
    return {**size, "chance": chance, "data_class": label.data_class, "sources": list(label.sources)}


def _cap(ctx: Context) -> Amount:
    return Amount(ctx.engine.machine.cost(Usage(compute_ns=RETRIEVAL_CAP_NS)))


def _pay(
    ctx: Context, hold: Hold, embedded: list[Hold], name: str, price: Price, most: Usage
) -> AbstractContextManager[Meter]:
    """Pay for embedding the question by an API, beside the seconds of this machine."""

    def reserve(amount: Amount, meta: Mapping[str, Any]) -> Hold:
        embedded.append(reserve_embedding(ctx, hold, amount, meta))
        return embedded[-1]

    return paid(reserve, name=name, price=price, most=most)


def _reserve(ctx: Context, question: str, cap: Amount) -> Hold:
    engine = ctx.engine
    meta = {"kind": "retrieval", "source": engine.documents, "price": engine.machine.source}
    if ctx.subject is not None:
        meta["about"] = ctx.subject
    hold_id = unused_id(engine.ledger, f"{base_of(ctx)}/retrieve.{digest(repr(question))}")
    return reserve_within(ctx, hold_id, cap, "retrieval", meta)
