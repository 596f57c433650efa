"""Spans and metrics: what a run did and cost, in OpenTelemetry's words where it has them, in ours elsewhere.

The only module that imports opentelemetry, and only once somebody listens: with no provider installed every
function here hands out a shared span that does nothing. `setup` installs an OTLP exporter if the environment
names an endpoint; a program that installs its own provider needs no call at all.

Prompts, answers and error messages are never exported: no function here takes such a text. (The conventions' opt-in
``OTEL_INSTRUMENTATION_GENAI_CAPTURE_MESSAGE_CONTENT`` is not honoured yet.) Users are on spans, never on metric labels.
"""

from __future__ import annotations

import os
import sys
import threading
import time
from collections.abc import Generator, Mapping, Sequence
from contextlib import contextmanager
from contextvars import Token
from dataclasses import dataclass, field
from functools import cache, lru_cache
from importlib.metadata import PackageNotFoundError, version
from types import ModuleType, TracebackType
from typing import TYPE_CHECKING, ClassVar, Final, Literal, Self, cast

from agentbudget.errors import BudgetExceeded, MissingDependency, Mistake, ModelError
from agentbudget.money import NANO, Amount, Budget
from agentbudget.usage import Usage

if TYPE_CHECKING:
    from opentelemetry.context import Context
    from opentelemetry.metrics import CallbackOptions, Histogram, MeterProvider, Observation
    from opentelemetry.sdk.metrics import MeterProvider as SdkMeterProvider
    from opentelemetry.sdk.metrics.export import MetricsData
    from opentelemetry.sdk.resources import Resource
    from opentelemetry.sdk.trace import ReadableSpan
    from opentelemetry.sdk.trace import TracerProvider as SdkTracerProvider
    from opentelemetry.trace import Span as OtelSpan
    from opentelemetry.trace import Tracer, TracerProvider

    from agentbudget.ledger import Account, HoldRecord

Value = str | bool | int | float | Sequence[str]
Values = Mapping[str, Value | None]
"""Attributes of a span; those that are None are unknown, and left out."""

Outcome = Literal["granted", "refused", "error", "settled", "presumed", "voided"]
"""What became of a hold, on ``agentbudget.reservations``."""

Decision = Literal["passed", "redacted", "refused"]
"""What was decided about a text on its way to a destination."""

SCOPE: Final = "agentbudget"
"""The name of the instrumentation scope."""

SEMCONV_VERSION: Final = "1.41.1"
"""The last release of the semantic conventions that defines ``gen_ai.*``; all of it has the status "development"."""

SCHEMA_URL: Final = f"https://opentelemetry.io/schemas/{SEMCONV_VERSION}"


class GenAI:
    """Names that the semantic conventions define."""

    OPERATION: Final = "gen_ai.operation.name"
    PROVIDER: Final = "gen_ai.provider.name"
    AGENT: Final = "gen_ai.agent.name"
    DATA_SOURCE: Final = "gen_ai.data_source.id"
    REQUEST_MODEL: Final = "gen_ai.request.model"
    REQUEST_MAX_TOKENS: Final = "gen_ai.request.max_tokens"
    RESPONSE_MODEL: Final = "gen_ai.response.model"
    FINISH_REASONS: Final = "gen_ai.response.finish_reasons"
    INPUT_TOKENS: Final = "gen_ai.usage.input_tokens"
    OUTPUT_TOKENS: Final = "gen_ai.usage.output_tokens"
    CACHE_READ_TOKENS: Final = "gen_ai.usage.cache_read.input_tokens"
    CACHE_CREATION_TOKENS: Final = "gen_ai.usage.cache_creation.input_tokens"
    REASONING_TOKENS: Final = "gen_ai.usage.reasoning.output_tokens"
    TOKEN_TYPE: Final = "gen_ai.token.type"
    ERROR_TYPE: Final = "error.type"
    EXCEPTION_TYPE: Final = "exception.type"
    USER: Final = "user.id"

    TOKEN_USAGE: Final = "gen_ai.client.token.usage"
    OPERATION_DURATION: Final = "gen_ai.client.operation.duration"


