"""``agentbudget index``."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import click

from agentbudget.cli.base import check_documents, home_option, json_option, print_json, settings_at


@click.command()
@click.argument("folder", type=click.Path(path_type=Path))
@click.option("--rebuild", is_flag=True, help="Start afresh: embed everything again.")
@home_option
@json_option
def index(folder: Path, rebuild: bool, home: Path | None, as_json: bool) -> None:
    """Index FOLDER, or bring its index up to date: only what changed is embedded."""
    from agentbudget.agent import open_folder_index
    from agentbudget.console import RunView
    from agentbudget.models import machine_price

    check_documents(folder)
    settings = settings_at(home)

    async def work() -> Any:
        with RunView(quiet=as_json, machine=machine_price(settings)) as view:
            async with open_folder_index(settings, folder) as opened:
                return await opened.update(folder, rebuild=rebuild, progress=view.indexing)

    report = asyncio.run(work())
    skipped = [{"source": s.source, "reason": s.reason} for s in report.skipped]
    if as_json:
        names = ("documents", "kept", "moved", "embedded", "deleted", "ignored", "tokens", "seconds")
        print_json({name: getattr(report, name) for name in names} | {"skipped": skipped})
        return
    click.echo(
        f"{report.documents} documents: {report.kept} chunks kept, {report.embedded} embedded "
        f"({report.tokens:,} tokens), {report.deleted} deleted, in {report.seconds:.1f} s"
    )
    for item in skipped:
        click.secho(f"skipped {item['source']}: {item['reason']}", fg="yellow", err=True)
