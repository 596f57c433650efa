"""Your own prices, by the name of the model, dated: a file that goes before the public list."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, date, datetime
from decimal import Decimal
from pathlib import Path
from typing import Final, cast, get_args

from agentbudget.errors import InvalidAmount, UnknownPrice
from agentbudget.prices.published import PRICES_VARIABLE
from agentbudget.prices.rates import NAMES, Rates, ServiceTier, decimal
from agentbudget.prices.tokens import TokenPrice

FIELDS: Final = (*NAMES, "above", "tier", "from", "until", "context_window")

ALWAYS: Final = datetime.min.replace(tzinfo=UTC)


@dataclass(frozen=True, slots=True)
class Listing:
    """A price of one model, and when it is in force: ``starts`` inclusive, ``ends`` exclusive, both in UTC.

    `context_window` is None if the sheet does not say.
    """

    price: TokenPrice
    context_window: int | None = None
    starts: datetime = ALWAYS
    ends: datetime | None = None

    def in_force(self, at: datetime) -> bool:
        """Whether this is the price at a moment."""
        return self.starts <= at and (self.ends is None or at < self.ends)


@dataclass(frozen=True, slots=True)
class PriceSheet:
    """Your own prices, by the name of the model; they go before genai-prices'.

    A TOML (or JSON) file, in dollars per million tokens; only ``input`` and ``output`` are required::

        ["openai:qwen3-32b"]
        input = 0.15
        output = 0.60
        cached = 0.015
        cache_write = 0.15
        context_window = 32768

    A model may have several, in ``[["openai:qwen3-32b"]]``: one for each service ``tier``, each ``above`` (the length
    of the input from which it applies to the whole request), and each time ``from`` a date (its first moment in UTC)
    ``until`` another (exclusive). Of two in force, the one that began later goes first.
    """

    listings: Mapping[str, tuple[Listing, ...]] = field(default_factory=dict[str, tuple[Listing, ...]])

    @classmethod
    def load(cls, path: Path) -> PriceSheet:
        """Read a sheet; raises `UnknownPrice` if the file is missing or says something else than prices."""
        try:
            text = path.read_text(encoding="utf-8-sig")  # some editors mark a file as UTF-8
        except (OSError, UnicodeDecodeError) as error:
            raise UnknownPrice(f"the price sheet {path} cannot be read: {error}") from error
        entries = _parse(path, text)
        return cls({name: _listings(path, name, entry) for name, entry in entries.items()})

    @classmethod
    def from_env(cls) -> PriceSheet:
        """The sheet that ``AGENTBUDGET_PRICES`` names; an empty one if it is not set."""
        given = os.environ.get(PRICES_VARIABLE)
        return cls.load(Path(given).expanduser()) if given else cls()

    def price(self, name: str, *, tier: ServiceTier = "standard", at: datetime | None = None) -> TokenPrice | None:
        """The price of ``provider:model`` in force now (or `at`); None if the sheet has none."""
        moment = datetime.now(UTC) if at is None else at
        fitting = [entry for entry in self.listings.get(name, ()) if entry.price.service == tier]
        in_force = [entry for entry in fitting if entry.in_force(moment)]
        return max(in_force, key=lambda entry: entry.starts).price if in_force else None

    def turns(self, name: str, *, after: datetime) -> datetime | None:
        """The next moment at which a price of ``provider:model`` begins or ends; None if none will."""
        moments = (moment for entry in self.listings.get(name, ()) for moment in (entry.starts, entry.ends))
        return min((moment for moment in moments if moment is not None and moment > after), default=None)

    def context_window(self, name: str) -> int | None:
        """Tokens of context that the sheet states for a model; None if it does not."""
        return next((entry.context_window for entry in self.listings.get(name, ()) if entry.context_window), None)


def _parse(path: Path, text: str) -> Mapping[str, object]:
    import json
    import tomllib

    try:
        if path.suffix == ".json":
            data: object = json.loads(text, parse_float=Decimal, object_pairs_hook=_once)
        else:
            data = tomllib.loads(text, parse_float=Decimal)
    except (ValueError, RecursionError) as error:
        raise UnknownPrice(
            f"the price sheet {path} is not valid {path.suffix.lstrip('.') or 'TOML'}: {error}"
        ) from error
    if not isinstance(data, dict):
        raise UnknownPrice(f'the price sheet {path} must hold one table a model, as in ["openai:qwen3-32b"]')
    return cast("dict[str, object]", data)


def _once(pairs: list[tuple[str, object]]) -> dict[str, object]:
    """A JSON object; of two values of one name, JSON would silently take the last."""
    found = dict(pairs)
    if len(found) < len(pairs):
        names = [name for name, _ in pairs]
        raise ValueError(f"{next(name for name in names if names.count(name) > 1)!r} stands there twice")
    return found


@dataclass(frozen=True, slots=True)
class _Row:
    """One table of a sheet: the rates of a model above one length, at one service tier, in one time."""

    rates: Rates
    tier: ServiceTier
    starts: datetime
    ends: datetime | None
    context_window: int | None


def _listings(path: Path, name: str, entry: object) -> tuple[Listing, ...]:
    """The prices of one model: rows of the same tier and time are one price, by the length of the input."""
    where = f'the price sheet {path}, ["{name}"]'
    if ":" not in name or name != name.strip():
        raise UnknownPrice(f"{where}: no model is called so; write provider:model, as in openai:qwen3-32b")
    entries = cast("list[object]", entry) if isinstance(entry, list) else [entry]
    rows = [_row(where, one) for one in entries]
    groups: dict[tuple[str, datetime], list[_Row]] = {}
    for row in rows:
        groups.setdefault((row.tier, row.starts), []).append(row)
    try:
        return tuple(_listing(path, group) for group in groups.values())
    except InvalidAmount as error:
        raise UnknownPrice(f"{where}: {error}") from error


def _listing(path: Path, rows: Sequence[_Row]) -> Listing:
    ordered = sorted(rows, key=lambda row: row.rates.above)
    first = ordered[0]
    if any(row.ends != first.ends for row in ordered):
        raise InvalidAmount(
            f"the prices of the tier {first.tier!r} that begin together must end together",
            value=path.name,
        )
    price = TokenPrice(tuple(row.rates for row in ordered), f"price sheet {path.name}", first.tier)
    window = next((row.context_window for row in ordered if row.context_window), None)
    return Listing(price, window, first.starts, first.ends)


def _row(where: str, entry: object) -> _Row:
    if not isinstance(entry, dict):
        raise UnknownPrice(f"{where}: must be a table with input and output")
    values = cast("dict[str, object]", entry)
    if unknown := values.keys() - set(FIELDS):
        raise UnknownPrice(f"{where}: unknown {', '.join(sorted(unknown))}; known are {', '.join(FIELDS)}")
    if missing := {"input", "output"} - values.keys():
        raise UnknownPrice(f"{where}: {' and '.join(sorted(missing))} missing")
    starts, ends = _moment(where, "from", values), _moment(where, "until", values)
    if ends is not None and (starts or ALWAYS) >= ends:
        raise UnknownPrice(f"{where}: until must be later than from; a price until a day no longer holds on that day")
    try:
        prices = {name: decimal(values[name]) for name in NAMES if name in values}
    except InvalidAmount as error:
        raise UnknownPrice(f"{where}: {error}") from error
    above = 0 if values.get("above") == 0 else _count(where, "above", values) or 0
    return _Row(
        Rates.of(
            input=prices["input"],
            output=prices["output"],
            cached=prices.get("cached"),
            cache_write=prices.get("cache_write"),
            cache_write_1h=prices.get("cache_write_1h"),
            reasoning=prices.get("reasoning"),
            image=prices.get("image"),
            above=above,
        ),
        _tier(where, values.get("tier", "standard")),
        starts or ALWAYS,
        ends,
        _count(where, "context_window", values),
    )


def _count(where: str, name: str, values: Mapping[str, object]) -> int | None:
    value = values.get(name)
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int) or value < 1:
        raise UnknownPrice(f"{where}: {name} must be a positive integer, not {value!r}")
    return value


def _tier(where: str, value: object) -> ServiceTier:
    for tier in get_args(ServiceTier):
        if value == tier:
            return tier
    raise UnknownPrice(f"{where}: tier must be one of {', '.join(get_args(ServiceTier))}, not {value!r}")


def _moment(where: str, name: str, values: Mapping[str, object]) -> datetime | None:
    """A date (its first moment in UTC) or a moment, as TOML has them or as ISO 8601 text."""
    value = values.get(name)
    if isinstance(value, str):
        try:
            value = datetime.fromisoformat(value)
        except ValueError:
            raise UnknownPrice(f"{where}: {name} must be a date such as 2026-12-01, not {value!r}") from None
    if isinstance(value, datetime):
        try:
            return value.replace(tzinfo=UTC) if value.tzinfo is None else value.astimezone(UTC)
        except OverflowError:
            raise UnknownPrice(f"{where}: {name} is beyond all calendars: {value}") from None
    if isinstance(value, date):
        return datetime(value.year, value.month, value.day, tzinfo=UTC)
    if value is not None:
        raise UnknownPrice(f"{where}: {name} must be a date such as 2026-12-01, not {value!r}")
    return None
