"""``agentbudget ledger accounts | limit | topup | freeze | unfreeze | holds | sweep``, and what `journal` adds."""

from __future__ import annotations

from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import click

from agentbudget.cli.base import console, home_option, json_option, print_json
from agentbudget.cli.journal import entries, export, reprice, verify
from agentbudget.cli.options import ledger_option, look_into, settings_for, with_options

if TYPE_CHECKING:
    from agentbudget.ledger import Account, HoldRecord, Ledger
    from agentbudget.money import Budget

common: Final = (ledger_option, home_option, json_option)

amounts: Final = (
    click.option("--usd", metavar="DOLLARS", help="Dollars, such as 2.50."),
    click.option("--tokens", type=click.IntRange(0), help="Tokens."),
    click.option("--calls", type=click.IntRange(0), help="Calls."),
    click.option(
        "--window",
        default="total",
        show_default=True,
        help="total; hour, day or month, with a zone as in day@Europe/Berlin; or rolling: 90s, 15m, 24h, 7d.",
    ),
)


_FIRST_YEAR: Final = 1970


@click.group()
def ledger() -> None:
    """Accounts, holds and the journal, and the proof that they agree."""


for command in (entries, export, reprice, verify):
    ledger.add_command(command)


def moment(written: str) -> datetime:
    """A moment with a time zone, from ISO 8601. Raises `click.BadParameter`."""
    from agentbudget.ledger.fold import LAST_YEAR

    try:
        found = datetime.fromisoformat(written)
    except ValueError:
        raise click.BadParameter(f"{written!r} is no moment: write it as in 2026-11-01T00:00Z") from None
    if found.tzinfo is None:
        raise click.BadParameter(f"{written!r} has no time zone: write it as in 2026-11-01T00:00Z or …+01:00")
    if not _FIRST_YEAR <= found.year <= LAST_YEAR:
        raise click.BadParameter(f"{written!r} is not between the years {_FIRST_YEAR} and {LAST_YEAR}")
    return found


@ledger.command("accounts")
@click.argument("prefix", default="")
@click.option("--at", type=moment, metavar="MOMENT", help="As they stood then, such as 2026-11-01T00:00Z.")
@click.option("--tree", is_flag=True, help="Each below its parent.")
@with_options(common)
def ledger_accounts(
    prefix: str, at: datetime | None, tree: bool, where: str | None, home: Path | None, as_json: bool
) -> None:
    """The accounts whose name begins with PREFIX: limits, posted, held, left; in each window too."""
    with look_into(home, where) as opened:
        found = opened.accounts(prefix=prefix, at=at)
        show_accounts(opened, found, as_json=as_json, tree=tree, at=at)
    if not found and not as_json:
        click.echo(f"no account '{prefix}…'" if prefix else "no accounts", err=True)


def show_accounts(
    opened: Ledger, accounts: list[Account], *, as_json: bool, tree: bool = False, at: datetime | None = None
) -> None:
    """Print accounts, with their windows at the same moment."""
    from agentbudget.cli import tables

    windows = opened.all_windows([a.name for a in accounts if a.windows], at=at)
    if as_json:
        print_json([tables.account_row(a, windows.get(a.name, ())) for a in accounts])
    elif accounts:
        shown = console()
        shown.width = max(shown.width, tables.ACCOUNTS_WIDTH)
        shown.print(tables.accounts_table(accounts, windows, tree=tree))


def show_account(opened: Ledger, account: Account, *, as_json: bool) -> None:
    """Print one account."""
    from agentbudget.cli import tables

    if as_json:
        print_json(tables.account_row(account, opened.windows(account.name)))
    else:
        show_accounts(opened, [account], as_json=False)


@ledger.command("limit")
@click.argument("account")
@with_options(amounts)
@click.option("--none", "unlimited", is_flag=True, help="Take the limits away that are not given here.")
@click.option("--parent", help="The account above it, should it be new.")
@with_options(common)
def ledger_limit(
    account: str,
    usd: str | None,
    tokens: int | None,
    calls: int | None,
    window: str,
    unlimited: bool,
    parent: str | None,
    where: str | None,
    home: Path | None,
    as_json: bool,
) -> None:
    """Show the limits of ACCOUNT, such as user/42, or set them: in all, or within a window of time.

    Units that are not given stay as they are. Setting opens an account that is new.
    """
    from agentbudget.ledger import Ledger, Window

    given = (usd, tokens, calls) != (None, None, None)
    if not given and not unlimited and parent is None:
        with look_into(home, where) as opened:
            show_account(opened, opened.balance(account), as_json=as_json)
        return
    asked = budget(usd, tokens, calls)
    if window != "total":
        Window.parse(window)  # a word that is none opens no account
    with Ledger.open(settings_for(home, where).ledger_location) as opened:
        opened.account(account, parent=parent)
        changed = opened.set_limit(account, asked, window=window, keep_others=not unlimited)
        show_account(opened, changed, as_json=as_json)


