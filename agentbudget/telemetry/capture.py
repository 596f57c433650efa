"""Spans and metrics of a block of code, kept in memory: for tests."""

from __future__ import annotations

from collections.abc import Generator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

from agentbudget.telemetry.backend import Backend, Instruments, divert
from agentbudget.telemetry.names import GenAI

if TYPE_CHECKING:
    from opentelemetry.sdk.metrics.export import MetricsData
    from opentelemetry.sdk.trace import ReadableSpan


@dataclass(frozen=True, slots=True)
class CapturedSpan:
    """A finished span: `parent` is the name of the span around it, `error` the type of what passed through."""

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

    Of a block within another, the inner one has all: the outer one sees nothing of it.

    >>> from agentbudget.telemetry import step
    >>> with capture() as telemetry:
    ...     with step("answer", run_id="r", step_id="r/1", tier="local"):
    ...         pass
    >>> telemetry.span("step answer").attributes["agentbudget.tier"]
    'local'
    """
    from opentelemetry.sdk.metrics import MeterProvider
    from opentelemetry.sdk.metrics.export import InMemoryMetricReader
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.sdk.trace.export import SimpleSpanProcessor
    from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

    exporter, reader = InMemorySpanExporter(), InMemoryMetricReader()
    tracers = TracerProvider(shutdown_on_exit=False)
    tracers.add_span_processor(SimpleSpanProcessor(exporter))
    before = divert(Backend.of(tracers, Instruments.of(MeterProvider([reader], shutdown_on_exit=False))))
    try:
        yield Capture(exporter, reader)
    finally:
        divert(before)


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
