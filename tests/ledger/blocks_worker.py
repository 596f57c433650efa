"""A worker process for tests: pays calls in leased blocks until it is refused, and logs what its provider billed.

``python -m tests.ledger.blocks_worker LEDGER NAME JOURNAL LOG CALLS PAUSE LEASE`` (JOURNAL ``-`` for none; PAUSE
between calls and LEASE in seconds). It names its calls in order, so that a worker that is started again pays none of
them twice; while the ledger cannot be had, it waits.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from pathlib import Path

from agentbudget.errors import BudgetExceeded, StoreError
from agentbudget.ledger import Ledger
from agentbudget.ledger.core import LEASE_S
from agentbudget.ledger.leased import LeasedBudget
from agentbudget.money import Amount

HELD, COST = Amount(usd_nano=4, calls=1), Amount(usd_nano=3, calls=1)


def work(
    location: str,
    name: str,
    journal: Path | None,
    log: Path,
    calls: int,
    *,
    pause_s: float = 0.0,
    lease_s: float = LEASE_S,
) -> None:
    """Pay `calls` calls, or until twenty were refused."""
    refused = 0
    with Ledger.open(location, lease_s=lease_s) as ledger:
        block = Amount(usd_nano=40)
        lease = ledger.lease(["hot"], block=block, journal=journal, name=name, renew_s=0.3, tend_s=0.05)
        for n in range(calls):
            time.sleep(pause_s)
            if not pay(lease, f"{name}/{n}", log):
                refused += 1
                if refused > 20:
                    break
        patiently(lease.close)


def pay(lease: LeasedBudget, hold_id: str, log: Path) -> bool:
    """Pay one call, if it was not paid; False if it was refused."""
    while True:
        try:
            hold = lease.reserve(hold_id, HELD)
            break
        except BudgetExceeded:
            return False
        except StoreError:
            time.sleep(0.05)
    if hold.record.state == "open":
        hold.mark_sent()
        with log.open("a") as billed:
            print(hold_id, file=billed)
        hold.settle(COST)
    return True


def patiently(act: Callable[[], None]) -> None:
    """Do it, however long the ledger is away."""
    while True:
        try:
            act()
            return
        except StoreError:
            time.sleep(0.05)


if __name__ == "__main__":
    _, where, who, folder, log_path, count, pause, lived = sys.argv
    books = None if folder == "-" else Path(folder)
    work(where, who, books, Path(log_path), int(count), pause_s=float(pause), lease_s=float(lived))