class Ours:
    """Names of what no convention defines: budgets, routing, caches."""

    RUN: Final = "agentbudget.run.id"
    STEP: Final = "agentbudget.step.id"
    HOLD: Final = "agentbudget.hold.id"
    KIND: Final = "agentbudget.hold.kind"
    SKILL: Final = "agentbudget.skill"
    TIER: Final = "agentbudget.tier"
    MODEL: Final = "agentbudget.model"
    RUNG: Final = "agentbudget.rung"
    PURPOSE: Final = "agentbudget.purpose"
    STATUS: Final = "agentbudget.status"
    ESCALATED: Final = "agentbudget.escalated"
    CONFIDENCE: Final = "agentbudget.confidence"
    ACCOUNTS: Final = "agentbudget.accounts"
    OUTCOME: Final = "agentbudget.outcome"
    REPLAYED: Final = "agentbudget.replayed"
    PRESUMED: Final = "agentbudget.presumed"
    BUDGET: Final = "agentbudget.budget"
    ESTIMATED: Final = "agentbudget.estimated"
    HELD: Final = "agentbudget.held"
    SETTLED: Final = "agentbudget.settled"
    OVERRUN: Final = "agentbudget.overrun"
    REMAINING: Final = "agentbudget.remaining"
    BURN_RATE: Final = "agentbudget.burn_rate.usd_per_minute"
    COST_NANO: Final = "agentbudget.cost.usd_nano"
    REFUSED_BY: Final = "agentbudget.refusal.account"
    REFUSED_UNIT: Final = "agentbudget.refusal.unit"
    NEEDED: Final = "agentbudget.refusal.needed"
    AVAILABLE: Final = "agentbudget.refusal.available"
    INPUT_ESTIMATED: Final = "agentbudget.estimated.input_tokens"
    COMPUTE_S: Final = "agentbudget.compute_s"
    CACHE_HIT: Final = "agentbudget.cache.hit"
    CACHE_SAVED: Final = "agentbudget.cache.saved.usd_nano"
    RETRIEVAL_ALLOWANCE: Final = "agentbudget.retrieval.allowance_tokens"
    RETRIEVAL_TOKENS: Final = "agentbudget.retrieval.tokens"
    PASSAGES: Final = "agentbudget.retrieval.passages"
    DATA_CLASS: Final = "agentbudget.data_class"
    DECISION: Final = "agentbudget.data_class.decision"
    DESTINATION: Final = "agentbudget.data_class.destination"
    FOUND: Final = "agentbudget.data_class.found"

    COST: Final = "agentbudget.cost"
    TOKENS: Final = "agentbudget.tokens"
    RESERVATIONS: Final = "agentbudget.reservations"
    CACHE_HITS: Final = "agentbudget.cache.hits"


TOKEN_BUCKETS: Final = tuple(4**i for i in range(14))
"""Histogram bounds that the conventions give for tokens."""

DURATION_BUCKETS: Final = tuple(0.01 * 2**i for i in range(14))
"""Histogram bounds that the conventions give for seconds."""

EXPORT_TIMEOUT_S: Final = 3.0
"""How long a collector that is down may hold up the end of a process, unless ``OTEL_EXPORTER_OTLP_TIMEOUT`` says."""

_OUTCOMES: Final[tuple[Outcome, ...]] = ("granted", "refused", "settled", "presumed", "voided")
_UNKNOWN: Final = "unknown"
_STEP_KEY: Final = "agentbudget.step"


# --- spans that callers hold


class Span:
    """A span and how it ends, as a context manager. Without a listener it is shared and does nothing.

    An exception that passes through is noted by its type alone: messages may quote a prompt.
    """

    kind: ClassVar[Literal["INTERNAL", "CLIENT"]] = "INTERNAL"
    leaf: ClassVar[bool] = False
    """Whether nothing within it has a span: then it need not become the current one, which takes its time too."""

    __slots__ = ("_attributes", "_backend", "_current", "_later", "_name", "_otel", "_started", "_token")

    def __init__(self, backend: _Backend | None = None, name: str = "", attributes: Values | None = None) -> None:
        self._backend = backend
        self._current = not self.leaf
        self._name = name
        self._attributes: Values = attributes or {}
        self._otel: OtelSpan | None = None
        self._later: dict[str, Value] = {}
        self._token: Token[Context] | None = None
        self._started = 0.0

    def aside(self) -> Self:
        """The span without being the current one: for a generator, whose body runs amid its reader's."""
        if self._backend is not None:
            self._current = False
        return self

    @property
    def is_heard(self) -> bool:
        """Whether anybody listens: what is costly to find out need not be told otherwise."""
        return self._otel is not None and self._otel.is_recording()

    def __enter__(self) -> Self:
        if self._backend is not None:
            self._start(self._backend)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._backend is None or self._otel is None:
            return
        if error is not None and not _is_control_flow(error):
            self._fail(error)
        self._ending(self._backend, error)
        if self._later:
            self._otel.set_attributes(self._later)  # all at once: each time costs more than each attribute
        if self._token is not None:
            self._backend.api.context.detach(self._token)
        self._otel.end()

    def _start(self, backend: _Backend) -> None:
        api = backend.api
        kind = api.trace.SpanKind.CLIENT if self.kind == "CLIENT" else api.trace.SpanKind.INTERNAL
        self._otel = backend.tracer.start_span(self._name, kind=kind, attributes=_known(self._attributes))
        if self._current:
            self._token = api.context.attach(self._context(api.trace.set_span_in_context(self._otel)))
        self._started = time.perf_counter()

    def _context(self, context: Context) -> Context:
        """What spans within this one see."""
        return context

    def _ending(self, backend: _Backend, error: BaseException | None) -> None:
        """Record what is known only now."""

    def _fail(self, error: BaseException) -> None:
        from opentelemetry.trace import StatusCode

        if self._otel is None:
            return
        name = type(error).__qualname__
        self._set({GenAI.ERROR_TYPE: name})
        if isinstance(error, BudgetExceeded):
            self._set(_refusal(error))
        self._otel.add_event("exception", {GenAI.EXCEPTION_TYPE: name})
        self._otel.set_status(StatusCode.ERROR)

    def _set(self, values: Values) -> None:
        if self.is_heard:
            self._later.update(_known(values))


