"""Usage → nano-dollars: token prices (genai-prices or your own) and compute by the second. Exact, never a float."""

from __future__ import annotations

from datetime import datetime

from agentbudget.prices import published
from agentbudget.prices.compute import ComputePrice
from agentbudget.prices.kept import cost_on, service_of
from agentbudget.prices.published import PRICES_VARIABLE
from agentbudget.prices.rates import Rates, ServiceTier
from agentbudget.prices.sheet import Listing, PriceSheet
from agentbudget.prices.tokens import TokenPrice

__all__ = [
    "PRICES_VARIABLE",
    "ComputePrice",
    "Listing",
    "PriceSheet",
    "Rates",
    "ServiceTier",
    "TokenPrice",
    "context_window_of",
    "cost_on",
    "price_of",
    "service_of",
]


def price_of(
    provider: str,
    model: str,
    *,
    api_url: str | None = None,
    sheet: PriceSheet | None = None,
    tier: ServiceTier = "standard",
    at: datetime | None = None,
    embeds: bool = False,
) -> TokenPrice:
    """The price of ``provider:model`` at a service tier, now (or `at`): the sheet's, else genai-prices'.

    The sheet is the user's unless given.

    An API that says that it served a request at another tier than was asked for is booked by that tier's price
    (`Completion.price`). Raises `UnknownPrice`, which says how to give the model, or the tier, a price.
    """
    listed = (PriceSheet.from_env() if sheet is None else sheet).price(f"{provider}:{model}", tier=tier, at=at)
    return listed or TokenPrice.known(provider, model, api_url=api_url, tier=tier, at=at, embeds=embeds)


def context_window_of(
    provider: str, model: str, *, api_url: str | None = None, sheet: PriceSheet | None = None
) -> int | None:
    """Tokens of context that the sheet, else genai-prices, states for a model; None if neither does."""
    listed = (PriceSheet.from_env() if sheet is None else sheet).context_window(f"{provider}:{model}")
    return listed or published.context_window(provider, model, api_url)
