"""``agentbudget ledger entries | export | verify | reprice``: what reads the journal."""

from __future__ import annotations

import sys
from pathlib import Path

import click

from agentbudget.cli.base import EXIT_ERROR, console, home_option, json_option, print_json, printable
from agentbudget.cli.options import ledger_option, look_into

DEFAULT_LAST = 50


@click.command()
@click.option("--last", type=click.IntRange(1), help=f"The last so many [{DEFAULT_LAST}, unless --after is given].")
@click.option("--after", type=click.IntRange(0, 2**62), help="From the entry after this one on.")
@click.option("--limit", type=click.IntRange(1), default=DEFAULT_LAST, show_default=True, help="At most so many.")
@click.option("--subject", help="Only those of this hold or account.")
@ledger_option
@home_option
@json_option
def entries(
    last: int | None,
    after: int | None,
    limit: int,
    subject: str | None,
    where: str | None,
    home: Path | None,
    as_json: bool,
) -> None:
    """The journal: its last entries, or those after one."""
    from agentbudget.cli import tables
    from agentbudget.ledger.export import entry_row

    with look_into(home, where) as opened:
        if after is None or last is not None:
            found = opened.entries(after=after or 0, last=last or limit, subject=subject)
        else:
            found = opened.entries(after=after, limit=limit, subject=subject)
    if as_json:
        print_json([entry_row(entry) for entry in found])
    elif found:
        screen = console()
        screen.print(tables.entries_table(found, width=screen.width))
    else:
        click.echo("no entries", err=True)


@click.command()
@click.argument("path", type=click.Path(path_type=Path))
@ledger_option
@home_option
@json_option
def export(path: Path, where: str | None, home: Path | None, as_json: bool) -> None:
    """Write the whole journal to PATH: .jsonl, .jsonl.gz or .parquet."""
    from agentbudget.console import RunView

    with look_into(home, where) as opened, RunView(quiet=as_json) as view:
        done = opened.export(path, on_page=view.exporting)
    if as_json:
        print_json({"path": str(done.path), "entries": done.entries, "head": done.head})
    else:
        click.echo(f"{done.entries:,} entries in {done.path}; the last hash is {done.head or 'none'}")


@click.command()
@click.option(
    "--export",
    "exported",
    type=click.Path(path_type=Path),
    help="Check an exported journal instead; no ledger is needed.",
)
@click.option("--head", help="With --export: the last hash that it must have.")
@ledger_option
@home_option
@json_option
def verify(exported: Path | None, head: str | None, where: str | None, home: Path | None, as_json: bool) -> None:
    """Recompute every balance, and the chain of hashes, from the entries; exit 1 if anything differs."""
    if exported is not None:
        problems, told = verified_export(exported, head)
    elif head is not None:
        raise click.UsageError("--head goes with --export")
    else:
        problems, told = verified(home, where)
    if as_json:
        print_json({"ok": not problems, **told, "problems": list(problems)})
    else:
        for problem in problems:
            click.secho(problem, fg="red", err=True)
        verdict = f"{len(problems)} problem{'s' * (len(problems) != 1)} in" if problems else "verified"
        counts = ", ".join(f"{n:,} {what}" for what, n in told.items() if isinstance(n, int))
        click.echo(f"{verdict}: {counts}" + (f"; the last hash is {told['head']}" if "head" in told else ""))
    if problems:
        sys.exit(EXIT_ERROR)


def verified(home: Path | None, where: str | None) -> tuple[tuple[str, ...], dict[str, int | str]]:
    """What is wrong with a ledger, and what was checked."""
    with look_into(home, where) as opened:
        found = opened.verify()
    return found.problems, {"entries": found.entries, "holds": found.holds, "accounts": found.accounts}


def verified_export(path: Path, head: str | None) -> tuple[tuple[str, ...], dict[str, int | str]]:
    """What is wrong with an exported journal, and what was checked."""
    from agentbudget.ledger import verify_export

    found = verify_export(path, head=head)
    return found.problems, {"entries": found.entries, "head": found.head}


@click.command()
@click.option("--prices", "sheet", type=click.Path(path_type=Path), required=True, help="A price sheet: TOML or JSON.")
@click.option("--run", "run_id", help="Only the calls of this run.")
@click.option("--keep-others", is_flag=True, help="Models that the sheet does not list keep the price they had.")
@ledger_option
@home_option
@json_option
def reprice(
    sheet: Path, run_id: str | None, keep_others: bool, where: str | None, home: Path | None, as_json: bool
) -> None:
    """What past calls would have cost under another price sheet. Changes nothing."""
    from agentbudget import reprice as repricing
    from agentbudget.cli import tables
    from agentbudget.errors import UnknownRun
    from agentbudget.money import format_usd
    from agentbudget.prices import PriceSheet

    prices = PriceSheet.load(sheet)
    with look_into(home, where) as opened:
        holds = opened.holds(prefix="" if run_id is None else f"{run_id}/")
    if run_id is not None and not holds:
        raise UnknownRun(f"this ledger has nothing of a run {run_id!r}")
    found = repricing.reprice(holds, prices, keep_others=keep_others)
    if as_json:
        print_json(found.to_dict())
        return
    screen = console()
    for table in tables.repriced_tables(found):
        screen.print(table)
    for call in found.unknown:
        screen.print(printable(f"not priced: {call.hold_id}: {call.why}"), style="yellow", markup=False)
    if found.other_usd_nano:
        click.echo(f"not model calls, and the same under any sheet: {format_usd(found.other_usd_nano)}")
