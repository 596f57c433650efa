"""From which score on may answers be reused, so that the share of wrong ones stays below a bound?"""

from __future__ import annotations

from dataclasses import dataclass
from math import inf
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from agentbudget.cache.semantic.fit import Bools, Floats, Ints

CONFIDENCE_Z: Final = 1.645
"""Standard normal quantile of the bound: one-sided 95 %."""

BELIEF: Final = 50
"""So many outcomes is the model's word worth in each stratum."""

SURE: Final = 0.1
"""Shares of wrong answers that are expected to be smaller are corrected by what was found."""

STRATUM: Final = 25
"""Verified outcomes in a stratum of scores."""


@dataclass(frozen=True, slots=True)
class Bound:
    """What was found out: reuse from ``threshold`` on (infinite: never).

    ``wrong`` is the share of wrong hits expected, ``upper`` its upper bound, ``verified`` the outcomes that both rest
    on.
    """

    threshold: float = inf
    wrong: float = 1.0
    upper: float = 1.0
    verified: int = 0


def find_bound(
    scores: Floats, verified: Bools, same: Bools, hit: Bools, *, wrong: float, expected: Floats | None = None
) -> Bound:
    """The lowest threshold at which hits, past and to come, stay below the share `wrong` of wrong ones.

    Candidates are sorted into strata of nearly equal scores, each with its own share of wrong outcomes: within a
    stratum it was chance, and no property of the pair, which of them were verified. A threshold's share of wrong hits
    is then the strata's shares, weighted with the hits that were made there and those that would be, were as many
    requests to come as have been. The lowest threshold is taken whose upper bound is not above `wrong`.
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
    if expected is not None:
        errors, checked = _with_belief(errors, checked, expected[order], verified[order], ends)
    share = errors / checked
    weight = past.sum() + np.cumsum(seen)
    likely = ((past * share).sum() + np.cumsum(seen * share)) / weight
    doubt = (past**2 / checked).sum() + np.cumsum(((past + seen) ** 2 - past**2) / checked)
    upper = wilson_upper(likely, 1 / (doubt / weight**2 + 1 / weight))
    fit = np.flatnonzero(upper <= wrong)
    if not len(fit):
        best = int(np.argmin(upper))
        return Bound(wrong=float(likely[best]), upper=float(upper[best]), verified=int(checked[: best + 1].sum()))
    last = int(fit[-1])
    return Bound(
        threshold=float(scores[order][ends[last] - 1]),
        wrong=float(likely[last]),
        upper=float(upper[last]),
        verified=int(checked[: last + 1].sum()),
    )


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


def wilson_upper(share: Floats, count: Floats, *, z: float = CONFIDENCE_Z) -> Floats:
    """Wilson's upper bound of a share that was found in so many (effective) cases; see Wilson (1927)."""
    import numpy as np

    middle = share + z * z / (2 * count)
    spread = z * np.sqrt(share * (1 - share) / count + (z / (2 * count)) ** 2)
    return (middle + spread) / (1 + z * z / count)
