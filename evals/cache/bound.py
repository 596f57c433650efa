"""What a bound costs: `python -m evals.cache bound`.

Questions come by a law of Zipf, as those of many users do: few are asked often, most once. One in five goes to a dear
model, the others to a cheap one; how long they and their answers are is drawn log-normally. A cache that is bounded to
a share of all answers' bytes drops what would save least (`agentbudget.cache.Store`), or what was not asked for longest
(LRU, for comparison). Printed is the share of the whole bill that hits saved, and what a cache without a bound saves.
"""

from __future__ import annotations

import argparse
import random
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass

from agentbudget.cache import Label, Limits, Store

BOUNDS = (0.01, 0.03, 0.1, 0.3)
DEAR, CHEAP = (3_000, 15_000), (50, 200)
"""Nano-dollars a token, of input and output."""


@dataclass(frozen=True, slots=True)
class Question:
    """One question: the bytes of its answer, and what it costs in nano-dollars."""

    key: str
    size: int
    cost: int


def main(arguments: Sequence[str]) -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(prog="python -m evals.cache bound", description=__doc__)
    parser.add_argument("--questions", type=int, default=10_000, help="different questions")
    parser.add_argument("--asked", type=int, default=40_000, help="how often one is asked")
    parser.add_argument("--zipf", type=float, default=0.9, help="the exponent")
    given = parser.parse_args(arguments)
    chance = random.Random(0)
    known = [drawn(chance, number) for number in range(given.questions)]
    weights = [1 / (rank + 1) ** given.zipf for rank in range(len(known))]
    stream = chance.choices(known, weights, k=given.asked)
    bill, whole = sum(question.cost for question in stream), sum(question.size for question in known)
    ideal = bill - sum(question.cost for question in set(stream))
    print(f"without a bound hits save {ideal / bill:.1%} of the bill\n")
    print(
        "| bound, share of all answers' bytes | dropping what would save least | dropping the longest unasked (LRU) |"
    )
    print("|--:|--:|--:|")
    for bound in BOUNDS:
        room = int(bound * whole)
        print(f"| {bound:.0%} | {ours(stream, room) / bill:.1%} | {lru(stream, room) / bill:.1%} |", flush=True)


def drawn(chance: random.Random, number: int) -> Question:
    """A question, its answer's length and its price."""
    read, written = chance.lognormvariate(6.5, 1.0), chance.lognormvariate(4.8, 0.8)
    per_input, per_output = DEAR if chance.random() < 0.2 else CHEAP
    return Question(f"{number:040d}", 200 + int(4 * written), int(read * per_input + written * per_output))


def ours(stream: Sequence[Question], room: int) -> int:
    """What the store saves."""
    saved = 0
    with Store(limits=Limits(bytes=room)) as store:
        for question in stream:
            if found := store.find((question.key,)):
                store.touch(found[0].entry)
                saved += question.cost
            else:
                value = bytes(question.size - len(question.key))
                store.put({question.key: None}, value, Label(), cost_usd_nano=question.cost)
    return saved


def lru(stream: Sequence[Question], room: int) -> int:
    """What it would save if the longest unasked went first."""
    saved = used = 0
    kept: OrderedDict[str, int] = OrderedDict()
    for question in stream:
        if question.key in kept:
            kept.move_to_end(question.key)
            saved += question.cost
            continue
        kept[question.key] = question.size
        used += question.size
        while used > room:
            used -= kept.popitem(last=False)[1]
    return saved
