"""What a budgeted step costs beside the same call without a budget: `python -m evals.overhead`.

A skill whose model answers at once, so that all that is measured is the step: estimate, reserve, look for an answer
that was paid for, call, keep the answer, settle, and their spans and metrics. The ledger and the answers are files;
spans go through OpenTelemetry's batch processor to an exporter that drops them. The same request to the same model
without a step takes turns with it, and its median is taken off. Every step asks something new.

Lines after the table say what the slowest steps of the last row waited for, and what no change of ours takes off: the
spans of one step made by OpenTelemetry's SDK alone, with all that they tell in one go, and its points in the
conventions' histograms; the step's entries in the journal, as they are made amid it and one after the other.
``--pieces`` runs the last row alone, and prints where its processor time goes.
"""

from __future__ import annotations

import argparse
import asyncio
import cProfile
import gc
import itertools
import os
import pstats
import statistics
import tempfile
import time
from collections.abc import Generator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import astuple, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final, cast

from agentbudget import Budget, Context, Scope, skill
from agentbudget.cache import Answers
from agentbudget.ledger import Ledger
from agentbudget.models import machine_price
from agentbudget.models.base import Message, Meter, Request
from agentbudget.models.ladder import Ladder
from agentbudget.settings import Settings
from agentbudget.step import Engine
from agentbudget.telemetry import GenAI
from agentbudget.testing import ScriptedModel, capture_spans
from evals.overhead.alone import TimedLedger
from evals.overhead.pieces import looking

if TYPE_CHECKING:
    from opentelemetry.util.types import Attributes

WARM_UP: Final = 50
"""Steps that are not counted: the first ones import, open and compile."""


@dataclass(frozen=True, slots=True)
class Took:
    """Seconds on the clock; of them those in which this thread had a processor (the rest was others' work), and those
    in which Python looked for garbage."""

    wall_s: float
    cpu_s: float
    garbage_s: float = 0.0

    @classmethod
    def now(cls) -> Took:
        return cls(time.perf_counter(), time.thread_time(), _garbage.took_s)

    def __sub__(self, other: Took) -> Took:
        return Took(self.wall_s - other.wall_s, self.cpu_s - other.cpu_s, self.garbage_s - other.garbage_s)


class Garbage:
    """How long Python has looked for garbage so far."""

    def __init__(self) -> None:
        self.took_s = 0.0
        self._began = 0.0

    def __call__(self, phase: str, _told: Mapping[str, int]) -> None:
        """What Python calls when it begins and ends."""
        if phase == "start":
            self._began = time.perf_counter()
        else:
            self.took_s += time.perf_counter() - self._began


_garbage: Final = Garbage()


