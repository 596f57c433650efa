"""What is exported, and what is not: spans and metrics in memory, and over OTLP to a real receiver."""

from __future__ import annotations

import asyncio
import gzip
import os
import subprocess
import sys
import textwrap
from collections.abc import Generator, Mapping, Sequence
from contextlib import contextmanager
from decimal import Decimal
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread

import pytest
from opentelemetry import trace
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceRequest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader
from opentelemetry.sdk.trace import ReadableSpan, SpanProcessor, TracerProvider

from agentbudget import telemetry
from agentbudget.cache import Answers
from agentbudget.errors import BudgetExceeded, OutcomeUnknown
from agentbudget.ledger import Hold, Ledger
from agentbudget.models.base import Meter
from agentbudget.models.ladder import Ladder
from agentbudget.money import ZERO, Amount, Budget
from agentbudget.paying import paid
from agentbudget.prices import ComputePrice, TokenPrice
from agentbudget.skills import skill
from agentbudget.step import Context, Engine, Scope
from agentbudget.telemetry import Capture, GenAI, Ours
from agentbudget.telemetry.backend import Backend, Calls, Instruments, divert
from agentbudget.testing import ManualClock, ScriptedModel
from agentbudget.usage import Usage
from agentbudget.verify import cites

SECRET = "the patient's name is Ada"
USAGE = Usage(input_tokens=100, output_tokens=20, cached_tokens=30, compute_ns=2_500_000_000)


@pytest.fixture
def captured() -> Generator[Capture]:
    with telemetry.capture() as capture:
        yield capture


def one_run(ledger: Ledger, clock: ManualClock) -> None:
    """A run of one step with one call, as the step module books and reports it."""
    ledger.account("run/r1", limit=Budget(usd="0.05", tokens=1_000))
    held = Amount(900_000, 400, 1)
    with telemetry.run("r1", agent="research", user="42", budget=Budget(usd="0.05", tokens=1_000)) as run:
        with telemetry.step("answer", run_id="r1", step_id="r1/1", tier="local") as step:
            with telemetry.reservation("r1/1"):
                hold = ledger.reserve("r1/1", held, accounts=["run/r1"], meta={"kind": "step"})
            step.reserved("r1/1", estimated=Amount(400_000, 200), accounts=("run/r1",), took_s=0.25)
            with telemetry.retrieval("handbook", tokens=600) as retrieval:
                retrieval.found(passages=3, tokens=540, cost_usd_nano=1_000)
            with telemetry.model_call(
                "llamacpp", "llamacpp:small", input_tokens_estimated=110, max_output_tokens=64, rung=0, purpose="draft"
            ) as call:
                clock.advance(30)
                call.answered(finish="stop", served_by="small-q4", confidence=0.9)
                call.used(USAGE)
                call.cost(69_000)
            step.closed(hold.settle(Amount(70_000, 120, 1)), took_s=0.5)
            step.balance(ledger.balance("run/r1"), elapsed_s=30)
            step.finished(status="ok", escalated=False)
        run.finished(status="done", settled=Amount(70_000, 120, 1), remaining=ledger.balance("run/r1").available)


@pytest.fixture
def whole_run(captured: Capture) -> Capture:
    clock = ManualClock()
    with Ledger.open("memory:", clock=clock) as ledger:
        one_run(ledger, clock)
    return captured


def holds(attributes: Mapping[str, object], expected: Mapping[str, object]) -> None:
    assert {name: attributes.get(name) for name in expected} == expected


# --- spans


def test_a_run_is_a_tree_of_spans(whole_run: Capture) -> None:
    assert [(span.name, span.parent) for span in whole_run.spans] == [
        ("reserve", "step answer"),
        ("retrieval handbook", "step answer"),
        ("chat small", "step answer"),
        ("settle", "step answer"),
        ("step answer", "invoke_agent research"),
        ("invoke_agent research", None),
    ]
    assert all(span.error is None for span in whole_run.spans)


