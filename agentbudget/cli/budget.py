"""``agentbudget budget suggest``."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from agentbudget.cli.base import console, home_option, json_option, print_json
from agentbudget.cli.options import ledger_option, look_into

if TYPE_CHECKING:
    from rich.table import Table

    from agentbudget.suggest import Suggestion


@click.group()
def budget() -> None:
    """Budgets, from what was spent."""


@budget.command("suggest")
@click.argument("skill", required=False)
@click.option("--level", type=float, default=0.95, show_default=True, help="The share that a budget should cover.")
@click.option(
    "--last", type=click.IntRange(1), default=1000, show_default=True, help="How many of each to look back on."
)
@ledger_option
@home_option
@json_option
def suggest_command(
    skill: str | None, level: float, last: int, where: str | None, home: Path | None, as_json: bool
) -> None:
    """Propose budgets for runs, steps and calls (of one SKILL, or of all) from the ledger's history.

    A budget is the split-conformal quantile of each unit: "promised" is the share of further ones that it covers if
    they are like the past, "covered" how many of those looked at it would have.
    """
    from agentbudget.suggest import suggest

    with look_into(home, where) as ledger:
        found = suggest(ledger, level=level, last=last)
    if skill is not None:
        found = [s for s in found if s.name == skill or s.name.startswith(f"{skill} on ")]
    if as_json:
        print_json([suggestion.to_dict() for suggestion in found])
    elif not found:
        click.echo("nothing was spent yet: run something first")
    else:
        console().print(_table(found))


def _table(found: list[Suggestion]) -> Table:
    from rich import box
    from rich.table import Table

    from agentbudget.cli.tables import told
    from agentbudget.ledger import limits, units

    table = Table(box=box.SIMPLE, header_style="bold")
    for name in ("for a", "of", "suggested", "typical", "most"):
        table.add_column(name, overflow="fold")
    for name in ("seen", "covered", "promised"):
        table.add_column(name, justify="right")
    for each in found:
        amounts = (told(limits(each.budget)), told(units(each.typical)), told(units(each.most)))
        shares = (f"{each.samples:,}", f"{each.covered:.1%}", f"{each.promised:.1%}")
        table.add_row(each.kind, each.name, *amounts, *shares)
    return table
