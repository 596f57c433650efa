"""A logistic regression of outcomes on features, drawn towards what is believed before there are any."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    Floats = NDArray[np.float64]
    Bools = NDArray[np.bool_]
    Ints = NDArray[np.int64]

FOLDS: Final = 5
"""Parts of the outcomes that are each scored by a fit of the others."""

_ROUNDS: Final = 25
_ENOUGH: Final = 1e-6


def fit(features: Floats, same: Bools, *, prior: Floats, strength: float, start: Floats | None = None) -> Floats:
    """Weights, one for each column, that make `same` most likely, less ``strength/2 · |weights - prior|²``.

    Newton's method; the penalised likelihood is strictly concave, so that it converges to the one maximum.
    """
    import numpy as np

    weights = (prior if start is None else start).copy()
    target = same.astype(np.float64)
    penalty = strength * np.eye(features.shape[1])
    for _ in range(_ROUNDS):
        chance = logistic(features @ weights)
        slope = features.T @ (target - chance) - strength * (weights - prior)
        curvature = (features * (chance * (1 - chance))[:, None]).T @ features + penalty
        step = np.linalg.solve(curvature, slope)
        weights += step * min(1.0, 4.0 / max(float(np.abs(step).max()), 1e-12))
        if float(np.abs(step).max()) < _ENOUGH:
            break
    return weights


def cross_scores(
    features: Floats, same: Bools, verified: Bools, groups: Ints, *, prior: Floats, strength: float, start: Floats
) -> Floats:
    """The score (log-odds) of every row by a fit of the verified rows in other folds; a group stays in one fold.

    So a row's score owes nothing to its own outcome, nor to those of its entry, and says how new ones will score.
    """
    import numpy as np

    scores = np.empty(len(features))
    folds = groups % FOLDS
    for fold in range(FOLDS):
        learned = verified & (folds != fold)
        weights = fit(features[learned], same[learned], prior=prior, strength=strength, start=start)
        scores[folds == fold] = features[folds == fold] @ weights
    return scores


def logistic(scores: Floats) -> Floats:
    """Log-odds as chances."""
    import numpy as np

    return 0.5 * (1 + np.tanh(0.5 * scores))
