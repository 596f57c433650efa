"""``agentbudget ledger accounts | limit | entries | verify | sweep``."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import click

from agentbudget.cli.base import EXIT_ERROR, console, home_option, json_option, print_json, settings_at


@click.group()
def ledger() -> None:
    """Accounts, entries, and the proof that they agree."""


@ledger.command("accounts")
@home_option
@json_option
def ledger_accounts(home: Path | None, as_json: bool) -> None:
    """Every account: limit, posted, held, available."""
    from agentbudget.ledger import Ledger
    from agentbudget.money import format_usd

    with Ledger.open(settings_at(home).ledger_path) as opened:
        accounts = opened.accounts()
    if as_json:
        print_json([account_row(a) for a in accounts])
        return
    from rich.table import Table

    table = Table("Account", "Limit", "Posted", "Held", "Available", "Tokens posted", "Calls")
    for a in accounts:
        limit, left = a.limit.usd_nano, a.available.usd_nano
        table.add_row(
            a.name,
            "–" if limit is None else format_usd(limit),
            format_usd(a.posted.usd_nano),
            format_usd(a.held.usd_nano),
            "–" if left is None else format_usd(left),
            f"{a.posted.tokens:,}",
            f"{a.posted.calls:,}",
        )
    console().print(table)


def account_row(account: Any) -> dict[str, Any]:
    """An account as JSON-ready data."""
    return {
        "name": account.name,
        "parent": account.parent,
        "limit": {"usd_nano": account.limit.usd_nano, "tokens": account.limit.tokens, "calls": account.limit.calls},
        "posted": {
            "usd_nano": account.posted.usd_nano,
            "tokens": account.posted.tokens,
            "calls": account.posted.calls,
        },
        "held": {"usd_nano": account.held.usd_nano, "tokens": account.held.tokens, "calls": account.held.calls},
    }


@ledger.command("limit")
@click.argument("account")
@click.option("--usd", help="Dollars that the account may spend in all.")
@click.option("--tokens", type=click.IntRange(0), help="Tokens that it may use in all.")
@click.option("--none", "unlimited", is_flag=True, help="Take its limits away.")
@home_option
@json_option
def ledger_limit(
    account: str, usd: str | None, tokens: int | None, unlimited: bool, home: Path | None, as_json: bool
) -> None:
    """Show the limits of ACCOUNT, such as user/42, or set them. Setting opens an account that is new."""
    from agentbudget.ledger import Ledger
    from agentbudget.money import Budget, format_usd

    with Ledger.open(settings_at(home).ledger_path) as opened:
        if usd is None and tokens is None and not unlimited:
            found = opened.balance(account)
        else:
            found = opened.account(account, limit=Budget(usd=usd, tokens=tokens))
    if as_json:
        print_json(account_row(found))
        return
    dollars = "no dollar limit" if found.limit.usd_nano is None else format_usd(found.limit.usd_nano)
    counted = "no token limit" if found.limit.tokens is None else f"{found.limit.tokens:,} tokens"
    click.echo(f"{found.name}: {dollars}, {counted}; posted {format_usd(found.posted.usd_nano)}")


@ledger.command("entries")
@click.option("--after", type=click.IntRange(0), default=0, help="From the entry after this one on.")
@click.option("--limit", type=click.IntRange(1), default=50, show_default=True)
@home_option
@json_option
def ledger_entries(after: int, limit: int, home: Path | None, as_json: bool) -> None:
    """The journal."""
    from agentbudget.ledger import Ledger

    with Ledger.open(settings_at(home).ledger_path) as opened:
        entries = opened.entries(after=after, limit=limit)
    if as_json:
        print_json(
            [
                {
                    "seq": e.seq,
                    "at_ns": e.at_ns,
                    "kind": e.kind,
                    "subject": e.subject,
                    "targets": list(e.targets),
                    "held": list(e.held),
                    "posted": list(e.posted),
                    "detail": dict(e.detail),
                    "hash": e.hash,
                }
                for e in entries
            ]
        )
        return
    for e in entries:
        click.echo(f"{e.seq:>6}  {e.kind:<8} {e.subject}  held {e.held[0]:+,}  posted {e.posted[0]:+,}")


@ledger.command("verify")
@home_option
@json_option
def ledger_verify(home: Path | None, as_json: bool) -> None:
    """Recompute every balance from the entries; exit 1 if any differs."""
    from agentbudget.ledger import Ledger

    with Ledger.open(settings_at(home).ledger_path) as opened:
        found = opened.verify()
    if as_json:
        print_json(
            {
                "ok": found.ok,
                "accounts": found.accounts,
                "holds": found.holds,
                "entries": found.entries,
                "problems": list(found.problems),
            }
        )
    else:
        for problem in found.problems:
            click.secho(problem, fg="red", err=True)
        verdict = "verified" if found.ok else f"{len(found.problems)} problems in"
        click.echo(f"{verdict}: {found.entries:,} entries, {found.holds:,} holds, {found.accounts:,} accounts")
    if not found.ok:
        sys.exit(EXIT_ERROR)


@ledger.command("sweep")
@home_option
@json_option
def ledger_sweep(home: Path | None, as_json: bool) -> None:
    """Resolve what dead owners left: nothing sent is freed, sent is presumed spent."""
    from agentbudget.ledger import Ledger
    from agentbudget.ledger.sqlite import SqliteStore

    opened = Ledger(SqliteStore(settings_at(home).ledger_path))
    with opened:
        swept = opened.sweep()
    if as_json:
        print_json([{"id": r.id, "state": r.state, "presumed": r.presumed} for r in swept])
    else:
        click.echo(f"{len(swept)} holds resolved")
        for record in swept:
            click.echo(f"  {record.state:<7} {record.id}")
