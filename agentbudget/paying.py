"""Calls of a provider that are no answers of a model, such as embeddings: reserved, sent, settled."""

from __future__ import annotations

import time
from collections.abc import Callable, Generator, Mapping
from contextlib import contextmanager
from typing import Any, Final

from agentbudget import telemetry
from agentbudget.ledger import Hold
from agentbudget.models.base import Meter, Price
from agentbudget.money import ZERO, Amount
from agentbudget.settling import amount_of, settle_failure, settled
from agentbudget.usage import Usage

_NO_USAGE: Final = Usage()

Reserve = Callable[[Amount, Mapping[str, Any]], Hold]
"""Reserves an amount for a call of which the meta tells; raises `BudgetExceeded`."""


@contextmanager
def paid(reserve: Reserve, *, name: str, price: Price, most: Usage) -> Generator[Meter]:
    """Reserve what a call of at most `most` costs, and settle what the meter says when the block ends.

    However it ends: known usage is settled, nothing sent is void, and anything else is presumed spent. A cache that
    gives everything asks for nothing, and says to the meter what it saved.
    """
    amount = amount_of(price, most) if most != _NO_USAGE else ZERO
    provider, _, _ = name.partition(":")
    hold = reserve(amount, {"kind": "embedding", "model": name, "price": price.source})
    meter = Meter(on_leaving=hold.mark_sent)
    started = time.perf_counter()
    with telemetry.model_call(provider, name, operation="embeddings", input_tokens_estimated=most.input_tokens) as span:
        try:
            yield meter
        except BaseException as error:
            record = settle_failure(hold, price, meter, error, seconds=time.perf_counter() - started)
            span.closed(record)
            span.cost(record.settled.usd_nano if record.settled else 0, presumed=record.presumed)
            raise
        if meter.saved_usd_nano is not None:
            saved = meter.saved_usd_nano
            kept = {"kind": "embedding", "because": "exact"}
            settled(hold, ZERO, {"cached": True, "saved_usd_nano": saved, "seconds": 0.0, "cache": kept}, span=span)
            span.cache_hit(saved_usd_nano=saved, kind="embedding")
            return
        known = meter.usage or meter.presumed
        detail: dict[str, Any] = {"seconds": round(time.perf_counter() - started, 4), "price": price.terms}
        if known is None:
            record = hold.presume(detail=detail)
            span.closed(record)
        else:
            span.used(known)
            detail["usage"] = known.to_dict()
            record = settled(hold, amount_of(price, known), detail, presumed=meter.usage is None, span=span)
        span.cost(record.settled.usd_nano if record.settled else 0, presumed=record.presumed)