class RunSpan(Span):
    """``invoke_agent {agent}``: one agent task. Its totals are ours alone: tokens under ``gen_ai.*`` on a parent
    would be counted twice."""

    __slots__ = ()

    def finished(self, *, status: str, settled: Amount | None = None, remaining: Budget | None = None) -> None:
        """How the run ended, what it cost, and what its budget has left."""
        self._set({Ours.STATUS: status} | _amount(Ours.SETTLED, settled) | _limits(Ours.REMAINING, remaining))


class StepSpan(Span):
    """``step {skill}``: one skill call, a transaction."""

    __slots__ = ()

    def _context(self, context: Context) -> Context:
        from opentelemetry.context import set_value

        labels = {name: str(value) for name in (Ours.SKILL, Ours.TIER) if (value := self._attributes.get(name))}
        return set_value(_STEP_KEY, labels, context)

    def finished(self, *, status: str, escalated: bool = False, settled: Amount | None = None) -> None:
        """How the step ended: its status, whether a stronger model was asked, and what it cost."""
        self._set({Ours.STATUS: status, Ours.ESCALATED: escalated} | _amount(Ours.SETTLED, settled))


class ReservationSpan(Span):
    """``reserve {kind}``: an admission. It is granted if the block ends well, refused if `BudgetExceeded` passes."""

    leaf = True
    __slots__ = ()

    def granted(self, *, held: Amount | None = None, replayed: bool = False) -> None:
        """What is held in the end, and whether the hold existed already (a resumed run)."""
        self._set({Ours.REPLAYED: replayed} | _amount(Ours.HELD, held))

    def _ending(self, backend: _Backend, error: BaseException | None) -> None:
        outcome: Outcome = "granted"
        if error is not None:
            outcome = "refused" if isinstance(error, BudgetExceeded) else "error"
        self._set({Ours.OUTCOME: outcome})
        backend.count_hold(outcome, self._attributes.get(Ours.KIND))


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
            self._backend.add_cost(cost_usd_nano, _labels("retrieval"))


class ModelCallSpan(Span):
    """``chat {model}``: one attempt at a model, or the answer that a cache gave in its place."""

    kind = "CLIENT"
    __slots__ = ("_cached", "_served_by", "_usage")

    def __init__(self, backend: _Backend | None = None, name: str = "", attributes: Values | None = None) -> None:
        super().__init__(backend, name, attributes)
        self._usage: Usage | None = None
        self._served_by: str | None = None
        self._cached = False

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

    def cost(self, usd_nano: int, *, presumed: bool = False) -> None:
        """What the attempt cost, once; `presumed` if nobody knows and the hold was taken in full."""
        self._set({Ours.COST_NANO: usd_nano, Ours.PRESUMED: presumed})
        if self._backend is not None:
            self._backend.add_cost(usd_nano, self._series())

    def cache_hit(self, *, saved_usd_nano: int | None = None) -> None:
        """The answer was paid for already: no model is asked, and no usage is reported."""
        if self._backend is None:
            return
        self._cached = True
        self._set({Ours.CACHE_HIT: True, Ours.CACHE_SAVED: saved_usd_nano, Ours.COST_NANO: 0})
        self._backend.instruments.cache_hits.add(1, self._series())

    def _start(self, backend: _Backend) -> None:
        super()._start(backend)
        backend.announce(self._series())

    def _ending(self, backend: _Backend, error: BaseException | None) -> None:
        if isinstance(error, ModelError) and error.usage is not None and self._usage is None:
            self.used(error.usage)
        if self._cached:
            return
        labels = self._client_labels()
        if error is not None:
            labels[GenAI.ERROR_TYPE] = type(error).__qualname__
        backend.instruments.duration.record(time.perf_counter() - self._started, labels)
        if self._usage is not None:
            backend.add_tokens(self._usage, self._client_labels(), self._series())

    def _series(self) -> dict[str, str]:
        return _labels(str(self._attributes.get(Ours.MODEL) or _UNKNOWN))

    def _client_labels(self) -> dict[str, str]:
        names = (GenAI.OPERATION, GenAI.PROVIDER, GenAI.REQUEST_MODEL)
        labels = {name: str(self._attributes[name]) for name in names}
        if self._served_by is not None:
            labels[GenAI.RESPONSE_MODEL] = self._served_by
        return labels


