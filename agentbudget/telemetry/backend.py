"""Who listens: a tracer, and the instruments that calls and holds are counted with."""

from __future__ import annotations

import os
import sys
import threading
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cache, lru_cache
from importlib.metadata import PackageNotFoundError, version
from types import ModuleType
from typing import TYPE_CHECKING, Final, Self, cast

from agentbudget.money import NANO
from agentbudget.telemetry.names import DURATION_BUCKETS, SCHEMA_URL, SCOPE, TOKEN_BUCKETS, GenAI, Ours, Outcome
from agentbudget.usage import Usage

if TYPE_CHECKING:
    from opentelemetry.metrics import CallbackOptions, Histogram, MeterProvider, Observation
    from opentelemetry.trace import SpanKind, Tracer, TracerProvider

_OUTCOMES: Final[tuple[Outcome, ...]] = ("granted", "refused", "settled", "presumed", "voided")
UNKNOWN: Final = "unknown"
STEP_KEY: Final = "agentbudget.step"
"""Under which OpenTelemetry's context keeps the labels of the step around."""


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
    cache_savings: _Total

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

    def labels(self, model: str) -> dict[str, str]:
        """The labels of our counters: never a user, a run or a hold."""
        step = cast("Mapping[str, str]", self.api.context.get_value(STEP_KEY) or {})
        return {Ours.SKILL: UNKNOWN, Ours.TIER: UNKNOWN, Ours.MODEL: model, **step}

    def announce(self, series: Mapping[str, str]) -> None:
        """Start the counters of a series at 0, or a rate over time would miss the first increment."""
        if self._is_new(*series.values()):
            self.instruments.cost.add(0, series)
            self.add_hits(0, 0, {**series, Ours.CACHE_KIND: "answer"})
            for kind in ("input", "output"):
                self.instruments.tokens.add(0, {**series, GenAI.TOKEN_TYPE: kind})

    def add_hits(self, hits: int, saved_usd_nano: int, series: Mapping[str, str]) -> None:
        """Hits of a cache, and what they saved."""
        self.instruments.cache_hits.add(hits, series)
        self.instruments.cache_savings.add(saved_usd_nano, series)

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
        step = cast("Mapping[str, str]", self.api.context.get_value(STEP_KEY) or {})
        labels = {Ours.SKILL: step.get(Ours.SKILL, UNKNOWN), Ours.KIND: str(kind or UNKNOWN)}
        if self._is_new(*labels.values()):
            for each in _OUTCOMES:
                self.instruments.reservations.add(0, {**labels, Ours.OUTCOME: each})
        self.instruments.reservations.add(1, {**labels, Ours.OUTCOME: outcome})


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
    from opentelemetry import metrics, trace

    tracers, meters = trace.get_tracer_provider(), metrics.get_meter_provider()
    if isinstance(tracers, trace.ProxyTracerProvider) and type(meters).__name__ == "_ProxyMeterProvider":
        return None
    return _of_providers(tracers, meters)


@cache
def _is_named() -> bool:
    """True if the environment names a provider, which the API loads when it is asked for one."""
    return bool({"OTEL_PYTHON_TRACER_PROVIDER", "OTEL_PYTHON_METER_PROVIDER"} & os.environ.keys())


@lru_cache(maxsize=4)
def _of_providers(tracers: TracerProvider, meters: MeterProvider) -> Backend:
    return Backend.of(tracers, meters)


@cache
def _version() -> str | None:
    try:
        return version("agentbudget-runtime")
    except PackageNotFoundError:
        return None  # run from a source tree that is not installed
