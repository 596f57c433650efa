"""Spans as their callers hold them: what each phase of a run tells, and when it ends."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from contextvars import Token
from operator import gt
from types import TracebackType
from typing import TYPE_CHECKING, ClassVar, Literal, Self, cast

from agentbudget.errors import BudgetExceeded, ModelError
from agentbudget.money import NANO, Amount, Budget
from agentbudget.telemetry.backend import STEP_KEY, UNKNOWN, Backend, Call, CallSeries
from agentbudget.telemetry.names import GenAI, Ours, Outcome, Value, Values
from agentbudget.usage import Usage

if TYPE_CHECKING:
    from opentelemetry.context import Context
    from opentelemetry.trace import Span as OtelSpan

    from agentbudget.history import Breakdown
    from agentbudget.ledger import Account, HoldRecord


class Span:
    """A span and how it ends, as a context manager. Without a listener it is shared and does nothing.

    An exception that passes through is noted by its type alone: messages may quote a prompt.
    """

    kind: ClassVar[Literal["INTERNAL", "CLIENT"]] = "INTERNAL"

    __slots__ = ("_attributes", "_backend", "_current", "_heard", "_later", "_name", "_otel", "_token")

    def __init__(self, backend: Backend | None = None, name: str = "", attributes: Values | None = None) -> None:
        self._backend = backend
        self._current = True
        self._heard = False
        self._name = name
        self._attributes: Values = attributes or {}
        self._otel: OtelSpan | None = None
        self._later: dict[str, Value | None] = {}
        self._token: Token[Context] | None = None

    def aside(self) -> Self:
        """The span without being the current one: for a generator, whose body runs amid its reader's."""
        if self._backend is not None:
            self._current = False
        return self

    @property
    def is_heard(self) -> bool:
        """Whether anybody listens: what is costly to find out need not be told otherwise."""
        return self._heard

    def __enter__(self) -> Self:
        if self._backend is not None:
            self._start(self._backend)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        backend, otel = self._backend, self._otel
        if backend is None or otel is None:
            return
        failure = _failure(error)
        if failure is not None:
            self._set(_of_error(failure))
        self._ending(backend, error)
        if self._later:
            otel.set_attributes(_known(self._later))  # all at once: each time costs more than each attribute
        if self._token is not None:
            backend.api.context.detach(self._token)
        if failure is not None:
            _mark(otel, backend, failure)
        otel.end()

    def closed(self, record: HoldRecord, *, took_s: float | None = None) -> None:
        """The hold that paid for this, as it was settled or voided, and how long the ledger took to book that."""
        backend = self._backend
        if backend is None:
            return
        backend.count_hold(outcome_of(record), record.meta.get("kind"))
        if self._heard:
            self._later.update(settled_values(record))
            self._later[Ours.SETTLE_S] = took_s

    def _start(self, backend: Backend) -> None:
        api = backend.api
        kind = api.client if self.kind == "CLIENT" else api.internal
        self._otel = backend.tracer.start_span(self._name, kind=kind, attributes=_known(self._attributes))
        self._heard = self._otel.is_recording()
        if self._current:
            self._token = api.context.attach(self._context(backend, api.trace.set_span_in_context(self._otel)))

    def _context(self, backend: Backend, context: Context) -> Context:
        """What spans within this one see."""
        return context

    def _ending(self, backend: Backend, error: BaseException | None) -> None:
        """Record what is known only now."""

    def _hit(
        self, backend: Backend, series: CallSeries, saved_usd_nano: int | None, *, kind: str, because: str
    ) -> None:
        """A cache gave what this span would have paid for."""
        self._set(
            {
                Ours.CACHE_HIT: True,
                Ours.CACHE_KIND: kind,
                Ours.CACHE_BECAUSE: because,
                Ours.CACHE_SAVED: saved_usd_nano,
                Ours.COST_NANO: 0,
            }
        )
        backend.add_hit(saved_usd_nano or 0, kind, series)

    def _set(self, values: Values) -> None:
        if self._heard:
            self._later.update(values)


