"""How long the answers of one skill on one model are, learned from its settled calls."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Sequence
from typing import Final

from agentbudget.estimate.conformal import POWERS, Level, conformal_upper, near, rank_of, tightest_bound
from agentbudget.estimate.features import NAMES, SIZE, Kinds
from agentbudget.estimate.ridge import Ridge

ENOUGH: Final = 20
"""Settled calls from which lengths are learned; below it the skill's own cap stands."""

WINDOW: Final = 450
"""The most calls that a bound is calibrated on: the newest."""

WIDEST: Final = 2.0
"""The most by which a mean may stand above what a regression of logarithms expects: a few endless answers raise it."""

ROUNDING: Final = 1e-6
"""Tokens by which a logarithm and its inverse may be off."""

UNKNOWN: Final = (0.0,) * len(NAMES)
"""Stands for the features of a call that nobody noted."""


class Lengths:
    """Learns from calls in the order in which they ended, and bounds the next one.

    Each call is first predicted, then learned from: what is kept to calibrate on are predictions of calls that the
    regression had not seen (the newer three quarters of them). All in log(1 + tokens).
    """

    def __init__(self) -> None:
        self._ridge = Ridge(SIZE)
        self._kinds = Kinds()
        self._pairs: deque[tuple[float, float]] = deque(maxlen=WINDOW * 4 // 3)
        self._range = (math.inf, -math.inf)
        self._levels: dict[float, Level] = {}
        self._bounds: dict[float, tuple[int, float, float, float]] = {}
        self._spread = (0, 1.0)
        self._learned = 0
        self._foreseen: tuple[Sequence[float], int, float] = ((), -1, 0.0)
        """The last prediction: the features, how many calls were known, and what came out."""

    def learn(self, features: Sequence[float], tokens: int) -> None:
        """An answer came to its own end after `tokens`."""
        self._judge(features, tokens, ended=True)
        target = math.log1p(tokens)
        if self._learned:
            self._pairs.append((self._predict(features), target))
        self._ridge.learn(self._kinds.numbers(features), target)
        self._range = (min(self._range[0], target), max(self._range[1], target))
        self._learned += 1

    def cut(self, features: Sequence[float], tokens: int) -> None:
        """An answer was cut after `tokens`: how long it would have been is not known, only that this was too short."""
        self._judge(features, tokens, ended=False)

    def likely(self, features: Sequence[float]) -> int | None:
        """The mean length of such answers; None before any was seen."""
        if not self._learned:
            return None
        made, spread = self._spread
        if self._learned - made > self._learned // 25:
            recent = self._recent() or [(0.0, 0.0)]
            mean = sum(map(math.exp, [actual - predicted for predicted, actual in recent])) / len(recent)
            spread = min(mean, WIDEST)
            self._spread = (self._learned, spread)
        return max(0, round(math.exp(self._predict(features)) * spread - 1))

    def upper(self, features: Sequence[float] | None, level: float, *, roomy: bool = False) -> int | None:
        """What the answer's length stays below with a probability of `level`; None as long as that is not known.

        Without `features` it holds whatever the prompt is. Where too few calls were seen for the level: the longest of
        them, and a quarter. `roomy` always adds the quarter.
        """
        if self._learned < ENOUGH:
            return None
        if level not in self._levels:
            self._levels[level] = Level(level)
        count = self._count()
        if few := rank_of(level, count) > count:
            tokens = math.expm1(self._range[1])
        else:
            power, offset, of_any = self._bound(level)
            tokens = math.expm1(of_any if features is None else power * self._predict(features) + offset)
        return math.ceil(tokens * 1.25 - ROUNDING) + 8 if few or roomy else math.ceil(tokens - ROUNDING)

    def _bound(self, level: float) -> tuple[float, float, float]:
        """The bound of a level, made anew when some more calls were learned from: power, offset, and that of any call.

        All in logarithms.
        """
        known = self._bounds.get(level)
        if known is None or self._learned - known[0] > self._count() // 25:
            predicted, actual = zip(*self._recent(), strict=True)
            powers, asked = POWERS if known is None else near(known[1]), self._levels[level].now
            bound = tightest_bound(predicted, actual, asked, powers=powers)
            known = self._bounds[level] = (self._learned, *bound, conformal_upper(actual, asked))
        return known[1:]

    def _judge(self, features: Sequence[float], tokens: int, *, ended: bool) -> None:
        for level in self._levels.values():
            bound = self.upper(features, level.nominal)
            if bound is not None:
                level.observe(covered=ended and tokens <= bound)

    def _predict(self, features: Sequence[float]) -> float:
        """What the regression expects, within what was seen: far from that it may expect anything.

        The same is asked of a call several times: for its cap, for its likely length, and when it is learned from.
        """
        asked, learned, expected = self._foreseen
        if asked is features and learned == self._learned:
            return expected
        least, most = self._range
        expected = max(least, min(self._ridge.predict(self._kinds.numbers(features)), most))
        if isinstance(features, tuple):  # nobody changes it
            self._foreseen = (features, self._learned, expected)
        return expected

    def _count(self) -> int:
        """How many calls bounds are calibrated on."""
        pairs = len(self._pairs)
        return min(pairs, WINDOW, max(ENOUGH, 3 * pairs // 4))

    def _recent(self) -> list[tuple[float, float]]:
        return list(self._pairs)[-self._count() :]