class SettlementSpan(Span):
    """``settle``: the truth is booked."""

    leaf = True
    __slots__ = ()

    def closed(self, record: HoldRecord) -> None:
        """The hold as it stands after it was settled or voided."""
        if self._backend is None:
            return
        outcome: Outcome = "voided" if record.state == "voided" else "presumed" if record.presumed else "settled"
        overrun = record.overrun
        values: Values = {
            Ours.OUTCOME: outcome,
            Ours.PRESUMED: record.presumed,
            **_amount(Ours.HELD, record.amount),
            **_amount(Ours.SETTLED, record.settled),
            **(_amount(Ours.OVERRUN, overrun) if overrun else {}),
        }
        self._set(values)
        self._backend.count_hold(outcome, record.meta.get("kind"))

    def balance(self, account: Account, *, elapsed_s: float | None = None) -> None:
        """What the run's account has left; with the run's age also how fast it burns."""
        self._set(_limits(Ours.REMAINING, account.available))
        if elapsed_s:
            self._set({Ours.BURN_RATE: account.posted.usd_nano / NANO * 60 / elapsed_s})


_NO_RUN: Final = RunSpan()
_NO_STEP: Final = StepSpan()
_NO_RESERVATION: Final = ReservationSpan()
_NO_RETRIEVAL: Final = RetrievalSpan()
_NO_MODEL_CALL: Final = ModelCallSpan()
_NO_SETTLEMENT: Final = SettlementSpan()


# --- the phases of a run


def run(run_id: str, *, agent: str, user: str | None = None, budget: Budget | None = None) -> RunSpan:
    """The span of one agent task."""
    backend = _backend()
    if backend is None:
        return _NO_RUN
    values: Values = {
        GenAI.OPERATION: "invoke_agent",
        GenAI.AGENT: agent,
        GenAI.USER: user,
        Ours.RUN: run_id,
        **_limits(Ours.BUDGET, budget),
    }
    return RunSpan(backend, f"invoke_agent {agent}", values)


def step(skill: str, *, run_id: str, step_id: str, tier: str | None = None) -> StepSpan:
    """The span of one skill call. What happens within it is counted under this skill and tier."""
    backend = _backend()
    if backend is None:
        return _NO_STEP
    values: Values = {Ours.SKILL: skill, Ours.TIER: tier, Ours.RUN: run_id, Ours.STEP: step_id}
    return StepSpan(backend, f"step {skill}", values)


def reservation(
    hold_id: str,
    *,
    held: Amount,
    kind: str = "step",
    estimated: Amount | None = None,
    accounts: Sequence[str] = (),
    within: str | None = None,
) -> ReservationSpan:
    """The span around ``ledger.reserve``; `kind` is what the hold is for: a step, a call, a retrieval."""
    backend = _backend()
    if backend is None:
        return _NO_RESERVATION
    values: Values = {
        Ours.HOLD: hold_id,
        Ours.KIND: kind,
        Ours.ACCOUNTS: tuple(accounts) or ((f"hold:{within}",) if within else None),
        **_amount(Ours.ESTIMATED, estimated),
        **_amount(Ours.HELD, held),
    }
    return ReservationSpan(backend, f"reserve {kind}", values)


def retrieval(source: str, *, tokens: int | None = None) -> RetrievalSpan:
    """The span of a search in the index `source`, with an allowance of `tokens`."""
    backend = _backend()
    if backend is None:
        return _NO_RETRIEVAL
    values: Values = {GenAI.OPERATION: "retrieval", GenAI.DATA_SOURCE: source, Ours.RETRIEVAL_ALLOWANCE: tokens}
    return RetrievalSpan(backend, f"retrieval {source}", values)


