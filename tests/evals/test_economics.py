from __future__ import annotations

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from agentbudget.evals import Economics, Outcome, PolicyName, economics, sweep, threshold_for, wilson


def outcome(
    policy: PolicyName, item: str, correct: bool, paid: int, confidence: float | None = None, reused: int = 0
) -> Outcome:
    return Outcome(
        policy=policy,
        item=item,
        answer="x",
        correct=correct,
        paid_usd_nano=paid,
        reused_usd_nano=reused,
        calls={"m": 1},
        confidence=confidence,
    )


OUTCOMES = [
    outcome("all-cheap", "a", True, 10, 0.9),
    outcome("all-cheap", "b", False, 10, 0.4),
    outcome("all-cheap", "c", False, 10, 0.8),
    outcome("all-strong", "a", True, 100),
    outcome("all-strong", "b", True, 100),
    outcome("all-strong", "c", False, 100),
]


@pytest.mark.parametrize(
    ("successes", "trials", "low", "high"),
    [(0, 10, 0.0, 0.2775), (10, 10, 0.7225, 1.0), (50, 100, 0.4038, 0.5962), (1, 29, 0.0061, 0.1718)],
)
def test_wilson_gives_the_published_intervals(successes: int, trials: int, low: float, high: float) -> None:
    assert wilson(successes, trials) == (pytest.approx(low, abs=1e-4), pytest.approx(high, abs=1e-4))


@given(st.integers(1, 10_000).flatmap(lambda n: st.tuples(st.integers(0, n), st.just(n))))
@example((0, 3))  # both were outside of their interval by the last digit
@example((10, 10))
def test_wilson_holds_the_share_within_0_and_1(case: tuple[int, int]) -> None:
    successes, trials = case
    low, high = wilson(successes, trials)
    assert 0 <= low <= successes / trials <= high <= 1


@pytest.mark.parametrize(("successes", "trials"), [(0, 0), (2, 1), (-1, 3)])
def test_wilson_refuses_what_is_no_proportion(successes: int, trials: int) -> None:
    with pytest.raises(ValueError, match="trials"):
        wilson(successes, trials)


def line(policy: PolicyName) -> Economics:
    return next(line for line in economics(OUTCOMES) if line.policy == policy)


def test_cost_per_success_spreads_the_failures_over_the_successes() -> None:
    assert line("all-cheap").cost_per_success_usd_nano == 30
    assert line("all-strong").cost_per_success_usd_nano == 150
    assert line("all-strong").cost_per_item_usd_nano == 100


def test_a_policy_without_success_has_no_cost_per_success() -> None:
    (only,) = economics([outcome("all-cheap", "a", False, 10)])
    assert only.cost_per_success_usd_nano is None
    assert only.accuracy == 0
    assert only.saved is None


def test_saved_is_measured_against_all_strong() -> None:
    assert line("all-cheap").saved == pytest.approx(0.9)
    assert line("all-strong").saved == 0


def test_a_reused_answer_counts_at_what_it_cost_when_it_was_bought() -> None:
    (only,) = economics([outcome("cascade", "a", True, 1, reused=10)])
    assert (only.cost_usd_nano, only.paid_usd_nano) == (11, 1)


def test_a_sweep_keeps_confident_drafts_and_pays_for_both_where_it_escalates() -> None:
    trades = {trade.threshold: trade for trade in sweep(OUTCOMES)}
    assert sorted(trades) == [0.0, 0.4, 0.8, 0.9, 1.01]
    assert (trades[0.0].correct, trades[0.0].escalated, trades[0.0].cost_usd_nano) == (1, 0, 30)
    assert (trades[0.8].correct, trades[0.8].escalated, trades[0.8].cost_usd_nano) == (2, 1, 130)
    assert (trades[1.01].correct, trades[1.01].escalated, trades[1.01].cost_usd_nano) == (2, 3, 330)


def test_a_draft_of_unknown_confidence_is_never_kept() -> None:
    (trade, _) = sweep([outcome("all-cheap", "a", True, 10), outcome("all-strong", "a", True, 100)])
    assert (trade.threshold, trade.escalated) == (0.0, 1)


def test_a_sweep_needs_both_policies() -> None:
    assert sweep(OUTCOMES[:3]) == ()
    with pytest.raises(ValueError, match="all-cheap and all-strong"):
        threshold_for((), accuracy=0.5)


def test_the_threshold_chosen_is_the_cheapest_that_is_accurate_enough() -> None:
    assert threshold_for(sweep(OUTCOMES), accuracy=2 / 3).threshold == 0.8
    assert threshold_for(sweep(OUTCOMES), accuracy=0.99).threshold == 0.8
    assert threshold_for(sweep(OUTCOMES), accuracy=0.1).threshold == 0.0
