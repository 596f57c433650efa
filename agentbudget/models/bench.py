"""How fast a model is on this machine: real calls, and the two speeds that explain the time they took."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from random import Random
from statistics import median
from typing import Final

from agentbudget.errors import InvalidOutput
from agentbudget.models import machine
from agentbudget.models.base import Message, Meter, Model, Request
from agentbudget.models.speeds import Speed
from agentbudget.usage import Usage

Progress = Callable[[int, int, str], None]
"""Called with calls done, calls in all, and what is being done."""

WORDS: Final = ("time", "year", "people", "way", "day", "thing", "woman", "life", "child", "world", "school", "group")

READ: Final = 400
"""Words of the calls that read much and write one token."""

WRITE: Final = 96
"""Tokens of the calls that read little and write much."""

LEAST: Final = 8
"""Written tokens below which the speed of writing cannot be told from the rest."""

RUNS: Final = 3

NS_PER_S: Final = 10**9


@dataclass(frozen=True, slots=True)
class _Call:
    """New tokens read, tokens written, and the seconds of both."""

    read: int
    written: int
    seconds: float


async def bench(
    model: Model, *, runs: int = RUNS, read: int = READ, write: int = WRITE, on_progress: Progress | None = None
) -> Speed:
    """Measure `model`: `runs` calls that read much, as many that write much; of each kind the median counts.

    ``read`` is words, ``write`` tokens.

    A call takes ``read / prefill + written / decode`` seconds; two kinds of calls give both speeds. Raises
    `InvalidOutput` if the model writes next to nothing, and what the model raises.
    """
    say = on_progress or _nobody
    say(0, 2 * runs, "loading")
    await _call(model, _talk("Say yes.", "warm up"), 1)
    reads: list[_Call] = []
    writes: list[_Call] = []
    for run in range(runs):
        say(2 * run, 2 * runs, "reading")
        reads.append(await _call(model, _text(run, read), 1))
        say(2 * run + 1, 2 * runs, "writing")
        writes.append(await _call(model, _talk("Count aloud from one to two hundred, in words.", f"run {run}"), write))
    say(2 * runs, 2 * runs, "done")
    if min(call.written for call in writes) < LEAST:
        raise InvalidOutput(f"{model.name} writes too little for its speed to be measured", model=model.name)
    return _solved(_median(reads), _median(writes))


async def _call(model: Model, messages: tuple[Message, ...], most: int) -> _Call:
    meter = Meter()
    answer = await model.complete(Request(messages, max_output_tokens=most), meter)
    used: Usage = answer.usage
    return _Call(used.input_tokens - used.cached_tokens, used.output_tokens, used.compute_ns / NS_PER_S)


def _text(run: int, words: int) -> tuple[Message, ...]:
    """A long text that differs from the first word on: what an engine keeps of an earlier one does not help."""
    chance = Random(run)
    return _talk(f"{chance.random()} " + " ".join(chance.choice(WORDS) for _ in range(words)), f"text {run}")


def _talk(question: str, system: str) -> tuple[Message, ...]:
    return (Message("system", f"{system}."), Message("user", question))


def _median(calls: Sequence[_Call]) -> _Call:
    """The calls of one kind as one. The parts are alike from call to call, but for the time."""
    return _Call(
        round(median(call.read for call in calls)),
        round(median(call.written for call in calls)),
        median(call.seconds for call in calls),
    )


def _solved(reading: _Call, writing: _Call) -> Speed:
    """The two speeds from two equations: Cramer's rule for seconds a token."""
    determinant = reading.read * writing.written - writing.read * reading.written
    read_s = (reading.seconds * writing.written - writing.seconds * reading.written) / determinant
    write_s = (reading.read * writing.seconds - writing.read * reading.seconds) / determinant
    # On a machine that something else stopped in mid-call, time may not fit: what was seen is then a lower bound.
    prefill = 1 / read_s if read_s > 0 else reading.read / reading.seconds
    decode = 1 / write_s if write_s > 0 else writing.written / writing.seconds
    now = datetime.now(UTC).isoformat(timespec="seconds")
    return Speed(round(prefill, 2), round(decode, 2), now, machine.name())


def _nobody(_done: int, _total: int, _what: str) -> None:
    """Nobody watches."""
