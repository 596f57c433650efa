"""How evenly processes share one SQLite ledger: `python -m evals.ledger.processes`.

Processes reserve and settle on one account without pause; printed are the rates, the latency of each operation (half
a pair), and how many pairs the luckiest and the unluckiest process got done.
"""

from __future__ import annotations

import argparse
import multiprocessing
import statistics
import tempfile
import time
from pathlib import Path

from agentbudget.ledger import Ledger
from agentbudget.money import Amount, Budget

HELD = Amount(1_000, 10, 1)
COST = Amount(900, 9, 1)


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=8.0)
    parser.add_argument("--processes", type=int, nargs="+", default=[1, 2, 4, 8])
    given = parser.parse_args()
    print("| processes | pairs/s in all | median ms | p99 ms | worst ms | pairs of the unluckiest / luckiest |")
    print("|--:|--:|--:|--:|--:|--:|")
    for processes in given.processes:
        with tempfile.TemporaryDirectory() as folder:
            print(_measure(Path(folder, "ledger.db"), processes, given.seconds), flush=True)


def _measure(path: Path, processes: int, seconds: float) -> str:
    with Ledger.open(path) as ledger:
        ledger.account("team", limit=Budget(usd="1000000"))
    begin = time.time() + 1.5
    with multiprocessing.get_context("spawn").Pool(processes) as pool:
        found = pool.starmap(_work, [(path, n, begin, seconds) for n in range(processes)])
    with Ledger.open(path) as ledger:
        verification = ledger.verify()
        assert verification.ok, verification.problems
    each = [len(times) / 2 for times in found]
    times = sorted(t for of_one in found for t in of_one)
    p99 = times[int(len(times) * 0.99)]
    shown = " | ".join(f"{t * 1e3:.2f}" for t in (statistics.median(times), p99, times[-1]))
    return f"| {processes} | {sum(each) / seconds:,.0f} | {shown} | {min(each):,.0f} / {max(each):,.0f} |"


def _work(path: Path, number: int, begin: float, seconds: float) -> list[float]:
    times: list[float] = []
    with Ledger.open(path) as ledger:
        time.sleep(max(0.0, begin - time.time()))
        end, n = time.perf_counter() + seconds, 0
        while time.perf_counter() < end:
            began = time.perf_counter()
            hold = ledger.reserve(f"{number}-{n}", HELD, accounts=["team"])
            reserved = time.perf_counter()
            hold.settle(COST)
            times += (reserved - began, time.perf_counter() - reserved)
            n += 1
    return times


if __name__ == "__main__":
    main()
