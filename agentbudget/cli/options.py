"""Options that commands share, and the ledger and settings that follow from them."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from agentbudget.cli.base import settings_at

if TYPE_CHECKING:
    from agentbudget.ledger import Ledger
    from agentbudget.settings import Settings

ledger_option = click.option(
    "--ledger",
    "where",
    metavar="PATH|URL",
    help="Another ledger: a file, or postgresql://… [AGENTBUDGET_LEDGER; the home's ledger.db].",
)


class NumberRange(click.FloatRange):
    """A number within bounds. ``nan`` is in none: click takes it, for it is neither below one nor above the other."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """See `click.ParamType`."""
        number = super().convert(value, param, ctx)
        return self.fail(f"{value!r} is no number.", param, ctx) if math.isnan(number) else number


def with_options(options: tuple[Callable[[Any], Any], ...]) -> Callable[[Any], Any]:
    """Add `options` to a command, in their order."""

    def decorate(command: Any) -> Any:
        for option in reversed(options):
            command = option(command)
        return command

    return decorate


def settings_for(home: Path | None, where: str | None) -> Settings:
    """The environment's settings, with another home and another ledger if they are given."""
    settings = settings_at(home)
    return settings if where is None else settings.with_ledger(where)


def look_into(home: Path | None, where: str | None) -> Ledger:
    """The ledger, as it is: nothing is swept, and a path that is wrong makes no new one. Raises `StoreUnavailable`."""
    from agentbudget.errors import StoreUnavailable
    from agentbudget.ledger import Ledger
    from agentbudget.ledger.core import open_store

    settings = settings_for(home, where)
    location = settings.ledger_location
    if settings.ledger is not None and isinstance(location, Path) and not location.exists():
        raise StoreUnavailable(f"there is no ledger at {location}: name one that is there", location=str(location))
    return Ledger(open_store(location))
