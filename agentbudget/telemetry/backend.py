"""Who listens: a tracer, and the instruments that calls and holds are counted with."""

from __future__ import annotations

import os
import sys
import threading
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cache, lru_cache
from importlib.metadata import PackageNotFoundError, version
from types import ModuleType
from typing import TYPE_CHECKING, Final, NamedTuple, Self, cast

from agentbudget.money import NANO
from agentbudget.telemetry.names import DURATION_BUCKETS, SCHEMA_URL, SCOPE, TOKEN_BUCKETS, GenAI, Ours, Outcome
from agentbudget.usage import Usage

if TYPE_CHECKING:
    from opentelemetry.metrics import CallbackOptions, Histogram, MeterProvider, Observation
    from opentelemetry.trace import SpanContext, SpanKind, Tracer, TracerProvider

    Collected = Callable[[CallbackOptions], list[Observation]]

_OUTCOMES: Final[tuple[Outcome, ...]] = ("granted", "refused", "settled", "presumed", "voided")
_FAULT: Final[Outcome] = "error"
UNKNOWN: Final = "unknown"
_HITS: Final[Mapping[str, tuple[str, ...]]] = {"embeddings": ("embedding",), "retrieval": ("retrieval",)}
"""The kinds of hits that an operation may have; any other's are answers and plans."""
STEP_KEY: Final = "agentbudget.step"
"""Under which OpenTelemetry's context keeps the labels of the step around."""


Series = tuple[tuple[str, str], ...]
"""The labels of one series of a counter, in their order."""


class Total:
    """A sum for each series, which the SDK reads when it collects: a fraction of the price of its own counters."""

    def __init__(self, scale: int = 1) -> None:
        self._scale = scale
        self._sums: dict[Series, int] = {}
        self._lock = threading.Lock()

    def add(self, value: int, series: Series) -> None:
        """Add to one series; 0 makes it known, or a rate over time would miss its first increment."""
        with self._lock:
            self._sums[series] = self._sums.get(series, 0) + value

    def observe(self, _options: CallbackOptions) -> list[Observation]:
        """What the SDK asks for when it collects."""
        from opentelemetry.metrics import Observation

        with self._lock:
            sums = list(self._sums.items())
        # A metric is a float by nature where it is in dollars; the books, in integers, are the ledger's.
        return [Observation(value / self._scale if self._scale > 1 else value, dict(key)) for key, value in sums]


@dataclass(frozen=True, slots=True)
class CallSeries:
    """The series of one skill's calls of one model: made, and started at 0, when the first begins."""

    plain: Series
    input: Series
    output: Series


@dataclass(frozen=True, slots=True)
class ClientLabels:
    """What the conventions' histograms are labelled with: duration, and tokens of either type. Never to be changed."""

    plain: Mapping[str, str]
    input: Mapping[str, str]
    output: Mapping[str, str]


class Call(NamedTuple):
    """What the conventions' histograms are told of a model call. ``within`` is its span, for their exemplars."""

    seconds: float
    labels: Mapping[str, str]
    usage: Usage | None
    client: ClientLabels
    within: SpanContext


class Calls:
    """Calls that have ended, until the SDK collects: it then gets their points in one go.

    A point takes the SDK as long as half a span, and nobody looks at it before it is collected. No more than `MOST`
    wait: a call that ends when there are so many is told at once.
    """

    MOST: Final = 1_000

    def __init__(self, duration: Histogram, token_usage: Histogram) -> None:
        self._duration = duration
        self._token_usage = token_usage
        self._waiting: deque[Call] = deque()

    def ended(self, call: Call) -> None:
        """Remember a call, for all threads."""
        if len(self._waiting) < self.MOST:
            self._waiting.append(call)
        else:
            self._tell(call)

    def collected(self, _options: CallbackOptions) -> list[Observation]:
        """What the SDK calls when it begins to collect: this instrument has nothing to say for itself."""
        while True:
            try:
                call = self._waiting.popleft()
            except IndexError:  # two readers may collect at once
                return []
            self._tell(call)

    def _tell(self, call: Call) -> None:
        from opentelemetry.trace import NonRecordingSpan, set_span_in_context

        within = set_span_in_context(NonRecordingSpan(call.within))
        self._duration.record(call.seconds, call.labels, within)
        if call.usage is not None:
            self._token_usage.record(call.usage.input_tokens, call.client.input, within)
            self._token_usage.record(call.usage.output_tokens, call.client.output, within)


