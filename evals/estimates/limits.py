"""How tight a bound on an answer's length can be: `python -m evals.estimates.limits --data DIR`.

Bounds the same answers as `evals.estimates` with more than a skill has: learners that are too slow for a step, sentence
vectors of the question, the true quantiles of groups, and the lengths of all other models' answers to the same
question, which say more of it than its text does. Learned on a random half of the exercises and scored on the other,
both ways round; means over some halves.
"""

from __future__ import annotations

import argparse
import random
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from statistics import fmean
from typing import Final

import numpy as np
from numpy.typing import NDArray

from agentbudget.context.embed import FastEmbedder
from agentbudget.errors import AgentBudgetError
from agentbudget.estimate.conformal import conformal_upper, tightest_bound
from agentbudget.estimate.features import Kinds, features
from agentbudget.evals.tasks import find_data
from evals.estimates.__main__ import MODELS
from evals.estimates.data import SETS, Answer, answers, models_of

LEVEL: Final = 0.9

Matrix = NDArray[np.float64]
Places = NDArray[np.int64]
Kernel = Callable[[Matrix, Matrix], Matrix]


@dataclass(frozen=True, slots=True)
class Known:
    """What a bound is made from: numbers for each answer, how alike they make two, and a penalty on trusting that."""

    title: str
    numbers: Matrix
    kernel: Kernel
    penalty: float


@dataclass(frozen=True, slots=True)
class Limit:
    """How a bound did on the other half. ``left`` is the spread of log length around what was expected; ``at_level`` is
    what would be reserved for each token used if the level were met exactly there."""

    left: float
    covered: float
    reserved: float
    at_level: float


def main() -> None:
    """Read, learn, bound, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", help="the folder of evaluation data (or AGENTBUDGET_DATA)")
    parser.add_argument("--splits", type=int, default=5, help="random divisions into halves [5]")
    parser.add_argument("--embed", action="store_true", help="vectors of the questions too: a minute or two")
    given = parser.parse_args()
    found = answers(find_data(given.data))
    vectors = np.array(FastEmbedder(threads=1).embed([answer.question for answer in found])) if given.embed else None
    for model in MODELS:
        print("\n".join(table(model, found, vectors, splits=given.splits)), flush=True)


def table(model: str, found: Sequence[Answer], vectors: Matrix | None, *, splits: int) -> Iterator[str]:
    """A model's limits as Markdown."""
    answered = [n for n, answer in enumerate(found) if model in answer.tokens]
    own = [found[n] for n in answered]
    tokens = np.array([answer.tokens[model] for answer in own], dtype=float)
    ways = [way for seed in range(splits) for way in _halves(len(own), seed)]
    yield f"\n### {model}\n"
    yield "| known before the call | spread left | covered | reserved ÷ used | at exactly 90 % |"
    yield "| --- | --: | --: | --: | --: |"
    for known in _settings(model, own, None if vectors is None else vectors[answered]):
        limits = [_limit(known, np.log1p(tokens), seen, unseen) for seen, unseen in ways]
        yield _row(known.title, limits)
    groups = _groups(own)
    held = fmean(_oracle(groups[unseen], tokens[unseen]) for _, unseen in ways)
    yield f"| the true quantiles of ten groups | | | | {held:.2f} |"


def _halves(count: int, seed: int) -> tuple[tuple[Places, Places], tuple[Places, Places]]:
    order = np.array(random.Random(seed).sample(range(count), count))
    return (order[::2], order[1::2]), (order[1::2], order[::2])


def _settings(model: str, found: Sequence[Answer], vectors: Matrix | None) -> Iterator[Known]:
    kinds = Kinds()
    asked = np.array([kinds.numbers(features(answer.request())) for answer in found])
    asked = asked[:, asked.std(axis=0) > 0]
    rest = [other for other in models_of(found) if other != model]
    others = np.array([_others(answer, rest) for answer in found])
    yield Known("the prompt's features: linear, as skills learn", asked, _linear, 30)
    yield Known("the same: kernel ridge", asked, _curved, 1)
    if vectors is not None:
        yield Known("features and sentence vectors: linear", np.hstack([asked, vectors]), _linear, 300)
        yield Known("features and sentence vectors: kernel ridge", np.hstack([asked, vectors / 4]), _curved, 1)
    yield Known("features and the lengths of all other models' answers", np.hstack([asked, others]), _linear, 10)


