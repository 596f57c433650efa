"""What a call of a chat model holds before it leaves, and how a stream's hold grows."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Literal

from agentbudget.estimate import CallEstimate, Estimator
from agentbudget.growing import Growth
from agentbudget.holding import START_TOKENS
from agentbudget.ledger import Hold
from agentbudget.models.base import CacheTime, Model, Request
from agentbudget.money import Amount
from agentbudget.step.sizing import STREAM_LEVEL

Holding = Literal["worst", "grow", "quantile"]
"""What a call sets aside.

``"worst"``: all that it may use. ``"grow"``: the same, but a stream begins on what such streams use, and its hold
grows, where its provider is known to stop when it is left. ``"quantile"``: likewise, and a call is capped at what 99 of
100 such calls use and a quarter more, once enough are known; one that this cuts is made again, at its whole cap.
"""


@dataclass(frozen=True, slots=True)
class Sized:
    """A call, what it holds to begin with, and for how many output tokens that is."""

    estimate: CallEstimate
    model: Model
    amount: Amount
    tokens: int
    bound: Callable[[int], Amount]

    @property
    def grows(self) -> bool:
        """Whether it holds less than it may use."""
        return self.tokens < self.estimate.output_cap

    def growth(self, hold: Hold) -> Growth:
        """What a stream on `hold` asks before it goes on."""
        return Growth(
            hold.amount,
            tokens=self.tokens,
            cap=self.estimate.output_cap,
            input_tokens=self.estimate.input.tokens,
            price=self.estimate.price,
            cache_1h=self.estimate.request.cache_time == "1h",
            bound=self.bound,
            extend=hold.extend,
        )


async def size(
    estimator: Estimator,
    label: str,
    model: Model,
    request: Request,
    *,
    holding: Holding,
    lead: int | None = None,
    whole: bool = False,
) -> Sized:
    """Size a call; with a `lead`, a stream whose hold may grow. `whole` leaves out what was learned.

    Raises `ContextTooLong`.
    """
    grows = lead is not None and holding != "worst"
    trusts = holding == "quantile" and not whole and lead is None
    level = STREAM_LEVEL if grows else None
    estimate = await estimator.call(label, model, request, trust_history=trusts, level=level, grows=grows)
    bound = partial(_bound, estimator, label, model, request.cache_time, estimate.input.tokens)
    if lead is None or holding == "worst":
        return Sized(estimate, model, estimate.bound, estimate.output_cap, bound)
    learned = estimate.hold_tokens < estimate.output_cap
    tokens = min(estimate.output_cap, (estimate.hold_tokens if learned else START_TOKENS) + lead)
    return Sized(estimate, model, bound(tokens), tokens, bound)


def _bound(
    estimator: Estimator, label: str, model: Model, cache_time: CacheTime, input_tokens: int, output_tokens: int
) -> Amount:
    return estimator.sized(
        label, model, input_tokens=input_tokens, output_tokens=output_tokens, cache_1h=cache_time == "1h"
    )
