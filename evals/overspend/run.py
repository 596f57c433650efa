"""One library through one scenario: its driver in its own environment, and what the provider's bill says of it."""

from __future__ import annotations

import asyncio
import json
import math
import os
import signal
import tempfile
from asyncio.subprocess import Process, create_subprocess_exec
from dataclasses import dataclass
from decimal import Decimal
from pathlib import Path
from typing import Any, Final

from evals.overspend.environments import HERE, Library
from evals.overspend.provider import Provider
from evals.overspend.scenarios import Scenario

TIMEOUT_S: Final = 300.0
"""After this a driver is stopped, and what was billed until then is reported."""

ALL_HERE_S: Final = 5.0
"""A process is killed when all of its requests have come, or no further one has for so long."""

SAME_USD: Final = Decimal("0.0000005")
"""Figures that differ by less are the same: most libraries keep floats, and ours rounds up to a nano-dollar."""


TOO_MANY_TIMES: Final = 10
"""From here on a percentage says less than a factor."""


@dataclass(frozen=True, slots=True)
class Result:
    """What one library did with one scenario.

    ``billed_usd`` is the provider's word, ``said_usd`` the library's (None: it has no such figure). ``mistaken`` are
    calls that it refused although the budget had room for them. ``cut`` are answers that ended early because the
    library put a cap into a request that had none. ``problem`` says why there is no result.
    """

    library: str
    scenario: str
    cap_usd: Decimal
    billed_usd: Decimal
    requests: int
    said_usd: Decimal | None = None
    answered: int = 0
    refused: int = 0
    failed: int = 0
    mistaken: int = 0
    cut: int = 0
    errors: tuple[str, ...] = ()
    note: str = ""
    problem: str | None = None

    @property
    def verdict(self) -> str:
        """The bill against the cap, then against what the library says."""
        if self.problem is not None:
            return f"not supported: {self.problem}"
        if self.billed_usd > self.cap_usd:
            return f"overspent ×{self.billed_usd / self.cap_usd:.2f}"
        if self.requests == 0:
            return "refused all"
        if self.said_usd is None:
            return "within the cap, no figure"
        if abs(self.said_usd - self.billed_usd) <= SAME_USD:
            return "exact"
        share = self.said_usd / self.billed_usd
        return f"says ×{share:.0f}" if share >= TOO_MANY_TIMES else f"says {share - 1:+.0%}"

    def to_dict(self) -> dict[str, Any]:
        """As JSON: amounts as decimal strings."""
        return {
            "library": self.library,
            "scenario": self.scenario,
            "verdict": self.verdict,
            "cap_usd": str(self.cap_usd),
            "billed_usd": str(self.billed_usd),
            "said_usd": None if self.said_usd is None else str(self.said_usd),
            "requests": self.requests,
            "answered": self.answered,
            "refused": self.refused,
            "refused_by_mistake": self.mistaken,
            "failed": self.failed,
            "cut_short": self.cut,
            "errors": list(self.errors),
            "note": self.note,
        }


def not_played(library: Library, scenario: Scenario, why: str) -> Result:
    """The result of what could not be tried."""
    return Result(library.name, scenario.name, scenario.cap_usd, Decimal(0), 0, problem=why)


async def run(library: Library, python: Path, scenario: Scenario) -> Result:
    """Play `scenario` with `library`'s driver under the interpreter `python`."""
    with tempfile.TemporaryDirectory(prefix="overspend-") as name:
        folder = Path(name)
        async with Provider(scenario) as provider:
            problem = await _play(library, python, scenario, provider, folder)
            return _judge(library, scenario, provider, folder, problem)


async def _play(library: Library, python: Path, scenario: Scenario, provider: Provider, folder: Path) -> str | None:
    """Run the driver, twice if the first is killed; what went wrong, or None."""
    if scenario.crash:
        doomed = await _start(library, python, scenario, provider, folder, phase=1)
        try:
            async with asyncio.timeout(TIMEOUT_S):
                await provider.gathered(scenario.waves[0], scenario.waves[0].calls, quiet_s=ALL_HERE_S)
        finally:
            await _kill(doomed)
    driver = await _start(library, python, scenario, provider, folder, phase=2 if scenario.crash else 0)
    try:
        async with asyncio.timeout(TIMEOUT_S):
            code = await driver.wait()
    except TimeoutError:
        return f"not done after {TIMEOUT_S:g} s"
    finally:
        await _kill(driver)
    return None if code == 0 else f"the driver ended with {code}: {_last_line(folder / 'driver.log')}"


async def _start(
    library: Library, python: Path, scenario: Scenario, provider: Provider, folder: Path, *, phase: int
) -> Process:
    script = scenario.to_job()
    if phase:
        script["waves"] = script["waves"][:1] if phase == 1 else script["waves"][1:]
    job = folder / f"job-{phase}.json"
    told = {"scenario": script, "base_url": provider.url, "folder": str(folder), "phase": phase}
    job.write_text(json.dumps(told), encoding="utf-8")
    paths = [str(HERE), str(HERE.parents[1])] if library.ours else [str(HERE)]
    environment = {
        **{name: value for name, value in os.environ.items() if not name.startswith(("OPENAI_", "AGENTBUDGET_"))},
        "PYTHONPATH": os.pathsep.join(paths),
        "PYTHONDONTWRITEBYTECODE": "1",
        "LITELLM_LOCAL_MODEL_COST_MAP": "True",  # else its import asks the network for newer prices
    }
    with (folder / "driver.log").open("ab") as log:
        return await create_subprocess_exec(
            python,
            "-m",
            f"drivers.{library.driver}",
            job,
            cwd=folder,
            env=environment,
            stdout=log,
            stderr=log,
            start_new_session=True,
        )


async def _kill(process: Process) -> None:
    """Kill -9 the driver and whatever it started: they are a session of their own."""
    try:
        os.killpg(process.pid, signal.SIGKILL)
    except ProcessLookupError:
        return
    await process.wait()


def _last_line(log: Path) -> str:
    lines = log.read_text(encoding="utf-8", errors="replace").split("\n")
    return next((line.strip()[:200] for line in reversed(lines) if line.strip()), "")


def _judge(library: Library, scenario: Scenario, provider: Provider, folder: Path, problem: str | None) -> Result:
    billed = provider.billed_usd
    cap = scenario.cap_usd
    base = Result(library.name, scenario.name, cap, billed, len(provider.bills), problem=problem)
    if problem is not None:
        return base
    told = json.loads((folder / "result.json").read_text(encoding="utf-8"))
    room = math.floor(max(Decimal(0), cap - billed) / scenario.call_usd(len(scenario.waves) - 1))
    uncapped = scenario.waves[-1].max_tokens is None
    return Result(
        library.name,
        scenario.name,
        cap,
        billed,
        len(provider.bills),
        said_usd=None if told["said_usd"] is None else Decimal(told["said_usd"]),
        answered=told["answered"],
        refused=told["refused"],
        failed=told["failed"],
        mistaken=min(told["refused"], room) if scenario.price_known else 0,
        cut=sum(bill.output_tokens < bill.wanted_tokens for bill in provider.bills) if uncapped else 0,
        errors=tuple(f"{count} × {error}" for error, count in told["errors"].items()),
        note=told["note"],
    )
