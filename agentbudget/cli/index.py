"""``agentbudget index``."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from agentbudget.cli.base import check_documents, home_option, json_option, print_json, printable
from agentbudget.cli.options import ledger_option, settings_for
from agentbudget.tenants import DEFAULT_TENANT, payers

if TYPE_CHECKING:
    from agentbudget.context import IndexPlan, IndexReport
    from agentbudget.context.update import Rebuild
    from agentbudget.settings import Settings


def _metadata(_context: click.Context, _option: click.Parameter, given: tuple[str, ...]) -> dict[str, dict[str, str]]:
    """``GLOB:KEY=VALUE`` → pattern → key → value."""
    found: dict[str, dict[str, str]] = {}
    for text in given:
        pattern, _, pair = text.rpartition(":")
        key, equals, value = pair.partition("=")
        if not pattern or not key or not equals:
            raise click.BadParameter(f"{text!r} is not GLOB:KEY=VALUE, such as 'hr/*:team=hr'")
        found.setdefault(pattern, {})[key] = value
    return found


@click.command()
@click.argument("folder", type=click.Path(path_type=Path))
@click.option("--plan", "only_plan", is_flag=True, help="Say what there is to do and what it costs, and do nothing.")
@click.option("--rebuild", is_flag=True, help="Start afresh: embed everything again.")
@click.option("--recut", is_flag=True, help="After a new version of the chunker: embed what it cuts otherwise.")
@click.option("--budget", "usd", help="Dollars that embedding may cost; what is embedded before they are out is kept.")
@click.option("--user", help="Who it is for: an account that pays along.")
@click.option("--feature", help="What it is part of: an account that pays along.")
@click.option("--processes", type=click.IntRange(1), default=1, show_default=True, help="Processes that embed at once.")
@click.option("--metadata", multiple=True, metavar="GLOB:KEY=VALUE", callback=_metadata, help="What is known of files.")
@click.option("--embedder", help="The embedding model, such as openai:text-embedding-3-small [one on this machine].")
@ledger_option
@home_option
@json_option
def index(
    folder: Path,
    only_plan: bool,
    rebuild: bool,
    recut: bool,
    usd: str | None,
    user: str | None,
    feature: str | None,
    processes: int,
    metadata: Mapping[str, Mapping[str, str]],
    embedder: str | None,
    where: str | None,
    home: Path | None,
    as_json: bool,
) -> None:
    """Index FOLDER, or bring its index up to date: only what changed is embedded, paid for, and booked."""
    check_documents(folder)
    settings = settings_for(home, where)
    how: dict[str, Any] = {"metadata": metadata or None, "rebuild": _rebuild(rebuild, recut)}
    if only_plan:
        _show_plan(asyncio.run(_plan(settings, folder, embedder, how)), as_json)
        return
    how["processes"] = processes
    accounts = payers(DEFAULT_TENANT, user=user, feature=feature)
    run_id, report = asyncio.run(_update(settings, folder, embedder, how, usd=usd, accounts=accounts, quiet=as_json))
    _show_report(run_id, report, as_json)


def _rebuild(rebuild: bool, recut: bool) -> Rebuild:
    if rebuild and recut:
        raise click.UsageError("--rebuild embeds everything, --recut what is cut otherwise: give one of them")
    return "changed" if recut else rebuild


async def _plan(settings: Settings, folder: Path, embedder: str | None, how: Mapping[str, Any]) -> IndexPlan:
    from agentbudget.home import open_folder_index
    from agentbudget.models import machine_price

    async with open_folder_index(settings, folder, embedder=embedder) as opened:
        return await opened.plan(folder, machine=machine_price(settings), **how)


async def _update(
    settings: Settings,
    folder: Path,
    embedder: str | None,
    how: Mapping[str, Any],
    *,
    usd: str | None,
    accounts: Sequence[str],
    quiet: bool,
) -> tuple[str, IndexReport]:
    """Update the index on an account of its own, whose limit is the budget."""
    from agentbudget.console import RunView
    from agentbudget.home import open_folder_index
    from agentbudget.indexing import update_within
    from agentbudget.ledger import Ledger
    from agentbudget.models import machine_price
    from agentbudget.money import Budget
    from agentbudget.runs import new_run_id

    machine, run_id = machine_price(settings), f"index-{new_run_id()}"
    async with open_folder_index(settings, folder, embedder=embedder) as opened:
        with Ledger.open(settings.ledger_location) as ledger, RunView(quiet=quiet, machine=machine) as view:
            ledger.account(f"run/{run_id}", limit=None if usd is None else Budget(usd=usd))
            for name in accounts:
                ledger.account(name)
            payers = [f"run/{run_id}", *accounts]
            report = await update_within(
                opened,
                folder,
                ledger=ledger,
                accounts=payers,
                base=run_id,
                machine=machine,
                progress=view.indexing,
                **how,
            )
    return run_id, report


def _show_plan(plan: IndexPlan, as_json: bool) -> None:
    from agentbudget.money import format_usd

    if as_json:
        print_json(asdict(plan))
        return
    takes = "" if plan.seconds is None else f", about {plan.seconds:,.1f} s"
    of_all = "" if plan.full_usd_nano is None else f" of {format_usd(plan.full_usd_nano)} for all of them"
    click.echo(
        f"{plan.documents} documents: {plan.kept} chunks to keep ({plan.moved} moved, {plan.relabelled} relabelled), "
        f"{plan.embedded} to embed, {plan.deleted} to delete\n"
        f"{plan.tokens:,} of {plan.full_tokens:,} tokens{takes}: {format_usd(plan.usd_nano)}{of_all}"
    )
    _show_skipped(plan)


def _show_report(run_id: str, report: IndexReport, as_json: bool) -> None:
    from agentbudget.money import format_usd

    if as_json:
        more = {"chunks": report.chunks, "saved_tokens": report.saved_tokens, "saved_usd_nano": report.saved_usd_nano}
        print_json({"run_id": run_id, **asdict(report), **more})
        return
    click.echo(
        f"{report.documents} documents: {report.kept} chunks kept, {report.embedded} embedded "
        f"({report.tokens:,} tokens), {report.deleted} deleted, in {report.seconds:.1f} s"
    )
    if report.moved or report.relabelled:
        click.echo(f"of those kept {report.moved} moved, and {report.relabelled} have new metadata")
    if report.full_usd_nano is not None:
        click.echo(
            f"{format_usd(report.usd_nano)} as run {run_id}; all {report.full_tokens:,} tokens again would be "
            f"{format_usd(report.full_usd_nano)}"
        )
    _show_skipped(report)


def _show_skipped(found: IndexPlan | IndexReport) -> None:
    for item in found.skipped:
        click.secho(printable(f"skipped {item.source}: {item.reason}"), fg="yellow", err=True)
