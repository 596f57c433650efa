"""``agentbudget memory``: what is kept of users, shown, exported and deleted."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import TYPE_CHECKING

import click

from agentbudget.cli.base import home_option, json_option, print_json, printable, settings_at
from agentbudget.cli.options import with_options
from agentbudget.tenants import DEFAULT_TENANT

if TYPE_CHECKING:
    from agentbudget.memory import Memories

_whose = with_options(
    (
        click.option("--user", help="Whose memories."),
        click.option("--tenant", default=DEFAULT_TENANT, show_default=True, help="Whose user that is."),
        home_option,
    )
)


def _memories(home: Path | None) -> Memories:
    from agentbudget.memory import open_memories

    return open_memories(settings_at(home).memories_location)


def _required(user: str | None) -> str:
    if user is None:
        raise click.UsageError("name the user with --user")
    return user


@click.group()
def memory() -> None:
    """What was learned of users, kept for later runs."""


@memory.command("list")
@_whose
@json_option
def list_(user: str | None, tenant: str, home: Path | None, as_json: bool) -> None:
    """Show a user's memories, the latest first; without --user, who has some."""
    from agentbudget.memory import Owner

    memories = _memories(home)
    if user is None:
        owners = asyncio.run(memories.owners())
        if as_json:
            print_json([{"tenant": owner.tenant, "user": owner.user} for owner in owners])
            return
        for owner in owners:
            click.echo(printable(f"{owner.user}  (tenant {owner.tenant})"))
        if not owners:
            click.echo(f"Nobody has memories in {memories.location}.")
        return
    found = asyncio.run(memories.all_of(Owner(tenant, user)))
    if as_json:
        print_json([one.to_dict() for one in found])
        return
    for one in found:
        times = f", {one.times} times" if one.times > 1 else ""
        click.echo(printable(f"{one.id}  {one.learned_on}{times}  {one.text}"))
    if not found:
        click.echo(f"Nothing is kept of {user!r}.")


@memory.command()
@_whose
@click.option("--json", is_flag=True, expose_value=False, help="As it is anyway.")
def export(user: str | None, tenant: str, home: Path | None) -> None:
    """Print everything that is kept of a user as JSON, with where it was learned."""
    from agentbudget.memory import Owner

    found = asyncio.run(_memories(home).all_of(Owner(tenant, _required(user))))
    print_json({"tenant": tenant, "user": user, "memories": [one.to_dict() for one in found]})


@memory.command()
@click.argument("ids", nargs=-1)
@_whose
@click.option("--all", "everything", is_flag=True, help="All memories of the user.")
@click.option("--everyone", is_flag=True, help="All memories of all users.")
@click.option("--yes", is_flag=True, help="Do not ask.")
@json_option
def forget(
    ids: tuple[str, ...],
    user: str | None,
    tenant: str,
    home: Path | None,
    everything: bool,
    everyone: bool,
    yes: bool,
    as_json: bool,
) -> None:
    """Delete memories for good: by their IDS, all of a user, or everyone's."""
    from agentbudget.memory import Owner

    if (bool(ids), everything, everyone).count(True) != 1:
        raise click.UsageError("name ids, or --all of a user, or --everyone")
    memories = _memories(home)
    if everyone:
        if not yes:
            _confirm(f"Delete all memories of all users in {memories.location}?")
        users = asyncio.run(memories.forget_everyone())
        _forgot(f"everything of {users} users", {"users": users, "forgotten": "all"}, as_json=as_json)
        return
    owner = Owner(tenant, _required(user))
    whose = {"tenant": tenant, "user": owner.user}
    if everything:
        if not yes:
            _confirm(f"Delete all memories of {owner.user!r}?")
        asyncio.run(memories.forget_all(owner))
        _forgot(f"everything of {owner.user!r}", {**whose, "forgotten": "all"}, as_json=as_json)
        return
    count = asyncio.run(memories.forget(owner, ids))
    _forgot(f"{count} memories of {owner.user!r}", {**whose, "forgotten": count}, as_json=as_json)


def _forgot(what: str, told: dict[str, str | int], *, as_json: bool) -> None:
    """Say what is gone."""
    if as_json:
        print_json(told)
    else:
        click.echo(f"Forgot {what}.")


def _confirm(question: str) -> None:
    """Ask on the terminal. Raises `click.UsageError` where nobody says yes."""
    try:
        agreed = click.confirm(question)
    except click.Abort:  # nobody is there to be asked
        agreed = False
    if not agreed:
        raise click.UsageError("nothing is deleted; say yes when asked, or with --yes")