def _others(answer: Answer, models: Sequence[str]) -> list[float]:
    """Log lengths of the other models' answers; one that is missing counts as their mean."""
    known = {m: float(np.log1p(answer.tokens[m])) for m in models if m in answer.tokens}
    mean = sum(known.values()) / max(1, len(known))
    return [known.get(m, mean) for m in models]


def _linear(a: Matrix, b: Matrix) -> Matrix:
    return a @ b.T


def _curved(a: Matrix, b: Matrix) -> Matrix:
    """A line and what bends it: a Gaussian of the mean squared distance."""
    size = a.shape[1]
    apart = ((a**2).sum(axis=1)[:, None] + (b**2).sum(axis=1)[None] - 2 * a @ b.T) / size
    return a @ b.T / size + np.exp(-apart / 2)


def _standard(numbers: Matrix) -> Matrix:
    spread = numbers.std(axis=0)
    return (numbers - numbers.mean(axis=0)) / np.where(spread > 0, spread, 1)


def _limit(known: Known, target: Matrix, seen: Places, unseen: Places) -> Limit:
    """Learn from one half, calibrate on what it leaves out one by one, bound the other."""
    numbers = _standard(known.numbers)
    similar = known.kernel(numbers[seen], numbers[seen])
    mean = target[seen].mean()
    inverse = np.linalg.inv(similar + known.penalty * np.eye(len(seen)))
    weights = inverse @ (target[seen] - mean)
    left_out = target[seen] - weights / np.diag(inverse)  # leave-one-out in closed form
    expected: Matrix = known.kernel(numbers[unseen], numbers[seen]) @ weights + mean
    power, offset = tightest_bound(left_out.tolist(), target[seen].tolist(), LEVEL)
    exact = conformal_upper((target[unseen] - power * expected).tolist(), LEVEL)
    most, used = target[seen].max(), np.expm1(target[unseen])
    held, at_level = (np.expm1(np.minimum(power * expected + by, most)) for by in (offset, exact))
    return Limit(
        left=float((target[unseen] - expected).std()),
        covered=float(np.mean(used <= held + 0.5)),  # lengths are whole
        reserved=float(held.sum() / used.sum()),
        at_level=float(at_level.sum() / used.sum()),
    )


def _groups(found: Sequence[Answer]) -> Places:
    """Five groups of each set, by the length of the question."""
    group = np.zeros(len(found), dtype=np.int64)
    for number, exercise in enumerate(SETS):
        place = [n for n, answer in enumerate(found) if answer.exercise == exercise]
        rank = np.argsort(np.argsort([len(found[n].question) for n in place]))
        group[place] = 5 * number + rank * 5 // max(1, len(place))
    return group


def _oracle(groups: Places, tokens: Matrix) -> float:
    """Reserved for each token used if each group's own quantile were known from these very answers."""
    quantile = {group: conformal_upper(tokens[groups == group].tolist(), LEVEL) for group in np.unique(groups)}
    return float(sum(quantile[group] for group in groups) / tokens.sum())


def _row(title: str, limits: Sequence[Limit]) -> str:
    left, covered = fmean(limit.left for limit in limits), fmean(limit.covered for limit in limits)
    reserved, at_level = fmean(limit.reserved for limit in limits), fmean(limit.at_level for limit in limits)
    return f"| {title} | {left:.3f} | {covered:.1%} | {reserved:.2f} | {at_level:.2f} |"


if __name__ == "__main__":
    try:
        main()
    except AgentBudgetError as error:
        sys.exit(str(error))