@dataclass(frozen=True, slots=True)
class Instruments:
    calls: Calls
    cost: Total
    tokens: Total
    reservations: Total
    cache_hits: Total
    cache_savings: Total

    @classmethod
    def of(cls, provider: MeterProvider) -> Self:
        meter = provider.get_meter(SCOPE, _version(), SCHEMA_URL)

        calls = Calls(
            meter.create_histogram(
                GenAI.OPERATION_DURATION,
                "s",
                "Duration of a call",
                explicit_bucket_boundaries_advisory=DURATION_BUCKETS,
            ),
            meter.create_histogram(
                GenAI.TOKEN_USAGE, "{token}", "Tokens of a call", explicit_bucket_boundaries_advisory=TOKEN_BUCKETS
            ),
        )

        def total(name: str, unit: str, description: str, scale: int = 1, *before: Collected) -> Total:
            made = Total(scale)
            meter.create_observable_counter(name, [*before, made.observe], unit, description)
            return made

        return cls(
            calls=calls,
            cost=total(Ours.COST, "{USD}", "What calls cost", NANO, calls.collected),
            tokens=total(Ours.TOKENS, "{token}", "Tokens that calls used"),
            reservations=total(Ours.RESERVATIONS, "{hold}", "Holds by what became of them"),
            cache_hits=total(Ours.CACHE_HITS, "{hit}", "What had been paid for already, by kind"),
            cache_savings=total(Ours.CACHE_SAVINGS, "{USD}", "What that cost when it was paid for", NANO),
        )


@dataclass(frozen=True, slots=True)
class _Api:
    """OpenTelemetry's API, imported once: looking it up at each span costs as much as an attribute."""

    context: ModuleType
    trace: ModuleType
    client: SpanKind
    internal: SpanKind

    @classmethod
    def load(cls) -> Self:
        from opentelemetry import context, trace

        return cls(context, trace, trace.SpanKind.CLIENT, trace.SpanKind.INTERNAL)


@dataclass(frozen=True, slots=True)
class Backend:
    """A tracer, the instruments, and the series that were begun: labels are made once, not with every call."""

    api: _Api
    tracer: Tracer
    instruments: Instruments
    _calls: dict[tuple[str, str, str], CallSeries] = field(default_factory=dict[tuple[str, str, str], CallSeries])
    _holds: dict[tuple[str, str], Mapping[str, Series]] = field(
        default_factory=dict[tuple[str, str], Mapping[str, Series]]
    )
    _clients: dict[tuple[str, ...], ClientLabels] = field(default_factory=dict[tuple[str, ...], ClientLabels])

    @classmethod
    def of(cls, tracers: TracerProvider, instruments: Instruments) -> Self:
        """What this provider offers, and where calls and holds are counted."""
        tracer = tracers.get_tracer(SCOPE, _version(), schema_url=SCHEMA_URL)
        return cls(_Api.load(), tracer, instruments)

    def calls(self, model: str, operation: str) -> CallSeries:
        """The counters' series of calls of `model` in the step around: never a user, a run or a hold."""
        step = self._step()
        key = (step.get(Ours.SKILL, UNKNOWN), step.get(Ours.TIER, UNKNOWN), model)
        return self._calls.get(key) or self._begin_calls(key, operation)

    def clients(self, operation: str, provider: str, model: str, answered_by: str | None) -> ClientLabels:
        """The histograms' labels of a call."""
        key = (operation, provider, model) if answered_by is None else (operation, provider, model, answered_by)
        known = self._clients.get(key)
        if known is None:
            names = (GenAI.OPERATION, GenAI.PROVIDER, GenAI.REQUEST_MODEL, GenAI.RESPONSE_MODEL)
            plain: dict[str, str] = dict(zip(names, key, strict=False))
            tokens = ({**plain, GenAI.TOKEN_TYPE: kind} for kind in ("input", "output"))
            known = self._clients[key] = ClientLabels(plain, *tokens)
        return known

    def count_call(self, call: Call, series: CallSeries) -> None:
        """How long an attempt took, and what it used."""
        self.instruments.calls.ended(call)
        if call.usage is not None:
            self.instruments.tokens.add(call.usage.input_tokens, series.input)
            self.instruments.tokens.add(call.usage.output_tokens, series.output)

    def add_hit(self, saved_usd_nano: int, kind: str, series: CallSeries) -> None:
        """A cache gave what such a call would have cost."""
        labels = (*series.plain, (Ours.CACHE_KIND, kind))
        self.instruments.cache_hits.add(1, labels)
        self.instruments.cache_savings.add(saved_usd_nano, labels)

    def count_hold(self, outcome: Outcome, kind: object) -> None:
        """What became of a hold."""
        key = (self._step().get(Ours.SKILL, UNKNOWN), str(kind or UNKNOWN))
        series = self._holds.get(key) or self._begin_holds(key)
        self.instruments.reservations.add(1, series[outcome])

    def _step(self) -> Mapping[str, str]:
        return cast("Mapping[str, str]", self.api.context.get_value(STEP_KEY) or {})

    def _begin_calls(self, key: tuple[str, str, str], operation: str) -> CallSeries:
        plain = tuple(zip((Ours.SKILL, Ours.TIER, Ours.MODEL), key, strict=True))
        tokens = ((*plain, (GenAI.TOKEN_TYPE, kind)) for kind in ("input", "output"))
        series = CallSeries(plain, *tokens)
        self.instruments.cost.add(0, series.plain)
        for kind in _HITS.get(operation, ("answer", "plan")):
            hits = (*plain, (Ours.CACHE_KIND, kind))
            self.instruments.cache_hits.add(0, hits)
            self.instruments.cache_savings.add(0, hits)
        self.instruments.tokens.add(0, series.input)
        self.instruments.tokens.add(0, series.output)
        self._calls[key] = series
        return series

    def _begin_holds(self, key: tuple[str, str]) -> Mapping[str, Series]:
        plain = tuple(zip((Ours.SKILL, Ours.KIND), key, strict=True))
        series = {outcome: (*plain, (Ours.OUTCOME, outcome)) for outcome in (*_OUTCOMES, _FAULT)}
        for outcome in _OUTCOMES:
            self.instruments.reservations.add(0, series[outcome])
        self._holds[key] = series
        return series


