"""``agentbudget prices show | compare | break-even``."""

from __future__ import annotations

from collections.abc import Sequence
from decimal import Decimal, InvalidOperation
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import click

from agentbudget.cli.base import console, home_option, json_option, print_json, settings_at
from agentbudget.cli.options import ledger_option, look_into, with_options

if TYPE_CHECKING:
    from rich.text import Text

    from agentbudget.costs import BreakEven, Machine, Outlook, Workload
    from agentbudget.prices import ComputePrice, ServiceTier, TokenPrice
    from agentbudget.settings import Settings
    from agentbudget.usage import Usage

TIERS: Final = ("standard", "batch", "flex", "priority", "fast")
BAR: Final = 20
"""Characters of the longest bar."""

PER_MTOK: Final = ("input", "cached", "cache_write", "cache_write_1h", "output", "reasoning", "image")


MOST: Final = 10**18
"""The largest number that an option takes: nobody counts so far, and what is made of more can be shown nowhere."""


def number(value: str | Decimal) -> Decimal:
    """A number from 0 to `MOST`, exactly as it is written. Raises ``BadParameter``."""
    try:
        exact = Decimal(value)
    except InvalidOperation:
        raise click.BadParameter(f"{value!r} is not a number") from None
    if not exact.is_finite() or exact < 0:
        raise click.BadParameter(f"{value!r} must be a number of at least 0")
    if exact > MOST:
        raise click.BadParameter(f"{value!r} is more than {MOST:,}")
    return exact


tier_option = click.option(
    "--tier", type=click.Choice(TIERS), default="standard", show_default=True, help="The service tier of the APIs."
)
call_options = with_options(
    (
        click.option(
            "--input", "input_tokens", type=click.IntRange(0), default=1000, show_default=True, help="Tokens in."
        ),
        click.option(
            "--cached", type=click.IntRange(0), default=0, show_default=True, help="Of these read from a cache."
        ),
        click.option(
            "--output", "output_tokens", type=click.IntRange(0), default=200, show_default=True, help="Tokens out."
        ),
    )
)


@click.group()
def prices() -> None:
    """What models cost: rates, comparisons, and your own machine against an API."""


# --- show


@prices.command("show")
@click.argument("models", nargs=-1, metavar="[MODEL]...")
@click.option(
    "--tier", "tiers", type=click.Choice(TIERS), multiple=True, help="Only these service tiers [all there are]."
)
@home_option
@json_option
def prices_show(models: tuple[str, ...], tiers: tuple[ServiceTier, ...], home: Path | None, as_json: bool) -> None:
    """The rates of each MODEL (``provider:model``; default: your ladder), dollars per million tokens.

    A model of this machine is shown with what its tokens cost at its speeds.
    """
    settings = settings_at(home)
    rows = [row for name in models or _ladder(settings) for row in _rates_of(name, settings, tiers)]
    if as_json:
        print_json(rows)
        return
    from rich.table import Table

    table = Table(
        "Model", "Tier", "Input above", "Input", "Cached", "Write 5m", "Write 1h", "Output", title="USD per 1M tokens"
    )
    for column in table.columns[2:]:
        column.justify = "right"
    last = None
    for row in rows:
        cells = [_rate(row[name]) for name in ("input", "cached", "cache_write", "cache_write_1h", "output")]
        named = "" if row["model"] == last else _text(row["model"])
        table.add_row(named, row["tier"], f"{row['above']:,}" if row["above"] else "", *cells)
        last = row["model"]
    screen = console()
    screen.print(table)
    for model, source in {row["model"]: row["source"] for row in rows}.items():
        screen.print(_text(f"{model}: {source}"), style="dim")


def _rates_of(name: str, settings: Settings, tiers: Sequence[ServiceTier]) -> list[dict[str, Any]]:
    """A row for each service tier and length of input; of a local model one."""
    from agentbudget.errors import UnknownPrice
    from agentbudget.prices import ComputePrice

    rows: list[dict[str, Any]] = []
    for tier in tiers or TIERS:
        try:
            price = _price(name, settings, tier, embeds=True)
        except UnknownPrice:
            if tier == "standard" or tiers:
                raise
            continue  # shown are the tiers that there are
        if isinstance(price, ComputePrice):
            return [_local_row(name, price)]
        rows += [
            {"model": name, "tier": tier, "above": rates.above, "source": price.source}
            | {rate: str(_decimal(rates.by_name()[rate])) for rate in PER_MTOK}
            for rates in price.tiers
        ]
    return rows


