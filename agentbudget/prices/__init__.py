"""Usage → nano-dollars: token prices (genai-prices or your own) and compute by the second. Exact, never a float."""

from __future__ import annotations

from agentbudget.prices.compute import ComputePrice
from agentbudget.prices.kept import cost_on, service_of
from agentbudget.prices.listed import InForce, context_window_of, price_of
from agentbudget.prices.published import PRICES_VARIABLE
from agentbudget.prices.rates import Rates, ServiceTier
from agentbudget.prices.sheet import Listing, PriceSheet
from agentbudget.prices.tokens import TokenPrice

__all__ = [
    "PRICES_VARIABLE",
    "ComputePrice",
    "InForce",
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
