"""``agentbudget cache stats | invalidate | clear | wrong``: what was paid for and is kept."""

from __future__ import annotations

from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Final

import click

from agentbudget.cli.base import console, home_option, json_option, print_json, settings_at
from agentbudget.cli.options import NumberRange, with_options

if TYPE_CHECKING:
    from agentbudget.cache import Kept, Kind, Store, Which
    from agentbudget.cache.semantic.store import SemanticStore

S_PER_HOUR: Final = 3600
MOST_HOURS: Final = 1_000_000
"""A century: no cache is older."""

common: Final = (home_option, json_option)


@click.group()
def cache() -> None:
    """Answers, plans, embeddings and retrievals that were paid for, kept under the home folder."""


def opened(home: Path | None) -> Store:
    """The home's cache. Raises `StoreUnavailable` where there is none: looking makes no file."""
    from agentbudget.cache import Store
    from agentbudget.errors import StoreUnavailable

    path = settings_at(home).cache_path
    if not path.exists():
        raise StoreUnavailable(f"there is no cache at {path}: nothing was bought there yet", location=str(path))
    return Store(path)


@cache.command("stats")
@with_options(common)
def stats(home: Path | None, as_json: bool) -> None:
    """How much is kept of each kind, how often it was asked for again, and what that saved.

    Of what was dropped or forgotten nothing is told here: the ledger has every hit.
    """
    with opened(home) as store:
        kept, location = store.kept(), store.location
    if as_json:
        print_json({"location": location, "kinds": [row(one) for one in kept]})
    else:
        show(kept, location)


def row(one: Kept) -> dict[str, object]:
    """What is kept of one kind, for programs."""
    from agentbudget.money import nano_to_usd

    return {
        "kind": one.kind,
        "entries": one.entries,
        "bytes": one.bytes,
        "hits": one.hits,
        "saved_usd": nano_to_usd(one.saved_usd_nano),
    }


def show(kept: list[Kept], location: str) -> None:
    """Print a table."""
    from rich.table import Table

    from agentbudget.money import format_usd

    table = Table("Kind", title=location)
    for name in ("Entries", "MB", "Hits", "Saved"):
        table.add_column(name, justify="right")
    for one in kept:
        size, saved = f"{one.bytes / 1e6:,.1f}", format_usd(one.saved_usd_nano)
        table.add_row(one.kind, f"{one.entries:,}", size, f"{one.hits:,}", saved)
    console().print(table)


@cache.command("invalidate")
@click.option("--kind", type=click.Choice(["answer", "plan", "embedding", "retrieval"]), help="Of this kind.")
@click.option("--tenant", help="Of this tenant.")
@click.option("--skill", metavar="NAME[@VERSION]", help="Of this skill, or of one version of it (skill.version).")
@click.option("--model", help="Made by this model, as in llamacpp:smollm2-135m.")
@click.option("--document", metavar="PATH", help="Made from this document: its path within the folder.")
@click.option("--chunk", metavar="ID", help="Made from this chunk of a document.")
@click.option(
    "--older-than", "hours", type=NumberRange(0, MOST_HOURS), metavar="HOURS", help="Bought before so many hours."
)
@with_options(common)
def invalidate(
    kind: Kind | None,
    tenant: str | None,
    skill: str | None,
    model: str | None,
    document: str | None,
    chunk: str | None,
    hours: float | None,
    home: Path | None,
    as_json: bool,
) -> None:
    """Forget what fits all that is named, for every process: it is bought anew when it is asked for.

    What a cache of an earlier version kept does not say whose it is, and is taken to be anybody's.
    """
    from agentbudget.cache import Which

    name, _, version = (skill or "").partition("@")
    which = Which(
        kind=kind,
        tenant=tenant,
        skill=name or None,
        skill_version=version or None,
        model=model,
        document=document,
        chunk=chunk,
        older_than_s=None if hours is None else hours * S_PER_HOUR,
    )
    with opened(home) as store:
        entries = store.invalidate(which)
        forget_questions(store, home)
    if which == Which(tenant=tenant, skill=name or None):  # all of theirs: what was learned of them, too
        forget_learned(home, which)
    forgotten(entries, as_json=as_json)


@cache.command("clear")
@with_options(common)
def clear(home: Path | None, as_json: bool) -> None:
    """Forget everything. Runs that are resumed later pay again for what they had paid for."""
    with opened(home) as store:
        entries = store.clear()
    forget_learned(home)
    forgotten(entries, as_json=as_json)


@cache.command("wrong")
@click.argument("hit", type=int)
@with_options(common)
def wrong(hit: int, home: Path | None, as_json: bool) -> None:
    """Say that the answer given as HIT to a similar question was wrong: it is not given again.

    The number stands in the run's statement, where it says why the answer was trusted.
    """
    from agentbudget.cache.semantic.store import unknown_hit

    with similar(home) as store:
        if store is None or not store.found_wrong(hit):
            raise unknown_hit(hit)
    if as_json:
        print_json({"wrong": hit})
    else:
        click.echo(f"hit {hit} was wrong: its answer is not given again")


@contextmanager
def similar(home: Path | None) -> Generator[SemanticStore | None]:
    """The home's questions that similar ones may find; None where there are none yet."""
    from agentbudget.cache.semantic.store import SemanticStore

    path = settings_at(home).semantic_path
    if not path.exists():
        yield None
        return
    with SemanticStore(path) as store:
        yield store


def forget_questions(store: Store, home: Path | None) -> None:
    """Questions go with their answers."""
    with similar(home) as questions:
        if questions is not None:
            questions.sweep(lambda keys: {row.key for row in store.find(keys)})


def forget_learned(home: Path | None, whose: Which | None = None) -> None:
    """Questions, and what was learned from them: of a tenant, of a skill, or all there is."""
    with similar(home) as questions:
        if questions is not None:
            questions.forget(tenant=whose and whose.tenant, skill=whose and whose.skill)


def forgotten(entries: int, *, as_json: bool) -> None:
    """Say how many entries went."""
    if as_json:
        print_json({"forgotten": entries})
    else:
        click.echo(f"{entries:,} {'entry' if entries == 1 else 'entries'} forgotten")
