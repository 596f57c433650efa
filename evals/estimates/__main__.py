"""Learn how long answers are from half of them, and bound the other half: `python -m evals.estimates --data DIR`.

Prints, for a hold at 90 % and at 99 % of such calls, how many of the other half it covered, and how much was reserved
for each token that was used. Means over random halves; nothing is sent anywhere.
"""

from __future__ import annotations

import argparse
import asyncio
import random
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Final

from agentbudget.errors import AgentBudgetError
from agentbudget.estimate import CallEstimate, Estimator
from agentbudget.evals.tasks import find_data
from agentbudget.ledger import Ledger
from agentbudget.testing import ScriptedModel
from agentbudget.usage import Usage
from evals.estimates.data import MAX_OUTPUT_TOKENS, SETS, Answer, Exercise, answers, models_of

LEVELS: Final = (0.9, 0.99)

MODELS: Final = (
    "gpt-4o-2024-05-13",
    "gpt-4o-2024-08-06",
    "claude-3-5-sonnet-20240620",
    "claude-3-5-sonnet-20241022",
    "Meta-Llama-3.1-8B-Instruct",
)
"""The models that stand in the tables one by one."""

DRAFTS: Final = ("gpt-4o-mini-2024-07-18", "claude-3-haiku-20240307")
"""Cheap models whose answers are known when a call is an escalation from them."""


@dataclass(frozen=True, slots=True)
class Setting:
    """What is known before a call; ``goes_on``: the answers before it in the other half too, as in service."""

    title: str
    told: bool = True
    goes_on: bool = False
    drafts: tuple[str, ...] = ()
    only: Exercise | None = None


SETTINGS: Final = (
    Setting("One skill, its fixed prompt says which kind of exercise it is"),
    Setting("The same, each answer of the other half learned once it was bounded, as in service", goes_on=True),
    Setting("The same, as an escalation after a draft of GPT-4o mini", drafts=DRAFTS[:1]),
    Setting("The same, after drafts of GPT-4o mini and Claude 3 Haiku", drafts=DRAFTS),
    Setting("One skill, one fixed prompt: the kind must be read from the question", told=False),
    Setting("GSM8K alone", only="gsm"),
    Setting("MATH level 5 alone", only="math_l5"),
)


@dataclass(frozen=True, slots=True)
class Score:
    """How bounds did on answers that they were not learned from, as shares and ratios; per set where there are two."""

    covered: float
    reserved: float
    covered_per_set: tuple[float, ...]


def main() -> None:
    """Read, learn, bound, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", help="the folder of evaluation data (or AGENTBUDGET_DATA)")
    parser.add_argument("--splits", type=int, default=10, help="random halves for each model of the tables [10]")
    parser.add_argument("--others", type=int, default=2, help="random halves for each of the other models [2]")
    given = parser.parse_args()
    found = answers(find_data(given.data))
    for setting in SETTINGS:
        print("\n".join(table(setting, found, splits=given.splits, others=given.others)), flush=True)


def table(setting: Setting, found: Sequence[Answer], *, splits: int, others: int) -> Iterator[str]:
    """A setting's scores as Markdown: the models of `MODELS`, and the mean of all the others."""
    yield f"\n### {setting.title}\n"
    yield "| model | covered at 90 % | by set | reserved ÷ used | covered at 99 % | reserved ÷ used | cap ÷ used |"
    yield "| --- | --: | --: | --: | --: | --: | --: |"
    rest: list[tuple[Score, ...]] = []
    for model in (*MODELS, *(m for m in models_of(found) if m not in (*MODELS, *setting.drafts))):
        known = [
            answer
            for answer in found
            if setting.only in (None, answer.exercise) and {model, *setting.drafts} <= answer.tokens.keys()
        ]
        if not known:
            continue
        times = splits if model in MODELS else others
        scores = _mean([asyncio.run(halves(setting, model, known, seed=seed)) for seed in range(times)])
        if model in MODELS:
            yield _row(model, scores)
        elif scores:
            rest.append(scores)
    if rest:
        within = [sum(abs(each[n].covered - level) <= 0.02 for each in rest) for n, level in enumerate(LEVELS)]
        yield _row(f"mean of the {len(rest)} other models", _mean(rest))
        yield f"\nOf these, {within[0]} and {within[1]} are within 2 points of 90 % and of 99 %."


async def halves(setting: Setting, model_name: str, known: Sequence[Answer], *, seed: int) -> tuple[Score, ...]:
    """Learn from a random half, in random order; score bounds at each level on the other half, and the cap there."""
    order = list(known)
    random.Random(seed).shuffle(order)
    seen, unseen = order[: len(order) // 2], order[len(order) // 2 :]
    model = ScriptedModel([], name=model_name, context_window=2**20)
    estimator = Estimator(Ledger.open("memory:"))

    async def estimated(answer: Answer, level: float | None) -> CallEstimate:
        drafts = [answer.tokens[draft] for draft in setting.drafts]
        request = answer.request(told=setting.told)
        return await estimator.call(
            "solve", model, request, trust_history=False, level=level, grows=True, drafts=drafts
        )

    def learn(answer: Answer, estimate: CallEstimate) -> None:
        used = answer.tokens[model_name]
        finish = "stop" if used < MAX_OUTPUT_TOKENS else "length"
        estimator.learn("solve", model, Usage(estimate.input.tokens, used), finish, estimate=estimate)

    for answer in seen:
        learn(answer, await estimated(answer, None))
    bounds: list[tuple[int, ...]] = []
    for answer in unseen:
        *levels, most = [await estimated(answer, level) for level in (*LEVELS, None)]
        bounds.append(tuple(each.hold_tokens for each in (*levels, most)))
        if setting.goes_on:
            learn(answer, most)
    return tuple(_score(unseen, held, model_name) for held in zip(*bounds, strict=True))


def _score(unseen: Sequence[Answer], held: Sequence[int], model_name: str) -> Score:
    used = [answer.tokens[model_name] for answer in unseen]
    hits = [u <= h for u, h in zip(used, held, strict=True)]
    per_set = [
        [hit for hit, answer in zip(hits, unseen, strict=True) if answer.exercise == exercise] for exercise in SETS
    ]
    shares = tuple(sum(each) / len(each) for each in per_set if each)
    return Score(sum(hits) / len(hits), sum(held) / sum(used), shares)


def _mean(many: Sequence[tuple[Score, ...]]) -> tuple[Score, ...]:
    def mean(values: Sequence[float]) -> float:
        return sum(values) / len(values)

    return tuple(
        Score(
            mean([each.covered for each in column]),
            mean([each.reserved for each in column]),
            tuple(map(mean, zip(*(each.covered_per_set for each in column), strict=True))),
        )
        for column in zip(*many, strict=True)
    )


def _row(model: str, scores: Sequence[Score]) -> str:
    at90, at99, cap = scores
    by_set = ", ".join(f"{share:.0%}" for share in at90.covered_per_set)
    cells = (f"{at90.covered:.1%}", by_set, f"{at90.reserved:.2f}", f"{at99.covered:.1%}", f"{at99.reserved:.2f}")
    return f"| {model} | {' | '.join(cells)} | {cap.reserved:.1f} |"


if __name__ == "__main__":
    try:
        main()
    except AgentBudgetError as error:
        sys.exit(str(error))