def test_a_model_call_speaks_the_conventions(whole_run: Capture) -> None:
    span = whole_run.span("chat small")
    assert span.kind == "CLIENT"
    holds(
        span.attributes,
        {
            "gen_ai.operation.name": "chat",
            "gen_ai.provider.name": "llamacpp",
            "gen_ai.request.model": "small",
            "gen_ai.request.max_tokens": 64,
            "gen_ai.response.model": "small-q4",
            "gen_ai.response.finish_reasons": ("stop",),
            "gen_ai.usage.input_tokens": 100,
            "gen_ai.usage.output_tokens": 20,
            "gen_ai.usage.cache_read.input_tokens": 30,
            "agentbudget.cost.usd_nano": 69_000,
            "agentbudget.compute_s": 2.5,
            "agentbudget.purpose": "draft",
            "agentbudget.rung": 0,
        },
    )


def test_our_copies_of_the_conventions_names_are_theirs() -> None:
    from opentelemetry.semconv._incubating.attributes import gen_ai_attributes
    from opentelemetry.semconv._incubating.metrics import gen_ai_metrics
    from opentelemetry.semconv.schemas import Schemas

    theirs = {
        value
        for module in (gen_ai_attributes, gen_ai_metrics)
        for name, value in vars(module).items()
        if name.startswith("GEN_AI_")
    }
    ours = {value for value in vars(GenAI).values() if isinstance(value, str) and value.startswith("gen_ai.")}
    assert ours - theirs == set()
    assert telemetry.SCHEMA_URL in {schema.value for schema in Schemas}


def test_totals_of_a_run_are_ours_alone(whole_run: Capture) -> None:
    run = whole_run.span("invoke_agent research").attributes
    holds(run, {"user.id": "42", "agentbudget.budget.usd_nano": 50_000_000, "agentbudget.settled.tokens": 120})
    holds(run, {"agentbudget.remaining.usd_nano": 49_930_000, "agentbudget.remaining.tokens": 880})
    assert not [name for name in run if name.startswith("gen_ai.usage")]


def test_a_step_says_what_was_held_for_it_what_is_left_and_how_fast_that_burns(whole_run: Capture) -> None:
    settled = whole_run.span("step answer").attributes
    holds(
        settled,
        {
            Ours.HOLD: "r1/1",
            Ours.ACCOUNTS: ("run/r1",),
            "agentbudget.estimated.usd_nano": 400_000,
            "agentbudget.estimated.tokens": 200,
            Ours.RESERVE_S: 0.25,
            Ours.SETTLE_S: 0.5,
            Ours.OUTCOME: "settled",
            "agentbudget.settled.usd_nano": 70_000,
            "agentbudget.held.usd_nano": 900_000,
            "agentbudget.remaining.tokens": 880,
            Ours.BURN_RATE: pytest.approx(0.00014),
            Ours.PRESUMED: False,
        },
    )
    assert "agentbudget.overrun.usd_nano" not in settled


def test_a_limit_that_is_not_set_is_left_out(captured: Capture) -> None:
    with telemetry.run("r1", agent="a", budget=Budget(tokens=10)):
        pass
    attributes = captured.span("invoke_agent a").attributes
    assert attributes["agentbudget.budget.tokens"] == 10
    assert not {"agentbudget.budget.usd_nano", "user.id"} & attributes.keys()


def test_a_refusal_says_who_refused_and_how_much_is_missing(captured: Capture) -> None:
    with Ledger.open("memory:") as ledger:
        ledger.account("run/r1", limit=Budget(tokens=10))
        with (
            pytest.raises(BudgetExceeded),
            telemetry.step("answer", run_id="r1", step_id="r1/1", tier="local"),
            telemetry.reservation("r1/1"),
        ):
            ledger.reserve("r1/1", Amount(tokens=50), accounts=["run/r1"])
    refused = {
        Ours.REFUSED_BY: "run/r1",
        Ours.REFUSED_UNIT: "tokens",
        Ours.NEEDED: 50,
        Ours.AVAILABLE: 10,
        GenAI.ERROR_TYPE: "BudgetExceeded",
    }
    step = captured.span("step answer")
    holds(step.attributes, refused)
    name, told = step.events[0]
    assert name == Ours.RESERVATION
    holds(told, {**refused, Ours.HOLD: "r1/1", Ours.KIND: "step", Ours.OUTCOME: "refused"})
    assert captured.metric(Ours.RESERVATIONS, agentbudget__outcome="refused") == 1
    assert captured.metric(Ours.RESERVATIONS, agentbudget__outcome="granted") == 0


