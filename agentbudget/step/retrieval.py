"""A search in the documents, booked by the seconds that this machine works for it."""

from __future__ import annotations

import time
from collections.abc import Mapping
from contextlib import AbstractContextManager
from functools import partial
from typing import TYPE_CHECKING, Any, Final

from agentbudget import telemetry
from agentbudget.errors import Mistake
from agentbudget.ledger import Hold
from agentbudget.models.base import Meter, Price
from agentbudget.money import Amount
from agentbudget.paying import paid
from agentbudget.privacy import METADATA_KEY, DataClass
from agentbudget.privacy.classes import wider, within
from agentbudget.settling import settled
from agentbudget.step.guarding import require
from agentbudget.step.identity import digest, unused_id
from agentbudget.usage import Usage

if TYPE_CHECKING:
    from agentbudget.context import Index, Retrieved
    from agentbudget.step.context import Context

RETRIEVAL_CAP_NS: Final = 10 * 10**9
"""What a search may take of this machine, in nanoseconds: the hold of a retrieval."""


async def search(
    ctx: Context, index: Index, question: str, tokens: int, *, at_most: DataClass | None = None
) -> Retrieved:
    """Search and pack within a hold of its own; only what is no narrower than `at_most`, if that is given."""
    from agentbudget.context import retrieve

    engine = ctx.engine
    meta = {"kind": "retrieval", "source": engine.documents, "price": engine.machine.source}
    if ctx.subject is not None:
        meta["about"] = ctx.subject
    for destination in index.goes_to:
        require(ctx, destination, what="the question")
    hold = _reserve(ctx, question, meta)
    started = time.perf_counter()
    with hold, telemetry.retrieval(engine.documents, tokens=tokens) as span:
        where = None if at_most is None else {METADATA_KEY: wider(at_most)}
        found = await retrieve(index, question, tokens=tokens, where=where, pay=partial(_pay, ctx, hold))
        cost = engine.machine.cost(Usage(compute_ns=found.compute_ns))
        seconds = round(time.perf_counter() - started, 4)
        label = found.label(engine.privacy)
        if at_most is not None and not within(label.data_class, at_most):
            raise Mistake(f"the index does not know yet that {label.told}: update it under the rules of this agent")
        found = found.without_narrower(engine.privacy)
        ctx.saw(label)
        detail = {"passages": len(found.passages), "tokens": found.tokens, "seconds": seconds}
        settled(hold, Amount(cost), {**detail, "data_class": label.data_class, "sources": list(label.sources)})
        told = label.data_class
        span.found(passages=len(found.passages), tokens=found.tokens, cost_usd_nano=cost, data_class=told)
    ctx.scope.reading.add(found.passages, ctx.step)
    return found


def _pay(ctx: Context, hold: Hold, name: str, price: Price, most: Usage) -> AbstractContextManager[Meter]:
    """Pay for embedding the question by an API, beside the seconds of this machine."""
    return paid(partial(_reserve_embedding, ctx, hold), name=name, price=price, most=most)


def _reserve_embedding(ctx: Context, hold: Hold, amount: Amount, meta: Mapping[str, Any]) -> Hold:
    hold_id = unused_id(ctx.engine.ledger, f"{hold.id}/embed")
    if ctx.step is not None:
        return ctx.step.funds.reserve(hold_id, amount, "embedding", meta)
    return ctx.engine.ledger.reserve(hold_id, amount, accounts=ctx.scope.accounts(), tag="embedding", meta=meta)


def _reserve(ctx: Context, question: str, meta: Mapping[str, Any]) -> Hold:
    engine = ctx.engine
    cap = Amount(engine.machine.cost(Usage(compute_ns=RETRIEVAL_CAP_NS)))
    base = ctx.step.hold.id if ctx.step else f"{ctx.run_id}/{engine.position()}".rstrip("/")
    hold_id = unused_id(engine.ledger, f"{base}/retrieve.{digest(repr(question))}")
    if ctx.step is not None:
        return ctx.step.funds.reserve(hold_id, cap, "retrieval", meta)
    accounts = ctx.scope.accounts()
    with telemetry.reservation(hold_id, held=cap, kind="retrieval", accounts=accounts) as span:
        hold = engine.ledger.reserve(hold_id, cap, accounts=accounts, tag="retrieval", meta=meta)
        span.granted()
        return hold
