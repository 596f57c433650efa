"""Usage → nano-dollars: token prices (genai-prices or your own) and compute by the second. Exact, never a float."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from decimal import Decimal, InvalidOperation
from fractions import Fraction
from functools import cache
from math import ceil, floor, nextafter
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, cast

from agentbudget.errors import InvalidAmount, UnknownPrice
from agentbudget.money import NANO, Money
from agentbudget.usage import Usage

if TYPE_CHECKING:
    from genai_prices.types import ModelInfo, ModelPrice, TieredPrices

NANO_PER_TOKEN: Final = NANO // 10**6
"""Nano-dollars a token, for one dollar per million tokens."""

SECONDS_PER_HOUR: Final = 3600

NS_PER_S: Final = 10**9

PRICES_VARIABLE: Final = "AGENTBUDGET_PRICES"
"""Environment variable that names the user's price sheet."""

PER_CALL_UNITS: Final = (
    "requests_kcount",
    "output_reasoning_mtok",
    "output_citation_mtok",
    "input_mchars",
    "input_text_messages_kcount",
)
"""What a text call may be charged for besides tokens in and out: a model that does is refused, not underpriced."""


@dataclass(frozen=True, slots=True)
class Rates:
    """Dollars per million tokens while a request's whole input is more than `above` tokens."""

    input: Fraction
    output: Fraction
    cached: Fraction
    cache_write: Fraction
    above: int = 0

    @classmethod
    def of(
        cls,
        *,
        input: Money,
        output: Money,
        cached: Money | None = None,
        cache_write: Money | None = None,
        above: int = 0,
    ) -> Rates:
        """Rates as a price list states them; cache reads and writes cost what input costs unless given."""
        plain = _rate(input)
        return cls(
            input=plain,
            output=_rate(output),
            cached=plain if cached is None else _rate(cached),
            cache_write=plain if cache_write is None else _rate(cache_write),
            above=above,
        )

    def cost(self, usage: Usage) -> Fraction:
        """Nano-dollars, exactly."""
        plain = usage.input_tokens - usage.cached_tokens - usage.cache_write_tokens
        return NANO_PER_TOKEN * (
            plain * self.input
            + usage.cached_tokens * self.cached
            + usage.cache_write_tokens * self.cache_write
            + usage.output_tokens * self.output
        )

    def most(self, input_tokens: int, output_tokens: int) -> Fraction:
        """Nano-dollars if every input token is charged at the dearest of the three input rates."""
        dearest = max(self.input, self.cached, self.cache_write)
        return NANO_PER_TOKEN * (input_tokens * dearest + output_tokens * self.output)


@dataclass(frozen=True, slots=True)
class TokenPrice:
    """What an API charges by the token: the rates in force when this was made, and where they come from.

    `tiers` ascend by `above`; the first has ``above=0``. A long-context tier applies to the whole request
    (a cliff, as providers bill it), not only to the tokens beyond it.
    """

    tiers: tuple[Rates, ...]
    source: str

    def __post_init__(self) -> None:
        starts = [tier.above for tier in self.tiers]
        if not starts or starts[0] != 0 or sorted(set(starts)) != starts:
            raise InvalidAmount(f"price tiers must start at 0 and ascend, not {starts}", value=starts)

    @classmethod
    def custom(
        cls,
        *,
        input_usd_per_mtok: Money,
        output_usd_per_mtok: Money,
        cached_usd_per_mtok: Money | None = None,
        cache_write_usd_per_mtok: Money | None = None,
        source: str = "given",
    ) -> TokenPrice:
        """Your own price, in dollars per million tokens.

        >>> TokenPrice.custom(input_usd_per_mtok="0.15", output_usd_per_mtok="0.60").cost(Usage(1000, 100))
        210000
        """
        rates = Rates.of(
            input=input_usd_per_mtok,
            output=output_usd_per_mtok,
            cached=cached_usd_per_mtok,
            cache_write=cache_write_usd_per_mtok,
        )
        return cls((rates,), source)

    @classmethod
    def known(cls, provider: str, model: str, *, api_url: str | None = None) -> TokenPrice:
        """genai-prices' rates for a model today; `api_url` finds the provider of an OpenAI-like server.

        Raises `UnknownPrice` where genai-prices has none.
        """
        info = _model_info(provider, model, api_url)
        if info is None:
            raise UnknownPrice(_how_to_price(provider, model, f"has no price in {_source()}"))
        return cls(_tiers(provider, model, _price_in_force(info)), _source(info.id, model))

    @property
    def terms(self) -> dict[str, Any]:
        """The source, and under ``usd_per_mtok`` the rates of each tier in dollars per million tokens."""
        tiers = [
            {"above": tier.above}
            | {name: _text(getattr(tier, name)) for name in ("input", "output", "cached", "cache_write")}
            for tier in self.tiers
        ]
        return {"source": self.source, "usd_per_mtok": tiers}

    def cost(self, usage: Usage) -> int:
        """What this usage costs, in nano-dollars, rounded up."""
        return ceil(self._tier(usage.input_tokens).cost(usage))

    def expected(self, *, input_tokens: int, output_tokens: int) -> int:
        """What a call of this size usually costs, in nano-dollars: nothing read from or written to a cache."""
        return self.cost(Usage(input_tokens, output_tokens))

    def bound(self, *, input_tokens: int, output_tokens: int) -> int:
        """The most that a call with at most these tokens may cost, in nano-dollars.

        Every tier that such a call can reach counts with the longest input that it covers, so that the
        bound also holds where a longer context is cheaper.
        """
        ends = (*(tier.above for tier in self.tiers[1:]), input_tokens)
        reachable = (
            tier.most(min(end, input_tokens), output_tokens)
            for tier, end in zip(self.tiers, ends, strict=True)
            if tier.above == 0 or tier.above < input_tokens
        )
        return ceil(max(reachable))

    def compute_cap_s(self, usd_nano: int) -> float | None:
        """None: tokens are paid for, not seconds."""
        return None

    def _tier(self, input_tokens: int) -> Rates:
        return next(tier for tier in reversed(self.tiers) if tier.above == 0 or input_tokens > tier.above)


