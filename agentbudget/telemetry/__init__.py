"""Spans and metrics: what a run did and cost, in OpenTelemetry's words where it has them, in ours elsewhere.

The only package that imports opentelemetry, and only once somebody listens: with no provider installed every
function here hands out a shared span that does nothing. `setup` installs an OTLP exporter if the environment
names an endpoint; a program that installs its own provider needs no call at all.

Prompts, answers and error messages are never exported: no function here takes such a text. (The conventions' opt-in
``OTEL_INSTRUMENTATION_GENAI_CAPTURE_MESSAGE_CONTENT`` is not honoured yet.) Users are on spans, never on metric labels.
"""

from agentbudget.telemetry.capture import Capture, CapturedSpan, capture
from agentbudget.telemetry.export import setup, shutdown
from agentbudget.telemetry.names import SCHEMA_URL, SCOPE, SEMCONV_VERSION, GenAI, Ours
from agentbudget.telemetry.phases import data_class, model_call, reservation, retrieval, run, settlement, step
from agentbudget.telemetry.spans import (
    ModelCallSpan,
    Reservation,
    RetrievalSpan,
    RunSpan,
    Span,
    StepSpan,
)

__all__ = [
    "SCHEMA_URL",
    "SCOPE",
    "SEMCONV_VERSION",
    "Capture",
    "CapturedSpan",
    "GenAI",
    "ModelCallSpan",
    "Ours",
    "Reservation",
    "RetrievalSpan",
    "RunSpan",
    "Span",
    "StepSpan",
    "capture",
    "data_class",
    "model_call",
    "reservation",
    "retrieval",
    "run",
    "settlement",
    "setup",
    "shutdown",
    "step",
]