def _local_row(name: str, price: ComputePrice) -> dict[str, Any]:
    """What a million tokens cost at the speeds of a local model. What is cached is not computed again."""
    read = str(_usd(price.expected(input_tokens=10**6, output_tokens=0)))
    write = str(_usd(price.expected(input_tokens=0, output_tokens=10**6)))
    speeds = f"{price.prefill_tokens_per_s:,.0f} tokens/s read, {price.decode_tokens_per_s:,.0f} written"
    rates = {"input": read, "cached": "0", "cache_write": read, "cache_write_1h": read, "output": write}
    rates |= {"reasoning": write, "image": read}
    return {"model": name, "tier": "local", "above": 0, "source": f"{price.source} at {speeds}", **rates}


# --- compare


@prices.command("compare")
@click.argument("models", nargs=-1, metavar="[MODEL]...")
@call_options
@click.option("--calls", type=number, help="Calls a month [of a skill: as in the ledger].")
@click.option("--skill", help="Price the calls that this skill made, as the ledger has them.")
@tier_option
@ledger_option
@home_option
@json_option
def prices_compare(
    models: tuple[str, ...],
    input_tokens: int,
    cached: int,
    output_tokens: int,
    calls: Decimal | None,
    skill: str | None,
    tier: ServiceTier,
    where: str | None,
    home: Path | None,
    as_json: bool,
) -> None:
    """What a call, and a month, costs on each MODEL (default: your ladder), the cheapest first."""
    from agentbudget import costs

    settings = settings_at(home)
    if skill is None:
        usage = _usage(input_tokens, cached, output_tokens)
        workload = costs.Workload("a call", (usage,), None if calls is None else Fraction(calls))
    else:
        workload = _of_skill(skill, calls, home, where)
    embeds = not any(usage.output_tokens for usage in workload.usages)
    found = [
        costs.outlook(name, _price(name, settings, tier, embeds=embeds), workload)
        for name in models or _ladder(settings)
    ]
    found.sort(key=lambda line: line.call_usd_nano)
    if as_json:
        print_json(_workload_row(workload) | {"models": [_outlook_row(line) for line in found]})
    else:
        _print_comparison(workload, found)


def _of_skill(skill: str, calls: Decimal | None, home: Path | None, where: str | None) -> Workload:
    """What the ledger has of a skill; raises `SkillError`, which lists the skills that it knows."""
    from dataclasses import replace

    from agentbudget import costs
    from agentbudget.errors import SkillError

    with look_into(home, where) as opened:
        known = {workload.name: workload for workload in costs.skills(opened.holds())}
    if skill not in known:
        raise SkillError(f"this ledger has no calls of a skill {skill!r}; it has {', '.join(known) or 'none'}")
    return known[skill] if calls is None else replace(known[skill], calls_a_month=Fraction(calls))


def _print_comparison(workload: Workload, found: Sequence[Outlook]) -> None:
    from rich.table import Table

    from agentbudget.money import format_usd

    read, cached, written = workload.mean_tokens
    tokens = f"{read:,.0f} tokens in ({cached:,.0f} cached), {written:,.0f} out"
    of = f"{len(workload.usages):,} calls of {workload.name}, on average " if len(workload.usages) > 1 else ""
    a_month = "A month" if workload.calls_a_month is None else f"A month ({float(workload.calls_a_month):,.0f} calls)"
    table = Table("Model", "A call", "1,000 calls", a_month, "", title=f"{of}{tokens}")
    for column in table.columns[1:4]:
        column.justify = "right"
    most = max(line.call_usd_nano for line in found)
    for line in found:
        month = "–" if line.month_usd_nano is None else format_usd(line.month_usd_nano)
        cells = (format_usd(line.call_usd_nano), format_usd(1000 * line.call_usd_nano), month)
        table.add_row(_text(line.model), *cells, _bar(line.call_usd_nano, most))
    console().print(table)
    if workload.calls_a_month is None:
        click.echo("how many calls a month? --calls says it; of a skill, a ledger of more than a day does", err=True)


# --- break-even


