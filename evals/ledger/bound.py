"""What the ledger in a file can reach at best beside its own statements: `python -m evals.ledger.bound`.

The rules of the ledger are timed alone (the store in memory), the ledger's statements replayed by the bare module alone
(as in `evals.ledger.speed`), and both in one loop, each operation after the statement that would write it. The loop
takes longer than both alone, since each throws the other out of the processor's caches. The ledger does no less than
what stands in the loop: what it takes beyond that is the row, its hash, and the way to the store. Counted are the
processor's microseconds for a pair.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from pathlib import Path

from agentbudget.ledger import Ledger
from evals.ledger.speed import COST, HELD, SHAPES, Shape, Statement, opened, rate, raw_database, record, replay

WAYS = ("rules alone", "replayed alone", "both in one loop", "the ledger")


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pairs", type=int, default=5_000)
    parser.add_argument("--rounds", type=int, default=5)
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        rounds = [_measure(Path(folder, str(n)), SHAPES[0], given.pairs) for n in range(given.rounds)]
    print("| | µs a pair | replayed / this |")
    print("|---|--:|--:|")
    medians = [statistics.median(times) for times in zip(*rounds, strict=True)]
    for way, median in zip(WAYS, medians, strict=True):
        print(f"| {way} | {median:.1f} | {medians[1] / median:.0%} |")


def _measure(folder: Path, shape: Shape, pairs: int) -> tuple[float, float, float, float]:
    folder.mkdir()
    clock = time.process_time
    statements = record(folder / "recorded.db", shape, pairs)
    rules = 1e6 / rate(opened(Ledger.open("memory:"), shape), shape, pairs, clock)
    raw = 1e6 / replay(folder / "raw.db", statements, shape, pairs, clock)
    both = _interleaved(folder / "both.db", statements, shape, pairs)
    with opened(Ledger.open(folder / "ledger.db"), shape) as ledger:
        return rules, raw, both, 1e6 / rate(ledger, shape, pairs, clock)


def _interleaved(path: Path, statements: list[Statement], shape: Shape, pairs: int) -> float:
    ledger, names = opened(Ledger.open("memory:"), shape), shape.names
    db = raw_database(path, shape)
    execute = db.cursor().execute
    n, hold = 0, None
    began = time.process_time()
    for sql, values in statements:
        if isinstance(values, list):
            db.executemany(sql, values)
            continue
        execute(sql, values)
        if n < pairs and sql.startswith("INSERT INTO entries"):
            if hold is None:
                hold = ledger.reserve(f"call-{n}", HELD, accounts=names)
            else:
                hold.settle(COST)
                hold, n = None, n + 1
    taken = time.process_time() - began
    db.close()
    return taken * 1e6 / n  # some are written by the dozen, and have no statement of their own


if __name__ == "__main__":
    main()
