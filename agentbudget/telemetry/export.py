"""Export over OTLP, where the environment names a collector."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Final, Literal

from agentbudget.errors import MissingDependency, Mistake
from agentbudget.telemetry.names import SCOPE

if TYPE_CHECKING:
    from opentelemetry.sdk.metrics import MeterProvider as SdkMeterProvider
    from opentelemetry.sdk.resources import Resource
    from opentelemetry.sdk.trace import TracerProvider as SdkTracerProvider

EXPORT_TIMEOUT_S: Final = 3.0
"""How long a collector that is down may hold up the end of a process, unless ``OTEL_EXPORTER_OTLP_TIMEOUT`` says."""


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
