"""From which score on may answers be reused, so that the share of wrong ones stays below a bound?"""

from __future__ import annotations

from dataclasses import dataclass
from math import inf
from statistics import NormalDist
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from agentbudget.cache.semantic.fit import Bools, Floats

RISK: Final = 0.05
"""How likely the share of wrong hits may come to stand above what is aimed at."""

AIM: Final = 0.7
"""The part of the allowed share that is aimed at: of many thresholds, tried again and again, that one is taken which
looks good, and it looks better than it is."""

BELIEF: Final = 1000
"""So many outcomes is the model's word worth in each stratum."""

SURE: Final = 2.0
"""Where a model expects less than so many times the allowed share, it is corrected by what was found there."""

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
    checked, errors, seen, past, believed = (
        np.diff(np.concatenate(([0], np.cumsum(column[order])[ends - 1])))
        for column in (verified, verified & ~same, np.ones(len(scores)), hit, np.where(verified, expected, 0))
    )
    past[-1] += hit.sum() - past.sum()
    excess = _excess(errors, checked, believed, sure=believed < SURE * wrong * checked)
    share = _with_belief(errors, checked, believed / checked + excess.mean)
    hits = past.sum() + np.cumsum(seen)
    errors_to_be = (past * share).sum() + np.cumsum(seen * share)
    unsure = share * (1 - share) / (checked + BELIEF)
    doubt = (past**2 * unsure).sum() + np.cumsum(((past + seen) ** 2 - past**2) * unsure)
    doubt += excess.variance * (BELIEF / (BELIEF + STRATUM) * hits) ** 2  # all strata share it
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


@dataclass(frozen=True, slots=True)
class _Excess:
    """By how much the share of wrong answers is larger than a model believes where it is sure, and how well that is
    known."""

    mean: float
    variance: float


def _excess(errors: Floats, checked: Floats, believed: Floats, *, sure: Bools) -> _Excess:
    """Errors found in strata where the model is `sure`, against those it believed. Some outcomes are wrong whatever the
    questions, and of a few that were right it would learn that all are: so one error more is counted."""
    found, count = float(errors[sure].sum()) + 1, max(float(checked[sure].sum()), 1.0)
    return _Excess(max(0.0, (found - float(believed[sure].sum())) / count), found / count**2)


def _with_belief(errors: Floats, checked: Floats, believed: Floats) -> Floats:
    """The share of wrong answers in each stratum, as if `BELIEF` more outcomes had come as the model says."""
    import numpy as np

    return (errors + BELIEF * np.minimum(believed, 1)) / (checked + BELIEF)