def _phase(backend: Backend, name: str, hold_id: str, took_s: float) -> None:
    """A span within the current one for what ends now. Nothing is within it, so that it is told of afterwards."""
    ended_ns = time.time_ns()
    span = backend.tracer.start_span(name, start_time=ended_ns - int(took_s * NANO), attributes={Ours.HOLD: hold_id})
    span.end(ended_ns)


class RunSpan(Span):
    """``invoke_agent {agent}``: one agent task. Its totals are ours alone: tokens under ``gen_ai.*`` on a parent
    would be counted twice."""

    __slots__ = ()

    def finished(self, *, status: str, settled: Amount | None = None, remaining: Budget | None = None) -> None:
        """How the run ended, what it cost, and what its budget has left."""
        self._set(
            {Ours.STATUS: status} | amount_values(Ours.SETTLED, settled) | limit_values(Ours.REMAINING, remaining)
        )


class StepSpan(Span):
    """``step {skill}``: one skill call, a transaction."""

    __slots__ = ()

    def _context(self, backend: Backend, context: Context) -> Context:
        labels = {name: str(value) for name in (Ours.SKILL, Ours.TIER) if (value := self._attributes.get(name))}
        return backend.api.context.set_value(STEP_KEY, labels, context)

    def reserved(self, hold_id: str, *, estimated: Amount, accounts: Sequence[str], took_s: float) -> None:
        """What the step should cost, which accounts it weighs on, and how long the ledger took to admit it."""
        if self._backend is None or not self._heard:
            return
        _phase(self._backend, "reserve", hold_id, took_s)
        told = self._later
        told[Ours.ESTIMATED_USD], told[Ours.ESTIMATED_TOKENS] = estimated.usd_nano, estimated.tokens
        told[Ours.ACCOUNTS], told[Ours.RESERVE_S] = tuple(accounts), took_s

    def closed(self, record: HoldRecord, *, took_s: float | None = None) -> None:
        """See `Span`; a phase of its own, too."""
        super().closed(record, took_s=took_s)
        if self._backend is not None and self._heard:
            _phase(self._backend, "settle", record.id, took_s or 0.0)

    def balance(self, account: Account, *, elapsed_s: float | None = None) -> None:
        """What the run's account has left; with the run's age also how fast it burns."""
        if not self._heard:
            return
        # In the ledger's own integers: `Account.available` makes decimals of them for people to read.
        (usd, tokens, _), posted, held = account.limits, account.posted_units, account.held_units
        if usd is not None:
            self._later[Ours.REMAINING_USD] = max(0, usd - posted[0] - held[0])
        if tokens is not None:
            self._later[Ours.REMAINING_TOKENS] = max(0, tokens - posted[1] - held[1])
        if elapsed_s is not None and elapsed_s > 0:  # a clock may be put back
            self._later[Ours.BURN_RATE] = posted[0] / NANO * 60 / elapsed_s

    def finished(self, *, status: str, escalated: bool = False) -> None:
        """How the step ended: its status, and whether a stronger model was asked."""
        if self._heard:
            self._later[Ours.STATUS], self._later[Ours.ESCALATED] = status, escalated


class Reservation:
    """Around an admission: it is granted if the block ends well, refused if `BudgetExceeded` passes.

    What is granted is told by the span of what it pays for; what is not, by an event of the current span.
    """

    __slots__ = ("_backend", "_hold_id", "_kind")

    def __init__(self, backend: Backend | None = None, hold_id: str = "", kind: str = "") -> None:
        self._backend = backend
        self._hold_id = hold_id
        self._kind = kind

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        backend = self._backend
        if backend is None:
            return
        if error is None:
            backend.count_hold("granted", self._kind)
            return
        outcome: Outcome = "refused" if isinstance(error, BudgetExceeded) else "error"
        backend.count_hold(outcome, self._kind)
        told = {Ours.HOLD: self._hold_id, Ours.KIND: self._kind, Ours.OUTCOME: outcome, **_of_error(error)}
        backend.api.trace.get_current_span().add_event(Ours.RESERVATION, _known(told))