def budget(usd: str | None, tokens: int | None, calls: int | None) -> Budget:
    """A budget of what was given."""
    from agentbudget.money import Budget

    return Budget(usd=usd, tokens=tokens, calls=calls)


@ledger.command("topup")
@click.argument("account")
@with_options(amounts)
@click.option("--id", "topup_id", required=True, help="Names the top-up, such as invoice-17: it happens once.")
@with_options(common)
def ledger_topup(
    account: str,
    usd: str | None,
    tokens: int | None,
    calls: int | None,
    window: str,
    topup_id: str,
    where: str | None,
    home: Path | None,
    as_json: bool,
) -> None:
    """Raise the limits of ACCOUNT, once: the same --id again changes nothing."""
    asked = budget(usd, tokens, calls)
    if (usd, tokens, calls) == (None, None, None):
        raise click.UsageError("say how much: --usd, --tokens or --calls")
    with look_into(home, where) as opened:
        show_account(opened, opened.top_up(account, asked, topup_id=topup_id, window=window), as_json=as_json)


@ledger.command("freeze")
@click.argument("account")
@click.option("--reason", default="", help="Why; whoever is refused reads it.")
@with_options(common)
def ledger_freeze(account: str, reason: str, where: str | None, home: Path | None, as_json: bool) -> None:
    """Refuse every new hold on ACCOUNT and below it. What was sent is settled as ever."""
    with look_into(home, where) as opened:
        show_account(opened, opened.freeze(account, reason=reason), as_json=as_json)


@ledger.command("unfreeze")
@click.argument("account")
@with_options(common)
def ledger_unfreeze(account: str, where: str | None, home: Path | None, as_json: bool) -> None:
    """Let holds in on ACCOUNT again."""
    with look_into(home, where) as opened:
        show_account(opened, opened.unfreeze(account), as_json=as_json)


@ledger.command("holds")
@click.argument("prefix", default="")
@click.option(
    "--state",
    type=click.Choice(["open", "settled", "voided", "lapsed", "presumed", "all"]),
    default="open",
    show_default=True,
    help="presumed: those whose true cost nobody knows yet.",
)
@click.option("--last", type=click.IntRange(1), default=50, show_default=True, help="Only the newest so many.")
@with_options(common)
def ledger_holds(prefix: str, state: Any, last: int, where: str | None, home: Path | None, as_json: bool) -> None:
    """The holds whose id begins with PREFIX, in the order in which they were made."""
    with look_into(home, where) as opened:
        found = opened.holds(prefix=prefix, state=None if state in ("all", "presumed") else state)
    if state == "presumed":
        found = [hold for hold in found if hold.presumed]
    show_holds(found[-last:], as_json=as_json, of=len(found))
    if not found and not as_json:
        click.echo("no holds", err=True)


@ledger.command("sweep")
@with_options(common)
def ledger_sweep(where: str | None, home: Path | None, as_json: bool) -> None:
    """Resolve what dead owners left: nothing sent is freed, sent is presumed spent."""
    with look_into(home, where) as opened:
        swept = opened.sweep()
    if not as_json:
        click.echo(f"{len(swept)} hold{'s' * (len(swept) != 1)} resolved")
    show_holds(swept, as_json=as_json, of=len(swept))


def show_holds(holds: list[HoldRecord], *, as_json: bool, of: int) -> None:
    """Print holds, and how many there are if these are not all."""
    from agentbudget.cli import tables

    if as_json:
        print_json([tables.hold_row(hold) for hold in holds])
    elif holds:
        console().print(tables.holds_table(holds))
        if len(holds) < of:
            click.echo(f"the newest {len(holds):,} of {of:,}: --last shows more", err=True)
