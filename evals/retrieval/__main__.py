"""Retrieval within a token allowance: `python -m evals.retrieval [WHAT] --data DIR`.

``inside`` (the default): is the answer inside the context, for top-k packing by BM25, by vectors and by both, and for
`retrieve`. ``answers``: what the local models answer from it. ``speed``: time over 100,000 chunks. ``neighbours``: what
the chunks before and after the best bring, in long documents. ``diversity``: what it costs that chunks are unlike each
other. ``fit``: the weights of `agentbudget.context.worth`, from the tuning half. Each corpus is embedded once, into
``--cache``.
"""

from __future__ import annotations

import argparse
import asyncio
from pathlib import Path

from agentbudget.evals.tasks import find_data
from evals.retrieval import answers, diversity, fit, inside, neighbours, speed
from evals.retrieval.corpora import TITLES

WHATS = ("inside", "answers", "speed", "neighbours", "diversity", "fit")


def main() -> None:
    """Run and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", nargs="?", default="inside", choices=WHATS, metavar="WHAT", help=", ".join(WHATS))
    parser.add_argument("--data", help="the folder of evaluation data (or AGENTBUDGET_DATA)")
    parser.add_argument("--cache", type=Path, default=Path("results/retrieval"), help="indexes, vectors and answers")
    parser.add_argument("--sets", nargs="+", choices=TITLES, default=list(TITLES))
    parser.add_argument("--limit", type=int, help="only so many questions of a set")
    parser.add_argument("--model", default="llamacpp:qwen2.5-coder-0.5b", help="who answers")
    given = parser.parse_args()
    data: Path = find_data(given.data)
    cache: Path = given.cache
    if given.what == "inside":
        for name in given.sets:
            print(asyncio.run(inside.run(name, data, cache, given.limit)), end="\n\n", flush=True)
    elif given.what == "diversity":
        for name in given.sets:
            print(asyncio.run(diversity.run(name, data, cache, given.limit)), end="\n\n", flush=True)
    elif given.what == "answers":
        print(
            asyncio.run(
                answers.run(
                    data, cache, given.model, sets=[n for n in answers.SETS if n in given.sets], limit=given.limit or 60
                )
            )
        )
    elif given.what == "fit":
        print(asyncio.run(fit.run(data, cache)))
    elif given.what == "neighbours":
        print(neighbours.run(data, cache))
    else:
        print(speed.run(data, cache))


if __name__ == "__main__":
    main()
