"""``agentbudget models list | pull | remove``."""

from __future__ import annotations

from typing import Any

import click

from agentbudget.cli.base import console, json_option, print_json


@click.group()
def models() -> None:
    """Local weights: what there is, and getting it."""


@models.command("list")
@json_option
def models_list(as_json: bool) -> None:
    """The catalog of local weights."""
    from agentbudget.models import catalog

    rows: list[dict[str, Any]] = [
        {
            "name": e.name,
            "title": e.title,
            "licence": e.licence,
            "size_bytes": e.size_bytes,
            "memory_gb": e.memory_gb,
            "present": catalog.is_present(e.name),
        }
        for e in catalog.entries()
    ]
    if as_json:
        print_json(rows)
        return
    from rich.table import Table

    table = Table("Name", "What", "Licence", "Size", "Memory", "Here")
    for row in rows:
        size, memory = f"{row['size_bytes'] / 1e6:,.0f} MB", f"{row['memory_gb']} GB"
        table.add_row(row["name"], row["title"], row["licence"], size, memory, "yes" if row["present"] else "–")
    console().print(table)


@models.command("pull")
@click.argument("name")
@click.option("--force", is_flag=True, help="Fetch again what is here.")
@json_option
def models_pull(name: str, force: bool, as_json: bool) -> None:
    """Fetch weights and check their sha256."""
    from agentbudget.console import RunView
    from agentbudget.models import catalog

    with RunView(quiet=as_json) as view:
        path = catalog.ensure(name, progress=view.pulling, force=force)
    print_json({"name": name, "path": str(path)}) if as_json else click.echo(path)


@models.command("remove")
@click.argument("name")
@json_option
def models_remove(name: str, as_json: bool) -> None:
    """Delete weights from this machine."""
    from agentbudget.models import catalog

    gone = catalog.remove(name)
    if as_json:
        print_json({"name": name, "removed": gone})
    else:
        click.echo(f"{name} removed" if gone else f"{name} was not here")