def model_call(
    provider: str,
    model: str,
    *,
    operation: str = "chat",
    input_tokens_estimated: int | None = None,
    max_output_tokens: int | None = None,
    rung: int | None = None,
    purpose: str | None = None,
    data_class: str | None = None,
) -> ModelCallSpan:
    """The span of one attempt at `model`, written with or without its provider in front.

    ``data_class`` is that of what it is sent.
    """
    backend = _backend()
    if backend is None:
        return _NO_MODEL_CALL
    bare = model.removeprefix(f"{provider}:")
    values: Values = {
        GenAI.OPERATION: operation,
        GenAI.PROVIDER: provider,
        GenAI.REQUEST_MODEL: bare,
        GenAI.REQUEST_MAX_TOKENS: max_output_tokens,
        Ours.INPUT_ESTIMATED: input_tokens_estimated,
        Ours.MODEL: f"{provider}:{bare}",
        Ours.RUNG: rung,
        Ours.PURPOSE: purpose,
        Ours.DATA_CLASS: data_class,
    }
    return ModelCallSpan(backend, f"{operation} {bare}", values)


def settlement(hold_id: str) -> SettlementSpan:
    """The span around ``settle`` or ``void``."""
    backend = _backend()
    return _NO_SETTLEMENT if backend is None else SettlementSpan(backend, "settle", {Ours.HOLD: hold_id})


def data_class(
    data_class: str, *, decision: Decision, destination: str, found: Mapping[str, int] | None = None
) -> None:
    """An event of the current span: what was decided about a text of this class on its way to `destination`.

    ``found`` counts what was found in it by kind; names of documents are not told.
    """
    backend = _backend()
    if backend is None:
        return
    kinds = [f"{kind}:{count}" for kind, count in sorted((found or {}).items())]
    told: Values = {
        Ours.DATA_CLASS: data_class,
        Ours.DECISION: decision,
        Ours.DESTINATION: destination,
        Ours.FOUND: kinds or None,
    }
    backend.api.trace.get_current_span().add_event(Ours.DATA_CLASS, _known(told))


# --- attributes


def _known(values: Values) -> dict[str, Value]:
    return {name: value for name, value in values.items() if value is not None}


def _amount(prefix: str, amount: Amount | None) -> dict[str, Value | None]:
    if amount is None:
        return {}
    return {f"{prefix}.usd_nano": amount.usd_nano, f"{prefix}.tokens": amount.tokens}


def _limits(prefix: str, budget: Budget | None) -> dict[str, Value | None]:
    if budget is None:
        return {}
    return {f"{prefix}.usd_nano": budget.usd_nano, f"{prefix}.tokens": budget.tokens}


def _refusal(error: BudgetExceeded) -> Values:
    return {
        Ours.REFUSED_BY: error.account,
        Ours.REFUSED_UNIT: error.unit,
        Ours.NEEDED: error.needed,
        Ours.AVAILABLE: error.available,
    }


def _is_control_flow(error: BaseException) -> bool:
    """True for what LangGraph raises to pause a graph: an interrupt is not a failure."""
    return any(base.__name__ == "GraphBubbleUp" for base in type(error).__mro__)


def _labels(model: str) -> dict[str, str]:
    """The labels of our counters: never a user, a run or a hold."""
    from opentelemetry.context import get_value

    found = get_value(_STEP_KEY)
    labels = {Ours.SKILL: _UNKNOWN, Ours.TIER: _UNKNOWN, Ours.MODEL: model}
    if isinstance(found, dict):
        labels |= cast("dict[str, str]", found)
    return labels


# --- who listens


class _Total:
    """A sum for each series, which the SDK reads when it collects: a fraction of the price of its own counters."""

    def __init__(self, scale: int = 1) -> None:
        self._scale = scale
        self._sums: dict[tuple[tuple[str, str], ...], int] = {}
        self._lock = threading.Lock()

    def add(self, value: int, series: Mapping[str, str]) -> None:
        key = tuple(series.items())
        with self._lock:
            self._sums[key] = self._sums.get(key, 0) + value

    def observe(self, _options: CallbackOptions) -> list[Observation]:
        from opentelemetry.metrics import Observation

        with self._lock:
            sums = list(self._sums.items())
        # A metric is a float by nature where it is in dollars; the books, in integers, are the ledger's.
        return [Observation(value / self._scale if self._scale > 1 else value, dict(key)) for key, value in sums]


