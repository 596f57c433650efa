"""How much of a bound on its input a call really uses, learned where a provider's vocabulary is not public."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Sequence
from typing import Final

from agentbudget.estimate.features import STRANGENESS

ENOUGH: Final = 100
"""Settled calls from which a learned share may be held by: with n of them, a next one is above all with 1/(n+1)."""

MARGIN: Final = 1.1
"""What is held above the largest share seen."""


class InputShare:
    """The true input tokens of calls of a skill on a model as a share of their bound."""

    def __init__(self, memory: int) -> None:
        self._shares: deque[tuple[float, tuple[float, ...]]] = deque(maxlen=memory)

    def learn(self, features: Sequence[float], *, bound: int, tokens: int) -> None:
        """A settled call had `tokens` of input where `bound` was the most."""
        self._shares.append((tokens / bound, _strangeness(features)))

    def likely(self, bound: int) -> int:
        """What a call with this bound will probably have: the bound itself until one was seen."""
        if not self._shares:
            return bound
        shares = sorted(share for share, _ in self._shares)
        return math.ceil(bound * shares[len(shares) // 2])

    def upper(self, features: Sequence[float], bound: int) -> int:
        """What a call like those seen stays below; the bound itself for few calls, or for text stranger than theirs.

        Stranger: longer words, more characters that are not ASCII, or more symbols than in any call that was seen. Such
        text takes more tokens a byte.
        """
        if len(self._shares) < ENOUGH:
            return bound
        seen = zip(*(strange for _, strange in self._shares), strict=True)
        if any(now > max(before) for now, before in zip(_strangeness(features), seen, strict=True)):
            return bound
        return min(bound, math.ceil(bound * MARGIN * max(share for share, _ in self._shares)))


def _strangeness(features: Sequence[float]) -> tuple[float, ...]:
    return tuple(features[place] for place in STRANGENESS)
