"""Results as tables: one for a glance, one with every figure, and JSON."""

from __future__ import annotations

import json
import platform
from collections.abc import Iterable, Sequence
from decimal import Decimal

from evals.overspend.environments import Library
from evals.overspend.run import Result
from evals.overspend.scenarios import Scenario


def glance(results: Sequence[Result], libraries: Sequence[Library], scenarios: Sequence[Scenario]) -> str:
    """A row a library, a column a scenario: the verdict, calls refused by mistake, answers cut short."""
    found = {(result.library, result.scenario): result for result in results}
    rows = [
        [library.name, *(_cell(found.get((library.name, scenario.name))) for scenario in scenarios)]
        for library in libraries
    ]
    return _table(["", *(scenario.name for scenario in scenarios)], rows)


def figures(results: Sequence[Result], scenario: Scenario) -> str:
    """Every figure of one scenario, a row a library."""
    rows = [
        [
            result.library,
            _usd(result.billed_usd),
            "–" if result.said_usd is None else _usd(result.said_usd),
            str(result.requests),
            str(result.answered),
            str(result.refused),
            str(result.mistaken),
            str(result.failed),
            "; ".join(filter(None, [result.verdict, _cut(result), result.note])),
        ]
        for result in results
        if result.scenario == scenario.name
    ]
    heads = ["", "billed", "says", "requests", "answered", "refused", "by mistake", "failed", "verdict"]
    return f"### {scenario.name}: {scenario.title}\n\nCap {_usd(scenario.cap_usd)}.\n\n" + _table(heads, rows, right=7)


def markdown(results: Sequence[Result], libraries: Sequence[Library], scenarios: Sequence[Scenario]) -> str:
    """The whole report."""
    budgets = [scenario for scenario in scenarios if not scenario.caution]
    cautions = [scenario for scenario in scenarios if scenario.caution]
    parts = [
        *(["## Does the budget hold?", glance(results, libraries, budgets)] if budgets else []),
        *(["## What does care cost?", glance(results, libraries, cautions)] if cautions else []),
        "## What was compared",
        versions(libraries),
        "## Every figure",
        *(figures(results, scenario) for scenario in scenarios),
    ]
    return "\n\n".join(parts) + "\n"


def versions(libraries: Iterable[Library]) -> str:
    """Which versions, and how they were used."""
    rows = [[library.name, library.version, library.used] for library in libraries]
    return _table(["library", "version", "as used here"], rows, right=0) + f"\n\nPython {platform.python_version()}."


def as_json(results: Iterable[Result], libraries: Iterable[Library]) -> str:
    """Everything, for a program."""
    data = {
        "python": platform.python_version(),
        "versions": {library.name: library.version for library in libraries},
        "results": [result.to_dict() for result in results],
    }
    return json.dumps(data, indent=2, ensure_ascii=False) + "\n"


def _cell(result: Result | None) -> str:
    if result is None:
        return ""
    overspent = result.verdict.startswith("overspent")
    words = f"**{result.verdict.removeprefix('overspent ')}**" if overspent else result.verdict
    mistaken = f"{result.mistaken} by mistake" if result.mistaken else ""
    return ", ".join(filter(None, [words, mistaken, _cut(result)]))


def _cut(result: Result) -> str:
    return f"{result.cut} cut short" if result.cut else ""


def _usd(amount: Decimal) -> str:
    return f"${amount:.4f}"


def _table(heads: Sequence[str], rows: Iterable[Sequence[str]], *, right: int = 0) -> str:
    """A Markdown table; the `right` columns after the first are numbers."""
    rules = [" --: " if 0 < number <= right else " --- " for number in range(len(heads))]
    return (
        "\n".join(f"| {' | '.join(row)} |" for row in [heads])
        + "\n|"
        + "|".join(rules)
        + "|\n"
        + "\n".join(f"| {' | '.join(row)} |" for row in rows)
    )
