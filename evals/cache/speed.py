"""How long an exact look-up takes: `python -m evals.cache speed`.

From a request to the answer that stands for it, or to the word that there is none: the key is worked out, the claim
made and given back, the row read and decoded, as a step does it. In memory and in a file, empty but for a few and under
100,000 entries, each answer of some 600 characters and each prompt of some 2,000. The keys that are asked for are
spread over all entries. The processor's time tells more than the clock where others work on the same machine.
"""

from __future__ import annotations

import argparse
import os
import random
import statistics
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from agentbudget.cache import Answers, answer_key
from agentbudget.models.base import Completion, Message, Request
from agentbudget.testing import ScriptedModel
from agentbudget.usage import Usage

MODEL = ScriptedModel([], name="scripted:model", fingerprint="0" * 64)
SYSTEM = "Answer the question of a customer from the passages, in one sentence with the exact figures. " * 3
PASSAGES = "Orders are refunded within thirty days, unless they were made to measure. " * 23
ANSWER = "An order that was not made to measure can be refunded within thirty days of its arrival. " * 7


@dataclass(frozen=True, slots=True)
class Row:
    """Microseconds of one kind of look-up: on the clock, sorted, and of the processor in the mean."""

    what: str
    took_us: Sequence[float]
    cpu_us: float

    def __str__(self) -> str:
        p50, p99 = statistics.median(self.took_us), self.took_us[int(0.99 * len(self.took_us))]
        return f"| {self.what} | {p50:.0f} | {p99:.0f} | {self.cpu_us:.0f} |"


def main(arguments: Sequence[str]) -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(prog="python -m evals.cache speed", description=__doc__)
    parser.add_argument("--entries", type=int, default=100_000, help="entries of the full store")
    parser.add_argument("--lookups", type=int, default=5_000, help="look-ups in each row")
    given = parser.parse_args(arguments)
    print("| look-up | p50, µs | p99, µs | processor, mean µs |")
    print("|---|--:|--:|--:|")
    with tempfile.TemporaryDirectory() as folder:
        for place in ("in memory", "in a file"):
            for entries in (100, given.entries):
                with Answers(None if place == "in memory" else Path(folder) / f"{entries}.db") as answers:
                    fill(answers, entries)
                    for row in rows(answers, place, entries, given.lookups):
                        print(row, flush=True)
    print(f"\nload {', '.join(f'{load:.1f}' for load in os.getloadavg())}")


def fill(answers: Answers, entries: int) -> None:
    """Keep so many answers, as steps do: one at a time, each under two keys."""
    for number in range(entries):
        key = answer_key(asked(number), MODEL, tenant="t", skill_version="v")
        completion = Completion(f"{number} {ANSWER}", "stop", Usage(500, 120), "served", 0.9)
        answers.put_under({f"r{number}/answer.0123456789#{key}": None, key: None}, completion, cost_usd_nano=10_000)


def rows(answers: Answers, place: str, entries: int, lookups: int) -> list[Row]:
    """Hits and misses."""
    chance = random.Random(0)
    told = f"{place}, {entries:,} entries"
    hits = [asked(chance.randrange(entries)) for _ in range(lookups)]
    misses = [asked(entries + number) for number in range(lookups)]
    return [
        timed(f"hit, {told}", hits, lambda request: look(answers, request, there=True)),
        timed(f"miss, {told}", misses, lambda request: look(answers, request, there=False)),
    ]


def look(answers: Answers, request: Request, *, there: bool) -> None:
    """One look-up as a step makes it."""
    key = answer_key(request, MODEL, tenant="t", skill_version="v")
    flight = answers.flights.claim(key)
    found = answers.first((f"run/answer.0123456789#{key}", key), max_output_tokens=256)
    if found is not None:
        answers.reused(found)
    assert flight is not None
    flight.land()
    assert (found is not None) is there


def timed(what: str, requests: Sequence[Request], act: Callable[[Request], None]) -> Row:
    """Each of `requests`, one after the other."""
    took: list[float] = []
    cpu = time.process_time()
    for request in requests:
        began = time.perf_counter()
        act(request)
        took.append(1e6 * (time.perf_counter() - began))
    return Row(what, sorted(took), 1e6 * (time.process_time() - cpu) / len(requests))


def asked(number: int) -> Request:
    """A question over the same passages."""
    question = f"{PASSAGES}\n\nCan order {number} be refunded?"
    return Request((Message("system", SYSTEM), Message("user", question)), max_output_tokens=256)
