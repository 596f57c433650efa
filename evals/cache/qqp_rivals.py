"""What the semantic cache is compared with: fixed thresholds, a learned one, and vCache's algorithm, written anew."""

from __future__ import annotations

import random
from dataclasses import dataclass, field
from math import inf
from statistics import NormalDist
from typing import TYPE_CHECKING, Final

import numpy as np

from agentbudget.cache.semantic.bound import find_bound
from agentbudget.cache.semantic.fit import fit, logistic
from agentbudget.cache.semantic.learn import STRENGTH, Fit
from agentbudget.cache.semantic.policy import AUDITED

if TYPE_CHECKING:
    from evals.cache.qqp_data import Requests

GPTCACHE: Final = 0.6
"""GPTCache's default: its similarity is ``4 - |a - b|²`` of unit vectors, and it wants 0.8 of 4: a cosine of 0.6."""


@dataclass(slots=True)
class Played:
    """What came of a stream: requests, hits, and hits that were wrong."""

    requests: int = 0
    hits: int = 0
    wrong: int = 0

    @property
    def wrong_per_hit(self) -> float:
        """0 where there was no hit: then none was wrong."""
        return self.wrong / self.hits if self.hits else 0.0


def fixed(requests: Requests, threshold: float) -> Played:
    """Reuse from a cosine on; the order does not matter."""
    hit = requests.cosine >= threshold
    return Played(len(requests), int(hit.sum()), int((hit & ~requests.same).sum()))


def hindsight(requests: Requests, wrong: float) -> Played:
    """The lowest cosine from which on no larger share than `wrong` of the hits was wrong: nobody knows it in time."""
    order = np.argsort(-requests.cosine, kind="stable")
    errors, hits = np.cumsum(~requests.same[order]), np.arange(1, len(order) + 1)
    last = np.flatnonzero(errors <= wrong * hits)
    count = int(last[-1]) + 1 if len(last) else 0
    return Played(len(requests), count, int(errors[count - 1]) if count else 0)


def learned_threshold(requests: Requests, order: list[int], wrong: float, chance: random.Random) -> Played:
    """One cosine for all, chosen while the stream goes on, with the bound and the audits of the semantic cache."""
    played = Played(len(order))
    cosine, same = requests.cosine[order], requests.same[order]
    verified, hit = np.zeros(len(order), np.bool_), np.zeros(len(order), np.bool_)
    threshold, due, outcomes = inf, Fit().due_at, 0
    for place in range(len(order)):
        if cosine[place] >= threshold and chance.random() >= AUDITED:
            hit[place] = True
            continue
        verified[place] = True
        outcomes += 1
        if outcomes >= due:
            past = slice(0, place + 1)
            told = np.stack([np.ones(place + 1), cosine[past]], axis=1)
            checked = verified[past]
            weights = fit(told[checked], same[past][checked], prior=_EVEN_AT_09, strength=STRENGTH)
            expected = logistic(-(told @ weights))
            bound = find_bound(cosine[past], checked, same[past], hit[past], wrong=wrong, expected=expected)
            threshold, due = bound.threshold, Fit(learned_from=outcomes).due_at
    played.hits, played.wrong = int(hit.sum()), int((hit & ~same).sum())
    return played


_EVEN_AT_09: Final = np.array([-18.0, 20.0])


# --- vCache: Schroeder et al., "vCache: Verified Semantic Prompt Caching", 2025 (arXiv 2502.03771), algorithms 1 and 2


VARIANCES: Final = (
    0.035445, 0.028285, 0.026436, 0.021349, 0.019371, 0.012615, 0.011433, 0.010228, 0.009963, 0.009253, 0.011674,
    0.013015, 0.010897, 0.011841, 0.013081, 0.010585, 0.014255, 0.012058, 0.013002, 0.011715, 0.00839, 0.008839,
    0.010628, 0.009899, 0.008033, 0.00457, 0.007335, 0.008932, 0.00729, 0.007445, 0.00761, 0.011423, 0.011233,
    0.006783, 0.005233, 0.00872, 0.010005, 0.01199, 0.00977, 0.01891, 0.01513, 0.02109, 0.01531,
)  # fmt: skip
"""Its table: the variance of the threshold after 6, 7, … observations that a threshold separates."""

