"""How a model call that has ended is booked: its usage if that is known, else what is presumed of it."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any

from agentbudget import telemetry
from agentbudget.errors import AgentBudgetError, ModelError
from agentbudget.ledger import Hold, HoldRecord
from agentbudget.models.base import Completion, Meter, Price
from agentbudget.money import ZERO, Amount
from agentbudget.usage import Usage


def settled(
    hold: Hold, cost: Amount, detail: Mapping[str, Any], *, presumed: bool = False, span: telemetry.Span | None = None
) -> HoldRecord:
    """Settle `hold` at `cost`; `presumed` if that is a bound, not the truth. ``span`` is that of what it pays for."""
    began = time.perf_counter()
    record = hold.settle(cost, presumed=presumed, detail=detail)
    if span is None:
        telemetry.settlement(record)
    else:
        span.closed(record, took_s=time.perf_counter() - began)
    return record


def answered(answer: Completion, seconds: float) -> dict[str, Any]:
    """What the journal keeps of an answer: usage, time, how it ended, who gave it."""
    return {
        "usage": answer.usage.to_dict(),
        "seconds": round(seconds, 4),
        "finish": answer.finish,
        "served_by": answer.served_by,
        "confidence": answer.confidence,
    }


def amount_of(price: Price, usage: Usage) -> Amount:
    """What one call that used so much weighs."""
    return Amount(price.cost(usage), usage.total_tokens, 1)


def settle_failure(hold: Hold, price: Price, meter: Meter, error: BaseException, *, seconds: float) -> HoldRecord:
    """Book a call that raised: its usage if known, nothing if nothing was sent or billed, else the presumption."""
    message = f"{type(error).__name__}: {error}" if isinstance(error, AgentBudgetError) else type(error).__name__
    usage: Usage | None = meter.usage
    if usage is None and isinstance(error, ModelError):
        usage = error.usage
    return _settle_by(hold, price, meter, usage, {"error": message, "seconds": round(seconds, 4), "finish": "error"})


def settle_left(hold: Hold, price: Price, meter: Meter, *, seconds: float) -> HoldRecord:
    """Book a stream that its reader left: what it used if known, else the presumption."""
    return _settle_by(hold, price, meter, meter.usage, {"seconds": round(seconds, 4), "finish": "left"})


def _settle_by(hold: Hold, price: Price, meter: Meter, usage: Usage | None, detail: Mapping[str, Any]) -> HoldRecord:
    detail = {**detail, "price": price.terms}
    if usage is not None:
        return hold.settle(amount_of(price, usage), detail=detail | {"usage": usage.to_dict()})
    if not meter.sent:
        # The ledger was told that the call leaves before it turned out that it could not.
        said = str(detail.get("error", detail["finish"]))
        return hold.settle(ZERO, detail=detail) if hold.record.sent else hold.void(reason=said)
    # A provider that says nothing of usage may bill: a refund is never guessed.
    if meter.presumed is not None:
        detail["usage"] = meter.presumed.to_dict()
        return hold.settle(amount_of(price, meter.presumed), presumed=True, detail=detail)
    return hold.presume(detail=detail)
