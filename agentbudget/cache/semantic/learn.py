"""From trials to a decision: what was learned of a space of questions, and whether an answer may be reused."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from operator import mul
from typing import TYPE_CHECKING, Final, Literal

from agentbudget.cache.semantic.bound import Bound, find_bound
from agentbudget.cache.semantic.features import NAMES, PRIOR, Record
from agentbudget.cache.semantic.fit import cross_scores, fit, logistic
from agentbudget.cache.semantic.words import Difference

if TYPE_CHECKING:
    from agentbudget.cache.semantic.fit import Bools, Floats, Ints

Decision = Literal["reuse", "audit", "buy"]
"""Reuse the answer; buy one although it could be reused, to check it; buy one."""

FIRST: Final = 100
"""Verified outcomes before anything is learned from them."""

GROWTH: Final = 0.2
MOST_GROWTH: Final = 2_000
"""After so many more verified outcomes they are learned from again: a fifth of those before, and at most so many."""

STRENGTH: Final = 1.0
"""Pull of the prior on each weight, as so many squared log-odds."""


@dataclass(frozen=True, slots=True)
class Trials:
    """What happened when answers could have been reused, a row each, in order of time.

    ``same`` is whether the known answer was as good as the bought one, where ``verified``; ``hit`` whether it was
    reused.
    """

    features: Floats
    entries: Ints
    verified: Bools
    same: Bools
    hit: Bools


@dataclass(frozen=True, slots=True)
class Fit:
    """What was learned: a weight for each feature, from which score on to reuse, from so many verified outcomes."""

    weights: tuple[float, ...] = tuple(PRIOR[name] for name in NAMES)
    bound: Bound = field(default_factory=Bound)
    learned_from: int = 0

    @property
    def due_at(self) -> int:
        """The number of verified outcomes at which it is time to learn again."""
        return max(FIRST, self.learned_from + min(int(self.learned_from * GROWTH) + 1, MOST_GROWTH))

    def score(self, features: Sequence[float]) -> float:
        """The log-odds that an answer would be right."""
        return sum(map(mul, self.weights, features))

    def decide(
        self, score: float, record: Record, differ: tuple[Difference, ...], *, audited: float, draw: float
    ) -> Decision:
        """Whether to reuse an answer. ``draw`` is a number from 0 to 1 that chance gives, to choose what is audited.

        Never where the questions differ in a number, a name, a negation or a time, nor where the entry was found wrong
        more often than right.
        """
        if differ or record.wrong > record.right or score < self.bound.threshold:
            return "buy"
        return "audit" if draw < audited else "reuse"


def learn(trials: Trials, *, wrong: float, verified: int, last: Fit | None = None) -> Fit:
    """Learn from trials anew. `verified` outcomes there ever were; from `last` the search for the weights begins."""
    import numpy as np

    last = last or Fit()
    prior = np.array([PRIOR[name] for name in NAMES])
    checked = trials.verified
    weights = fit(
        trials.features[checked],
        trials.same[checked],
        prior=prior,
        strength=STRENGTH,
        start=np.array(last.weights),
    )
    scores = cross_scores(
        trials.features, trials.same, checked, trials.entries, prior=prior, strength=STRENGTH, start=weights
    )
    bound = find_bound(scores, checked, trials.same, trials.hit, wrong=wrong, expected=logistic(-scores))
    return Fit(tuple(weights.tolist()), bound, verified)