def test_an_error_is_noted_by_its_type_and_its_usage_is_kept(captured: Capture) -> None:
    def fail() -> None:
        with telemetry.model_call("openai", "gpt", max_output_tokens=9) as call:
            call.cost(500, presumed=True)
            raise OutcomeUnknown(SECRET, model="openai:gpt", usage=Usage(7, 1))

    with pytest.raises(OutcomeUnknown):
        fail()
    span = captured.span("chat gpt")
    assert span.error == "OutcomeUnknown"
    holds(span.attributes, {GenAI.INPUT_TOKENS: 7, Ours.PRESUMED: True, Ours.COST_NANO: 500})
    assert "OutcomeUnknown" in captured.dump()
    assert SECRET not in captured.dump()
    assert captured.metric(GenAI.OPERATION_DURATION, error__type="OutcomeUnknown") is not None


def test_an_interrupt_of_the_graph_is_not_an_error(captured: Capture) -> None:
    from langgraph.errors import GraphInterrupt

    with pytest.raises(GraphInterrupt), telemetry.step("ask", run_id="r", step_id="r/1"):
        raise GraphInterrupt
    assert captured.span("step ask").error is None


def test_an_answer_from_the_cache_reports_no_usage(captured: Capture) -> None:
    with (
        telemetry.step("answer", run_id="r", step_id="r/1", tier="local"),
        telemetry.model_call("llamacpp", "small") as call,
    ):
        call.cache_hit(saved_usd_nano=83_000)
    attributes = captured.span("chat small").attributes
    holds(attributes, {Ours.CACHE_HIT: True, Ours.CACHE_SAVED: 83_000, Ours.COST_NANO: 0})
    holds(attributes, {Ours.CACHE_KIND: "answer", Ours.CACHE_BECAUSE: "exact"})
    assert not {GenAI.INPUT_TOKENS, GenAI.OUTPUT_TOKENS} & attributes.keys()
    assert captured.metric(Ours.CACHE_HITS, agentbudget__skill="answer", agentbudget__cache__kind="answer") == 1
    assert captured.metric(Ours.CACHE_SAVINGS, agentbudget__skill="answer") == pytest.approx(0.000083)
    assert captured.metric(GenAI.OPERATION_DURATION) is None


def test_a_search_from_the_cache_is_a_hit_of_its_own_kind(captured: Capture) -> None:
    with telemetry.retrieval("handbook", tokens=300) as search:
        search.found(passages=2, tokens=280, cost_usd_nano=0)
        search.cache_hit(saved_usd_nano=500)
    holds(captured.span("retrieval handbook").attributes, {Ours.CACHE_KIND: "retrieval", Ours.CACHE_SAVED: 500})
    assert captured.metric(Ours.CACHE_HITS, agentbudget__cache__kind="retrieval") == 1
    assert captured.metric(Ours.CACHE_HITS, agentbudget__cache__kind="answer") is None


@contextmanager
def embedding(most: Usage) -> Generator[Meter]:
    """A call of an embedding model that is paid for."""
    price = TokenPrice.custom(input_usd_per_mtok="1", output_usd_per_mtok="0")
    with Ledger.open("memory:") as ledger:
        ledger.account("user/42", limit=Budget(usd="1"))

        def reserve(amount: Amount, meta: Mapping[str, object]) -> Hold:
            return ledger.reserve("embed", amount, accounts=["user/42"], meta=meta)

        with paid(reserve, name="openai:embedder", price=price, most=most) as meter:
            yield meter


def test_an_embedding_is_a_call_of_its_own_operation(captured: Capture) -> None:
    with embedding(Usage(10)) as meter:
        meter.leaving()
        meter.usage = Usage(9)
    told = {GenAI.OPERATION: "embeddings", GenAI.INPUT_TOKENS: 9, Ours.COST_NANO: 9_000, Ours.PRESUMED: False}
    holds(captured.span("embeddings embedder").attributes, told)


@pytest.mark.parametrize(("operation", "kinds"), [("chat", {"answer", "plan"}), ("embeddings", {"embedding"})])
def test_hits_of_each_kind_start_at_0_with_the_first_call(captured: Capture, operation: str, kinds: set[str]) -> None:
    with telemetry.model_call("openai", "small", operation=operation):
        pass
    hits = captured.series(Ours.CACHE_HITS)
    assert {labels[Ours.CACHE_KIND]: value for labels, value in hits} == dict.fromkeys(kinds, 0)


