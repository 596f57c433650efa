"""The ledger of a budgeted model, open or by where it is, and what is learned from it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any, Final, Self
from urllib.parse import urlsplit

from agentbudget import telemetry
from agentbudget.errors import HoldConflict, Mistake
from agentbudget.estimate import Estimator
from agentbudget.ledger import Hold, Ledger
from agentbudget.money import Amount
from agentbudget.settings import Settings

_SECRETS: Final = ("password", "sslpassword")
"""Options of an address that are not told."""


class Books:
    """Opens its ledger when first needed. A copy shares it; another process (pickle) opens the same place again."""

    def __init__(self, ledger: Ledger | str | Path | None = None) -> None:
        self._given = Settings.from_env().ledger_location if ledger is None else ledger

    def __repr__(self) -> str:
        return f"Books({self.location!r})"

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Books) and self.location == other.location

    def __hash__(self) -> int:
        return hash(self.location)

    def __deepcopy__(self, memo: object) -> Self:
        return self

    def __reduce__(self) -> tuple[type[Books], tuple[str]]:
        if self.location in ("memory", "memory:"):
            raise Mistake("a ledger in memory cannot be sent to another process: give the path or address of one")
        return Books, (self.location,)

    @property
    def location(self) -> str:
        """Where it is, without a password: another process has that in its own surroundings."""
        if isinstance(self._given, Ledger):
            return self._given.location
        parts = urlsplit(str(self._given))
        options = parts.query.split("&") if parts.query else []
        told = [option for option in options if option.partition("=")[0] not in _SECRETS]
        if parts.password is None and told == options:
            return str(self._given)
        who, at, where = parts.netloc.rpartition("@")
        query = "?" if told else ""
        return f"{parts.scheme}://{who.partition(':')[0]}{at}{where}{parts.path}{query}{'&'.join(told)}"

    @cached_property
    def ledger(self) -> Ledger:
        """The ledger, open. Raises `StoreError`."""
        return self._given if isinstance(self._given, Ledger) else Ledger.open(self._given)

    @cached_property
    def estimator(self) -> Estimator:
        """What is learned from it."""
        return Estimator(self.ledger)

    def reserve(
        self, hold_id: str, amount: Amount, *, accounts: Sequence[str], tag: str, meta: Mapping[str, Any]
    ) -> Hold:
        """Reserve for one call, once. Raises `BudgetExceeded`; `HoldConflict` if the id paid for another call."""
        kind = str(meta["kind"])
        with telemetry.reservation(hold_id, kind=kind):
            hold = self.ledger.reserve(hold_id, amount, accounts=accounts, tag=tag, meta=meta)
            if hold.replayed:
                raise HoldConflict(
                    f"hold {hold_id!r} paid for a call already: a run id names one call; leave it out for a new one",
                    hold_id=hold_id,
                    known=hold.amount,
                    asked=amount,
                )
            return hold
