"""``agentbudget budget suggest``: which budgets the ledger's history proposes."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import click

from agentbudget.cli.base import console, home_option, json_option, print_json
from agentbudget.cli.options import ledger_option, look_into, with_options

if TYPE_CHECKING:
    from rich.table import Table

    from agentbudget.estimate.suggest import Scope, Suggestion

common: Final = (ledger_option, home_option, json_option)


@click.group()
def budget() -> None:
    """Budgets, from what runs and skills have cost."""


@budget.command("suggest")
@click.option(
    "--level",
    type=click.FloatRange(0, 1, min_open=True, max_open=True),
    default=0.95,
    show_default=True,
    help="The share of runs, steps and days that should stay within their budget.",
)
@click.option(
    "--for",
    "scopes",
    type=click.Choice(["run", "step", "day"]),
    multiple=True,
    help="Only for a run, for one step of a skill, or for a day of a skill; may be given more than once.",
)
@with_options(common)
def budget_suggest(
    level: float, scopes: tuple[Scope, ...], where: str | None, home: Path | None, as_json: bool
) -> None:
    """Propose budgets for a run, for a step of each skill, and for a day of each skill.

    They have room for what is held while it goes on, which is more than it costs in the end.
    """
    from agentbudget.estimate.suggest import SCOPES, suggest

    with look_into(home, where) as opened:
        found = suggest(opened, level=level, scopes=scopes or SCOPES)
    if as_json:
        print_json([_row(suggestion, level) for suggestion in found])
    elif found:
        console().print(_table(found, level))
        if any(suggestion.few for suggestion in found):
            click.echo("* too few for this level: room for the largest of them, and a quarter", err=True)
    else:
        click.echo("the ledger has no settled steps yet: run something first", err=True)


def _row(suggestion: Suggestion, level: float) -> dict[str, Any]:
    from agentbudget.cli.tables import amount_row

    return {
        "scope": suggestion.scope,
        "skill": suggestion.name or None,
        "account": suggestion.account,
        "level": level,
        "count": suggestion.count,
        "few": suggestion.few,
        "covered_in_hindsight": suggestion.covered,
        "median": amount_row(suggestion.median),
        "largest": amount_row(suggestion.largest),
        "proposed": amount_row(suggestion.proposed),
    }


def _table(found: list[Suggestion], level: float) -> Table:
    from rich.table import Table
    from rich.text import Text

    from agentbudget.cli.tables import NONE, told

    table = Table("Budget of", "Seen", "Median cost", "Largest cost", f"Proposed for {level:.4g}", "Kept in hindsight")
    for column in (table.columns[1], table.columns[5]):
        column.justify = "right"
    for each in found:
        amounts = (each.median, each.largest, each.proposed)
        cells = [told((a.usd_nano, a.tokens, a.calls)).replace(", ", "\n") for a in amounts]
        table.add_row(
            Text({"run": "a run", "step": f"a step of {each.name}", "day": f"a day of {each.name}"}[each.scope]),
            f"{each.count:,}",
            *cells[:2],
            cells[2] + " *" * each.few,
            NONE if each.covered is None else f"{each.covered:.0%}",
        )
    return table
