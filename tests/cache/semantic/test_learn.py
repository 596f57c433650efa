from __future__ import annotations

from math import inf

import numpy as np
import pytest

from agentbudget.cache.semantic.around import Around
from agentbudget.cache.semantic.bound import Bound
from agentbudget.cache.semantic.features import NAMES, Record, features
from agentbudget.cache.semantic.fit import fit
from agentbudget.cache.semantic.learn import FIRST, MOST_GROWTH, Fit, Trials, learn
from agentbudget.cache.semantic.words import read


def trials(count: int, seed: int = 0) -> Trials:
    """Trials of 200 entries whose outcome hangs on the cosine and on the entry."""
    chance = np.random.default_rng(seed)
    told = np.zeros((count, len(NAMES)))
    told[:, 0] = 1
    cosine = told[:, 1] = chance.uniform(0.5, 1, count)
    entries = chance.integers(0, 200, count)
    same = chance.random(count) < 1 / (1 + np.exp(-60 * (cosine - 0.75 - 0.05 * (entries % 2))))
    every = np.ones(count, np.bool_)
    return Trials(told, entries, every, same, ~every)


def test_a_fit_is_the_maximum_of_the_penalised_likelihood() -> None:
    seen = trials(500)
    prior = np.zeros(2)
    weights = fit(seen.features[:, :2], seen.same, prior=prior, strength=1.0)

    def likelihood(at: np.ndarray[tuple[int], np.dtype[np.float64]]) -> float:
        signed = np.where(seen.same, 1, -1) * (seen.features[:, :2] @ at)
        return float(-np.log1p(np.exp(-signed)).sum() - 0.5 * ((at - prior) ** 2).sum())

    for step in (np.array([0.01, 0]), np.array([0, 0.01]), np.array([-0.01, 0]), np.array([0.01, -0.01])):
        assert likelihood(weights) > likelihood(weights + step)


def test_without_outcomes_a_fit_is_what_was_believed_before() -> None:
    prior = np.array([1.0, -2.0])
    assert fit(np.empty((0, 2)), np.empty(0, np.bool_), prior=prior, strength=1.0) == pytest.approx(prior)


def test_what_was_learned_holds_for_new_requests() -> None:
    learned = learn(trials(4_000), wrong=0.05, verified=4_000)
    new = trials(4_000, seed=1)
    hits = np.array([learned.score(row) for row in new.features.tolist()]) >= learned.bound.threshold
    assert hits.sum() > 500
    assert 1 - new.same[hits].mean() <= 0.05


def test_learning_goes_on_when_a_fifth_more_is_known_and_at_most_two_thousand() -> None:
    assert Fit().due_at == FIRST
    assert Fit(learned_from=1_000).due_at == 1_201
    assert Fit(learned_from=100_000).due_at == 100_000 + MOST_GROWTH


def decided(score: float, *, record: Record | None = None, differ: bool = False, draw: float = 0.9) -> str:
    known = Fit(bound=Bound(threshold=2.0))
    return known.decide(score, record or Record(), ("number",) if differ else (), audited=0.05, draw=draw)


def test_an_answer_is_reused_from_the_threshold_on() -> None:
    assert (decided(2.0), decided(1.99)) == ("reuse", "buy")


def test_some_of_what_could_be_reused_is_bought_to_check_it() -> None:
    assert (decided(3.0, draw=0.04), decided(3.0, draw=0.05)) == ("audit", "reuse")


def test_a_near_miss_is_never_reused() -> None:
    assert decided(50.0, differ=True) == "buy"


def test_an_entry_that_was_wrong_more_often_than_right_is_not_reused() -> None:
    assert decided(50.0, record=Record(right=1, wrong=2)) == "buy"
    assert decided(50.0, record=Record(right=2, wrong=2)) == "reuse"


def test_before_anything_was_learned_nothing_is_reused() -> None:
    assert Fit().bound.threshold == inf
    assert Fit().decide(1e9, Record(9, 0), (), audited=0.05, draw=1.0) == "buy"


def test_features_are_as_many_as_their_names_and_small() -> None:
    told = features(
        read("How do I reset it?"), read("How can I do that, if at all?"), 0.7, Record(3, 1), Around(0.2, 0.1)
    )
    assert len(told) == len(NAMES)
    assert all(-1 <= value <= 2 for value in told)


def test_features_do_not_mind_which_question_was_first() -> None:
    one, other = read("How do I reset my password?"), read("password reset, how?")
    assert features(one, other, 0.8, Record(), Around()) == features(other, one, 0.8, Record(), Around())
