"""Ridge regression that learns one call at a time, in plain Python: no array library is loaded for it."""

from __future__ import annotations

from collections.abc import Sequence
from operator import mul
from typing import Final


class Ridge:
    """Least squares on standardised features, with a penalty, and older calls forgotten little by little.

    It keeps the decayed moments of features and target, and after each call moves every weight once to where the
    penalised error is least given the others (Gauss-Seidel, which converges for such a system from wherever it
    stands). `penalty` counts as so many calls in which a feature said nothing; `decay` is the weight of a call for
    each one that came after it. Instead of decaying what it has, it lets a newer call weigh more: then what a feature
    that is 0 is part of stays as it is, and most of a prompt's features are 0.
    """

    __slots__ = (
        "_count",
        "_growth",
        "_level",
        "_moments",
        "_penalty",
        "_products",
        "_sums",
        "_target",
        "_weight",
        "weights",
    )

    HEAVIEST: Final = 1e9
    """The weight of a call at which all are brought down again."""

    def __init__(self, size: int, *, penalty: float = 30.0, decay: float = 0.999) -> None:
        self._penalty = penalty
        self._growth = 1 / decay
        self._weight = 1.0
        self._level = 0.0
        self._count = 0.0
        self._target = 0.0
        self._sums = [0.0] * size
        self._products = [0.0] * size
        self._moments = [[0.0] * size for _ in range(size)]
        self.weights = [0.0] * size

    def predict(self, features: Sequence[float]) -> float:
        """The target that these features let expect; 0 before anything was learned."""
        return self._level + sum(map(mul, self.weights, features))

    def learn(self, features: Sequence[float], target: float) -> None:
        """Take one more pair into account."""
        weight, moments = self._weight, self._moments
        self._count += weight
        self._target += weight * target
        known = [(place, x) for place, x in enumerate(features) if x]
        for place, x in known:
            w, row = weight * x, moments[place]
            self._sums[place] += w
            self._products[place] += w * target
            for other, y in known:
                row[other] += w * y
        self._sweep()
        self._weight = weight * self._growth
        if self._weight > self.HEAVIEST:
            self._lighten(1 / self._weight)

    def _lighten(self, by: float) -> None:
        """Bring all weights down: only what they are to each other counts."""
        self._weight, self._count, self._target = self._weight * by, self._count * by, self._target * by
        self._sums = [by * s for s in self._sums]
        self._products = [by * p for p in self._products]
        self._moments = [[by * m for m in row] for row in self._moments]

    def _sweep(self) -> None:
        count, sums, weights, mean = self._count, self._sums, self.weights, self._target / self._count
        offset = sum(map(mul, sums, weights)) / count
        for j, moments in enumerate(self._moments):
            spread = moments[j] - sums[j] * sums[j] / count
            if spread <= 1e-9 * count:
                continue  # it has been the same in every call: it tells nothing
            error = self._products[j] - sums[j] * (mean - offset) - sum(map(mul, moments, weights))
            penalty = self._weight * self._penalty * spread / count
            step = (error - penalty * weights[j]) / (spread + penalty)
            weights[j] += step
            offset += step * sums[j] / count
        self._level = mean - offset
