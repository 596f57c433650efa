"""``agentbudget models list | pull | remove | bench``."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import click

from agentbudget.cli.base import console, home_option, json_option, print_json, settings_at

if TYPE_CHECKING:
    from agentbudget.console import RunView
    from agentbudget.models.catalog import Entry
    from agentbudget.models.llama.library import Device
    from agentbudget.models.machine import Memory
    from agentbudget.models.speeds import Speed
    from agentbudget.settings import Settings

CONTEXT: Final = 4096


@click.group()
def models() -> None:
    """Local weights: what there is, getting it, and how fast it is here."""


@models.command("list")
@click.option(
    "--context",
    type=click.IntRange(1),
    default=CONTEXT,
    show_default=True,
    help="The window that memory is stated for.",
)
@home_option
@json_option
def models_list(context: int, home: Path | None, as_json: bool) -> None:
    """The catalog of local weights, and what of it fits this machine."""
    from agentbudget.models import catalog, machine

    settings, memory, gpus = settings_at(home), machine.memory(), machine.gpus()
    rows = [_row(entry, context, memory, gpus, settings) for entry in catalog.entries()]
    if as_json:
        print_json(rows)
        return
    from rich.table import Table

    table = Table(
        "Name", "What", "Size", "Memory", "Fits", "Tokens/s", "Here", title=f"Local weights, window {context:,}"
    )
    table.columns[1].overflow = "fold"
    for column in table.columns[2:4]:
        column.justify = "right"
    for row in rows:
        what = f"{row['title']}\n{row['quantization']}, {row['licence']}\nsha256 {row['sha256'][:12]}…\n"
        what += "from " + ", ".join(row["sources"])
        size, needed = f"{row['size_bytes'] / 1e6:,.0f} MB", f"{row['memory_bytes'] / 1e6:,.0f} MB"
        here = "yes" if row["present"] else "–"
        fits = row["fits"] if row["fits_gpu"] is None else f"{row['fits']}\nGPU: {row['fits_gpu']}"
        table.add_row(row["name"], what, size, needed, fits, _speeds(row), here)
    screen = console()
    screen.print(table)
    free = "" if memory.available_bytes is None else f", {memory.available_bytes / 1e9:,.1f} GB of it free"
    screen.print(f"this machine: {machine.name()}, {memory.total_bytes / 1e9:,.1f} GB{free}", style="dim", markup=False)
    for gpu in gpus:
        told = f"GPU: {gpu.name}, {gpu.total_bytes / 1e9:,.1f} GB, {gpu.free_bytes / 1e9:,.1f} GB of it free"
        screen.print(told, style="dim", markup=False)


def _row(entry: Entry, context: int, memory: Memory, gpus: Sequence[Device], settings: Settings) -> dict[str, Any]:
    """An entry as JSON-ready data. Speeds are this machine's where they were measured, else the catalog's.

    ``fits_gpu`` is None where no GPU can be used: there is none, or llama.cpp was built without, or has no part in it.
    """
    from agentbudget.models import catalog, machine, speeds

    speed = speeds.measured(settings.home, entry.sha256)
    needed = entry.memory_bytes(context)
    return {
        "name": entry.name,
        "title": entry.title,
        "kind": entry.kind,
        "quantization": entry.quantization,
        "licence": entry.licence,
        "context_window": entry.context_window,
        "size_bytes": entry.size_bytes,
        "memory_bytes": needed,
        "fits": memory.fits(needed),
        "fits_gpu": machine.fits_gpu(gpus, needed) if entry.kind == "gguf" else None,
        "sha256": entry.sha256,
        "sources": [source.kind for source in catalog.sources_of(entry, entry.files[0])],
        "prefill_tokens_per_s": speed.prefill_tokens_per_s if speed else entry.prefill_tokens_per_s,
        "decode_tokens_per_s": speed.decode_tokens_per_s if speed else entry.decode_tokens_per_s,
        "measured_at": speed.measured_at if speed else None,
        "present": catalog.is_present(entry),
    }


def _speeds(row: dict[str, Any]) -> str:
    if row["decode_tokens_per_s"] is None:
        return "–"
    measured = "measured here" if row["measured_at"] else "of the catalog"
    return f"{row['prefill_tokens_per_s']:,.0f} read\n{row['decode_tokens_per_s']:,.0f} written\n{measured}"


@models.command("pull")
@click.argument("name")
@click.option("--force", is_flag=True, help="Fetch again what is here.")
@json_option
def models_pull(name: str, force: bool, as_json: bool) -> None:
    """Fetch weights and check their sha256; a fetch that was cut short goes on where it stopped."""
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


@models.command("bench")
@click.argument("name")
@click.option("--runs", type=click.IntRange(1), default=3, show_default=True, help="Calls of each of two kinds.")
@click.option("--read", type=click.IntRange(8), default=400, show_default=True, help="Words that the one kind reads.")
@click.option("--write", type=click.IntRange(8), default=96, show_default=True, help="Tokens that the other writes.")
@home_option
@json_option
def models_bench(name: str, runs: int, read: int, write: int, home: Path | None, as_json: bool) -> None:
    """Measure how fast NAME (of the catalog, or a path to a .gguf) is here.

    What calls of it are held at follows what was measured from now on.
    """
    from agentbudget.console import RunView
    from agentbudget.models import speeds

    settings = settings_at(home)
    with RunView(quiet=as_json) as view:
        speed, sha256 = asyncio.run(_measured(name, settings, (runs, read, write), view))
    speeds.keep(settings.home, sha256, speed)
    facts = {
        "name": name,
        "sha256": sha256,
        "machine": speed.machine,
        "prefill_tokens_per_s": speed.prefill_tokens_per_s,
        "decode_tokens_per_s": speed.decode_tokens_per_s,
        "measured_at": speed.measured_at,
    }
    if as_json:
        print_json(facts)
    else:
        click.echo(
            f"{name}: {speed.prefill_tokens_per_s:,.0f} tokens/s read, {speed.decode_tokens_per_s:,.0f} written "
            f"({speed.machine})"
        )


async def _measured(name: str, settings: Settings, size: tuple[int, int, int], view: RunView) -> tuple[Speed, str]:
    """The speeds of a model, and the checksum of its weights; `size` is runs, words to read, tokens to write."""
    from agentbudget.models import make_model
    from agentbudget.models.bench import bench

    model = make_model(f"llamacpp:{name.removeprefix('llamacpp:')}", settings)
    runs, read, write = size
    try:
        speed = await bench(model, runs=runs, read=read, write=write, on_progress=view.measuring)
        return speed, model.fingerprint
    finally:
        await model.aclose()
