"""The entries of a step in the journal, as they are made amid it and as they are made alone."""

from __future__ import annotations

import statistics
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Final

from agentbudget.ledger import Account, Hold, HoldRecord, Ledger
from agentbudget.money import ZERO, Amount

ENTRIES: Final = 5
"""Of a step with one call: both are reserved, the call is marked as sent, both are settled."""


class TimedLedger(Ledger):
    """Remembers what it is asked for, and how long each entry of a hold takes."""

    def __init__(self, *given: Any, **terms: Any) -> None:
        super().__init__(*given, **terms)
        self.opened: list[Callable[[Ledger], object]] = []
        self.asked: list[Callable[[Ledger], object]] = []
        self.took_s: list[float] = []

    def account(self, name: str, **terms: Any) -> Account:
        """See `Ledger`."""
        self.opened.append(lambda ledger: ledger.account(name, **terms))
        return super().account(name, **terms)

    def reserve(self, hold_id: str, amount: Amount, **terms: Any) -> Hold:
        """See `Ledger`."""
        self.asked.append(lambda ledger: ledger.reserve(hold_id, amount, **terms))
        began = time.perf_counter()
        hold = super().reserve(hold_id, amount, **terms)
        self.took_s.append(time.perf_counter() - began)
        return hold

    def mark_sent(self, hold_id: str) -> HoldRecord:
        """See `Ledger`."""
        self.asked.append(lambda ledger: ledger.mark_sent(hold_id))
        began = time.perf_counter()
        record = super().mark_sent(hold_id)
        self.took_s.append(time.perf_counter() - began)
        return record

    def settle(self, hold_id: str, cost: Amount = ZERO, **terms: Any) -> HoldRecord:
        """See `Ledger`."""
        self.asked.append(lambda ledger: ledger.settle(hold_id, cost, **terms))
        began = time.perf_counter()
        record = super().settle(hold_id, cost, **terms)
        self.took_s.append(time.perf_counter() - began)
        return record

    def told(self) -> str:
        """How long the entries of a step took, and how long the same ones take one after the other, in a sentence."""
        with tempfile.TemporaryDirectory() as folder, Ledger.open(Path(folder, "ledger.db")) as ledger:
            for make in self.opened:
                make(ledger)
            took_s: list[float] = []
            for make in self.asked:
                began = time.perf_counter()
                make(ledger)
                took_s.append(time.perf_counter() - began)
        amid_ms, alone_ms = (1000 * statistics.median(_by_step(each)) for each in (self.took_s, took_s))
        return (
            f"The {ENTRIES} entries of a step in the journal take {amid_ms:.2f} ms amid its other work, "
            f"and {alone_ms:.2f} ms one after the other"
        )


def _by_step(took_s: Sequence[float]) -> list[float]:
    return [sum(took_s[first : first + ENTRIES]) for first in range(0, len(took_s), ENTRIES)]
