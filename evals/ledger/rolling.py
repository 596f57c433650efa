"""What a rolling window costs whose every step has something in it: `python -m evals.ledger.rolling`.

The processor's time of a reservation, an extension and a refusal on an account with a window of an hour, empty and with
all of its thousand steps used, beside an account without a window; in memory and in SQLite.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from agentbudget.errors import BudgetExceeded
from agentbudget.ledger import Ledger
from agentbudget.ledger.core import open_store
from agentbudget.ledger.windows import STEPS
from agentbudget.money import Amount, Budget
from agentbudget.testing import ManualClock

STEP_S = 3600 / STEPS
LIMIT = 1_000_000
ONE = Amount(calls=1)


def main() -> None:
    """Time each, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--times", type=int, default=300)
    times = parser.parse_args().times
    print("| store | window | reserve, median µs | extend, median µs | refusal, median µs |")
    print("|---|---|--:|--:|--:|")
    for store in ("memory", "SQLite"):
        for window in ("none", "1h, empty", "1h, all steps used"):
            with tempfile.TemporaryDirectory() as folder:
                location = "memory:" if store == "memory" else str(Path(folder, "ledger.db"))
                medians = _medians(location, window, times)
            print(f"| {store} | {window} | " + " | ".join(f"{value * 1e6:,.0f}" for value in medians) + " |")


def _medians(location: str, window: str, times: int) -> tuple[float, float, float]:
    """Seconds that a reservation, an extension and a refusal take."""
    clock = ManualClock()
    reserved: list[float] = []
    extended: list[float] = []
    refused: list[float] = []
    with Ledger(open_store(location), clock=clock) as ledger:
        limited = "total" if window == "none" else "1h"
        ledger.account("a")
        ledger.set_limit("a", Budget(calls=LIMIT), window=limited)
        for n in range(2 * STEPS if window.endswith("used") else 0):
            clock.advance(STEP_S)
            ledger.reserve(f"before-{n}", ONE, accounts=["a"]).settle(ONE)
        for n in range(times):
            clock.advance(STEP_S / 20)

            def reserve(number: int = n) -> None:
                ledger.reserve(f"hold-{number}", ONE, accounts=["a"])

            def extend(number: int = n) -> None:
                ledger.extend(f"hold-{number}", Amount(calls=2))

            def refuse(number: int = n) -> None:
                with suppress(BudgetExceeded):
                    ledger.reserve(f"much-{number}", Amount(calls=LIMIT), accounts=["a"])

            reserved.append(_time(reserve))
            extended.append(_time(extend))
            refused.append(_time(refuse))
            ledger.settle(f"hold-{n}", ONE)
    return statistics.median(reserved), statistics.median(extended), statistics.median(refused)


def _time(do: Callable[[], None]) -> float:
    began = time.process_time()
    do()
    return time.process_time() - began


if __name__ == "__main__":
    main()
