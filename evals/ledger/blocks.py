"""Leased blocks beside the row-lock way: `python -m evals.ledger.blocks --store postgresql`.

Workers (processes) reserve and settle on one account: each pair as two transactions on the shared ledger, or inside
blocks that a worker leases from it. Both in one run, in turn, for 1, 2, 4 and 8 workers. With ``--rate`` each worker
makes so many pairs a second, not as many as it can: what is printed then is the latency at that load.

PostgreSQL is the server at ``--url``, or one of the test suite's, which does not sync to disk: with a disk to wait
for, the row-lock way is slower still.
"""

from __future__ import annotations

import argparse
import multiprocessing
import statistics
import tempfile
import time
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path
from typing import Final, Literal

from agentbudget.ledger import Ledger
from agentbudget.ledger.leased import LeasedBudget
from agentbudget.money import Amount, Budget

Way = Literal["row lock", "leased blocks", "leased blocks, journal"]

HELD: Final = Amount(1_000, 10, 1)
COST: Final = Amount(900, 9, 1)
BLOCK: Final = Amount(100_000, 1_000, 100)
WAYS: Final[tuple[Way, ...]] = ("row lock", "leased blocks", "leased blocks, journal")
READY_S: Final = 4.0


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--store", choices=("sqlite", "postgresql"), default="sqlite")
    parser.add_argument("--url", help="postgresql://…, an empty database; without it a server is started")
    parser.add_argument("--seconds", type=float, default=5.0)
    parser.add_argument("--workers", type=int, nargs="+", default=[1, 2, 4, 8])
    parser.add_argument("--rate", type=float, default=0.0, help="pairs a second of each worker; 0 for all it can")
    given = parser.parse_args()
    print("| store | workers | way | pairs/s in all | × row lock | median µs | p99 µs | worst ms |")
    print("|---|--:|---|--:|--:|--:|--:|--:|")
    with tempfile.TemporaryDirectory() as folder, _location(given.store, given.url, Path(folder)) as location:
        for number, workers in enumerate(given.workers):
            base = 0.0
            for way in WAYS:
                account = f"{number}/{way}"
                times = _run(location, account, way, workers, given.seconds, given.rate, Path(folder, account))
                rate = len(times) / given.seconds
                base = base or rate
                shown = f"{statistics.median(times) * 1e6:,.0f} | {times[len(times) * 99 // 100] * 1e6:,.0f}"
                print(
                    f"| {given.store} | {workers} | {way} | {rate:,.0f} | {rate / base:.1f} | {shown} "
                    f"| {times[-1] * 1e3:,.1f} |",
                    flush=True,
                )


@contextmanager
def _location(store: str, url: str | None, folder: Path) -> Generator[str]:
    if store == "sqlite":
        yield str(folder / "ledger.db")
    elif url is not None:
        yield url
    else:
        from tests.ledger.server import Server

        server = Server()
        try:
            yield server.fresh()
        finally:
            server.close()


def _run(location: str, account: str, way: Way, workers: int, seconds: float, rate: float, folder: Path) -> list[float]:
    """How long each pair took (s), the longest last."""
    with Ledger.open(location) as ledger:
        ledger.account(account, limit=Budget(usd="1000000"))
        begin = time.time() + READY_S
        work = [(location, account, way, n, begin, seconds, rate, folder) for n in range(workers)]
        with multiprocessing.get_context("spawn").Pool(workers) as pool:
            found = pool.starmap(_work, work)
        balance = ledger.balance(account)
        pairs = sum(len(times) for times in found)
        assert (balance.posted.calls, balance.held) == (pairs, Amount()), f"{balance} after {pairs} pairs"
        return sorted(t for times in found for t in times)


def _work(
    location: str, account: str, way: Way, number: int, begin: float, seconds: float, rate: float, folder: Path
) -> list[float]:
    with Ledger.open(location) as ledger:
        if way == "row lock":
            return _pairs(ledger, account, number, begin, seconds, rate)
        journal = folder / str(number) if way == "leased blocks, journal" else None
        with ledger.lease([account], block=BLOCK, journal=journal, tend_s=0.5) as lease:
            return _pairs(lease, account, number, begin, seconds, rate)


def _pairs(
    ledger: Ledger | LeasedBudget, account: str, number: int, begin: float, seconds: float, rate: float
) -> list[float]:
    times: list[float] = []
    time.sleep(max(0.0, begin - time.time()))
    start = time.perf_counter()
    end, due, n = start + seconds, start + (number % 8) / (8 * rate) if rate else start, 0
    while (began := time.perf_counter()) < end:
        if rate:
            if began < due:
                time.sleep(due - began)
            due += 1 / rate
            began = time.perf_counter()
        ledger.reserve(f"{account}/{number}/{n}", HELD, accounts=[account]).settle(COST)
        times.append(time.perf_counter() - began)
        n += 1
    return times


if __name__ == "__main__":
    main()
