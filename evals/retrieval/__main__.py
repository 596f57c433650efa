"""Measure retrieval within a token allowance: `python -m evals.retrieval [inside|answers|speed|fit] --data DIR`.

``inside`` (the default): is the answer inside the context, for top-k packing by BM25, by vectors and by both, and for
`retrieve`. ``answers``: what the local models answer from it. ``speed``: time over 100,000 chunks. ``fit``: the weights
of `agentbudget.context.worth`, from the tuning half. Each corpus is embedded once, into ``--cache``.
"""

from __future__ import annotations

import argparse
import asyncio
from pathlib import Path

from agentbudget.evals.tasks import find_data
from evals.retrieval import inside
from evals.retrieval.corpora import TITLES


def main() -> None:
    """Run and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", nargs="?", default="inside", choices=("inside", "answers", "speed", "fit"))
    parser.add_argument("--data", help="the folder of evaluation data (or AGENTBUDGET_DATA)")
    parser.add_argument("--cache", type=Path, default=Path("results/retrieval"), help="indexes, vectors and answers")
    parser.add_argument("--sets", nargs="+", choices=TITLES, default=list(TITLES))
    parser.add_argument("--limit", type=int, help="only so many questions of a set")
    given = parser.parse_args()
    data = find_data(given.data)
    for name in given.sets:
        print(asyncio.run(inside.run(name, data, given.cache, given.limit)), end="\n\n", flush=True)


if __name__ == "__main__":
    main()
