"""From which score on may answers be reused, so that the share of wrong ones stays below a bound?"""

from __future__ import annotations

from dataclasses import dataclass
from math import inf
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from agentbudget.cache.semantic.fit import Bools, Floats

CONFIDENCE_Z: Final = 1.96
"""Standard normal quantile of the bound: one-sided 97.5 %, of which one half is for having chosen among thresholds."""

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


def find_bound(scores: Floats, verified: Bools, same: Bools, hit: Bools, *, wrong: float) -> Bound:
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
    share = errors / checked
    weight = past.sum() + np.cumsum(seen)
    expected = ((past * share).sum() + np.cumsum(seen * share)) / weight
    doubt = (past**2 / checked).sum() + np.cumsum(((past + seen) ** 2 - past**2) / checked)
    upper = wilson_upper(expected, 1 / (doubt / weight**2 + 1 / weight))
    fit = np.flatnonzero(upper <= wrong)
    if not len(fit):
        best = int(np.argmin(upper))
        return Bound(wrong=float(expected[best]), upper=float(upper[best]), verified=int(checked[: best + 1].sum()))
    last = int(fit[-1])
    return Bound(
        threshold=float(scores[order][ends[last] - 1]),
        wrong=float(expected[last]),
        upper=float(upper[last]),
        verified=int(checked[: last + 1].sum()),
    )


def wilson_upper(share: Floats, count: Floats, *, z: float = CONFIDENCE_Z) -> Floats:
    """Wilson's upper bound of a share that was found in so many (effective) cases; see Wilson (1927)."""
    import numpy as np

    middle = share + z * z / (2 * count)
    spread = z * np.sqrt(share * (1 - share) / count + (z / (2 * count)) ** 2)
    return (middle + spread) / (1 + z * z / count)
