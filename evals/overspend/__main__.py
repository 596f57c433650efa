"""Play every scenario with every library: `python -m evals.overspend --out FOLDER`.

The libraries are installed once, each in an environment of its own in the user's cache folder; nothing is sent to any
address but this machine's own. Progress goes to standard error, the tables to standard output.
"""

from __future__ import annotations

import argparse
import asyncio
import subprocess
import sys
import time
from pathlib import Path
from typing import Final

from evals.overspend import report
from evals.overspend.environments import LIBRARIES, Library, python_of
from evals.overspend.run import Result, not_played, run
from evals.overspend.scenarios import SCENARIOS, Scenario

STARTED: Final = time.monotonic()


def main() -> None:
    """Install, play, print."""
    parser = argparse.ArgumentParser(
        prog="python -m evals.overspend", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--only", metavar="NAMES", help=f"of {', '.join(each.driver for each in LIBRARIES)}")
    parser.add_argument("--scenario", metavar="NAMES", help=f"of {', '.join(each.name for each in SCENARIOS)}")
    parser.add_argument("--out", type=Path, metavar="FOLDER", help="write overspend.md and overspend.json here as well")
    given = parser.parse_args()
    wanted, titles = _chosen(given.only), _chosen(given.scenario)
    libraries = [each for each in LIBRARIES if not wanted or each.driver in wanted]
    scenarios = [each for each in SCENARIOS if not titles or each.name in titles]
    if unknown := (wanted | titles) - {each.driver for each in LIBRARIES} - {each.name for each in SCENARIOS}:
        parser.error(f"no library or scenario is called {', '.join(sorted(unknown))}")
    results: list[Result] = []
    for count, library in enumerate(libraries, 1):
        results += asyncio.run(_play(library, scenarios))
        if given.out is not None:  # after each library: it takes an hour on a busy machine
            _write(given.out, results, libraries[:count], scenarios)
    print(report.markdown(results, libraries, scenarios), end="")


def _chosen(names: str | None) -> set[str]:
    return {name.strip() for name in names.split(",")} if names else set()


async def _play(library: Library, scenarios: list[Scenario]) -> list[Result]:
    """One scenario after the other: what is measured is not disturbed by what else is measured."""
    try:
        python = python_of(library, _tell)
    except (OSError, subprocess.CalledProcessError) as error:
        _tell(f"no environment for {library.name}: {error}")
        return [not_played(library, scenario, "it could not be installed") for scenario in scenarios]
    results: list[Result] = []
    for scenario in scenarios:
        result = await run(library, python, scenario)
        results.append(result)
        _tell(f"{library.name}, {scenario.name}: {result.verdict}")
    return results


def _write(folder: Path, results: list[Result], libraries: list[Library], scenarios: list[Scenario]) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "overspend.md").write_text(report.markdown(results, libraries, scenarios), encoding="utf-8")
    (folder / "overspend.json").write_text(report.as_json(results, libraries), encoding="utf-8")


def _tell(words: str) -> None:
    print(f"[{time.monotonic() - STARTED:5.0f} s] {words}", file=sys.stderr, flush=True)


if __name__ == "__main__":
    try:
        main()
    except KeyboardInterrupt:
        sys.exit("interrupted; --out has the libraries that were done")
