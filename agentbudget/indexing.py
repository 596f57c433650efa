"""Documents indexed like any other spending: embedding is reserved ahead, paid for by the second, and settled."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from agentbudget.errors import BudgetExceeded, DataRefused
from agentbudget.ledger import Hold, Ledger
from agentbudget.models.base import Meter, Price
from agentbudget.money import Amount
from agentbudget.paying import paid
from agentbudget.usage import Usage

if TYPE_CHECKING:
    from agentbudget.context import Index, IndexReport, Labels, Progress
    from agentbudget.context.report import OnProgress
    from agentbudget.context.update import Rebuild

AHEAD_NS: Final = 5 * 10**9
"""Nanoseconds of this machine that are held before they are used; more where one batch takes half of that."""

HEARTBEAT_NS: Final = 20 * 10**9
"""How often a long update says that it lives, so that nobody takes its hold for one left behind."""


async def update_within(
    index: Index,
    folder: str | Path,
    *,
    ledger: Ledger,
    accounts: Sequence[str],
    base: str,
    machine: Price,
    rebuild: Rebuild = False,
    metadata: Labels | None = None,
    processes: int = 1,
    progress: OnProgress | None = None,
) -> IndexReport:
    """`Index.update`, paid for by `accounts`: this machine's seconds by one hold, a hosted model's requests by others.

    The hold is called ``base/index.<time>`` and grows ahead of the work. Where it may grow no more the update stops:
    what is embedded stays embedded and paid for, and the next update goes on from there.
    Raises `BudgetExceeded` then, and what `Index.update` raises.
    """
    hold_id = f"{base}/index.{time.time_ns()}"
    meta = {"kind": "index", "source": Path(folder).name, "price": machine.source}
    ahead = Amount(machine.cost(Usage(compute_ns=AHEAD_NS)))
    with ledger.reserve(hold_id, ahead, accounts=accounts, tag="index", meta=meta) as hold:
        purse = _Purse(ledger, hold, machine, progress)
        pay = partial(_pay_request, ledger, accounts, hold_id)
        try:
            report = await index.update(
                folder,
                rebuild=rebuild,
                metadata=metadata,
                processes=processes,
                progress=purse.watch,
                pay=pay,
                machine=machine,
            )
        except BaseException as error:
            # What a refusal says names documents and classes, which the journal is there to tell.
            why = str(error) if isinstance(error, DataRefused) else type(error).__name__
            hold.settle(purse.spent, detail={"embedded": purse.done, "error": why})
            if isinstance(error, BudgetExceeded):
                raise purse.stopped(error) from error
            raise
        hold.settle(Amount(machine.cost(Usage(compute_ns=report.compute_ns))), detail=_detail(report))
        return report


class _Purse:
    """Lets a hold grow ahead of what the embedding takes of this machine."""

    def __init__(self, ledger: Ledger, hold: Hold, machine: Price, progress: OnProgress | None) -> None:
        self._ledger = ledger
        self._hold = hold
        self._machine = machine
        self._progress = progress
        self._compute_ns = 0
        self._longest_ns = 0
        self._heard_ns = time.monotonic_ns()
        self.done = 0
        self.total = 0

    @property
    def spent(self) -> Amount:
        """What the embedding took so far."""
        return self._cost(self._compute_ns)

    def watch(self, progress: Progress) -> None:
        """Called in the update's thread, before the first batch and after each. Raises `BudgetExceeded`."""
        if progress.work is not None:
            self._longest_ns = max(self._longest_ns, progress.work.compute_ns - self._compute_ns)
            self._compute_ns = progress.work.compute_ns
            self.done, self.total = progress.done, progress.total
            self._stay_ahead()
        if self._progress is not None:
            self._progress(progress)

    def stopped(self, error: BudgetExceeded) -> BudgetExceeded:
        """The same refusal, which says how far the update got."""
        return BudgetExceeded(
            f"indexing stopped: {error}; {self.done:,} of {self.total:,} new chunks are embedded, paid for and kept: "
            "raise the limit and run it again, and it goes on from there",
            account=error.account,
            unit=error.unit,
            needed=error.needed,
            available=error.available,
            requested=error.requested,
            window=error.window,
            resets_at=error.resets_at,
        )

    def _stay_ahead(self) -> None:
        if not self._hold.record.sent:
            self._hold.mark_sent()  # from here on a crash leaves seconds that were used
        if time.monotonic_ns() - self._heard_ns > HEARTBEAT_NS:
            self._ledger.heartbeat()
            self._heard_ns = time.monotonic_ns()
        if self.done == self.total:
            return
        # Batches are much alike: the next one takes no more than twice the longest so far.
        if self._cost(self._compute_ns + 2 * self._longest_ns).usd_nano > self._hold.amount.usd_nano:
            self._hold.extend(self._cost(self._compute_ns + max(AHEAD_NS, 4 * self._longest_ns)))

    def _cost(self, compute_ns: int) -> Amount:
        return Amount(self._machine.cost(Usage(compute_ns=compute_ns)))


def _detail(report: IndexReport) -> dict[str, Any]:
    """What the journal keeps of an update."""
    return {
        "kept": report.kept,
        "moved": report.moved,
        "embedded": report.embedded,
        "deleted": report.deleted,
        "tokens": report.tokens,
        "full_tokens": report.full_tokens,
        "seconds": round(report.seconds, 3),
    }


def _pay_request(
    ledger: Ledger, accounts: Sequence[str], base: str, name: str, price: Price, most: Usage
) -> AbstractContextManager[Meter]:
    """Pay for one request to a hosted embedding model, beside the seconds that the index takes of this machine."""

    def reserve(amount: Amount, meta: Mapping[str, Any]) -> Hold:
        hold_id = f"{base}/embed.{time.monotonic_ns()}"
        return ledger.reserve(hold_id, amount, accounts=accounts, tag="embedding", meta=meta)

    return paid(reserve, name=name, price=price, most=most)
