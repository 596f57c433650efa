"""What an estimate costs, in time of one core: `python -m evals.estimates.speed`.

Prompts of a hundred words on a scripted model, with a history as long as estimates look back on. Processor time, so
that other work on the machine counts little.
"""

from __future__ import annotations

import argparse
import asyncio
import random
from collections.abc import Sequence
from time import process_time_ns
from typing import Final

from agentbudget.estimate import CallEstimate, Estimator
from agentbudget.estimate.estimator import MEMORY
from agentbudget.estimate.features import features
from agentbudget.ledger import Ledger
from agentbudget.models.base import Message, Request
from agentbudget.testing import ScriptedModel
from agentbudget.usage import Usage

TEXT: Final = "The train leaves at 14:05 with 120 people who each pay (3.50 + x) dollars; how many are left, then?"
FIXED: Final = Message("system", "Solve this exercise.")


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--calls", type=int, default=3000, help="to measure, after those of the history [3000]")
    given = parser.parse_args()
    print("\n".join(asyncio.run(measured(given.calls))))


async def measured(calls: int) -> list[str]:
    """Microseconds a call, as Markdown."""
    chance, model = random.Random(7), ScriptedModel([], context_window=2**20)
    estimator = Estimator(Ledger.open("memory:"))
    requests = [_request(chance) for _ in range(MEMORY + calls)]
    for request in requests[:MEMORY]:
        _learn(estimator, model, await _estimated(estimator, model, request), chance)
    spent = {
        "features of the prompt, a part of the estimate": 0,
        "an estimate at a level": 0,
        "learning from a call": 0,
    }
    for request in requests[MEMORY:]:
        begun = process_time_ns()
        features(request)
        read = process_time_ns()
        estimate = await _estimated(estimator, model, request)
        estimated = process_time_ns()
        _learn(estimator, model, estimate, chance)
        ended = process_time_ns()
        for name, ns in zip(spent, (read - begun, estimated - read, ended - estimated), strict=True):
            spent[name] += ns
    return ["| what | µs |", "| --- | --: |", *(f"| {name} | {ns / calls / 1000:.0f} |" for name, ns in spent.items())]


def _request(chance: random.Random) -> Request:
    words: Sequence[str] = chance.choices(TEXT.split(), k=100)
    return Request((FIXED, Message("user", " ".join(words))), 1000, fixed=1)


async def _estimated(estimator: Estimator, model: ScriptedModel, request: Request) -> CallEstimate:
    return await estimator.call("solve", model, request, level=0.9, grows=True)


def _learn(estimator: Estimator, model: ScriptedModel, estimate: CallEstimate, chance: random.Random) -> None:
    usage = Usage(estimate.input.tokens, chance.randint(50, 500))
    estimator.learn("solve", model, usage, "stop", estimate=estimate)


if __name__ == "__main__":
    main()
