"""What Quora's question pairs teach of others: `python -m evals.cache prior --data DIR`.

Prints the weights that a space of questions starts from (`agentbudget.cache.semantic.features.PRIOR`): those of the
tuning half, every answer bought, in the mean of three orders.
"""

from __future__ import annotations

import argparse
import random
from collections.abc import Sequence
from pathlib import Path
from typing import Final

import numpy as np

from agentbudget import settings
from agentbudget.cache.semantic.features import NAMES
from agentbudget.cache.semantic.fit import fit
from agentbudget.cache.semantic.learn import STRENGTH, Fit
from agentbudget.evals.tasks import find_data
from evals.cache.qqp import Stream
from evals.cache.qqp_data import Requests, pairs_of, requests_of, vectors_of

NOTHING: Final = np.array([{"always": -18.0, "cosine": 20.0}.get(name, 0.0) for name in NAMES])
"""What is believed before that: even odds at a cosine of 0.9."""


def taught(requests: Requests, seed: int) -> list[float]:
    """The weights after all requests in one order."""
    stream = Stream(requests, random.Random(seed).sample(range(len(requests)), len(requests)), Fit())
    for place in np.flatnonzero(stream.tried).tolist():
        stream.buy(place, stream.score(place), wrong=0.01)
    known = stream.tried
    return fit(stream.told[known], stream.same[known], prior=NOTHING, strength=STRENGTH).tolist()


def main(arguments: Sequence[str] | None = None) -> None:
    """Read, play, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", help="the folder of evaluation data (or AGENTBUDGET_DATA)")
    parser.add_argument("--vectors", type=Path, help="where vectors are kept [evals/qqp in the home folder]")
    given = parser.parse_args(arguments)
    pairs = pairs_of(find_data(given.data), "tune")
    texts = [text for pair in pairs for text in (pair.text_a, pair.text_b)]
    requests = requests_of(pairs, vectors_of(texts, given.vectors or settings.home() / "evals" / "qqp"))
    mean = np.mean([taught(requests, seed) for seed in range(3)], axis=0)
    print("\n".join(f'"{name}": {weight:.2f},' for name, weight in zip(NAMES, mean.tolist(), strict=True)))