@dataclass(frozen=True, slots=True)
class _Instruments:
    token_usage: Histogram
    duration: Histogram
    cost: _Total
    tokens: _Total
    reservations: _Total
    cache_hits: _Total

    @classmethod
    def of(cls, provider: MeterProvider) -> Self:
        meter = provider.get_meter(SCOPE, _version(), SCHEMA_URL)

        def total(name: str, unit: str, description: str, scale: int = 1) -> _Total:
            made = _Total(scale)
            meter.create_observable_counter(name, [made.observe], unit, description)
            return made

        return cls(
            token_usage=meter.create_histogram(
                GenAI.TOKEN_USAGE, "{token}", "Tokens of a call", explicit_bucket_boundaries_advisory=TOKEN_BUCKETS
            ),
            duration=meter.create_histogram(
                GenAI.OPERATION_DURATION,
                "s",
                "Duration of a call",
                explicit_bucket_boundaries_advisory=DURATION_BUCKETS,
            ),
            cost=total(Ours.COST, "{USD}", "What calls cost", NANO),
            tokens=total(Ours.TOKENS, "{token}", "Tokens that calls used"),
            reservations=total(Ours.RESERVATIONS, "{hold}", "Holds by what became of them"),
            cache_hits=total(Ours.CACHE_HITS, "{hit}", "Answers that had been paid for already"),
        )


@dataclass(frozen=True, slots=True)
class _Api:
    """OpenTelemetry's API, imported once: looking it up at each span costs as much as an attribute."""

    context: ModuleType
    trace: ModuleType

    @classmethod
    def load(cls) -> Self:
        from opentelemetry import context, trace

        return cls(context, trace)


@dataclass(frozen=True, slots=True)
class _Backend:
    """A tracer, the instruments, and the series that were announced."""

    api: _Api
    tracer: Tracer
    instruments: _Instruments
    announced: set[tuple[str, ...]] = field(default_factory=set[tuple[str, ...]])
    lock: threading.Lock = field(default_factory=threading.Lock)

    @classmethod
    def of(cls, tracers: TracerProvider, meters: MeterProvider) -> Self:
        tracer = tracers.get_tracer(SCOPE, _version(), schema_url=SCHEMA_URL)
        return cls(_Api.load(), tracer, _Instruments.of(meters))

    def announce(self, series: Mapping[str, str]) -> None:
        """Start the counters of a series at 0, or a rate over time would miss the first increment."""
        if self._is_new(*series.values()):
            self.instruments.cost.add(0, series)
            self.instruments.cache_hits.add(0, series)
            for kind in ("input", "output"):
                self.instruments.tokens.add(0, {**series, GenAI.TOKEN_TYPE: kind})

    def _is_new(self, *series: str) -> bool:
        with self.lock:
            if series in self.announced:
                return False
            self.announced.add(series)
            return True

    def add_cost(self, usd_nano: int, series: Mapping[str, str]) -> None:
        self.announce(series)
        self.instruments.cost.add(usd_nano, series)

    def add_tokens(self, usage: Usage, client: Mapping[str, str], series: Mapping[str, str]) -> None:
        for kind, tokens in (("input", usage.input_tokens), ("output", usage.output_tokens)):
            self.instruments.token_usage.record(tokens, {**client, GenAI.TOKEN_TYPE: kind})
            self.instruments.tokens.add(tokens, {**series, GenAI.TOKEN_TYPE: kind})

    def count_hold(self, outcome: Outcome, kind: object) -> None:
        labels = {Ours.SKILL: _labels("")[Ours.SKILL], Ours.KIND: str(kind or _UNKNOWN)}
        if self._is_new(*labels.values()):
            for each in _OUTCOMES:
                self.instruments.reservations.add(0, {**labels, Ours.OUTCOME: each})
        self.instruments.reservations.add(1, {**labels, Ours.OUTCOME: outcome})


_captured: _Backend | None = None


def _backend() -> _Backend | None:
    """Where spans and metrics go; None while nobody listens."""
    if _captured is not None:
        return _captured
    if "opentelemetry.trace" not in sys.modules and "opentelemetry.metrics" not in sys.modules and not _is_named():
        return None  # nobody can have installed a provider
    from opentelemetry import metrics, trace

    tracers, meters = trace.get_tracer_provider(), metrics.get_meter_provider()
    if isinstance(tracers, trace.ProxyTracerProvider) and type(meters).__name__ == "_ProxyMeterProvider":
        return None
    return _backend_of(tracers, meters)