class RetrievalSpan(Span):
    """``retrieval {source}``: passages fetched from an index."""

    __slots__ = ()

    def found(
        self, *, passages: int, tokens: int, cost_usd_nano: int | None = None, data_class: str | None = None
    ) -> None:
        """How many passages were packed, their tokens and narrowest class, and what finding them cost."""
        told = {Ours.PASSAGES: passages, Ours.RETRIEVAL_TOKENS: tokens, Ours.COST_NANO: cost_usd_nano}
        self._set({**told, Ours.DATA_CLASS: data_class})
        if self._backend is not None and cost_usd_nano is not None:
            self._backend.instruments.cost.add(cost_usd_nano, _searches(self._backend).plain)

    def cache_hit(self, *, saved_usd_nano: int | None = None, kind: str = "retrieval", because: str = "exact") -> None:
        """The same was found before: nothing is searched."""
        if self._backend is not None:
            self._hit(self._backend, _searches(self._backend), saved_usd_nano, kind=kind, because=because)


class ModelCallSpan(Span):
    """``chat {model}``: one attempt at a model, or the answer that a cache gave in its place."""

    kind = "CLIENT"
    __slots__ = ("_cached", "_series", "_served_by", "_started", "_usage")

    def __init__(self, backend: Backend | None = None, name: str = "", attributes: Values | None = None) -> None:
        super().__init__(backend, name, attributes)
        self._usage: Usage | None = None
        self._served_by: str | None = None
        self._series: CallSeries | None = None
        self._cached = False
        self._started = 0.0

    def answered(self, *, finish: str, served_by: str | None = None, confidence: float | None = None) -> None:
        """Why the answer ended, which model gave it, and how sure it was (0 to 1)."""
        if self._otel is None:
            return
        self._served_by = served_by
        self._set({GenAI.FINISH_REASONS: (finish,), GenAI.RESPONSE_MODEL: served_by, Ours.CONFIDENCE: confidence})

    def used(self, usage: Usage) -> None:
        """What the provider, or the local engine, says that the attempt used."""
        if self._otel is None:
            return
        self._usage = usage
        self._set(
            {
                GenAI.INPUT_TOKENS: usage.input_tokens,
                GenAI.OUTPUT_TOKENS: usage.output_tokens,
                GenAI.CACHE_READ_TOKENS: usage.cached_tokens or None,
                GenAI.CACHE_CREATION_TOKENS: usage.cache_write_tokens or None,
                GenAI.REASONING_TOKENS: usage.reasoning_tokens or None,
                Ours.COMPUTE_S: usage.compute_ns / NANO if usage.compute_ns else None,
            }
        )

    def made_of(self, breakdown: Breakdown) -> None:
        """Tokens of each part, as in ``agentbudget.prompt.system.tokens``, and whether they are exact."""
        if self._otel is None:
            return
        told = {f"{Ours.PART}.{part.name}.tokens": part.tokens for part in breakdown.parts}
        self._set({**told, f"{Ours.PART}.exact": breakdown.exact})

    def cost(self, usd_nano: int, *, presumed: bool = False) -> None:
        """What the attempt cost, once; `presumed` if nobody knows and the hold was taken in full."""
        self._set({Ours.COST_NANO: usd_nano, Ours.PRESUMED: presumed})
        if self._backend is not None:
            self._backend.instruments.cost.add(usd_nano, self._counted(self._backend).plain)

    def cache_hit(self, *, saved_usd_nano: int | None = None, kind: str = "answer", because: str = "exact") -> None:
        """The answer was paid for already: no model is asked, and no usage is reported. ``because`` is why it may be
        given again."""
        if self._backend is None:
            return
        self._cached = True
        self._hit(self._backend, self._counted(self._backend), saved_usd_nano, kind=kind, because=because)

    def _start(self, backend: Backend) -> None:
        super()._start(backend)
        self._started = time.perf_counter()
        self._counted(backend)

    def _ending(self, backend: Backend, error: BaseException | None) -> None:
        if isinstance(error, ModelError) and error.usage is not None and self._usage is None:
            self.used(error.usage)
        if self._cached:
            return
        asked = (str(self._attributes[name]) for name in (GenAI.OPERATION, GenAI.PROVIDER, GenAI.REQUEST_MODEL))
        client = backend.clients(*asked, answered_by=self._served_by)
        labels = client.plain
        if error is not None:
            labels = {**labels, GenAI.ERROR_TYPE: type(error).__qualname__}
        if self._otel is not None:
            seconds, within = time.perf_counter() - self._started, self._otel.get_span_context()
            backend.count_call(Call(seconds, labels, self._usage, client, within), self._counted(backend))

    def _counted(self, backend: Backend) -> CallSeries:
        """Under which labels it is counted: those of the step in which it began."""
        if self._series is None:
            told = self._attributes
            self._series = backend.calls(str(told.get(Ours.MODEL) or UNKNOWN), str(told[GenAI.OPERATION]))
        return self._series