@skill(max_output_tokens=40)
async def answer(ctx: Context, question: str) -> str:
    """Answer the question of a customer in one sentence."""
    ...


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=2_000, help="steps in each row")
    parser.add_argument("--profile", action="store_true", help="where the time of the last row goes, too")
    parser.add_argument("--pieces", action="store_true", help="only where the processor time of the last row goes")
    given = parser.parse_args()
    if given.pieces:
        print_pieces(given.steps)
        return
    gc.callbacks.append(_garbage)
    slowest = sdk = journal = ""
    print("| ledger | telemetry | overhead p50, ms | p90 | p99 | worst | this thread's processor p10 | p50 | mean |")
    print("|---|---|--:|--:|--:|--:|--:|--:|--:|")
    for store, traced in (("memory", False), ("SQLite", False), ("SQLite", True)):
        with telemetry(on=traced):
            profile = cProfile.Profile() if given.profile and traced else None
            steps, calls = asyncio.run(measured(store, given.steps, profile))
            slowest = of_the_slowest(steps)
            sdk = of_the_sdk(given.steps) if traced else ""
            journal = of_the_journal() if traced else ""
        alone = statistics.median(call.wall_s for call in calls)
        bare = statistics.median(call.cpu_s for call in calls)
        worked = sorted(1000 * (step.cpu_s - bare) for step in steps)
        processor = (worked[len(worked) // 10], statistics.median(worked), statistics.fmean(worked))
        over = sorted(1000 * (step.wall_s - alone) for step in steps)
        figures = " | ".join(f"{over[min(len(over) - 1, round(q * len(over)))]:.2f}" for q in (0.5, 0.9, 0.99, 1))
        print(
            f"| {store} | {'on' if traced else 'off'} | {figures} | {' | '.join(f'{ms:.2f}' for ms in processor)} |",
            flush=True,
        )
        if profile is not None:
            pstats.Stats(profile).sort_stats("cumulative").print_stats(60)
    print(f"\n{slowest}\n{sdk}\n{journal}")
    print(f"load {', '.join(f'{load:.1f}' for load in os.getloadavg())}")


async def measured(
    store: str, steps: int, profile: cProfile.Profile | None = None, books: list[TimedLedger] | None = None
) -> tuple[list[Took], list[Took]]:
    """What each step took, and each call without one. `books` gets the ledger, where its entries are to be timed."""
    model = ScriptedModel(lambda _: "We refund orders within thirty days.")
    with tempfile.TemporaryDirectory() as folder:
        location = Path(folder) / "ledger.db" if store == "SQLite" else "memory:"
        opened = Ledger if books is None else TimedLedger
        with opened.open(location) as ledger, Answers(Path(folder) / "cache.db") as answers:
            if books is not None and isinstance(ledger, TimedLedger):
                books.append(ledger)
            ledger.account("run/r", limit=Budget(usd="1000"))
            engine = Engine(ledger, Ladder((model,)), answers, machine_price(Settings.from_env()))
            ctx = Context(engine, Scope("r", user="42", feature="support"))
            return await _timed(ctx, model, steps, profile)


async def _timed(
    ctx: Context, model: ScriptedModel, steps: int, profile: cProfile.Profile | None
) -> tuple[list[Took], list[Took]]:
    budgeted: list[Took] = []
    alone: list[Took] = []
    for number in itertools.islice(itertools.count(), steps + WARM_UP):
        question = f"Can order {number} be refunded?"
        began = Took.now()
        await model.complete(Request((Message("system", answer.prompt), Message("user", question)), 40), Meter())
        between = Took.now()
        if profile is not None:
            profile.enable()
        await answer(ctx, question)
        if profile is not None:
            profile.disable()
        ended = Took.now()
        if number >= WARM_UP:
            alone.append(between - began)
            budgeted.append(ended - between)
        model.requests.clear()
    return budgeted, alone


def print_pieces(steps: int) -> None:
    """Where the processor time of a step goes, with SQLite and telemetry."""
    with telemetry(on=True), looking() as looks:
        took, _ = asyncio.run(measured("SQLite", steps))
    mean_us = 1e6 * statistics.fmean(step.cpu_s for step in took)
    print(f"| a step, mean of {steps} | {mean_us:.0f} µs | |\n|---|--:|--:|")
    print("\n".join(looks.told(mean_us)))
    print(f"\n{looks.seen.total()} looks; load {', '.join(f'{load:.1f}' for load in os.getloadavg())}")


def of_the_slowest(steps: Sequence[Took]) -> str:
    """What the slowest hundredth of steps did beside what others do, in a sentence."""
    slow = sorted(steps, key=lambda step: step.wall_s)[-max(1, len(steps) // 100) :]
    wall, cpu, garbage = (1000 * statistics.fmean(each) for each in zip(*map(astuple, slow), strict=True))
    return (
        f"The slowest {len(slow)} steps took {wall:.2f} ms on average: {wall - cpu:.2f} waiting for a processor, the "
        f"disk or another thread, {garbage:.2f} looking for garbage, {cpu - garbage:.2f} at work"
    )


def of_the_sdk(times: int) -> str:
    """What OpenTelemetry's SDK takes for what one step tells it, in a sentence."""
    from opentelemetry import metrics, trace

    with capture_spans() as told:
        asyncio.run(measured("memory", 0))
    spans = told.spans[-(len(told.spans) // WARM_UP) :]
    names = (GenAI.TOKEN_USAGE, GenAI.OPERATION_DURATION)
    points = [cast("Attributes", labels) for name in names for labels, _ in told.series(name)]
    told_by = [(span.name, cast("Attributes", span.attributes)) for span in spans]
    tracer, histogram = trace.get_tracer("alone"), metrics.get_meter("alone").create_histogram("alone")
    took: list[Took] = []
    for _ in range(times):
        began = Took.now()
        for name, attributes in told_by:
            tracer.start_span(name, attributes=attributes).end()
        for labels in points:
            histogram.record(1, labels)
        took.append(Took.now() - began)
    wall_ms, cpu_ms, _ = (1000 * statistics.median(each) for each in zip(*map(astuple, took), strict=True))
    return (
        f"OpenTelemetry's SDK alone takes {wall_ms:.2f} ms for the {len(spans)} spans and {len(points)} points in "
        f"histograms of a step ({cpu_ms:.2f} ms of this thread's processor)"
    )


def of_the_journal() -> str:
    """What the entries of a step take, in a sentence: of some more steps, as writing down what is asked takes time."""
    books: list[TimedLedger] = []
    asyncio.run(measured("SQLite", 500, books=books))
    return books[0].told()


@contextmanager
def telemetry(*, on: bool) -> Generator[None]:
    """Providers as a program installs them: batches of spans, metrics read once a minute, exported to nowhere."""
    if on:
        from opentelemetry import metrics, trace
        from opentelemetry.sdk.metrics import MeterProvider
        from opentelemetry.sdk.metrics.export import InMemoryMetricReader
        from opentelemetry.sdk.trace import TracerProvider
        from opentelemetry.sdk.trace.export import BatchSpanProcessor, SpanExporter, SpanExportResult

        class Nowhere(SpanExporter):
            def export(self, spans: object) -> SpanExportResult:
                """Drop them."""
                assert isinstance(spans, list | tuple)
                return SpanExportResult.SUCCESS

        tracers = TracerProvider()
        tracers.add_span_processor(BatchSpanProcessor(Nowhere()))
        trace.set_tracer_provider(tracers)
        metrics.set_meter_provider(MeterProvider([InMemoryMetricReader()]))
    yield


if __name__ == "__main__":
    main()
