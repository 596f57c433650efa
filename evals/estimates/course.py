"""How bounds do from a first call on and when answers change: `python -m evals.estimates.course --data DIR`.

Plays the exercises of `evals.estimates` in random order, each bounded before its answer is learned. Then one model
takes another's place midway, under the same name, as providers renew what stands behind one.
"""

from __future__ import annotations

import argparse
import asyncio
import random
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from statistics import fmean
from typing import Final

from agentbudget.errors import AgentBudgetError
from agentbudget.estimate import Estimator
from agentbudget.evals.tasks import find_data
from agentbudget.ledger import Ledger
from agentbudget.testing import ScriptedModel
from agentbudget.usage import Usage
from evals.estimates.data import MAX_OUTPUT_TOKENS, Answer, answers, models_of

STAGES: Final = ((0, 20), (20, 40), (40, 80), (80, 160), (160, 320), (320, 640), (640, 1_180))
"""Calls known before: from, and up to (exclusive)."""

CHANGED: Final = 500
"""The call at which another model takes the place of the first."""

AFTER: Final = ((-200, 0), (0, 50), (50, 150), (150, 500))
"""Calls since then."""

CHANGES: Final = (
    ("claude-3-5-sonnet-20240620", "claude-3-5-sonnet-20241022"),
    ("Meta-Llama-3-8B-Instruct", "Meta-Llama-3.1-8B-Instruct"),
    ("gpt-3.5-turbo-0125", "gpt-4o-mini-2024-07-18"),
    ("gpt-4o-mini-2024-07-18", "gpt-3.5-turbo-0125"),
)


@dataclass(frozen=True, slots=True)
class Call:
    """What a hold covered before its call, in output tokens, and what the answer had."""

    held: int
    used: int


def main() -> None:
    """Read, play, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", help="the folder of evaluation data (or AGENTBUDGET_DATA)")
    parser.add_argument("--orders", type=int, default=5, help="random orders for each change [5]")
    given = parser.parse_args()
    found = answers(find_data(given.data))
    print("\n".join(from_the_start(found)), flush=True)
    print("\n".join(through_changes(found, orders=given.orders)), flush=True)


def from_the_start(found: Sequence[Answer]) -> Iterator[str]:
    """Coverage by how many calls are known, as Markdown: means of all models, each in an order of its own."""
    yield "| calls known | covered at 90 % | reserved ÷ used | covered at 99 % | reserved ÷ used |"
    yield "| --- | --: | --: | --: | --: |"
    played = [
        [
            play(found, lambda answer, _, name=model: answer.tokens.get(name), level=level, seed=seed)
            for level in (0.9, 0.99)
        ]
        for seed, model in enumerate(models_of(found))
    ]
    most = max(len(calls) for each in played for calls in each)
    for first, end in STAGES:
        if first >= most:
            break
        cells = [_cells([each[n][first:end] for each in played]) for n in range(2)]
        yield f"| {first:,} to {end - 1:,} | {' | '.join(cells)} |"


def through_changes(found: Sequence[Answer], *, orders: int) -> Iterator[str]:
    """Coverage at 90 % around the call at which answers begin to come from another model, as Markdown."""
    titles = " | ".join(["200 before", "50 after", "50 to 150", "150 to 500"])
    yield f"\n| from, to | {titles} | reserved ÷ used, last |"
    yield f"| --- |{' --: |' * 5}"
    for old, new in CHANGES:
        both = [answer for answer in found if {old, new} <= answer.tokens.keys()]
        played = [
            play(both, lambda answer, n, a=old, b=new: answer.tokens[a if n < CHANGED else b], level=0.9, seed=seed)
            for seed in range(orders)
        ]
        parts = [[calls[CHANGED + first : CHANGED + end] for calls in played] for first, end in AFTER]
        if all(parts[-1]):
            cells = [f"{_covered(part):.1%}" for part in parts]
            yield f"| {old}, {new} | {' | '.join(cells)} | {_reserved(parts[-1]):.2f} |"


def play(
    found: Sequence[Answer], tokens: Callable[[Answer, int], int | None], *, level: float, seed: int
) -> list[Call]:
    """All exercises in random order; `tokens` says how long the answer to one is, the how many-th it is."""
    return asyncio.run(_play(random.Random(seed).sample(found, len(found)), tokens, level))


async def _play(order: Sequence[Answer], tokens: Callable[[Answer, int], int | None], level: float) -> list[Call]:
    model = ScriptedModel([], context_window=2**20)
    estimator = Estimator(Ledger.open("memory:"))
    calls: list[Call] = []
    for answer in order:
        used = tokens(answer, len(calls))
        if used is None:
            continue
        estimate = await estimator.call("solve", model, answer.request(), level=level, grows=True)
        calls.append(Call(estimate.hold_tokens, used))
        finish = "stop" if used < MAX_OUTPUT_TOKENS else "length"
        estimator.learn("solve", model, Usage(estimate.input.tokens, used), finish, estimate=estimate)
    return calls


def _cells(parts: Sequence[Sequence[Call]]) -> str:
    return f"{_covered(parts):.1%} | {_reserved(parts):.2f}"


def _covered(parts: Sequence[Sequence[Call]]) -> float:
    return fmean(call.used <= call.held for calls in parts for call in calls)


def _reserved(parts: Sequence[Sequence[Call]]) -> float:
    return fmean(sum(call.held for call in calls) / sum(call.used for call in calls) for calls in parts if calls)


if __name__ == "__main__":
    try:
        main()
    except AgentBudgetError as error:
        sys.exit(str(error))
