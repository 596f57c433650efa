"""Where data lives and what this machine costs: read from the environment when asked, never at import."""

from __future__ import annotations

import os
import re
from dataclasses import dataclass, replace
from decimal import Decimal
from pathlib import Path
from typing import Final

from agentbudget.errors import InvalidAmount, Mistake
from agentbudget.money import nano_to_usd, usd_to_nano

DEFAULT_USD_PER_HOUR: Final = "0.10"
"""An hour of this machine: about what a cloud charges for two shared cores (list prices, 2026)."""

ADDRESS: Final = re.compile(
    r"[A-Za-z][A-Za-z0-9+.-]+:/+|file:|:memory:|\s*(?:host|hostaddr|port|dbname|user|password|service|sslmode)\s*="
)
"""How an address begins, which is no path: a URL's, SQLite's, libpq's in words (``host=db dbname=agents``)."""


def home() -> Path:
    """The folder for everything that agentbudget keeps: ``AGENTBUDGET_HOME``, else the user's data folder."""
    given = os.environ.get("AGENTBUDGET_HOME")
    if given:
        return Path(given).expanduser()
    from platformdirs import user_data_path

    return user_data_path("agentbudget", appauthor=False)


def weights_dir() -> Path:
    """The folder of downloaded weights: ``AGENTBUDGET_WEIGHTS``, else ``weights`` inside `home`.

    Apart from `home` so that an isolated ledger need not download the weights again.
    """
    given = os.environ.get("AGENTBUDGET_WEIGHTS")
    return Path(given).expanduser() if given else home() / "weights"


@dataclass(frozen=True, slots=True)
class Settings:
    """What a run needs to know about its surroundings.

    ``models`` is the ladder, cheapest first; empty: choose. ``qdrant_url`` is a Qdrant server for indexes and
    memories; None: the embedded engine. ``ledger`` is the path or ``postgresql://`` address of a ledger; None: the
    home's own. ``watts`` that this machine draws while it computes and ``usd_per_kwh`` are paid beside its hour;
    None: no energy. ``cache_mb`` is how many megabytes of what was paid for are kept; None: a gigabyte.
    """

    home: Path
    usd_per_hour: Decimal
    models: tuple[str, ...] = ()
    qdrant_url: str | None = None
    ledger: str | None = None
    watts: Decimal | None = None
    usd_per_kwh: Decimal | None = None
    cache_mb: int | None = None

    @classmethod
    def from_env(cls) -> Settings:
        """Read ``AGENTBUDGET_HOME``, ``_LEDGER``, ``_USD_PER_HOUR``, ``_WATTS``, ``_USD_PER_KWH``, ``_MODELS`` (by
        commas), ``_CACHE_MB`` and ``_QDRANT_URL``. Raises `InvalidAmount` for a price or number that is none, and for
        watts without a tariff, and `Mistake` for an address that is none."""
        per_hour = _number("AGENTBUDGET_USD_PER_HOUR")
        watts, tariff = _number("AGENTBUDGET_WATTS"), _number("AGENTBUDGET_USD_PER_KWH")
        if (watts is None) != (tariff is None):
            raise InvalidAmount(
                "set both AGENTBUDGET_WATTS (what this machine draws while it computes) and AGENTBUDGET_USD_PER_KWH, "
                "or neither",
                value=watts if tariff is None else tariff,
            )
        models = tuple(m.strip() for m in os.environ.get("AGENTBUDGET_MODELS", "").split(",") if m.strip())
        return cls(
            home=home(),
            usd_per_hour=nano_to_usd(usd_to_nano(DEFAULT_USD_PER_HOUR)) if per_hour is None else per_hour,
            models=models,
            qdrant_url=_address("AGENTBUDGET_QDRANT_URL"),
            ledger=os.environ.get("AGENTBUDGET_LEDGER") or None,
            watts=watts,
            usd_per_kwh=tariff,
            cache_mb=_whole("AGENTBUDGET_CACHE_MB"),
        )

    def at(self, home: Path) -> Settings:
        """The same settings with another home. A ``ledger`` that is given stays: it is apart from the home."""
        return replace(self, home=home)

    def with_ledger(self, location: str) -> Settings:
        """The same settings with another ledger."""
        return replace(self, ledger=location)

    @property
    def runs_dir(self) -> Path:
        """One file per run: its task and how it ended."""
        return self.home / "runs"

    @property
    def ledger_location(self) -> str | Path:
        """Where the ledger is: what `Ledger.open` takes."""
        if self.ledger is None:
            return self.home / "ledger.db"
        is_path = not self.ledger.startswith("memory:") and ADDRESS.match(self.ledger) is None
        return Path(self.ledger).expanduser().absolute() if is_path else self.ledger

    @property
    def cache_path(self) -> Path:
        """What was paid for already: answers, plans, searches, vectors."""
        return self.home / "cache.db"

    @property
    def semantic_path(self) -> Path:
        """Questions that were paid for, and what is known of reusing their answers for similar ones."""
        return self.home / "semantic.db"

    @property
    def checkpoints_path(self) -> Path:
        """LangGraph's checkpoints, from which a run resumes."""
        return self.home / "checkpoints.db"

    @property
    def indexes_dir(self) -> Path:
        """One folder per indexed documents folder."""
        return self.home / "indexes"

    @property
    def memories_location(self) -> str | Path:
        """What was learned of users: a folder of the home, or the Qdrant server in use."""
        return self.qdrant_url or self.home / "memories"


def _address(name: str) -> str | None:
    """An http(s) address; anything else would be taken for a folder of that name."""
    value = os.environ.get(name) or None
    if value is not None and not value.startswith(("http://", "https://")):
        raise Mistake(f"{name} must be an http(s) address such as http://localhost:6333, not {value!r}")
    return value


def _whole(variable: str) -> int | None:
    """A variable as a whole number of at least 1; None where it is not set. Raises `InvalidAmount` and names it."""
    given = os.environ.get(variable)
    if not given:
        return None
    if not given.isdecimal() or not int(given):
        raise InvalidAmount(f"{variable} must be a whole number of at least 1, not {given!r}", value=given)
    return int(given)


def _number(variable: str) -> Decimal | None:
    """A variable as an exact amount; None where it is not set. Raises `InvalidAmount` and names it."""
    given = os.environ.get(variable)
    if not given:
        return None
    try:
        return nano_to_usd(usd_to_nano(given))
    except InvalidAmount as error:
        raise InvalidAmount(f"{variable}: {error}", value=given) from error
