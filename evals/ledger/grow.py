"""What a reservation costs as the books grow: `python -m evals.ledger.grow`.

The same reservations and settlements, on accounts that stand six deep, in an empty SQLite ledger and in one with a
million entries and a hundred thousand accounts; rounds alternate, each on accounts of its own.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import tempfile
import time
from pathlib import Path

from agentbudget.ledger import Ledger
from agentbudget.money import Amount, Budget

DEPTH = 6
HELD = Amount(1_000, 10, 1)
COST = Amount(900, 9, 1)


def main() -> None:
    """Grow one ledger, compare it with an empty one, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--entries", type=int, default=1_000_000)
    parser.add_argument("--accounts", type=int, default=100_000)
    parser.add_argument("--rounds", type=int, default=15)
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        grown, empty = Path(folder, "grown.db"), Path(folder, "empty.db")
        with Ledger.open(grown) as large, Ledger.open(empty) as small:
            _grow(large, given.entries, given.accounts)
            rounds = [(_times(small, turn), _times(large, turn)) for turn in range(given.rounds)]
            entries = len(large.entries(last=1)) and large.entries(last=1)[0].seq
        size = grown.stat().st_size
    small_s, large_s = zip(*rounds, strict=True)
    print("| | reserve, median µs | reserve, p99 µs | settle, median µs |")
    print("|---|--:|--:|--:|")
    for name, times in (("empty ledger", small_s), (f"{entries:,} entries, {given.accounts:,} accounts", large_s)):
        reserve = sorted(t for round_ in times for t in round_[0])
        settle = [t for round_ in times for t in round_[1]]
        p99 = reserve[int(len(reserve) * 0.99)]
        print(f"| {name} | {_us(statistics.median(reserve))} | {_us(p99)} | {_us(statistics.median(settle))} |")
    ratio = statistics.median(statistics.median(b[0]) / statistics.median(a[0]) for a, b in rounds)
    print(
        f"\nreserve, grown / empty: {ratio:.2f}; file: {size / 1e6:,.0f} MB, {size / (entries / 2):,.0f} bytes a pair"
    )


def _us(seconds: float) -> str:
    return f"{seconds * 1e6:,.0f}"


def _chain(ledger: Ledger, name: str) -> str:
    """Accounts six deep; returns the deepest."""
    parent = None
    for level in range(DEPTH):
        account = f"{name}/{level}"
        ledger.account(account, parent=parent, limit=Budget(usd="1000000"))
        parent = account
    assert parent is not None
    return parent


def _grow(ledger: Ledger, entries: int, accounts: int) -> None:
    deepest = [_chain(ledger, f"org{n}") for n in range(accounts // DEPTH)]
    pairs = (entries - accounts * 2) // 2
    for n in range(pairs):
        ledger.reserve(f"old-{n}", HELD, accounts=[deepest[n % len(deepest)]], tag="skill").settle(COST)
        if n % 10_000 == 0:
            print(f"grown by {n:,} of {pairs:,} pairs", file=sys.stderr)


def _times(ledger: Ledger, turn: int) -> tuple[list[float], list[float]]:
    account = _chain(ledger, f"fresh{turn}")
    reserves: list[float] = []
    settles: list[float] = []
    for n in range(300):
        began = time.perf_counter()
        hold = ledger.reserve(f"new-{turn}-{n}", HELD, accounts=[account])
        reserved = time.perf_counter()
        hold.settle(COST)
        reserves.append(reserved - began)
        settles.append(time.perf_counter() - reserved)
    return reserves, settles


if __name__ == "__main__":
    main()
