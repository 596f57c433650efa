"""What all drivers share: read the job, play its waves, count what came of the calls, write the result.

Standard library only, for it runs in every library's own environment.
"""

from __future__ import annotations

import asyncio
import json
import sys
from collections import Counter
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from decimal import Decimal
from pathlib import Path

KEY = "sk-nobody-checks-this"


class Refused(Exception):
    """A driver's own check said no, where the library tells whether a call fits and leaves the rest to its user."""


@dataclass(frozen=True)
class Call:
    """One call to make. `leave_after`: read so many tokens of a stream, then hang up."""

    model: str
    prompt: str
    max_tokens: int | None
    timeout_s: float
    leave_after: int | None

    @property
    def messages(self) -> list[dict[str, str]]:
        return [{"role": "user", "content": self.prompt}]

    @property
    def cap(self) -> dict[str, int]:
        """``max_tokens`` as keyword arguments, where the caller gave one."""
        return {} if self.max_tokens is None else {"max_tokens": self.max_tokens}


@dataclass(frozen=True)
class Job:
    """One scenario as a driver sees it. `phase` is 1 for the process that will be killed, 2 for the one after it."""

    scenario: str
    model: str
    cap_usd: Decimal
    waves: list[dict]
    base_url: str
    folder: Path
    phase: int

    @classmethod
    def read(cls, path: str) -> Job:
        told = json.loads(Path(path).read_text())
        script = told["scenario"]
        return cls(
            scenario=script["name"],
            model=script["model"],
            cap_usd=Decimal(script["cap_usd"]),
            waves=script["waves"],
            base_url=told["base_url"],
            folder=Path(told["folder"]),
            phase=told["phase"],
        )

    @property
    def cap(self) -> float:
        """The budget as most libraries take it."""
        return float(self.cap_usd)

    @property
    def streams(self) -> bool:
        return any(wave["leave_after"] is not None for wave in self.waves)

    def calls(self, wave: dict) -> list[Call]:
        keys = ("max_tokens", "timeout_s", "leave_after")
        return [Call(self.model, prompt, **{key: wave[key] for key in keys}) for prompt in wave["prompts"]]


class Driver:
    """One library in use. `refusals` are the errors by which it says that a call does not fit the budget."""

    refusals: tuple[type[BaseException], ...] = ()
    note: str = ""

    def __init__(self, job: Job) -> None:
        self.job = job

    async def open(self) -> None:
        """Make ready, once."""

    async def ask(self, call: Call) -> None:
        """Make one call, in the library's own way."""
        raise NotImplementedError

    async def said(self) -> float | Decimal | None:
        """What the library says is gone from the budget: spent, held or presumed. None if it has no such figure."""
        raise NotImplementedError

    async def close(self) -> None:
        """Give back what was opened."""

    @contextmanager
    def child(self, number: int, cap_usd: Decimal) -> Iterator[Callable[[Call], Awaitable[None]]]:
        """A child agent with a budget of its own under this one; where there is none, the parent's."""
        yield self.ask


@dataclass
class Outcomes:
    answered: int = 0
    refused: int = 0
    failed: int = 0
    errors: Counter[str] = field(default_factory=Counter)
    words: dict[str, str] = field(default_factory=dict)

    def note(self, error: BaseException) -> None:
        """Count an error by its type, and keep the words of the first."""
        kind = type(error).__name__
        self.errors[kind] += 1
        self.words.setdefault(kind, " ".join(str(error).split())[:200])


def play(driver_of: Callable[[Job], Driver]) -> None:
    """Play the job that the command line names, and write its result."""
    asyncio.run(_play(driver_of, sys.argv[1]))


async def _play(driver_of: Callable[[Job], Driver], path: str) -> None:
    job = Job.read(path)
    driver = driver_of(job)
    outcomes = Outcomes()
    await driver.open()
    try:
        for wave in job.waves:
            await _wave(driver, wave, outcomes)
        said = await driver.said()
    finally:
        await driver.close()
    result = {
        "said_usd": None if said is None else str(Decimal(str(said))),
        "answered": outcomes.answered,
        "refused": outcomes.refused,
        "failed": outcomes.failed,
        "errors": {f"{kind}: {outcomes.words[kind]}": count for kind, count in outcomes.errors.most_common()},
        "note": driver.note,
    }
    (job.folder / "result.json").write_text(json.dumps(result))


async def _wave(driver: Driver, wave: dict, outcomes: Outcomes) -> None:
    calls = driver.job.calls(wave)
    if wave["at_once"]:
        await asyncio.gather(*(_ask(driver, driver.ask, call, outcomes) for call in calls))
    elif wave["children"]:
        await _children(driver, calls, wave["children"], outcomes)
    else:
        for call in calls:
            await _ask(driver, driver.ask, call, outcomes)


async def _children(driver: Driver, calls: list[Call], children: int, outcomes: Outcomes) -> None:
    share = driver.job.cap_usd * 2 / children

    async def work(number: int) -> None:
        with driver.child(number, share) as ask:
            for call in calls[number::children]:
                await _ask(driver, ask, call, outcomes)

    for ended in await asyncio.gather(*map(work, range(children)), return_exceptions=True):
        if isinstance(ended, BaseException):
            outcomes.note(ended)


async def _ask(driver: Driver, ask: Callable[[Call], Awaitable[None]], call: Call, outcomes: Outcomes) -> None:
    try:
        await ask(call)
    except (Refused, *driver.refusals) as error:
        outcomes.refused += 1
        outcomes.note(error)
    except Exception as error:  # noqa: BLE001 # whatever a library raises, its other callers go on
        outcomes.failed += 1
        outcomes.note(error)
    else:
        outcomes.answered += 1
