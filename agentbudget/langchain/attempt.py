"""One billable call of a chat model: its hold, its meter and its span, from the reservation to the settlement."""

from __future__ import annotations

import time
from collections.abc import Mapping
from types import TracebackType
from typing import Any, Self

from langchain_core.language_models import BaseChatModel
from langchain_core.messages import AIMessage, AIMessageChunk
from langchain_core.outputs import ChatGenerationChunk, ChatResult, Generation

from agentbudget import telemetry
from agentbudget.errors import OutcomeUnknown
from agentbudget.estimate import Estimator
from agentbudget.growing import Growth
from agentbudget.langchain.sizing import Sized
from agentbudget.langchain.terms import Terms
from agentbudget.ledger import Hold, HoldRecord
from agentbudget.models.base import Completion, Finish, Meter, Price
from agentbudget.models.langchain.arrived import Arrived, finish_of
from agentbudget.models.langchain.failures import failure
from agentbudget.models.langchain.usage import timed, usage_of
from agentbudget.money import NANO, ZERO
from agentbudget.settling import amount_of, answered, settle_failure, settle_left, settled
from agentbudget.usage import Usage


class Attempt:
    """As a context manager it is booked however it ends: settled, presumed spent, or void.

    ``chat`` and ``asked`` are what to call, and with which keywords, to stay within the hold.
    """

    def __init__(
        self,
        terms: Terms,
        sized: Sized,
        hold: Hold,
        *,
        estimator: Estimator,
        label: str,
        asked: Mapping[str, Any],
        streams: bool,
    ) -> None:
        estimate = sized.estimate
        self.hold = hold
        self.growth: Growth | None = sized.growth(hold) if streams and sized.grows else None
        self._estimate = estimate
        self._arrived: Arrived | None = terms.arrived(estimate.input.tokens, estimate.output_cap) if streams else None
        self._meter = Meter(on_leaving=hold.mark_sent)
        self._terms = terms
        self._price: Price = estimate.price
        self._model = sized.model
        self._estimator = estimator
        self._label = label
        self._asked = asked
        self._streams = streams
        self._started_ns = time.perf_counter_ns()
        self._span = telemetry.model_call(
            terms.provider,
            terms.name,
            input_tokens_estimated=estimate.input.tokens,
            max_output_tokens=estimate.output_cap,
        )

    def ready(self) -> tuple[BaseChatModel, dict[str, Any]]:
        """What to call, and with which keywords: from here on it counts as sent."""
        return self._terms.capped(
            self._asked, self._estimate.request, self._meter, streams=self._streams, growth=self.growth
        )

    def __enter__(self) -> Self:
        span = self._span.aside() if self._streams else self._span
        span.__enter__()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            if isinstance(error, GeneratorExit):
                self._bound_arrived()
                self._ended(settle_left(self.hold, self._price, self._meter, seconds=self._seconds))
            elif error is not None:
                self.failed(error)
        finally:
            self._span.__exit__(kind, error, trace)

    @property
    def _seconds(self) -> float:
        return (time.perf_counter_ns() - self._started_ns) / NANO

    def failed(self, error: BaseException) -> None:
        """Book a call that raised, as far as `error` tells what it used."""
        told = failure(error, model=self._terms.name) if isinstance(error, Exception) else error
        if not getattr(told, "sent", True):
            self._meter.sent = False
        used: Usage | None = getattr(told, "usage", None)
        if used is not None and used != Usage():
            self._meter.used(timed(used, self._price, self._started_ns))
        self._bound_arrived()
        self._ended(settle_failure(self.hold, self._price, self._meter, told, seconds=self._seconds))

    def answered(self, result: ChatResult) -> bool:
        """Settle a whole answer, and say whether a learned cap cut it.

        Where it does not say what it used, its hold is presumed spent.
        """
        message = next(filter(None, map(_told, result.generations)), None)
        usage = None if message is None else usage_of(message)
        self._settle(message, usage)
        cut = message is not None and finish_of(message) == "length"
        return cut and self._estimate.output_cap < self._estimate.asked_tokens

    def streamed(self, *, cut: bool = False) -> None:
        """Settle a stream that has ended, or that was cut since its hold could not grow."""
        message = None if self._arrived is None else self._arrived.message
        if cut:
            self._bound_arrived()
        elif self._arrived is None or not self._arrived.ended:
            raise OutcomeUnknown(f"{self._terms.name}: the stream broke off", model=self._terms.name)
        self._settle(message, self._meter.usage or (None if message is None else usage_of(message)), cut=cut)

    def take(self, piece: ChatGenerationChunk) -> bool:
        """Add a piece of a stream, and say whether the hold covers what may come before the next."""
        assert self._arrived is not None
        told = _told(piece)
        if isinstance(told, AIMessageChunk):
            self._arrived.take(told)
        # One of our models asks its meter by itself, and knows better than what arrived.
        return self.growth is None or self._meter.gate is not None or self.growth.allows(self._arrived.most)

    def _bound_arrived(self) -> None:
        """What arrived bounds what was used only where the provider is known to stop with its stream."""
        if self._arrived is not None and self._terms.stream_lead_tokens is not None and self._meter.presumed is None:
            self._meter.presumed = self._arrived.most

    def _settle(self, message: AIMessage | None, usage: Usage | None, *, cut: bool = False) -> None:
        finish: Finish = "cut" if cut else "stop" if message is None else finish_of(message)
        served = "" if message is None else str(message.response_metadata.get("model_name") or "")
        known = usage or self._meter.presumed
        known = known and timed(known, self._price, self._started_ns)
        answer = Completion("", finish, known or Usage(), served_by=served or self._terms.name)
        price = (None if message is None else self._terms.price_served(message)) or self._price
        detail = answered(answer, self._seconds) | {"price": price.terms}
        self._span.answered(finish=finish, served_by=answer.served_by)
        if known is None:
            del detail["usage"]
            self._ended(self.hold.presume(detail=detail))
            return
        self._span.used(known)
        presumed = usage is None or (finish == "cut" and self._meter.usage is None)
        record = settled(self.hold, amount_of(price, known), detail, presumed=presumed, span=self._span)
        self._span.cost((record.settled or ZERO).usd_nano, presumed=record.presumed)
        self._estimator.learn(self._label, self._model, known, finish, estimate=self._estimate)

    def _ended(self, record: HoldRecord) -> None:
        self._span.closed(record)
        self._span.cost((record.settled or ZERO).usd_nano, presumed=record.presumed)


def _told(generation: Generation) -> AIMessage | None:
    """A message with what its integration says beside it, such as why it ended: LangChain puts that in it later."""
    message: object = getattr(generation, "message", None)
    if not isinstance(message, AIMessage):
        return None
    beside = generation.generation_info or {}
    return message.model_copy(update={"response_metadata": {**beside, **message.response_metadata}})
