"""Choose a cascade's threshold on the tuning items: `python -m evals.tune gsm8k --data DIR --limit 40`.

Runs all-cheap and all-strong on items that no report uses, prints what each threshold would give, and names the
cheapest that is at least as accurate as all-strong.
"""

from __future__ import annotations

import argparse
import sys
from typing import TYPE_CHECKING

from agentbudget.evals import DATASETS, Progress, Trade, run_eval_sync, threshold_for
from agentbudget.money import format_usd

if TYPE_CHECKING:
    from agentbudget.evals import EvalReport


def main() -> None:
    """Run, print, choose."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("dataset", choices=DATASETS)
    parser.add_argument("--data", help="the folder of evaluation data (or AGENTBUDGET_DATA)")
    parser.add_argument("--limit", type=int, default=40)
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args()
    report = run_eval_sync(
        given.dataset,
        data=given.data,
        policies=("all-cheap", "all-strong"),
        limit=given.limit,
        seed=given.seed,
        split="tune",
        on_progress=_tell,
    )
    print(report.markdown(), end="\n\n")
    print("\n".join(_lines(report)))


def _tell(progress: Progress) -> None:
    print(f"{progress.stage}: {progress.done}/{progress.total}, {progress.correct} right", file=sys.stderr)


def _lines(report: EvalReport) -> list[str]:
    strong = next(line for line in report.economics if line.policy == "all-strong")
    chosen = threshold_for(report.trades, accuracy=strong.accuracy)
    table = ["| threshold | escalated | accuracy | cost |", "|--:|--:|--:|--:|", *map(_row, report.trades)]
    return [*table, "", f"chosen: {chosen.threshold:.4f} (the cheapest that is as accurate as all-strong)"]


def _row(trade: Trade) -> str:
    cost = format_usd(trade.cost_usd_nano)
    return f"| {trade.threshold:.4f} | {trade.escalated}/{trade.items} | {trade.accuracy:.1%} | {cost} |"


if __name__ == "__main__":
    main()