def settled_values(record: HoldRecord) -> dict[str, Value | None]:
    """A hold as it stands after it was settled or voided."""
    held, settled = record.amount_units, record.settled_units
    told: dict[str, Value | None] = {
        Ours.HOLD: record.id,
        Ours.OUTCOME: outcome_of(record),
        Ours.PRESUMED: record.presumed,
        Ours.HELD_USD: held[0],
        Ours.HELD_TOKENS: held[1],
    }
    if settled is not None:
        told[Ours.SETTLED_USD], told[Ours.SETTLED_TOKENS], _ = settled
        if any(map(gt, settled, held)):
            told |= amount_values(Ours.OVERRUN, record.overrun)
    return told


def outcome_of(record: HoldRecord) -> Outcome:
    """How a hold ended."""
    return "voided" if record.state == "voided" else "presumed" if record.presumed else "settled"


def _searches(backend: Backend) -> CallSeries:
    return backend.calls("retrieval", "retrieval")


def _known(values: Values) -> Mapping[str, Value]:
    if None not in values.values():  # seen at once, and most often so
        return cast("Mapping[str, Value]", values)
    return {name: value for name, value in values.items() if value is not None}


def amount_values(prefix: str, amount: Amount | None) -> dict[str, Value | None]:
    """An amount under `prefix`: nothing of it while it is not known."""
    if amount is None:
        return {}
    return {f"{prefix}.usd_nano": amount.usd_nano, f"{prefix}.tokens": amount.tokens}


def limit_values(prefix: str, budget: Budget | None) -> dict[str, Value | None]:
    """Limits under `prefix`."""
    if budget is None:
        return {}
    return {f"{prefix}.usd_nano": budget.usd_nano, f"{prefix}.tokens": budget.tokens}


def _failure(error: BaseException | None) -> BaseException | None:
    """What passes through a span as a failure; what LangGraph raises to pause a graph, an interrupt, is none."""
    if error is None or any(base.__name__ == "GraphBubbleUp" for base in type(error).__mro__):
        return None
    return error


def _of_error(error: BaseException) -> dict[str, Value | None]:
    values: dict[str, Value | None] = {GenAI.ERROR_TYPE: type(error).__qualname__}
    if isinstance(error, BudgetExceeded):
        values[Ours.REFUSED_BY], values[Ours.REFUSED_UNIT] = error.account, error.unit
        values[Ours.NEEDED], values[Ours.AVAILABLE] = error.needed, error.available
    return values


def _mark(otel: OtelSpan, backend: Backend, error: BaseException) -> None:
    otel.add_event("exception", {GenAI.EXCEPTION_TYPE: type(error).__qualname__})
    otel.set_status(backend.api.trace.StatusCode.ERROR)
