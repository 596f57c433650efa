"""Split-conformal upper bounds: what the next value stays below with a given probability, whatever its distribution."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Final

POWERS: Final = (1.1, 1.0, 0.9, 0.8, 0.7, 0.6, 0.5, 0.4, 0.3, 0.2, 0.0)
"""How far a bound may follow its prediction: 1 in proportion, 0 not at all."""


def rank_of(level: float, count: int) -> int:
    """⌈(n+1)·level⌉: which of n values in ascending order a next one stays below with probability `level`."""
    return math.ceil((count + 1) * level)


def conformal_upper(values: Sequence[float], level: float) -> float:
    """The split-conformal upper bound at `level`: the ⌈(n+1)·level⌉-th smallest of n values, or the largest.

    A next, exchangeable value stays below it with probability of at least `level` (Vovk et al., 2005) as
    long as that rank is within n.
    """
    return sorted(values)[min(rank_of(level, len(values)), len(values)) - 1]


def near(power: float) -> Sequence[float]:
    """A power and those beside it: a bound that is made anew moves by one step at most, which keeps it cheap."""
    place = POWERS.index(power)
    return POWERS[max(0, place - 1) : place + 2]


def tightest_bound(
    predicted: Sequence[float], actual: Sequence[float], level: float, *, powers: Sequence[float] = POWERS
) -> tuple[float, float]:
    """(power, offset): ``power·prediction + offset`` bounds an actual value at `level`; both are logarithms.

    Every power gives a valid bound. The one taken holds least in sum: a bound in proportion to the prediction covers
    short answers as often as long ones, and pays for that with the long ones, whose spread is widest in tokens. Where
    they are held lower and short ones higher, as many calls are covered for less.
    """
    best: tuple[float, float, float] | None = None
    most = max(actual)  # what an answer may have is capped: no call's bound costs more than the longest answer
    for power in powers:
        offset = conformal_upper([a - power * p for p, a in zip(predicted, actual, strict=True)], level)
        bounds = [power * p + offset for p in predicted]
        held = sum(map(math.exp, [bound if bound < most else most for bound in bounds]))
        if best is None or held < best[0]:
            best = (held, power, offset)
    assert best is not None
    return best[1], best[2]


class Level:
    """A level that is kept when the world drifts: adaptive conformal inference (Gibbs and Candès, 2021).

    After a miss a bound is asked for at a higher level, after a hit at a slightly lower one, so that the share of
    misses comes to ``1 - nominal`` in the long run even where calls are not exchangeable.
    """

    __slots__ = ("_miss_share", "nominal")

    STEP: Final = 0.005

    def __init__(self, nominal: float) -> None:
        self.nominal = nominal
        self._miss_share = 1 - nominal

    @property
    def now(self) -> float:
        """The level to ask for."""
        return 1 - self._miss_share

    def observe(self, *, covered: bool) -> None:
        """Take note of how the last bound did."""
        allowed = 1 - self.nominal
        moved = self._miss_share + self.STEP * (allowed - (not covered))
        self._miss_share = min(max(moved, allowed / 10), 2 * allowed)