_diverted: Backend | None = None


def divert(to: Backend | None) -> Backend | None:
    """Send all spans and metrics to `to`, whatever provider is installed; returns where they went before so."""
    global _diverted
    before, _diverted = _diverted, to
    return before


def listening() -> Backend | None:
    """Where spans and metrics go; None while nobody listens."""
    if _diverted is not None:
        return _diverted
    if "opentelemetry.trace" not in sys.modules and "opentelemetry.metrics" not in sys.modules and not _is_named():
        return None  # nobody can have installed a provider
    get_tracers, get_meters = _getters()
    tracers, meters = get_tracers(), get_meters()
    return _of_providers(tracers, meters)


@cache
def _getters() -> tuple[Callable[[], TracerProvider], Callable[[], MeterProvider]]:
    from opentelemetry import metrics, trace

    return trace.get_tracer_provider, metrics.get_meter_provider


@cache
def _is_named() -> bool:
    """True if the environment names a provider, which the API loads when it is asked for one."""
    return bool({"OTEL_PYTHON_TRACER_PROVIDER", "OTEL_PYTHON_METER_PROVIDER"} & os.environ.keys())


@lru_cache(maxsize=4)
def _of_providers(tracers: TracerProvider, meters: MeterProvider) -> Backend | None:
    """None for those that the API puts in where nobody has installed any."""
    from opentelemetry.trace import ProxyTracerProvider

    if isinstance(tracers, ProxyTracerProvider) and _stands_in(meters):
        return None
    return Backend.of(tracers, _instruments(meters))


_made: Final[dict[MeterProvider | None, Instruments]] = {}
"""The instruments of each provider; under None what the API's stand-in made, which any that is installed takes over."""
_making: Final = threading.Lock()


def _instruments(meters: MeterProvider) -> Instruments:
    """Those of `meters`, however late it, or a provider of tracers, came: the SDK reads no second one of a name."""
    with _making:
        key = None if None in _made or _stands_in(meters) else meters
        if key not in _made:
            _made[key] = Instruments.of(meters)
        return _made[key]


def _stands_in(meters: MeterProvider) -> bool:
    return type(meters).__name__ == "_ProxyMeterProvider"


@cache
def _version() -> str | None:
    try:
        return version("agentbudget-runtime")
    except PackageNotFoundError:
        return None  # run from a source tree that is not installed
