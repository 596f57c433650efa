"""A worker process for tests: pays calls in leased blocks until it is refused, and logs what its provider billed.

``python -m tests.ledger.blocks_worker LEDGER NAME JOURNAL LOG CALLS PAUSE`` (JOURNAL ``-`` for none, PAUSE in seconds
between calls). It names its calls in order, so that a worker that is started again pays none of them twice.
"""

from __future__ import annotations

import sys
import time
from pathlib import Path

from agentbudget.errors import BudgetExceeded
from agentbudget.ledger import Ledger
from agentbudget.money import Amount

HELD, COST = Amount(usd_nano=4, calls=1), Amount(usd_nano=3, calls=1)


def work(location: str, name: str, journal: Path | None, log: Path, calls: int, *, pause_s: float = 0.0) -> None:
    """Pay `calls` calls, or until twenty were refused."""
    refused = 0
    with (
        Ledger.open(location) as ledger,
        log.open("a", buffering=1) as billed,
        ledger.lease(["hot"], block=Amount(usd_nano=40), journal=journal, name=name, renew_s=0.3, tend_s=0.05) as lease,
    ):
        for n in range(calls):
            time.sleep(pause_s)
            try:
                hold = lease.reserve(f"{name}/{n}", HELD)
            except BudgetExceeded:
                refused += 1
                if refused > 20:
                    break
                continue
            if hold.record.state == "open":
                hold.mark_sent()
                print(f"{name}/{n}", file=billed)
                hold.settle(COST)


if __name__ == "__main__":
    _, where, who, folder, log_path, count, pause = sys.argv
    books = None if folder == "-" else Path(folder)
    work(where, who, books, Path(log_path), int(count), pause_s=float(pause))