def test_vectors_from_the_cache_are_a_hit_of_their_own_kind(captured: Capture) -> None:
    with embedding(Usage()) as meter:
        meter.saved_usd_nano = 500
    attributes = captured.span("embeddings embedder").attributes
    holds(attributes, {Ours.CACHE_KIND: "embedding", Ours.CACHE_SAVED: 500, Ours.COST_NANO: 0})
    assert GenAI.INPUT_TOKENS not in attributes
    assert captured.metric(Ours.CACHE_HITS, agentbudget__cache__kind="embedding") == 1


@pytest.mark.parametrize(("state", "outcome"), [("settle", "settled"), ("presume", "presumed"), ("void", "voided")])
def test_every_end_of_a_hold_is_counted(captured: Capture, state: str, outcome: str) -> None:
    with Ledger.open("memory:") as ledger, telemetry.model_call("openai", "small") as call:
        ledger.account("run/r")
        hold = ledger.reserve("h", Amount(9, 9), accounts=["run/r"], meta={"kind": "call"})
        call.closed(getattr(hold, state)())
    assert captured.span("chat small").attributes[Ours.OUTCOME] == outcome
    assert captured.metric(Ours.RESERVATIONS, agentbudget__outcome=outcome, agentbudget__hold__kind="call") == 1
    assert captured.metric(Ours.RESERVATIONS) == 1


def test_an_overrun_is_on_the_span_of_what_it_paid_for(captured: Capture) -> None:
    with Ledger.open("memory:") as ledger, telemetry.model_call("openai", "small") as call:
        ledger.account("run/r")
        call.closed(ledger.reserve("h", Amount(9, 9), accounts=["run/r"]).settle(Amount(11, 9)))
    overrun = {"agentbudget.overrun.usd_nano": 2, "agentbudget.overrun.tokens": 0}
    holds(captured.span("chat small").attributes, overrun)


def test_a_hold_that_pays_for_nothing_with_a_span_ends_as_an_event_of_the_current_one(captured: Capture) -> None:
    with Ledger.open("memory:") as ledger, telemetry.step("answer", run_id="r", step_id="r/1"):
        ledger.account("run/r")
        hold = ledger.reserve("h", Amount(9, 9), accounts=["run/r"], meta={"kind": "tool"})
        telemetry.settlement(hold.settle(Amount(7, 9)))
    [(name, told)] = captured.span("step answer").events
    assert name == Ours.SETTLEMENT
    holds(told, {Ours.HOLD: "h", Ours.KIND: "tool", Ours.OUTCOME: "settled", "agentbudget.settled.usd_nano": 7})
    assert captured.metric(Ours.RESERVATIONS, agentbudget__hold__kind="tool", agentbudget__skill="answer") == 1


async def test_parallel_steps_keep_their_own_children_and_labels(captured: Capture) -> None:
    async def one(skill: str, cost: int) -> None:
        with telemetry.step(skill, run_id="r", step_id=skill, tier="local"):
            await asyncio.sleep(0.001)
            with telemetry.model_call("llamacpp", f"model-{skill}") as call:
                await asyncio.sleep(0.001)
                call.cost(cost)

    with telemetry.run("r", agent="a"):
        await asyncio.gather(one("left", 1_000_000_000), one("right", 2_000_000_000))
    assert captured.span("chat model-left").parent == "step left"
    assert captured.span("chat model-right").parent == "step right"
    assert captured.metric(Ours.COST, agentbudget__skill="left") == 1
    assert captured.metric(Ours.COST, agentbudget__skill="right") == 2


# --- metrics


def test_metrics_count_cost_and_tokens_by_skill_tier_and_model(whole_run: Capture) -> None:
    labels = {"agentbudget__skill": "answer", "agentbudget__tier": "local", "agentbudget__model": "llamacpp:small"}
    assert whole_run.metric(Ours.COST, **labels) == pytest.approx(0.000069)
    assert whole_run.metric(Ours.COST, agentbudget__model="retrieval") == pytest.approx(0.000001)
    assert whole_run.metric(Ours.TOKENS, **labels, gen_ai__token__type="input") == 100
    assert whole_run.metric(GenAI.TOKEN_USAGE, gen_ai__token__type="output", gen_ai__request__model="small") == 20
    assert whole_run.metric(GenAI.OPERATION_DURATION, gen_ai__response__model="small-q4") is not None
    assert whole_run.metric(Ours.CACHE_HITS, **labels) == 0


