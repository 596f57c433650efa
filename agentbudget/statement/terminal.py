"""A statement in a terminal."""

from __future__ import annotations

from collections.abc import Sequence
from decimal import Decimal
from io import StringIO
from math import ceil
from typing import TYPE_CHECKING, Final

from agentbudget.history import Breakdown
from agentbudget.money import format_usd
from agentbudget.statement import words
from agentbudget.statement.fold import Line, SkillCost

if TYPE_CHECKING:
    from rich.console import Console, ConsoleOptions, RenderResult
    from rich.table import Table
    from rich.text import Text

    from agentbudget.statement import Statement

BAR: Final = 24
"""Width of a bar, in characters."""

_STYLES: Final = {
    "ok": "green",
    "cached": "cyan",
    "replayed": "cyan",
    "escalated": "magenta",
    "failed": "bold red",
    "unaccepted": "red",
    "cancelled": "red",
    "overrun": "bold yellow",
    "presumed": "yellow",
    "lapsed": "yellow",
    "open": "yellow",
    "voided": "dim",
}
_FACT_STYLES: Final = {"Overrun": "bold yellow", "Presumed": "yellow", "Held open": "yellow", "Failed": "red"}


class Terminal:
    """A rich renderable that leaves out columns, the least needed first, until the table fits."""

    def __init__(self, statement: Statement) -> None:
        self._statement = statement

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        from rich.text import Text

        statement = self._statement
        yield Text.assemble(("Statement", "bold"), f"  {words.heading(statement)}", overflow="fold")
        if (task := words.task(statement)) is not None:
            yield Text(f"“{task}”", style="italic", overflow="fold")
        yield Text()
        yield _table(statement, _fitting(statement, options.max_width))
        yield Text()
        yield _facts(statement)
        if len(statement.by_skill) > 1:
            yield Text("\nCost per skill", style="bold")
            yield _skills(statement.by_skill)
        if len(statement.made_of.parts) > 1:
            yield Text(f"\n{words.made_of_title(statement.made_of)}", style="bold")
            yield _parts(statement.made_of)


def plain_text(statement: Statement, width: int) -> str:
    """The statement without colours, no line wider than `width`."""
    from rich.console import Console

    console = Console(file=StringIO(), width=width, color_system=None, force_terminal=False, legacy_windows=False)
    with console.capture() as captured:
        console.print(Terminal(statement))
    return "\n".join(line.rstrip() for line in captured.get().splitlines())


def svg(statement: Statement, width: int) -> str:
    """The statement as a picture of a terminal."""
    from rich.console import Console

    console = Console(
        file=StringIO(), width=width, record=True, force_terminal=True, color_system="truecolor", legacy_windows=False
    )
    console.print(Terminal(statement))
    return console.export_svg(title="agentbudget")


def _fitting(statement: Statement, width: int) -> Sequence[words.Column]:
    columns = list(words.COLUMNS)
    while len(columns) > 2 and _width(statement, columns) > width:
        columns.remove(min(columns, key=lambda column: column.weight))
    return columns


def _width(statement: Statement, columns: Sequence[words.Column]) -> int:
    """Columns the table needs, if skills and models wrap at their longest word."""
    from rich.cells import cell_len

    places = words.decimals(statement)

    def needed(column: words.Column) -> int:
        cells = [column.cell(line, places) for line in statement.lines]
        cells += [column.title, column.total(statement.totals, places)]
        pieces = cells if column.number else [piece for cell in cells for piece in cell.split()]
        return max((cell_len(piece) for piece in pieces), default=0)

    return sum(min(needed(column), 20) for column in columns) + len(columns) - 1


def _table(statement: Statement, columns: Sequence[words.Column]) -> Table:
    from rich import box
    from rich.table import Table

    places = words.decimals(statement)
    table = Table(
        box=box.SIMPLE, show_edge=False, show_footer=True, padding=0, footer_style="bold", header_style="bold"
    )
    for column in columns:
        table.add_column(
            column.title,
            column.total(statement.totals, places),
            justify="right" if column.number else "left",
            no_wrap=column.number,
            overflow="fold",
        )
    for line in statement.lines:
        table.add_row(*(_cell(column, line, places) for column in columns), style="dim" if line.depth else None)
    return table


def _cell(column: words.Column, line: Line, places: int) -> Text:
    from rich.text import Text

    shown = column.cell(line, places)
    if column.title == "Status":
        return Text(shown, style=_STYLES.get(shown, ""))
    return Text(shown, style="dim" if shown in ("0", words.UNKNOWN) else "")


def _facts(statement: Statement) -> Table:
    from rich.table import Table
    from rich.text import Text

    grid = Table.grid(padding=(0, 2))
    grid.add_column(no_wrap=True, style="dim")
    grid.add_column(overflow="fold")
    for name, value in words.facts(statement):
        grid.add_row(Text(name), Text(value, style=_FACT_STYLES.get(name, "")))
    return grid


def _parts(made_of: Breakdown) -> Table:
    from rich.table import Table
    from rich.text import Text

    grid = Table.grid(padding=(0, 2))
    grid.add_column(no_wrap=True)
    grid.add_column(no_wrap=True, min_width=BAR)
    for _ in range(2):
        grid.add_column(justify="right", no_wrap=True)
    most = max(part.tokens for part in made_of.parts)
    for part in made_of.parts:
        bar = Text("█" * ceil(BAR * part.tokens / most), style="blue")
        grid.add_row(Text(part.name), bar, words.plural(part.tokens, "token"), format_usd(part.usd_nano))
    return grid


def _skills(costs: Sequence[SkillCost]) -> Table:
    from rich.table import Table
    from rich.text import Text

    grid = Table.grid(padding=(0, 2))
    grid.add_column(overflow="fold")
    grid.add_column(no_wrap=True, min_width=BAR)
    for _ in range(3):
        grid.add_column(justify="right", no_wrap=True)
    most = max((cost.share for cost in costs), default=Decimal(0)) or Decimal(1)
    for cost in costs:
        grid.add_row(
            Text(words.plain(cost.skill)),
            Text("█" * ceil(BAR * cost.share / most), style="blue"),
            f"{100 * cost.share:.0f} %",
            format_usd(cost.cost.usd_nano),
            f"{words.plural(cost.steps, 'step')}",
        )
    return grid
