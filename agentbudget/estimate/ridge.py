"""Ridge regression that learns one call at a time, in plain Python: no array library is loaded for it."""

from __future__ import annotations

from collections.abc import Sequence
from operator import mul


class Ridge:
    """Least squares on standardised features, with a penalty, and older calls forgotten little by little.

    It keeps the decayed moments of features and target, and after each call moves every weight once to where the
    penalised error is least given the others (Gauss-Seidel, which converges for such a system from wherever it
    stands). `penalty` counts as so many calls in which a feature said nothing; `decay` is the weight of a call for
    each one that came after it.
    """

    __slots__ = ("_count", "_decay", "_moments", "_penalty", "_products", "_sums", "_target", "weights")

    def __init__(self, size: int, *, penalty: float = 30.0, decay: float = 0.999) -> None:
        self._penalty = penalty
        self._decay = decay
        self._count = 0.0
        self._target = 0.0
        self._sums = [0.0] * size
        self._products = [0.0] * size
        self._moments = [[0.0] * size for _ in range(size)]
        self.weights = [0.0] * size

    def predict(self, features: Sequence[float]) -> float:
        """The target that these features let expect; 0 before anything was learned."""
        if not self._count:
            return 0.0
        offset = sum(map(mul, self.weights, self._sums)) / self._count
        return self._target / self._count + sum(map(mul, self.weights, features)) - offset

    def learn(self, features: Sequence[float], target: float) -> None:
        """Take one more pair into account."""
        decay = self._decay
        self._count = decay * self._count + 1
        self._target = decay * self._target + target
        self._sums = [decay * s + x for s, x in zip(self._sums, features, strict=True)]
        self._products = [decay * p + x * target for p, x in zip(self._products, features, strict=True)]
        for row, x in enumerate(features):
            old = self._moments[row]
            self._moments[row] = [decay * m + x * y for m, y in zip(old, features, strict=True)]
        self._sweep()

    def _sweep(self) -> None:
        count, sums, weights, mean = self._count, self._sums, self.weights, self._target / self._count
        offset = sum(map(mul, sums, weights)) / count
        for j, moments in enumerate(self._moments):
            spread = moments[j] - sums[j] * sums[j] / count
            if spread <= 1e-9 * count:
                continue  # it has been the same in every call: it tells nothing
            error = self._products[j] - sums[j] * (mean - offset) - sum(map(mul, moments, weights))
            penalty = self._penalty * spread / count
            step = (error - penalty * weights[j]) / (spread + penalty)
            weights[j] += step
            offset += step * sums[j] / count
