"""The public price list: genai-prices' rates of a model, by service tier and date, as rates of ours."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from decimal import Decimal
from functools import cache, partial
from typing import TYPE_CHECKING, Final
from urllib.parse import urlsplit

from agentbudget.errors import UnknownPrice
from agentbudget.prices.rates import Rates, ServiceTier

if TYPE_CHECKING:
    from genai_prices.types import ModelInfo, ModelPrice, Provider, TieredPrices

PRICES_VARIABLE: Final = "AGENTBUDGET_PRICES"
"""Environment variable that names the user's price sheet."""

PER_CALL_UNITS: Final = (
    "requests_kcount",
    "output_citation_mtok",
    "input_mchars",
    "input_text_messages_kcount",
)
"""What a text call may be charged for besides tokens in and out: a model that does is refused, not underpriced."""

CONTEXTS: Final[Mapping[ServiceTier, tuple[Mapping[str, str], ...]]] = {
    "standard": (),
    "batch": ({"processing": "batch"},),
    "flex": ({"service_tier": "flex"},),
    "priority": ({"service_tier": "priority"},),
    "fast": ({"speed": "fast"}, {"service_tier": "fast"}),
}
"""How genai-prices says a service tier: each provider knows one way or none. It charges an unknown one as standard."""

HOUR_OVER_INPUT: Final = 2
"""A cache write for an hour costs twice the input with every Claude model, whoever serves it (Anthropic, "Prompt
caching", pricing; the multiplier of a five-minute write is 1.25). For where the list states only the short write."""


@dataclass(frozen=True, slots=True)
class Published:
    """Rates by the length of the input, and the list and entry that they come from."""

    tiers: tuple[Rates, ...]
    source: str


def rates(
    provider: str,
    model: str,
    *,
    api_url: str | None = None,
    tier: ServiceTier = "standard",
    at: datetime | None = None,
    embeds: bool = False,
) -> Published:
    """What genai-prices states for a model at a service tier. Raises `UnknownPrice`, which says how to give it one."""
    found, refused = _find(provider, model, api_url), partial(how_to_price, provider, model, tier=tier)
    if found is None:
        elsewhere = api_url is not None and _find(provider, model, None) is not None
        at_address = f" at {urlsplit(api_url).hostname}" if elsewhere else ""
        raise UnknownPrice(refused(f"has no price{at_address} in {_source()}"))
    seller, info = found
    moment = datetime.now(UTC) if at is None else at
    price = info.get_prices(moment, _context(provider, model, seller, info, tier, moment))
    if price.input_mtok is None or (price.output_mtok is None and not embeds):
        raise UnknownPrice(refused(f"has no price per token in and out in {_source()}"))
    for unit in PER_CALL_UNITS:
        if getattr(price, unit) is not None:
            raise UnknownPrice(refused(f"is also charged by {unit}, which cannot be bounded"))
    return Published(_tiers(info, price), _source(info.id, model))


def context_window(provider: str, model: str, api_url: str | None) -> int | None:
    """Tokens of context that genai-prices states for a model; None if it does not."""
    found = _find(provider, model, api_url)
    return found[1].context_window if found else None


def how_to_price(provider: str, model: str, why: str, *, tier: ServiceTier = "standard") -> str:
    """Why there is no price, and the two ways to give one."""
    name = f"{provider}:{model}"
    entry = f'["{name}"] with input and output'
    if tier != "standard":
        entry = f'[["{name}"]] with tier = "{tier}", input and output'
    return (
        f"{name} {why}. Give it one in dollars per million tokens: pass "
        f"price=TokenPrice.custom(input_usd_per_mtok='0.15', output_usd_per_mtok='0.60'), or add "
        f"{entry} to the TOML file that {PRICES_VARIABLE} names"
    )


@cache
def _source(priced_as: str = "", model: str = "") -> str:
    """Names the price list, and the entry where it goes by another name than the model."""
    from importlib.metadata import version

    name = f"genai-prices {version('genai-prices')}"
    return name if priced_as == model else f"{name}: {priced_as}"


def _find(provider: str, model: str, api_url: str | None) -> tuple[Provider, ModelInfo] | None:
    from genai_prices.data_snapshot import get_snapshot

    try:
        return get_snapshot().find_provider_model(model, None, None if api_url else provider, api_url)
    except LookupError:
        return None


def _context(
    provider: str, model: str, seller: Provider, info: ModelInfo, tier: ServiceTier, moment: datetime
) -> Mapping[str, str] | None:
    """The context that selects a service tier; raises `UnknownPrice` if nothing in the list answers to it."""
    if tier == "standard":
        return None
    if tier not in CONTEXTS:
        raise UnknownPrice(f"{tier!r} is no service tier of {provider}:{model}: name one of {', '.join(CONTEXTS)}")
    own = any(info is candidate for candidate in seller.models)  # another provider's entry knows the other's tiers
    for context in CONTEXTS[tier]:
        if own and any(
            variant.when == context and (variant.constraint is None or variant.constraint.active(moment))
            for variant in info.price_variants or ()
        ):
            return context
    raise UnknownPrice(
        how_to_price(provider, model, f"has no price for the service tier {tier!r} in {_source()}", tier=tier)
    )


def _tiers(info: ModelInfo, price: ModelPrice) -> tuple[Rates, ...]:
    """genai-prices' per-unit tiers as one table of whole-request tiers."""
    units = (
        price.input_mtok,
        price.output_mtok,
        price.cache_read_mtok,
        price.cache_write_mtok,
        price.cache_write_1h_mtok,
        price.output_reasoning_mtok,
        price.input_image_mtok,
    )
    starts = sorted({0, *(start for unit in units for start in _starts(unit))})
    return tuple(_rates_above(start, info, price) for start in starts)


def _rates_above(start: int, info: ModelInfo, price: ModelPrice) -> Rates:
    plain = _price_above(start, price.input_mtok)
    assert plain is not None  # `rates` refused a price without it
    written = _price_above(start, price.cache_write_mtok)
    kept = _price_above(start, price.cache_write_1h_mtok)
    if kept is None and written is not None and "claude" in info.id:
        kept = HOUR_OVER_INPUT * plain
    return Rates.of(
        input=plain,
        output=_price_above(start, price.output_mtok) or 0,  # none only of a model that embeds
        cached=_price_above(start, price.cache_read_mtok),
        cache_write=written,
        cache_write_1h=kept,
        reasoning=_price_above(start, price.output_reasoning_mtok),
        image=_price_above(start, price.input_image_mtok),
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