@cache
def _is_named() -> bool:
    """True if the environment names a provider, which the API loads when it is asked for one."""
    return bool({"OTEL_PYTHON_TRACER_PROVIDER", "OTEL_PYTHON_METER_PROVIDER"} & os.environ.keys())


@lru_cache(maxsize=4)
def _backend_of(tracers: TracerProvider, meters: MeterProvider) -> _Backend:
    return _Backend.of(tracers, meters)


@cache
def _version() -> str | None:
    try:
        return version("agentbudget-runtime")
    except PackageNotFoundError:
        return None  # run from a source tree that is not installed


# --- export

_installed: list[SdkTracerProvider | SdkMeterProvider] = []


def setup() -> None:
    """Export over OTLP/HTTP if ``OTEL_EXPORTER_OTLP_ENDPOINT`` (or its form for traces or metrics) is set.

    A provider that is installed already is left alone, and `capture` wins over both. Other ``OTEL_*`` variables mean
    what OpenTelemetry's SDK says. Raises `MissingDependency` without the extra ``otlp``, and `Mistake` if another
    protocol than HTTP is asked for.
    """
    wanted = [signal for signal in ("traces", "metrics") if _is_wanted(signal)]
    if not wanted:
        return
    from opentelemetry import metrics, trace

    if "traces" in wanted and isinstance(trace.get_tracer_provider(), trace.ProxyTracerProvider):
        _check_protocol("traces")
        tracers = _otlp_tracers(_resource())
        trace.set_tracer_provider(tracers)
        _installed.append(tracers)
    if "metrics" in wanted and type(metrics.get_meter_provider()).__name__ == "_ProxyMeterProvider":
        _check_protocol("metrics")
        meters = _otlp_meters(_resource())
        metrics.set_meter_provider(meters)
        _installed.append(meters)


def shutdown() -> None:
    """Send what waits, and stop the exporters that `setup` started. Happens by itself when the process ends."""
    while _installed:
        _installed.pop().shutdown()


def _is_wanted(signal: Literal["traces", "metrics"]) -> bool:
    if os.environ.get("OTEL_SDK_DISABLED", "").strip().lower() == "true":
        return False
    if os.environ.get(f"OTEL_{signal.upper()}_EXPORTER", "otlp").strip() == "none":
        return False
    names = ("OTEL_EXPORTER_OTLP_ENDPOINT", f"OTEL_EXPORTER_OTLP_{signal.upper()}_ENDPOINT")
    return any(os.environ.get(name, "").strip() for name in names)


def _check_protocol(signal: Literal["traces", "metrics"]) -> None:
    for name in (f"OTEL_EXPORTER_OTLP_{signal.upper()}_PROTOCOL", "OTEL_EXPORTER_OTLP_PROTOCOL"):
        protocol = os.environ.get(name, "").strip()
        if protocol == "http/protobuf":
            return
        if protocol:
            raise Mistake(
                f"{name}={protocol}: agentbudget exports over http/protobuf; set that and the collector's HTTP port "
                "(4318), or install your own provider before the first run"
            )


def _resource() -> Resource:
    from opentelemetry.sdk.resources import Resource

    named = "OTEL_SERVICE_NAME" in os.environ or "service.name=" in os.environ.get("OTEL_RESOURCE_ATTRIBUTES", "")
    return Resource.create({} if named else {"service.name": SCOPE})


def _otlp_tracers(resource: Resource) -> SdkTracerProvider:
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.sdk.trace.export import BatchSpanProcessor

    try:
        from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
    except ImportError as error:
        raise _missing_otlp() from error
    provider = TracerProvider(resource=resource)
    provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter(timeout=_timeout_s("traces"))))
    return provider


def _otlp_meters(resource: Resource) -> SdkMeterProvider:
    from opentelemetry.sdk.metrics import MeterProvider
    from opentelemetry.sdk.metrics.export import PeriodicExportingMetricReader

    try:
        from opentelemetry.exporter.otlp.proto.http.metric_exporter import OTLPMetricExporter
    except ImportError as error:
        raise _missing_otlp() from error
    return MeterProvider(
        [PeriodicExportingMetricReader(OTLPMetricExporter(timeout=_timeout_s("metrics")))], resource=resource
    )


def _timeout_s(signal: Literal["traces", "metrics"]) -> float | None:
    """None lets the exporter read the environment."""
    names = {"OTEL_EXPORTER_OTLP_TIMEOUT", f"OTEL_EXPORTER_OTLP_{signal.upper()}_TIMEOUT"}
    return None if names & os.environ.keys() else EXPORT_TIMEOUT_S


