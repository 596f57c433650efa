"""Pure arithmetic on outcomes: accuracy with its interval, cost, cost per success, and what a threshold trades."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from math import ceil, sqrt
from typing import Final

from agentbudget.evals.policies import PolicyName

Z95: Final = 1.959963984540054
"""The normal quantile of a two-sided 95 % interval."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """What came of one item under one policy.

    ``paid_usd_nano`` is what the ledger settled for it now; ``reused_usd_nano`` what the answers that it found paid
    for had cost when they were bought. ``calls`` counts model calls by model, reused ones included; ``tokens`` and
    ``compute_ns`` are theirs. ``problem`` says why there is no answer. ``baseline`` is the answer without a model.
    """

    policy: PolicyName
    item: str
    answer: str | None
    correct: bool
    paid_usd_nano: int
    reused_usd_nano: int = 0
    tokens: int = 0
    compute_ns: int = 0
    calls: Mapping[str, int] = field(default_factory=dict[str, int])
    confidence: float | None = None
    problem: str | None = None
    baseline_correct: bool | None = None

    @property
    def cost_usd_nano(self) -> int:
        """What the item costs under this policy: paid now, or paid when the answers it reused were bought."""
        return self.paid_usd_nano + self.reused_usd_nano


@dataclass(frozen=True, slots=True)
class Economics:
    """A policy in figures. ``interval`` is Wilson's 95 % interval of the accuracy.

    ``saved`` is the share of the all-strong policy's cost that this one saves (negative: it costs more), None where
    that policy was not run. ``calls`` counts model calls by model.
    """

    policy: PolicyName
    items: int
    correct: int
    unanswered: int
    cost_usd_nano: int
    paid_usd_nano: int
    tokens: int
    compute_ns: int
    calls: Mapping[str, int]
    saved: float | None

    @property
    def accuracy(self) -> float:
        """The share of items answered correctly; an unanswered item is not."""
        return self.correct / self.items

    @property
    def interval(self) -> tuple[float, float]:
        """Between which shares the true accuracy lies, at 95 %."""
        return wilson(self.correct, self.items)

    @property
    def cost_per_item_usd_nano(self) -> int:
        """Cost of an item, rounded up."""
        return ceil(self.cost_usd_nano / self.items)

    @property
    def cost_per_success_usd_nano(self) -> int | None:
        """All that was spent over what came out right, rounded up; None if nothing did."""
        return ceil(self.cost_usd_nano / self.correct) if self.correct else None


@dataclass(frozen=True, slots=True)
class Trade:
    """What a cascade with this threshold would give: the cheap answer where it is confident enough, else the strong."""

    threshold: float
    items: int
    correct: int
    escalated: int
    cost_usd_nano: int

    @property
    def accuracy(self) -> float:
        """The share of items answered correctly."""
        return self.correct / self.items


def wilson(successes: int, trials: int, *, z: float = Z95) -> tuple[float, float]:
    """Wilson's score interval of a proportion (1927): holds for small samples, and at 0 and 1."""
    if trials < 1 or not 0 <= successes <= trials:
        raise ValueError(f"{successes} successes in {trials} trials: there must be a trial, and no more successes")
    share, spread = successes / trials, z * z / trials
    centre = (share + spread / 2) / (1 + spread)
    half = z * sqrt(share * (1 - share) / trials + spread / (4 * trials)) / (1 + spread)
    # The share is inside; rounding alone could put it outside by a hair, where nothing or everything succeeded.
    return max(0.0, min(share, centre - half)), min(1.0, max(share, centre + half))


def economics(outcomes: Iterable[Outcome]) -> tuple[Economics, ...]:
    """One line per policy, in the order in which they appear."""
    by_policy: dict[PolicyName, list[Outcome]] = {}
    for outcome in outcomes:
        by_policy.setdefault(outcome.policy, []).append(outcome)
    strong = sum(outcome.cost_usd_nano for outcome in by_policy.get("all-strong", []))
    return tuple(_line(policy, own, strong) for policy, own in by_policy.items())


def _line(policy: PolicyName, outcomes: Sequence[Outcome], strong_usd_nano: int) -> Economics:
    cost = sum(outcome.cost_usd_nano for outcome in outcomes)
    calls: dict[str, int] = {}
    for outcome in outcomes:
        for model, count in outcome.calls.items():
            calls[model] = calls.get(model, 0) + count
    return Economics(
        policy=policy,
        items=len(outcomes),
        correct=sum(outcome.correct for outcome in outcomes),
        unanswered=sum(outcome.answer is None for outcome in outcomes),
        cost_usd_nano=cost,
        paid_usd_nano=sum(outcome.paid_usd_nano for outcome in outcomes),
        tokens=sum(outcome.tokens for outcome in outcomes),
        compute_ns=sum(outcome.compute_ns for outcome in outcomes),
        calls=calls,
        saved=1 - cost / strong_usd_nano if strong_usd_nano else None,
    )


def sweep(outcomes: Iterable[Outcome]) -> tuple[Trade, ...]:
    """What every threshold would have given, from the all-cheap and all-strong outcomes of the same items.

    From 0, which keeps every cheap answer, upward; above 1 none is kept. Empty unless both policies were run.
    """
    by_policy: dict[PolicyName, dict[str, Outcome]] = {}
    for outcome in outcomes:
        by_policy.setdefault(outcome.policy, {})[outcome.item] = outcome
    cheap, strong = by_policy.get("all-cheap", {}), by_policy.get("all-strong", {})
    pairs = [(own, strong[item]) for item, own in cheap.items() if item in strong]
    if not pairs:
        return ()
    thresholds = {0.0, *(own.confidence for own, _ in pairs if own.confidence is not None), 1.01}
    return tuple(_trade(threshold, pairs) for threshold in sorted(thresholds))


def _trade(threshold: float, pairs: Sequence[tuple[Outcome, Outcome]]) -> Trade:
    kept = [own.confidence is not None and own.confidence >= threshold for own, _ in pairs]
    chosen = zip(kept, pairs, strict=True)
    return Trade(
        threshold=threshold,
        items=len(pairs),
        correct=sum(cheap.correct if keep else strong.correct for keep, (cheap, strong) in chosen),
        escalated=kept.count(False),
        cost_usd_nano=sum(
            cheap.cost_usd_nano + (0 if keep else strong.cost_usd_nano)
            for keep, (cheap, strong) in zip(kept, pairs, strict=True)
        ),
    )


def threshold_for(trades: Sequence[Trade], *, accuracy: float) -> Trade:
    """The cheapest trade that is at least so accurate, else the most accurate one. For tuning items only."""
    if not trades:
        raise ValueError("there are no trades: run the policies all-cheap and all-strong on the tuning items")
    enough = [trade for trade in trades if trade.accuracy >= accuracy]
    if enough:
        return min(enough, key=lambda trade: trade.cost_usd_nano)
    return max(trades, key=lambda trade: (trade.accuracy, -trade.cost_usd_nano))