@prices.command("break-even")
@click.argument("model")
@click.option(
    "--local", help="A model of this machine, llamacpp:…: its speeds, and what the environment says of costs."
)
@click.option("--usd-per-hour", type=number, help="The machine's hour, used or not [AGENTBUDGET_USD_PER_HOUR].")
@click.option("--watts", type=number, help="What it draws while it computes [AGENTBUDGET_WATTS].")
@click.option("--usd-per-kwh", type=number, help="The tariff [AGENTBUDGET_USD_PER_KWH].")
@click.option("--prefill", type=number, help="Tokens a second that it reads, all its calls together.")
@click.option("--decode", type=number, help="Tokens a second that it writes, all its calls together.")
@click.option(
    "--utilisation", type=number, default="0.5", show_default=True, help="Share of the time with calls to compute."
)
@call_options
@tier_option
@home_option
@json_option
def prices_break_even(
    model: str,
    local: str | None,
    usd_per_hour: Decimal | None,
    watts: Decimal | None,
    usd_per_kwh: Decimal | None,
    prefill: Decimal | None,
    decode: Decimal | None,
    utilisation: Decimal,
    input_tokens: int,
    cached: int,
    output_tokens: int,
    tier: ServiceTier,
    home: Path | None,
    as_json: bool,
) -> None:
    """From how many calls a month on a machine of your own costs less than MODEL's API."""
    from agentbudget import costs
    from agentbudget.errors import UnknownPrice
    from agentbudget.prices import TokenPrice

    settings = settings_at(home)
    price = _price(model, settings, tier)
    if not isinstance(price, TokenPrice):
        raise UnknownPrice(f"{model} runs on this machine: name the API model to compare with, and it with --local")
    machine = _machine(settings, local, (usd_per_hour, watts, usd_per_kwh), (prefill, decode), utilisation)
    usage = _usage(input_tokens, cached, output_tokens)
    found = costs.break_even(price, machine, usage)
    if as_json:
        print_json({"model": model, "source": price.source} | found.to_dict())
    else:
        _print_break_even(model, machine, usage, found)


def _machine(
    settings: Settings,
    local: str | None,
    costs_given: tuple[Decimal | None, Decimal | None, Decimal | None],
    speeds_given: tuple[Decimal | None, Decimal | None],
    utilisation: Decimal,
) -> Machine:
    """The machine that options describe; what they leave out comes from the environment and a local model's speeds."""
    from agentbudget import costs
    from agentbudget.prices import ComputePrice

    usd_per_hour, watts, usd_per_kwh = costs_given
    watts = settings.watts if watts is None else watts
    usd_per_kwh = settings.usd_per_kwh if usd_per_kwh is None else usd_per_kwh
    if (watts is None) != (usd_per_kwh is None):
        raise click.UsageError("energy needs both --watts and --usd-per-kwh, or neither")
    prefill, decode = speeds_given
    if local is not None:
        known = _price(local, settings, "standard")
        if not isinstance(known, ComputePrice):
            raise click.UsageError(f"--local names a model of this machine (llamacpp:…), not {local}")
        prefill = prefill if prefill is not None else Decimal(str(known.prefill_tokens_per_s))
        decode = decode if decode is not None else Decimal(str(known.decode_tokens_per_s))
    if prefill is None or decode is None:
        raise click.UsageError(
            "how fast is the machine? Give --prefill and --decode in tokens a second, or --local MODEL"
        )
    return costs.Machine(
        settings.usd_per_hour if usd_per_hour is None else usd_per_hour,
        Fraction(prefill),
        Fraction(decode),
        watts or Decimal(0),
        usd_per_kwh or Decimal(0),
        Fraction(utilisation),
    )


