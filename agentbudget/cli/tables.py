"""The ledger's values for people and for programs: accounts, holds and entries as tables and as JSON."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import UTC, datetime, tzinfo
from typing import TYPE_CHECKING, Any, Final
from zoneinfo import ZoneInfo

from agentbudget.cli.base import printable
from agentbudget.money import format_usd

if TYPE_CHECKING:
    from rich.table import Table

    from agentbudget.ledger import Account, Entry, HoldRecord, WindowBalance
    from agentbudget.money import Amount, Budget
    from agentbudget.reprice import Comparison, Repriced

UNITS: Final = ("usd_nano", "tokens", "calls")
NONE: Final = "–"

WIDE: Final = 120
"""Columns from which on a table of seven has room for each moment on one line."""

_LENGTHS: Final = ((86_400, "d"), (3_600, "h"), (60, "min"), (1, "s"))

Triple = Sequence[int | None]
"""Nano-dollars, tokens, calls."""


# --- words


def told(triple: Triple, *, signed: bool = False) -> str:
    """An amount as a person reads it: ``$0.02, 3,000 tokens, 1 call``; units that are 0 or not limited are left out."""
    usd, tokens, calls = triple
    parts = [
        format_usd(usd) if usd else "",
        f"{tokens:,} token{'s' * (abs(tokens) != 1)}" if tokens else "",
        f"{calls:,} call{'s' * (abs(calls) != 1)}" if calls else "",
    ]
    values = (usd, tokens, calls)
    plus = ["+" if signed and value and value > 0 else "" for value in values]
    return ", ".join(sign + part for sign, part in zip(plus, parts, strict=True) if part) or NONE


def when(at_ns: int, zone: tzinfo = UTC) -> str:
    """A moment to the second."""
    moment = datetime.fromtimestamp(at_ns // 10**9, zone)
    return f"{moment:%Y-%m-%d %H:%M:%S}" + ("Z" if zone is UTC else f" {moment:%Z}")


def window_words(balance: WindowBalance) -> str:
    """A window and when it is empty again, in its own time zone."""
    window = balance.window
    zone = UTC if window.zone == "UTC" else ZoneInfo(window.zone)
    until = when(balance.resets_ns, zone)
    if window.kind != "rolling":
        return f"{window}\nresets {until}"
    length, name = next((size, name) for size, name in _LENGTHS if window.seconds % size == 0)
    return f"the last {window.seconds // length:,} {name}\nempty {until}"


# --- accounts

ACCOUNTS_WIDTH: Final = 80
"""Columns below which a table of accounts would lose names: on a narrower terminal its lines wrap."""


def account_row(account: Account, windows: Iterable[WindowBalance] = ()) -> dict[str, Any]:
    """An account as JSON-ready data; ``windows`` as they stand now."""
    return {
        "name": account.name,
        "parent": account.parent,
        "frozen": account.frozen,
        "limit": budget_row(account.limit),
        "posted": amount_row(account.posted),
        "held": amount_row(account.held),
        "available": budget_row(account.available),
        "windows": [
            {
                "window": balance.window.text,
                "limit": budget_row(balance.limit),
                "posted": amount_row(balance.posted),
                "held": amount_row(balance.held),
                "available": budget_row(balance.available),
                "resets": when(balance.resets_ns).replace(" ", "T"),
            }
            for balance in windows
        ],
    }


def amount_row(amount: Amount) -> dict[str, int]:
    """An amount as JSON-ready data."""
    return {unit: getattr(amount, unit) for unit in UNITS}


def budget_row(budget: Budget) -> dict[str, int | None]:
    """A budget as JSON-ready data; None does not limit."""
    return {unit: getattr(budget, unit) for unit in UNITS}


def accounts_table(
    accounts: Sequence[Account], windows: Mapping[str, Sequence[WindowBalance]], *, tree: bool = False
) -> Table:
    """Accounts with what limits them: a row a unit, for all time and in each window."""
    from rich.table import Table

    table = Table("Account", "Window", "Unit", "Limit", "Posted", "Held", "Left")
    for column in table.columns[3:]:
        column.justify = "right"
        column.no_wrap = True
    table.columns[2].no_wrap = True
    for branch, account in _branches(accounts) if tree else (("", a) for a in accounts):
        named = f"{branch}{account.name}"
        if account.frozen is not None:
            named += f"\nfrozen{f': {account.frozen}' if account.frozen else ''}"
        title, span = _text(named, "red" if account.frozen is not None else ""), "total"
        for cells in _unit_rows(account):
            table.add_row(title, span, *cells)
            title, span = _text(""), ""
        for balance in windows.get(account.name, ()):
            span = window_words(balance)
            for cells in _unit_rows(balance):
                table.add_row("", span, *cells)
                span = ""
    return table


def _branches(accounts: Sequence[Account]) -> Iterator[tuple[str, Account]]:
    """Each account below its parent, with the lines that lead to it."""
    known = {account.name for account in accounts}
    below: dict[str | None, list[Account]] = {}
    for account in accounts:
        below.setdefault(account.parent if account.parent in known else None, []).append(account)

    waiting = [("", "", account) for account in reversed(below.get(None, []))]
    while waiting:
        before, lines, account = waiting.pop()
        yield before, account
        children = below.get(account.name, [])
        for number, child in enumerate(reversed(children)):  # the last one first: it waits longest
            branch, further = ("└ ", "  ") if number == 0 else ("├ ", "│ ")
            waiting.append((lines + branch, lines + further, child))


def _unit_rows(balance: Account | WindowBalance) -> list[tuple[str, str, str, str, str]]:
    """Unit, limit, posted, held, left: for the units that are limited or used, for dollars if there is none."""
    limit, left = balance.limit, balance.available
    rows: list[tuple[str, str, str, str, str]] = []
    for unit in UNITS:
        most, rest = getattr(limit, unit), getattr(left, unit)
        posted, held = getattr(balance.posted, unit), getattr(balance.held, unit)
        if most is not None or posted or held:
            name = "USD" if unit == "usd_nano" else unit
            rows.append((name, _cell(unit, most), _cell(unit, posted), _cell(unit, held), _cell(unit, rest)))
    return rows or [("USD", NONE, _cell("usd_nano", 0), _cell("usd_nano", 0), NONE)]


def _cell(unit: str, value: int | None) -> str:
    if value is None:
        return NONE
    return format_usd(value) if unit == "usd_nano" else f"{value:,}"


# --- holds


def hold_row(hold: HoldRecord) -> dict[str, Any]:
    """A hold as JSON-ready data."""
    return {
        "id": hold.id,
        "state": hold.state,
        "sent": hold.sent,
        "presumed": hold.presumed,
        "parent": hold.parent,
        "accounts": list(hold.accounts),
        "amount": amount_row(hold.amount),
        "settled": None if hold.settled is None else amount_row(hold.settled),
        "overrun": amount_row(hold.overrun),
        "owner": hold.owner,
        "tag": hold.tag,
        "created": when(hold.created_ns).replace(" ", "T"),
        "closed": None if hold.closed_ns is None else when(hold.closed_ns).replace(" ", "T"),
        "meta": dict(hold.meta),
        "detail": dict(hold.detail),
    }


def holds_table(holds: Iterable[HoldRecord]) -> Table:
    """Holds, with what they set aside and what came of it."""
    from rich.table import Table

    from agentbudget.ledger.owners import life

    table = Table("Hold", "State", "Held", "Settled", "On", "Since")
    owners = {"alive": "", "dead": "\nowner gone", "unknown": "\nowner elsewhere"}
    for hold in holds:
        marks = ["sent"] * (hold.state == "open" and hold.sent) + ["presumed"] * hold.presumed
        state = ", ".join([hold.state, *marks])
        table.add_row(
            _text(hold.id),
            state + (owners[life(hold.owner)] if hold.state == "open" else ""),
            told(hold.amount_units).replace(", ", "\n"),
            NONE if hold.settled_units is None else told(hold.settled_units).replace(", ", "\n"),
            _text("\n".join(hold.accounts) if hold.parent is None else f"within {hold.parent}"),
            when(hold.created_ns),
        )
    return table


# --- entries


def entries_table(entries: Iterable[Entry], *, width: int) -> Table:
    """The journal, a row an entry. In fewer columns than `WIDE`, moments and what an entry is of take two lines."""
    from rich import box
    from rich.table import Table

    titles = ("Entry", "When", "What", "Of", "Held", "Posted", "Because")
    table = Table(*titles) if width >= WIDE else Table(*titles[:-1], box=box.SIMPLE_HEAD, show_edge=False, padding=0)
    table.columns[0].justify = "right"
    for column in table.columns:
        column.no_wrap = column.header not in ("Of", "Because")
    for entry in entries:
        at, why = when(entry.at_ns), _because(entry)
        amounts = [told(amount, signed=True).replace(", ", "\n") for amount in (entry.held, entry.posted)]
        if width >= WIDE:
            table.add_row(f"{entry.seq:,}", at, entry.kind, _text(entry.subject), *amounts, _text(why))
        else:
            of = _text("\n".join(filter(None, (entry.subject, why))))
            table.add_row(f"{entry.seq:,}", at.replace(" ", "\n"), entry.kind, of, *amounts)
    return table


def _because(entry: Entry) -> str:
    detail = entry.detail
    match entry.kind:
        case "account":
            return f"under {detail['parent']}" if detail.get("parent") else ""
        case "limit" | "topup":
            usd, tokens, calls = detail["limit"]
            limited = (usd, tokens, calls) != (None, None, None)
            parts = [_cell(unit, value) + ("" if unit == "usd_nano" else f" {unit}") for unit, value in _given(detail)]
            return f"{detail['window']}: {', '.join(parts) if limited else 'no limit'}"
        case "settle" | "lapse" | "correct" if detail.get("presumed"):
            return f"presumed: {detail.get('error') or detail.get('reason') or 'outcome unknown'}"
        case _:
            said = (detail.get(word) for word in ("error", "reason", "because"))
            return str(next(filter(None, said), _of_meta(detail.get("meta", {}))))


def _of_meta(meta: Mapping[str, Any]) -> str:
    """What a hold is for: the model, and the class of what it is sent where that is narrower than usual."""
    data_class = meta.get("data_class", "internal")
    shown = "" if data_class in ("public", "internal") else str(data_class)
    return " · ".join(filter(None, (str(meta.get("model", "")), shown)))


def _given(detail: Mapping[str, Any]) -> list[tuple[str, int]]:
    return [(unit, value) for unit, value in zip(UNITS, detail["limit"], strict=True) if value is not None]


# --- repricing


def repriced_tables(found: Repriced) -> Iterator[Table]:
    """What was booked beside what it would have cost: by model, then by skill."""
    yield _comparison("Model", [*found.per_model, found.total])
    yield _comparison("Skill", found.per_skill)


def _comparison(title: str, lines: Iterable[Comparison]) -> Table:
    from rich.table import Table

    table = Table(title, "Calls", "Booked", "Repriced", "Difference", "Not priced")
    for column in table.columns[1:]:
        column.justify = "right"
    for line in lines:
        known = line.calls - line.unknown
        table.add_row(
            _text(line.name),
            f"{line.calls:,}",
            format_usd(line.booked_usd_nano) if known else NONE,
            format_usd(line.repriced_usd_nano) if known else NONE,
            _difference(line.booked_usd_nano, line.repriced_usd_nano) if known else NONE,
            f"{line.unknown:,} ({format_usd(line.unknown_usd_nano)})" if line.unknown else NONE,
        )
    return table


def _difference(booked: int, repriced: int) -> str:
    change = repriced - booked
    share = f" ({100 * change / booked:+,.0f} %)" if booked else ""
    return f"{'+' if change > 0 else ''}{format_usd(change)}{share}"


def _text(value: str, style: str = "") -> Any:
    """Text that rich does not read as markup, broken where it must be."""
    from rich.text import Text

    return Text(printable(value), style=style, overflow="fold")
