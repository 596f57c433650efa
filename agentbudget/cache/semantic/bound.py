"""From which score on may answers be reused, so that the share of wrong ones stays below a bound?"""

from __future__ import annotations

from dataclasses import dataclass
from math import inf
from statistics import NormalDist
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from agentbudget.cache.semantic.fit import Bools, Floats, Ints

RISK: Final = 0.01
"""How likely the share of wrong hits may come to stand above what is aimed at."""

AIM: Final = 0.7
"""The part of the allowed share that is aimed at: of many thresholds, tried again and again, that one is taken which
looks good, and it looks better than it is. (On the tuning half of Quora's pairs the errors were a quarter more.)"""

BELIEF: Final = 200
"""So many outcomes is the model's word worth in each stratum."""

SURE: Final = 0.1
"""Shares of wrong answers that are expected to be smaller are corrected by what was found."""

STRATUM: Final = 25
"""Verified outcomes in a stratum of scores."""


@dataclass(frozen=True, slots=True)
class Bound:
    """What was found out: reuse from ``threshold`` on (infinite: never).

    ``wrong`` is the share of hits that is expected to be wrong, ``risk`` the chance that it comes to more than was
    allowed, ``verified`` the outcomes from the threshold on that this rests on.
    """

    threshold: float = inf
    wrong: float = 1.0
    risk: float = 1.0
    verified: int = 0


def find_bound(scores: Floats, verified: Bools, same: Bools, hit: Bools, *, wrong: float, expected: Floats) -> Bound:
    """The lowest threshold at which hits, past and to come, stay below the share `wrong` of wrong ones.

    ``expected`` is what a model says of the chance that each is wrong.

    Candidates are sorted into strata of nearly equal scores, each with its own share of wrong outcomes: within a
    stratum it was chance, and no property of the pair, which of them were verified. A threshold's share of wrong hits
    is then the strata's shares, weighted with the hits that were made there and those that would be, were as many
    requests to come as have been. The lowest threshold is taken at which it is unlikely (`RISK`) that more than a
    part (`AIM`) of the share `wrong` of all these hits will have been wrong.
    """
    import numpy as np

    order = np.argsort(-scores, kind="stable")
    ends = np.flatnonzero(np.cumsum(verified[order]) % STRATUM == 0)
    ends = ends[verified[order][ends]] + 1  # each stratum ends with its last verified outcome
    if not len(ends):
        return Bound()
    checked, errors, seen, past = (
        np.diff(np.concatenate(([0], np.cumsum(column[order])[ends - 1])))
        for column in (verified, verified & ~same, np.ones(len(scores)), hit)
    )
    past[-1] += hit.sum() - past.sum()
    errors, checked = _with_belief(errors, checked, expected[order], verified[order], ends)
    share = errors / checked
    hits = past.sum() + np.cumsum(seen)
    errors_to_be = (past * share).sum() + np.cumsum(seen * share)
    unsure = share * (1 - share) / checked
    doubt = (past**2 * unsure).sum() + np.cumsum(((past + seen) ** 2 - past**2) * unsure)
    risk = risk_of_more(np.floor(AIM * wrong * hits), errors_to_be, doubt)
    fit = np.flatnonzero(risk <= RISK)
    last = int(fit[-1]) if len(fit) else int(np.argmin(risk))
    return Bound(
        threshold=float(scores[order][ends[last] - 1]) if len(fit) else inf,
        wrong=float(errors_to_be[last] / hits[last]),
        risk=float(risk[last]),
        verified=int(verified[order][: ends[last]].sum()),
    )


def risk_of_more(allowed: Floats, expected: Floats, doubt: Floats) -> Floats:
    """The chance that more than so many are wrong where so many are expected, with this variance of the expectation.

    Errors are taken to be Poisson but for their variance, which is larger by the doubt; its tail is a gamma
    distribution's, and that nearly normal in its cube root (Wilson and Hilferty, 1931).
    """
    import numpy as np

    expected = np.maximum(expected, 1e-9)
    wider = 1 + doubt / expected
    shape = (allowed + 1) / wider
    z = 3 * np.sqrt(shape) * ((expected / wider / shape) ** (1 / 3) - 1 + 1 / (9 * shape))
    return np.array([_NORMAL.cdf(value) for value in z.tolist()])


_NORMAL: Final = NormalDist()


def _with_belief(
    errors: Floats, checked: Floats, expected: Floats, verified: Bools, ends: Ints
) -> tuple[Floats, Floats]:
    """Errors and outcomes of each stratum, with those that the model expects, as if it had seen `BELIEF` more.

    A model is too sure where it is surest, since some outcomes are wrong whatever the questions: to what it expects is
    added how much more was found, in the mean of the strata from the top down to `SURE`.
    """
    import numpy as np

    sums = np.diff(np.concatenate(([0], np.cumsum(np.where(verified, expected, 0))[ends - 1])))
    means = sums / checked
    sure = means < SURE
    excess = max(0.0, float((errors[sure] - sums[sure]).sum()) + 1) / max(float(checked[sure].sum()), 1.0)
    return errors + BELIEF * np.minimum(means + excess, 1), checked + BELIEF
