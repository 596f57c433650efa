"""What an API charges by the token."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime
from decimal import Decimal
from fractions import Fraction
from typing import Any

from agentbudget.errors import InvalidAmount
from agentbudget.money import Money
from agentbudget.prices import published
from agentbudget.prices.rates import NAMES, PART_OF, Rates, ServiceTier
from agentbudget.usage import Usage


@dataclass(frozen=True, slots=True)
class TokenPrice:
    """What an API charges by the token: the rates in force when this was made, and where they come from.

    `tiers` ascend by `above`; the first has ``above=0``. A long-context tier applies to the whole request
    (a cliff, as providers bill it), not only to the tokens beyond it. ``service`` is the service tier that
    these are the rates of.
    """

    tiers: tuple[Rates, ...]
    source: str
    service: ServiceTier = "standard"
    _terms: dict[str, Any] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        starts = [tier.above for tier in self.tiers]
        if not starts or starts[0] != 0 or sorted(set(starts)) != starts:
            raise InvalidAmount(f"price tiers must start at 0 and ascend, not {starts}", value=starts)
        terms: dict[str, Any] = {"source": self.source, "usd_per_mtok": [_stated(tier) for tier in self.tiers]}
        if self.service != "standard":
            terms["service"] = self.service
        object.__setattr__(self, "_terms", terms)

    @classmethod
    def custom(
        cls,
        *,
        input_usd_per_mtok: Money,
        output_usd_per_mtok: Money,
        cached_usd_per_mtok: Money | None = None,
        cache_write_usd_per_mtok: Money | None = None,
        cache_write_1h_usd_per_mtok: Money | None = None,
        reasoning_usd_per_mtok: Money | None = None,
        image_usd_per_mtok: Money | None = None,
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
            cache_write_1h=cache_write_1h_usd_per_mtok,
            reasoning=reasoning_usd_per_mtok,
            image=image_usd_per_mtok,
        )
        return cls((rates,), source)

    @classmethod
    def known(
        cls,
        provider: str,
        model: str,
        *,
        api_url: str | None = None,
        tier: ServiceTier = "standard",
        at: datetime | None = None,
        embeds: bool = False,
    ) -> TokenPrice:
        """genai-prices' rates for a model, served at `tier`, in force now (or `at`).

        `api_url` finds the provider of an OpenAI-like server. A model that ``embeds`` makes no output, and needs no
        price for it. Raises `UnknownPrice` where genai-prices has none: a service tier that it does not state for the
        model is refused, never charged as another.
        """
        found = published.rates(provider, model, api_url=api_url, tier=tier, at=at, embeds=embeds)
        return cls(found.tiers, found.source, tier)

    @property
    def terms(self) -> dict[str, Any]:
        """The source, and under ``usd_per_mtok`` the rates of each tier in dollars per million tokens.

        Stated are the rates that differ from what they are a part of, and the service tier if it is not the standard.
        """
        return self._terms.copy()

    def cost(self, usage: Usage) -> int:
        """What this usage costs, in nano-dollars, rounded up."""
        return self._tier(usage.input_tokens).cost(usage)

    def expected(self, *, input_tokens: int, output_tokens: int) -> int:
        """What a call of this size usually costs, in nano-dollars: nothing read from or written to a cache."""
        return self._tier(input_tokens).plain(input_tokens, output_tokens)

    def bound(self, *, input_tokens: int, output_tokens: int, cache_1h: bool = True) -> int:
        """The most that a call with at most these tokens may cost, in nano-dollars.

        Every token counts at the dearest rate: input as if it were all written to a cache, for an hour unless the
        request cannot ask for that. Every tier that such a call can reach counts with the longest input that it
        covers, so that the bound also holds where a longer context is cheaper.
        """
        ends = (*(tier.above for tier in self.tiers[1:]), input_tokens)
        reachable = (
            tier.most(min(end, input_tokens), output_tokens, cache_1h=cache_1h)
            for tier, end in zip(self.tiers, ends, strict=True)
            if tier.above == 0 or tier.above < input_tokens
        )
        return max(reachable)

    def compute_cap_s(self, usd_nano: int) -> float | None:
        """None: tokens are paid for, not seconds."""
        return None

    def _tier(self, input_tokens: int) -> Rates:
        if len(self.tiers) == 1:
            return self.tiers[0]
        return next(tier for tier in reversed(self.tiers) if tier.above == 0 or input_tokens > tier.above)


def _stated(rates: Rates) -> dict[str, int | str]:
    """The rates of a tier as JSON-ready data."""
    by_name = rates.by_name()
    stated = (name for name in NAMES if name not in PART_OF or by_name[name] != by_name[PART_OF[name]])
    return {"above": rates.above, **{name: _text(by_name[name]) for name in stated}}


def _text(rate: Fraction) -> str:
    """A rate, exactly: as a decimal where it is one."""
    found = Decimal(rate.numerator) / Decimal(rate.denominator)
    return f"{found:f}" if Fraction(found) == rate else str(rate)
