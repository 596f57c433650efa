from __future__ import annotations

from math import inf
from typing import TYPE_CHECKING

import numpy as np
import pytest

from agentbudget.cache.semantic.bound import RISK, Bound, find_bound, risk_of_more
from agentbudget.cache.semantic.fit import logistic

if TYPE_CHECKING:
    from agentbudget.cache.semantic.fit import Bools, Floats


def outcomes(count: int, seed: int = 0) -> tuple[Floats, Bools]:
    """Scores, and whether the answer would do: almost always from 2 on, seldom below 0."""
    chance = np.random.default_rng(seed)
    scores = chance.normal(size=count) * 2
    right = chance.random(count) < 1 / (1 + np.exp(-4 * (scores - 0.5)))
    return scores, right


def of(
    scores: Floats,
    same: Bools,
    *,
    wrong: float,
    hit: Bools | None = None,
    verified: Bools | None = None,
    expected: Floats | None = None,
) -> Bound:
    none, every = np.zeros(len(scores), np.bool_), np.ones(len(scores), np.bool_)
    return find_bound(
        scores,
        every if verified is None else verified,
        same,
        none if hit is None else hit,
        wrong=wrong,
        expected=logistic(-4 * (scores - 0.5)) if expected is None else expected,
    )


@pytest.mark.parametrize(
    ("allowed", "expected", "chance"),
    [(0, 0.05, 0.0488), (1, 0.355, 0.0498), (4, 1.97, 0.0500), (10, 6.17, 0.0500), (100, 85.0, 0.0499)],
)
def test_the_risk_is_the_tail_of_a_poisson_distribution(allowed: float, expected: float, chance: float) -> None:
    (risk,) = risk_of_more(np.array([allowed]), np.array([expected]), np.array([0.0]))
    assert risk == pytest.approx(chance, abs=0.012)


def test_doubt_makes_it_riskier() -> None:
    allowed, expected = np.array([10.0, 10.0]), np.array([6.0, 6.0])
    sure, unsure = risk_of_more(allowed, expected, np.array([0.0, 9.0]))
    assert unsure > 1.5 * sure


def test_without_outcomes_nothing_is_reused() -> None:
    assert of(np.array([]), np.array([], np.bool_), wrong=0.02).threshold == inf


def test_a_few_right_outcomes_are_not_enough() -> None:
    assert of(np.ones(50), np.ones(50, np.bool_), wrong=0.02).threshold == inf


@pytest.mark.parametrize("wrong", [0.01, 0.02, 0.05])
def test_fresh_requests_from_the_threshold_on_stay_below_the_bound(wrong: float) -> None:
    bound = of(*outcomes(4_000), wrong=wrong)
    scores, same = outcomes(20_000, seed=1)
    hits = scores >= bound.threshold
    assert hits.sum() > 1_000
    assert 1 - same[hits].mean() <= wrong
    assert bound.wrong < wrong
    assert bound.risk <= RISK


def test_a_laxer_bound_reuses_more() -> None:
    scores, same = outcomes(4_000)
    thresholds = [of(scores, same, wrong=wrong).threshold for wrong in (0.01, 0.02, 0.05, 0.1)]
    assert thresholds == sorted(thresholds, reverse=True)
    assert len(set(thresholds)) == len(thresholds)


def test_hits_that_nobody_checked_count_as_those_like_them_that_were() -> None:
    scores, same = outcomes(6_000)
    verified = np.random.default_rng(2).random(6_000) < np.where(scores > 1.2, 0.2, 1.0)
    told = same & verified  # what an unverified hit was like is not known
    bound = of(scores, told, wrong=0.05, verified=verified, hit=~verified)
    hits = scores >= bound.threshold
    assert hits.sum() > 500
    assert 1 - same[hits].mean() <= 0.05


def test_past_hits_that_turn_out_poor_leave_less_room() -> None:
    scores, same = outcomes(4_000)
    poor = (scores > 0.3) & (scores < 0.6)
    assert of(scores, same, wrong=0.05, hit=poor).threshold > of(scores, same, wrong=0.05).threshold


def test_nothing_is_reused_where_no_score_tells_right_from_wrong() -> None:
    chance = np.random.default_rng(3)
    assert of(chance.random(5_000), chance.random(5_000) < 0.9, wrong=0.02).threshold == inf


def test_a_model_that_is_too_sure_is_corrected_by_what_was_found() -> None:
    chance = np.random.default_rng(4)
    scores, sure = chance.random(5_000), np.full(5_000, 1e-6)
    assert of(scores, chance.random(5_000) < 0.96, wrong=0.03, expected=sure).threshold == inf