def test_calls_that_nobody_collects_for_long_are_all_counted(captured: Capture) -> None:
    for _ in range(Calls.MOST + 5):
        with telemetry.model_call("openai", "small") as call:
            call.used(Usage(2, 1))
    assert captured.metric(GenAI.TOKEN_USAGE, gen_ai__token__type="input") == 2 * (Calls.MOST + 5)
    assert captured.metric(GenAI.TOKEN_USAGE, gen_ai__token__type="input") == 2 * (Calls.MOST + 5)  # once


def test_a_point_of_a_calls_duration_leads_to_its_span() -> None:
    reader = InMemoryMetricReader()
    before = divert(Backend.of(TracerProvider(), Instruments.of(MeterProvider([reader]))))
    try:
        with telemetry.step("answer", run_id="r", step_id="r/1"), telemetry.model_call("openai", "small"):
            within = trace.get_current_span().get_span_context()
    finally:
        divert(before)
    data = reader.get_metrics_data()
    assert data is not None
    metrics = [m for resource in data.resource_metrics for scope in resource.scope_metrics for m in scope.metrics]
    [duration] = [metric for metric in metrics if metric.name == GenAI.OPERATION_DURATION]
    exemplars = [exemplar for point in duration.data.data_points for exemplar in point.exemplars]
    assert [(exemplar.trace_id, exemplar.span_id) for exemplar in exemplars] == [(within.trace_id, within.span_id)]


def test_no_metric_carries_a_user_a_run_or_a_hold(whole_run: Capture) -> None:
    names = (Ours.COST, Ours.TOKENS, Ours.RESERVATIONS, Ours.CACHE_HITS, GenAI.TOKEN_USAGE, GenAI.OPERATION_DURATION)
    found = {label for name in names for labels, _ in whole_run.series(name) for label in labels}
    assert found == {
        Ours.SKILL,
        Ours.TIER,
        Ours.MODEL,
        Ours.OUTCOME,
        Ours.KIND,
        Ours.CACHE_KIND,
        GenAI.TOKEN_TYPE,
        GenAI.OPERATION,
        GenAI.PROVIDER,
        GenAI.REQUEST_MODEL,
        GenAI.RESPONSE_MODEL,
    }


def test_the_captured_spans_of_a_name_are_found_or_named(captured: Capture) -> None:
    with telemetry.step("answer", run_id="r", step_id="r/1"):
        pass
    with pytest.raises(LookupError, match="step answer"):
        captured.span("nothing")


# --- export


class Received:
    """What a real OTLP/HTTP receiver on loopback was sent."""

    def __init__(self) -> None:
        self.traces: list[ExportTraceServiceRequest] = []
        self.metrics: list[ExportMetricsServiceRequest] = []

    def take(self, path: str, body: bytes) -> None:
        if path == "/v1/traces":
            self.traces.append(ExportTraceServiceRequest.FromString(body))
        elif path == "/v1/metrics":
            self.metrics.append(ExportMetricsServiceRequest.FromString(body))


@contextmanager
def otlp_receiver() -> Generator[tuple[Received, str]]:
    received = Received()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            received.take(self.path, gzip.decompress(body) if self.headers["Content-Encoding"] == "gzip" else body)
            self.send_response(200)
            self.send_header("Content-Length", "0")
            self.end_headers()

        def log_message(self, format: str, *args: object) -> None:
            """Keep the test's output quiet."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield received, f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


PROGRAM = """
    import sys
    from agentbudget import telemetry

    telemetry.setup()
    with telemetry.run("r1", agent="research", user="42"):
        with telemetry.step("answer", run_id="r1", step_id="r1/1", tier="local"):
            with telemetry.model_call("llamacpp", "small", max_output_tokens=9) as call:
                call.cost(69_000)
    print(*(name for name in ("opentelemetry", "opentelemetry.sdk") if name in sys.modules))