def _missing_otlp() -> MissingDependency:
    return MissingDependency(
        "OTEL_EXPORTER_OTLP_ENDPOINT is set, and the OTLP exporter is not installed: "
        "pip install 'agentbudget-runtime[otlp]', or unset the variable"
    )


# --- for tests


@dataclass(frozen=True, slots=True)
class CapturedSpan:
    """A finished span: `parent` is the name of the span around it, `error` the type of what passed through.

    ``events`` are names with their attributes.
    """

    name: str
    kind: str
    parent: str | None
    attributes: Mapping[str, object]
    error: str | None
    events: tuple[tuple[str, Mapping[str, object]], ...] = ()


class Capture:
    """Spans and metrics of a block, as `capture` collects them."""

    def __init__(self, spans: _Spans, metrics: _Metrics) -> None:
        self._spans = spans
        self._metrics = metrics

    @property
    def spans(self) -> tuple[CapturedSpan, ...]:
        """Finished spans, in the order in which they ended."""
        return _captured_spans(self._spans.get_finished_spans())

    def span(self, name: str) -> CapturedSpan:
        """The only span of this name; raises LookupError if there is none, or another."""
        found = [span for span in self.spans if span.name == name]
        if len(found) != 1:
            raise LookupError(f"{len(found)} spans are named {name!r}; there are {[span.name for span in self.spans]}")
        return found[0]

    def dump(self) -> str:
        """All that would be exported of the spans, as OpenTelemetry prints it: to prove that something is not in it."""
        return "\n".join(span.to_json(indent=None) for span in self._spans.get_finished_spans())

    def metric(self, name: str, **labels: str) -> float | None:
        """The sum of the metric over every series with these labels, None if there is no such series.

        Write a label's dots as two underscores: ``agentbudget__skill="answer"``. Of a histogram the values add up.
        """
        wanted = {key.replace("__", "."): value for key, value in labels.items()}
        values = [value for found, value in self.series(name) if wanted.items() <= found.items()]
        return sum(values) if values else None

    def series(self, name: str) -> list[tuple[Mapping[str, object], float]]:
        """Every series of the metric: its labels and its value."""
        return _series(self._metrics.get_metrics_data(), name)


@contextmanager
def capture() -> Generator[Capture]:
    """Collect the spans and metrics of a block in memory, whatever provider is installed.

    >>> with capture() as telemetry:
    ...     with step("answer", run_id="r", step_id="r/1", tier="local"):
    ...         pass
    >>> telemetry.span("step answer").attributes["agentbudget.tier"]
    'local'
    """
    global _captured
    from opentelemetry.sdk.metrics import MeterProvider
    from opentelemetry.sdk.metrics.export import InMemoryMetricReader
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.sdk.trace.export import SimpleSpanProcessor
    from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

    exporter, reader = InMemorySpanExporter(), InMemoryMetricReader()
    tracers = TracerProvider(shutdown_on_exit=False)
    tracers.add_span_processor(SimpleSpanProcessor(exporter))
    before, _captured = _captured, _Backend.of(tracers, MeterProvider([reader], shutdown_on_exit=False))
    try:
        yield Capture(exporter, reader)
    finally:
        _captured = before


if TYPE_CHECKING:
    from opentelemetry.sdk.metrics.export import InMemoryMetricReader as _Metrics
    from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter as _Spans


def _captured_spans(spans: Sequence[ReadableSpan]) -> tuple[CapturedSpan, ...]:
    names = {span.context.span_id: span.name for span in spans if span.context is not None}
    return tuple(
        CapturedSpan(
            name=span.name,
            kind=span.kind.name,
            parent=names.get(span.parent.span_id) if span.parent else None,
            attributes=dict(span.attributes or {}),
            error=str((span.attributes or {}).get(GenAI.ERROR_TYPE)) if not span.status.is_ok else None,
            events=tuple((event.name, dict(event.attributes or {})) for event in span.events),
        )
        for span in spans
    )


def _series(data: MetricsData | None, name: str) -> list[tuple[Mapping[str, object], float]]:
    from opentelemetry.sdk.metrics.export import HistogramDataPoint, NumberDataPoint

    found: list[tuple[Mapping[str, object], float]] = []
    for resource in data.resource_metrics if data else ():
        for metric in (metric for scope in resource.scope_metrics for metric in scope.metrics if metric.name == name):
            for point in metric.data.data_points:
                if isinstance(point, NumberDataPoint):
                    found.append((dict(point.attributes or {}), point.value))
                elif isinstance(point, HistogramDataPoint):
                    found.append((dict(point.attributes or {}), point.sum))
    return found