def _print_break_even(model: str, machine: Machine, usage: Usage, found: BreakEven) -> None:
    from rich.table import Table

    from agentbudget.money import format_usd

    screen = console()
    facts = Table.grid(padding=(0, 2))
    facts.add_row("a call", f"{usage.input_tokens:,} tokens in, {usage.output_tokens:,} out")
    facts.add_row(_text(model), f"{format_usd(found.api_call_usd_nano)} a call")
    facts.add_row(
        "the machine",
        f"{format_usd(found.month_usd_nano)} a month of 720 hours, and {format_usd(found.energy_call_usd_nano)} "
        f"of energy a call; {found.capacity:,} calls a month at {float(machine.utilisation):.0%} utilisation, "
        f"{format_usd(found.full_call_usd_nano)} each",
    )
    screen.print(facts)
    table = Table("Calls a month", "API", "Machines", "Own", "", title="USD a month")
    for column in table.columns[:4]:
        column.justify = "right"
    most = max(max(v.api_usd_nano, v.own_usd_nano) for v in found.volumes)
    for v in found.volumes:
        bars = f"API {_bar(v.api_usd_nano, most)}\nown {_bar(v.own_usd_nano, most)}"
        mark = " ←" if v.calls == found.calls else ""
        cells = (f"{v.calls:,}{mark}", format_usd(v.api_usd_nano), f"{v.machines:,}", format_usd(v.own_usd_nano))
        table.add_row(*cells, bars)
    screen.print(table)
    if found.calls is None:
        click.echo("never: even in full use a call on this machine costs more than the API's")
    else:
        click.echo(f"from {found.calls:,} calls a month on ({found.calls / 30:,.0f} a day) the machine costs less")
        if found.always is None:
            click.echo(f"as long as these are no more than it computes, {found.capacity:,}: a second one never pays")
        elif found.always > found.calls:
            click.echo(f"up to {found.capacity:,}, when a second is needed; from {found.always:,} on always")


# --- what they share


def _ladder(settings: Settings) -> tuple[str, ...]:
    from agentbudget.models import default_names

    return default_names(settings)


def _price(name: str, settings: Settings, tier: ServiceTier, *, embeds: bool = False) -> TokenPrice | ComputePrice:
    """The price of ``provider:model``; of a local model what its seconds cost. Nothing is loaded, no key is needed.

    Where no output is asked about (``embeds``), a model needs no price for it.
    """
    from agentbudget.errors import UnknownModel
    from agentbudget.models import make_model
    from agentbudget.models.servers import PROFILES
    from agentbudget.prices import ComputePrice, TokenPrice, price_of

    provider, _, model = name.partition(":")
    if not model:
        raise UnknownModel(f"{name!r} names no provider: write 'openai:…', 'anthropic:…', 'google:…', 'llamacpp:…'")
    if provider == "llamacpp" or provider in PROFILES:
        price = make_model(name, settings).price
        assert isinstance(price, ComputePrice | TokenPrice)  # by which models are made from names
        return price
    model, _, address = model.partition("@")
    return price_of(provider, model, api_url=address or None, tier=tier, embeds=embeds)


def _usage(input_tokens: int, cached: int, output_tokens: int) -> Usage:
    from agentbudget.usage import Usage

    if cached > input_tokens:
        raise click.UsageError(f"--cached {cached} is a part of --input {input_tokens}: it cannot be more")
    return Usage(input_tokens, output_tokens, cached)


def _workload_row(workload: Workload) -> dict[str, Any]:
    read, cached, written = workload.mean_tokens
    month = workload.calls_a_month
    return {
        "workload": workload.name,
        "calls": len(workload.usages),
        "mean_input_tokens": read,
        "mean_cached_tokens": cached,
        "mean_output_tokens": written,
        "calls_a_month": None if month is None else float(month),
    }


def _outlook_row(line: Outlook) -> dict[str, Any]:
    names = ("model", "source", "call_usd_nano", "month_usd_nano")
    return {name: getattr(line, name) for name in names}


def _bar(value: int, most: int) -> str:
    """A bar in eighths of a character; something is never shown as nothing."""
    eighths = round(8 * BAR * value / most) if most else 0
    if value and not eighths:
        eighths = 1
    return "█" * (eighths // 8) + ("" if eighths % 8 == 0 else "▏▎▍▌▋▊▉"[eighths % 8 - 1])


def _text(name: str) -> Text:
    """A name as it is: in some of them rich would see markup, or a picture (``:x:``)."""
    from rich.text import Text

    return Text(name, overflow="fold")


def _decimal(rate: Fraction) -> Decimal:
    return Decimal(rate.numerator) / Decimal(rate.denominator)


def _usd(nano: int) -> Decimal:
    from agentbudget.money import nano_to_usd

    return nano_to_usd(nano)


def _rate(text: str) -> str:
    """Dollars per million as a price list shows them: at least two decimals, at most five significant digits."""
    rate = Decimal(text)
    if rate and rate.adjusted() < -3:
        return f"{rate:.4g}"
    shown = f"{rate:,.4f}".rstrip("0")
    head, _, tail = shown.partition(".")
    return f"{head}.{tail.ljust(2, '0')}"