"""


def run_program(**environment: str) -> subprocess.CompletedProcess[str]:
    clean = {name: value for name, value in os.environ.items() if not name.startswith("OTEL_")}
    return subprocess.run(
        [sys.executable, "-c", textwrap.dedent(PROGRAM)],
        env=clean | environment,
        cwd=Path(__file__).parent.parent,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def test_spans_and_metrics_reach_an_otlp_endpoint_before_the_process_ends() -> None:
    pytest.importorskip("opentelemetry.exporter.otlp.proto.http", reason="needs the extra otlp")
    with otlp_receiver() as (received, address):
        done = run_program(OTEL_EXPORTER_OTLP_ENDPOINT=address)
    assert (done.returncode, done.stderr) == (0, "")
    resource = received.traces[0].resource_spans[0]
    scope = resource.scope_spans[0]
    assert {a.key: a.value.string_value for a in resource.resource.attributes}["service.name"] == "agentbudget"
    assert (scope.scope.name, scope.schema_url) == ("agentbudget", telemetry.SCHEMA_URL)
    assert [span.name for span in scope.spans] == ["chat small", "step answer", "invoke_agent research"]
    metrics = {metric.name for metric in received.metrics[0].resource_metrics[0].scope_metrics[0].metrics}
    assert {Ours.COST, GenAI.OPERATION_DURATION} <= metrics


def test_the_service_keeps_the_name_that_the_environment_gives() -> None:
    pytest.importorskip("opentelemetry.exporter.otlp.proto.http", reason="needs the extra otlp")
    with otlp_receiver() as (received, address):
        run_program(OTEL_EXPORTER_OTLP_TRACES_ENDPOINT=f"{address}/v1/traces", OTEL_SERVICE_NAME="handbook")
    attributes = received.traces[0].resource_spans[0].resource.attributes
    assert {a.key: a.value.string_value for a in attributes}["service.name"] == "handbook"
    assert received.metrics == []


def test_without_an_endpoint_opentelemetry_is_not_even_imported() -> None:
    done = run_program()
    assert (done.returncode, done.stdout.strip(), done.stderr) == (0, "", "")


def test_an_sdk_that_is_disabled_stays_so() -> None:
    done = run_program(OTEL_EXPORTER_OTLP_ENDPOINT="http://127.0.0.1:1", OTEL_SDK_DISABLED="true")
    assert (done.returncode, done.stdout.strip(), done.stderr) == (0, "", "")


def test_a_protocol_that_is_not_spoken_is_named() -> None:
    done = run_program(OTEL_EXPORTER_OTLP_ENDPOINT="http://127.0.0.1:4317", OTEL_EXPORTER_OTLP_PROTOCOL="grpc")
    assert done.returncode == 1
    assert "set that and the collector's HTTP port (4318)" in done.stderr


def test_a_provider_that_the_program_installed_is_used() -> None:
    program = """
        from opentelemetry import trace
        from opentelemetry.sdk.trace import TracerProvider
        from opentelemetry.sdk.trace.export import SimpleSpanProcessor
        from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
        from agentbudget import telemetry

        with telemetry.step("early", run_id="r", step_id="r/0"):
            pass
        exporter, provider = InMemorySpanExporter(), TracerProvider()
        provider.add_span_processor(SimpleSpanProcessor(exporter))
        trace.set_tracer_provider(provider)
        telemetry.setup()
        with telemetry.step("answer", run_id="r", step_id="r/1"):
            pass
        assert trace.get_tracer_provider() is provider
        print(*(span.name for span in exporter.get_finished_spans()))
    """
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(program)], capture_output=True, text=True, timeout=60, check=False
    )
    assert (done.stdout.strip(), done.stderr) == ("step answer", "")


@pytest.mark.parametrize("order", [("tracers", "meters"), ("meters", "tracers")])
def test_calls_before_and_after_a_provider_is_installed_late_are_all_counted(order: Sequence[str]) -> None:
    program = """
        import sys
        from opentelemetry import metrics, trace
        from opentelemetry.sdk.metrics import MeterProvider
        from opentelemetry.sdk.metrics.export import InMemoryMetricReader
        from opentelemetry.sdk.trace import TracerProvider
        from agentbudget import telemetry
        from agentbudget.telemetry.capture import Capture

        reader = InMemoryMetricReader()
        for installed in sys.argv[1:]:
            if installed == "tracers":
                trace.set_tracer_provider(TracerProvider())
            else:
                metrics.set_meter_provider(MeterProvider([reader]))
            with telemetry.model_call("llamacpp", "small") as call:
                call.cost(1_000_000_000)
        print(Capture(None, reader).metric("agentbudget.cost"))
    """
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(program), *order],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert (done.stdout.strip(), done.stderr) == ("2.0", "")


# --- what the step module reports


class Broken(SpanProcessor):
    """A processor that cannot cope with what it is given."""

    def on_end(self, span: ReadableSpan) -> None:
        raise RuntimeError("no room for spans")


async def test_a_processor_of_spans_that_fails_leaves_nothing_held() -> None:
    price = ComputePrice(Decimal("0.10"), prefill_tokens_per_s=100, decode_tokens_per_s=10)

    @skill(max_output_tokens=20)
    async def answer(ctx: Context, question: str) -> str:
        """Answer."""
        ...

    tracers = TracerProvider()
    tracers.add_span_processor(Broken())
    before = divert(Backend.of(tracers, Instruments.of(MeterProvider())))
    try:
        with Ledger.open("memory:") as ledger:
            ledger.account("run/r", limit=Budget(usd=1))
            ctx = Context(Engine(ledger, Ladder((ScriptedModel(["yes"]),)), Answers(), price), Scope("r"))
            with pytest.raises(RuntimeError, match="no room for spans"):
                await answer(ctx, question=SECRET)
            assert ledger.balance("run/r").held == ZERO
    finally:
        divert(before)


async def test_a_real_step_reports_each_phase(captured: Capture) -> None:
    price = ComputePrice(Decimal("0.10"), prefill_tokens_per_s=100, decode_tokens_per_s=10)
    models = (ScriptedModel(["no"], name="scripted:small"), ScriptedModel(["yes [1]"], name="scripted:large"))

    @skill(escalate="frontier", max_output_tokens=20, accept=cites)
    async def answer(ctx: Context, question: str) -> str:
        """Answer with a citation."""
        ...

    with Ledger.open("memory:") as ledger, telemetry.run("r", agent="a", user="42"):
        ledger.account("run/r", limit=Budget(usd=1))
        ctx = Context(Engine(ledger, Ladder(models), Answers(), price), Scope("r", user="42"))
        await answer(ctx, question=SECRET)
        booked = ledger.balance("run/r").posted
    asked = [span.attributes[GenAI.REQUEST_MODEL] for span in captured.spans if span.name.startswith("chat ")]
    assert asked == ["small", "large"]
    holds(captured.span("step answer").attributes, {Ours.STATUS: "ok", Ours.ESCALATED: True})
    phases = [span.name for span in captured.spans if span.parent == "step answer"]
    assert phases == ["reserve", "chat small", "chat large", "settle"]
    reserve, *calls, settle, step, _ = [span.attributes for span in captured.spans]
    assert reserve[Ours.HOLD] == settle[Ours.HOLD] == step[Ours.HOLD]
    holds(step, {"agentbudget.settled.usd_nano": booked.usd_nano, Ours.ACCOUNTS: ("run/r", "user/42", "skill/answer")})
    for call in calls:
        assert str(call[Ours.HOLD]).startswith(f"{step[Ours.HOLD]}/")
        assert call["agentbudget.settled.usd_nano"] == call[Ours.COST_NANO]
        numbers = {name: value for name, value in call.items() if isinstance(value, int | float)}
        assert numbers["agentbudget.held.usd_nano"] >= numbers["agentbudget.settled.usd_nano"]
        assert numbers[Ours.RESERVE_S] > 0
        assert numbers[Ours.SETTLE_S] > 0
    assert captured.metric(Ours.RESERVATIONS, agentbudget__outcome="granted", agentbudget__hold__kind="call") == 2
    assert captured.metric(Ours.RESERVATIONS, agentbudget__outcome="settled", agentbudget__hold__kind="step") == 1
    assert captured.metric(Ours.COST, agentbudget__skill="answer") == pytest.approx(float(booked.usd))
    assert SECRET not in captured.dump()