OBSERVATIONS: Final = 6
"""Before so many it explores; two are assumed for each entry: (0, wrong) and (1, right)."""

_LEVELS: Final = np.linspace(1e-6, 1 - 1e-6, 50)
_QUANTILES: Final = np.array([NormalDist().inv_cdf(1 - level) for level in _LEVELS])


@dataclass(slots=True)
class _Observed:
    similarities: list[float] = field(default_factory=lambda: [0.0, 1.0])
    right: list[int] = field(default_factory=lambda: [0, 1])

    def add(self, similarity: float, *, same: bool) -> None:
        self.similarities.append(round(similarity, 3))
        self.right.append(int(same))


def vcache(
    requests: Requests, order: list[int], delta: float, chance: random.Random, *, pooled: bool = False
) -> Played:
    """vCache: a logistic curve of outcome on similarity for each entry, and exploring with a probability that keeps
    the share of wrong answers among all requests, bought ones included, at ``delta``. `pooled`: one curve for all."""
    played = Played(len(order))
    known: dict[int, _Observed] = {}
    curve: tuple[float, float, float] | None = None
    due = OBSERVATIONS
    for number in order:
        observed = known.setdefault(0 if pooled else int(requests.entry[number]), _Observed())
        similarity = float(requests.cosine[number])
        count = len(observed.right)
        if count < OBSERVATIONS:
            curve = None
        elif not pooled:
            curve = _curve(observed)
        elif count >= due:  # one curve for all is fitted anew after a tenth more: it would not end otherwise
            curve, due = _curve(observed), int(1.1 * count) + 1
        if curve is None or chance.random() <= _explore(curve, round(similarity, 3), delta):
            observed.add(similarity, same=bool(requests.same[number]))
        else:
            played.hits += 1
            played.wrong += not requests.same[number]
    return played


def _curve(observed: _Observed) -> tuple[float, float, float]:
    """The threshold, the slope, and the variance of the threshold, by the delta method or from the table."""
    x, y = np.array(observed.similarities), np.array(observed.right, float)
    design = np.stack([np.ones_like(x), x], axis=1)
    weights = np.zeros(2)
    for _ in range(100):  # the tiny penalty stands for the tolerance at which an unpenalised fit is given up
        p = 1 / (1 + np.exp(-np.clip(design @ weights, -500, 500)))
        curvature = (design * (p * (1 - p))[:, None]).T @ design + 1e-6 * np.eye(2)
        step = np.linalg.solve(curvature, design.T @ (y - p) - 1e-6 * weights)
        weights += step
        if np.abs(step).max() < 1e-8:
            break
    intercept, slope = float(weights[0]), max(float(weights[1]), 1e-6)
    threshold = min(max(-intercept / slope, 0.0), 1.0)
    if x[y == 1].min() > x[y == 0].max():
        place = min(len(x) - OBSERVATIONS, len(VARIANCES) - 1)
        return threshold, slope, VARIANCES[place]
    p = 1 / (1 + np.exp(-np.clip(design @ weights, -500, 500)))
    covariance = np.linalg.inv((design * (p * (1 - p))[:, None]).T @ design)
    gradient = np.array([-1 / slope, intercept / slope**2])
    return threshold, slope, max(0.0, float(gradient @ covariance @ gradient))


def _explore(curve: tuple[float, float, float], similarity: float, delta: float) -> float:
    """The least probability of exploring (its tau) over the confidence levels of the threshold."""
    threshold, slope, variance = curve
    thresholds = np.clip(threshold + _QUANTILES * np.sqrt(variance), 0.0, 1.0)
    right = (1 - _LEVELS) / (1 + np.exp(-np.clip(slope * (similarity - thresholds), -500, 500)))
    return float((1 - delta / (1 - right)).min())