@dataclass(frozen=True, slots=True)
class ComputePrice:
    """What an hour of this machine costs, paid by the nanosecond that a local model computes.

    The measured speeds turn tokens into seconds for `bound`; `safety` allows for a machine that others use
    at the same time. Raises `InvalidAmount` unless all are more than 0: local is cheap, never free.
    """

    usd_per_hour: Decimal
    prefill_tokens_per_s: float
    decode_tokens_per_s: float
    safety: int = 3

    def __post_init__(self) -> None:
        object.__setattr__(self, "usd_per_hour", _decimal(self.usd_per_hour))
        for name in ("usd_per_hour", "prefill_tokens_per_s", "decode_tokens_per_s", "safety"):
            if not getattr(self, name) > 0:
                raise InvalidAmount(
                    f"{name} must be more than 0, not {getattr(self, name)}", value=getattr(self, name), unit=name
                )

    @property
    def source(self) -> str:
        """``"0.10 USD/h"``."""
        return f"{self.usd_per_hour:f} USD/h"

    @property
    def terms(self) -> dict[str, Any]:
        """The source, and ``usd_per_hour``: speeds matter to bounds only, not to what is paid."""
        return {"source": self.source, "usd_per_hour": f"{self.usd_per_hour:f}"}

    def cost(self, usage: Usage) -> int:
        """What the computing time costs, in nano-dollars, rounded up."""
        return ceil(self._nano_per_ns * usage.compute_ns)

    def expected(self, *, input_tokens: int, output_tokens: int) -> int:
        """What these tokens cost at the measured speeds, in nano-dollars."""
        return ceil(self._at_speed(input_tokens, output_tokens))

    def bound(self, *, input_tokens: int, output_tokens: int) -> int:
        """What they cost if everything takes `safety` times as long, in nano-dollars."""
        return ceil(self._at_speed(input_tokens, output_tokens) * self.safety)

    def compute_cap_s(self, usd_nano: int) -> float | None:
        """Seconds that this much buys: a whole number of nanoseconds, and never more than was paid for."""
        bought = Fraction(floor(usd_nano / self._nano_per_ns), NS_PER_S)
        seconds = float(bought)
        return seconds if Fraction(seconds) <= bought else nextafter(seconds, 0.0)

    def _at_speed(self, input_tokens: int, output_tokens: int) -> Fraction:
        prefill_s = input_tokens / Fraction(self.prefill_tokens_per_s)
        decode_s = output_tokens / Fraction(self.decode_tokens_per_s)
        return self._nano_per_ns * NS_PER_S * (prefill_s + decode_s)

    @property
    def _nano_per_ns(self) -> Fraction:
        """Nano-dollars a nanosecond, which is dollars a second."""
        return Fraction(self.usd_per_hour) / SECONDS_PER_HOUR


