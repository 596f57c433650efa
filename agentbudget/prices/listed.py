"""What the lists state for a model: the user's price sheet, else the public one; at a moment, or as time goes on."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Final, NamedTuple

from agentbudget.errors import UnknownPrice
from agentbudget.prices import published
from agentbudget.prices.published import PRICES_VARIABLE
from agentbudget.prices.rates import ServiceTier
from agentbudget.prices.sheet import PriceSheet
from agentbudget.prices.tokens import TokenPrice

_log = logging.getLogger(__name__)

PUBLIC_FOR: Final = timedelta(minutes=1)
"""genai-prices knows prices by the day and by the hour of the day: what it states is asked again every minute."""


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


class _Look(NamedTuple):
    """What was found, in which state of the sheet's file, and until when it is so."""

    price: TokenPrice
    file: tuple[object, ...]
    until: datetime


class InForce:
    """The listed price of a model at the moment that it is asked for: a process that runs for months needs no restart.

    The lists are read again when the sheet's file has changed, when a price of the sheet begins or ends, and every
    minute for what genai-prices states; in between an answer takes microseconds. A sheet that can no longer be read (an
    editor is in the middle of writing it) is warned of, and the last price stays. Raises `UnknownPrice`: when it is
    made, and later if the lists no longer have the model.
    """

    def __init__(
        self,
        provider: str,
        model: str,
        *,
        api_url: str | None = None,
        tier: ServiceTier = "standard",
        embeds: bool = False,
        clock: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        self._provider = provider
        self._model = model
        self._api_url = api_url
        self._tier: ServiceTier = tier
        self._embeds = embeds
        self._clock = clock
        file = _state_of_file()  # before it is read: what is written meanwhile is then seen to be new
        self._sheet = PriceSheet.from_env()
        self._last = self._look(file, clock())

    def __call__(self) -> TokenPrice:
        """The price in force now."""
        now, file = self._clock(), _state_of_file()
        last = self._last
        if now < last.until and file == last.file:
            return last.price
        if file != last.file:
            self._read_again()
        self._last = last = self._look(file, now)
        return last.price

    def _look(self, file: tuple[object, ...], now: datetime) -> _Look:
        price = price_of(
            self._provider,
            self._model,
            api_url=self._api_url,
            sheet=self._sheet,
            tier=self._tier,
            at=now,
            embeds=self._embeds,
        )
        turns = self._sheet.turns(f"{self._provider}:{self._model}", after=now)
        until = now + PUBLIC_FOR
        return _Look(price, file, until if turns is None else min(until, turns))

    def _read_again(self) -> None:
        try:
            self._sheet = PriceSheet.from_env()
        except UnknownPrice as error:
            _log.warning("the last price of %s:%s stays: %s", self._provider, self._model, error)


def _state_of_file() -> tuple[object, ...]:
    """What tells one state of the sheet's file from another."""
    given = os.environ.get(PRICES_VARIABLE)
    if not given:
        return ()
    try:
        found = Path(given).expanduser().stat()
    except OSError:
        return (given,)
    return (given, found.st_mtime_ns, found.st_size, found.st_ino)
