"""The terms of a price as a settlement kept them: what a call would cost by them, also those of earlier versions."""

from __future__ import annotations

from collections.abc import Mapping
from decimal import Decimal
from fractions import Fraction
from typing import Any, get_args

from agentbudget.errors import InvalidAmount, UnknownPrice
from agentbudget.prices.compute import ComputePrice
from agentbudget.prices.rates import NAMES, PART_OF, Rates, ServiceTier
from agentbudget.prices.tokens import TokenPrice
from agentbudget.usage import Usage


def cost_on(terms: Mapping[str, Any], usage: Usage) -> int:
    """What this usage costs on the ``terms`` of a price, as a settlement kept them, in nano-dollars, rounded up.

    Raises `UnknownPrice` if they are none.

    >>> price = TokenPrice.custom(input_usd_per_mtok="0.15", output_usd_per_mtok="0.60")
    >>> cost_on(price.terms, Usage(1000, 100)) == price.cost(Usage(1000, 100))
    True
    """
    try:
        return _compute(terms).cost(usage) if "usd_per_hour" in terms else _tokens(terms).cost(usage)
    except (KeyError, TypeError, ValueError, ArithmeticError) as error:
        raise UnknownPrice(f"these are not the terms of a price: {dict(terms)!r}") from error


def service_of(terms: object) -> ServiceTier:
    """The service tier that terms are of: the standard one where they do not say, as before there were others."""
    said = terms.get("service") if isinstance(terms, Mapping) else None  # pyright: ignore[reportUnknownVariableType] # JSON
    return next((tier for tier in get_args(ServiceTier) if tier == said), "standard")


def _compute(terms: Mapping[str, Any]) -> ComputePrice:
    watts, tariff = terms.get("watts"), terms.get("usd_per_kwh")
    return ComputePrice(
        Decimal(terms["usd_per_hour"]),
        1,
        1,
        watts=None if watts is None else Decimal(watts),
        usd_per_kwh=None if tariff is None else Decimal(tariff),
    )


def _tokens(terms: Mapping[str, Any]) -> TokenPrice:
    tiers = tuple(_rates(tier) for tier in terms["usd_per_mtok"])
    return TokenPrice(tiers, str(terms["source"]))


def _rates(stated: Mapping[str, Any]) -> Rates:
    rates = {name: _rate(stated[name if name in stated else PART_OF[name]]) for name in NAMES}
    return Rates(**rates, above=stated["above"])


def _rate(text: str) -> Fraction:
    rate = Fraction(text)
    if rate < 0:
        raise InvalidAmount(f"{text!r} is not a price; it must be at least 0", value=text)
    return rate