@dataclass(frozen=True, slots=True)
class Listing:
    """What a price sheet says about one model; `context_window` is None if it does not say."""

    price: TokenPrice
    context_window: int | None = None


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
    """

    listings: Mapping[str, Listing] = field(default_factory=dict[str, Listing])

    @classmethod
    def load(cls, path: Path) -> PriceSheet:
        """Read a sheet; raises `UnknownPrice` if the file is missing or says something else than prices."""
        try:
            text = path.read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as error:
            raise UnknownPrice(f"the price sheet {path} cannot be read: {error}") from error
        entries = _parse(path, text)
        return cls({name: _listing(path, name, entry) for name, entry in entries.items()})

    @classmethod
    def from_env(cls) -> PriceSheet:
        """The sheet that ``AGENTBUDGET_PRICES`` names; an empty one if it is not set."""
        given = os.environ.get(PRICES_VARIABLE)
        return cls.load(Path(given).expanduser()) if given else cls()


def price_of(provider: str, model: str, *, api_url: str | None = None, sheet: PriceSheet | None = None) -> TokenPrice:
    """The price of ``provider:model``: the sheet's (default: the user's), else genai-prices'.

    Raises `UnknownPrice`, which says how to give it one.
    """
    listed = (PriceSheet.from_env() if sheet is None else sheet).listings.get(f"{provider}:{model}")
    return listed.price if listed else TokenPrice.known(provider, model, api_url=api_url)


def context_window_of(
    provider: str, model: str, *, api_url: str | None = None, sheet: PriceSheet | None = None
) -> int | None:
    """Tokens of context that the sheet, else genai-prices, states for a model; None if neither does."""
    listed = (PriceSheet.from_env() if sheet is None else sheet).listings.get(f"{provider}:{model}")
    if listed and listed.context_window:
        return listed.context_window
    info = _model_info(provider, model, api_url)
    return info.context_window if info else None


def cost_on(terms: Mapping[str, Any], usage: Usage) -> int:
    """What this usage costs on the ``terms`` of a price, as a settlement kept them, in nano-dollars, rounded up.

    Raises `UnknownPrice` if they are none.

    >>> price = TokenPrice.custom(input_usd_per_mtok="0.15", output_usd_per_mtok="0.60")
    >>> cost_on(price.terms, Usage(1000, 100)) == price.cost(Usage(1000, 100))
    True
    """
    try:
        if "usd_per_hour" in terms:
            return ComputePrice(Decimal(terms["usd_per_hour"]), 1, 1).cost(usage)
        tiers = tuple(
            Rates(
                input=_kept_rate(tier["input"]),
                output=_kept_rate(tier["output"]),
                cached=_kept_rate(tier["cached"]),
                cache_write=_kept_rate(tier["cache_write"]),
                above=tier["above"],
            )
            for tier in terms["usd_per_mtok"]
        )
        return TokenPrice(tiers, str(terms["source"])).cost(usage)
    except (KeyError, TypeError, ValueError, ArithmeticError) as error:
        raise UnknownPrice(f"these are not the terms of a price: {dict(terms)!r}") from error


def _text(rate: Fraction) -> str:
    """A rate, exactly: as a decimal where it is one."""
    exact = Decimal(rate.numerator) / Decimal(rate.denominator)
    return f"{exact:f}" if Fraction(exact) == rate else str(rate)


def _kept_rate(text: str) -> Fraction:
    rate = Fraction(text)
    if rate < 0:
        raise InvalidAmount(f"{text!r} is not a price; it must be at least 0", value=text)
    return rate


def _decimal(value: object) -> Decimal:
    """`value` as a finite Decimal of at least 0; a float is refused, for 0.1 is not a tenth."""
    if isinstance(value, bool) or not isinstance(value, Decimal | int | str):
        raise InvalidAmount(
            f"{value!r} is a {type(value).__name__}; write a price as a string, an int or a Decimal", value=value
        )
    try:
        exact = Decimal(value)
    except InvalidOperation:
        raise InvalidAmount(f"{value!r} is not a price; write it as in '0.15'", value=value) from None
    if not exact.is_finite() or exact < 0:
        raise InvalidAmount(f"{value!r} is not a price; it must be finite and at least 0", value=value)
    return exact


def _rate(value: object) -> Fraction:
    return Fraction(_decimal(value))


def _how_to_price(provider: str, model: str, why: str) -> str:
    name = f"{provider}:{model}"
    return (
        f"{name} {why}. Give it one in dollars per million tokens: pass "
        f"price=TokenPrice.custom(input_usd_per_mtok='0.15', output_usd_per_mtok='0.60'), or add "
        f'["{name}"] with input and output to the TOML file that {PRICES_VARIABLE} names'
    )


@cache
def _source(priced_as: str = "", model: str = "") -> str:
    """Names the price list, and the entry where it goes by another name than the model."""
    from importlib.metadata import version

    name = f"genai-prices {version('genai-prices')}"
    return name if priced_as == model else f"{name}: {priced_as}"


def _model_info(provider: str, model: str, api_url: str | None) -> ModelInfo | None:
    from genai_prices.data_snapshot import get_snapshot

    try:
        found = get_snapshot().find_provider_model(model, None, None if api_url else provider, api_url)
    except LookupError:
        return None
    return found[1]


def _price_in_force(info: ModelInfo) -> ModelPrice:
    from datetime import UTC, datetime

    return info.get_prices(datetime.now(UTC))


def _tiers(provider: str, model: str, price: ModelPrice) -> tuple[Rates, ...]:
    """genai-prices' per-unit tiers as one table of whole-request tiers."""
    if price.input_mtok is None or price.output_mtok is None:
        raise UnknownPrice(_how_to_price(provider, model, f"has no price per token in and out in {_source()}"))
    for unit in PER_CALL_UNITS:
        if getattr(price, unit) is not None:
            raise UnknownPrice(_how_to_price(provider, model, f"is also charged by {unit}, which cannot be bounded"))
    units = (price.input_mtok, price.output_mtok, price.cache_read_mtok, price.cache_write_mtok)
    starts = sorted({0, *(start for unit in units for start in _starts(unit))})
    return tuple(_rates_above(start, price) for start in starts)


def _rates_above(start: int, price: ModelPrice) -> Rates:
    plain = _price_above(start, price.input_mtok)
    output = _price_above(start, price.output_mtok)
    assert plain is not None  # `_tiers` refused a price without them
    assert output is not None
    return Rates.of(
        input=plain,
        output=output,
        cached=_price_above(start, price.cache_read_mtok),
        cache_write=_price_above(start, price.cache_write_mtok),
        above=start,
    )


def _starts(unit: Decimal | TieredPrices | None) -> list[int]:
    return [] if unit is None or isinstance(unit, Decimal) else [tier.start for tier in unit.tiers]


def _price_above(start: int, unit: Decimal | TieredPrices | None) -> Decimal | None:
    """The price of an input of just more than `start` tokens."""
    if unit is None or isinstance(unit, Decimal):
        return unit
    reached = [tier.price for tier in unit.tiers if tier.start <= start]
    return reached[-1] if reached else unit.base


def _parse(path: Path, text: str) -> Mapping[str, object]:
    import json
    import tomllib

    try:
        if path.suffix == ".json":
            data: object = json.loads(text, parse_float=Decimal)
        else:
            data = tomllib.loads(text, parse_float=Decimal)
    except ValueError as error:
        raise UnknownPrice(
            f"the price sheet {path} is not valid {path.suffix.lstrip('.') or 'TOML'}: {error}"
        ) from error
    if not isinstance(data, dict):
        raise UnknownPrice(f'the price sheet {path} must hold one table a model, as in ["openai:qwen3-32b"]')
    return cast("dict[str, object]", data)


def _listing(path: Path, name: str, entry: object) -> Listing:
    fields = {"input", "output", "cached", "cache_write", "context_window"}
    where = f'the price sheet {path}, ["{name}"]'
    if not isinstance(entry, dict):
        raise UnknownPrice(f"{where}: must be a table with input and output")
    values = cast("dict[str, object]", entry)
    if unknown := values.keys() - fields:
        raise UnknownPrice(f"{where}: unknown {', '.join(sorted(unknown))}; known are {', '.join(sorted(fields))}")
    if missing := {"input", "output"} - values.keys():
        raise UnknownPrice(f"{where}: {' and '.join(sorted(missing))} missing")
    window = values.pop("context_window", None)
    if window is not None and (isinstance(window, bool) or not isinstance(window, int) or window < 1):
        raise UnknownPrice(f"{where}: context_window must be a positive integer, not {window!r}")
    try:
        rates = _rates({key: _decimal(value) for key, value in values.items()})
    except InvalidAmount as error:
        raise UnknownPrice(f"{where}: {error}") from error
    return Listing(TokenPrice((rates,), f"price sheet {path.name}"), window)


def _rates(usd_per_mtok: Mapping[str, Decimal]) -> Rates:
    return Rates.of(
        input=usd_per_mtok["input"],
        output=usd_per_mtok["output"],
        cached=usd_per_mtok.get("cached"),
        cache_write=usd_per_mtok.get("cache_write"),
    )
