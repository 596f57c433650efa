"""What estimates are made of: features of a prompt, a regression that learns call by call, conformal bounds."""

from __future__ import annotations

import math
import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from agentbudget.estimate.conformal import Level, conformal_upper, tightest_bound
from agentbudget.estimate.features import KINDS, NAMES, SIZE, Kinds, features
from agentbudget.estimate.inputs import ENOUGH as ENOUGH_INPUTS
from agentbudget.estimate.inputs import InputShare
from agentbudget.estimate.lengths import ENOUGH, UNKNOWN, Lengths
from agentbudget.estimate.ridge import Ridge
from agentbudget.models.base import Message, Request


def asking(text: str, *, system: str | None = None, drafts: tuple[int, ...] = ()) -> tuple[float, ...]:
    """The features of one question."""
    fixed = () if system is None else (Message("system", system),)
    return features(Request((*fixed, Message("user", text)), max_output_tokens=100), drafts)


def named(values: tuple[float, ...]) -> dict[str, float]:
    return dict(zip(NAMES, values, strict=True))


# --- features


def test_features_count_what_stands_in_the_prompt() -> None:
    found = named(asking("Two trains, 120 km apart, meet at 14:05. How fast?"))
    assert found["questions"] == pytest.approx(math.log1p(1), abs=1e-3)
    assert found["numbers"] == pytest.approx(math.log1p(3), abs=1e-3)
    assert found["longest_number"] == pytest.approx(math.log1p(3), abs=1e-3)
    assert found["commas"] == pytest.approx(math.log1p(2), abs=1e-3)
    assert found["number_words"] == pytest.approx(math.log1p(1), abs=1e-3)
    assert found["not_ascii"] == 0


@settings(max_examples=30, deadline=None)
@given(st.text(max_size=100))
def test_any_text_has_finite_features(text: str) -> None:
    found = asking(text)
    assert len(found) == len(NAMES)
    assert all(math.isfinite(value) for value in found)


def test_the_fixed_prompt_says_which_kind_of_call_it_is_and_nothing_else() -> None:
    plan, answer = asking("How?", system="Plan."), asking("How?", system="Answer.")
    assert plan[:-1] == answer[:-1]
    assert plan[-1] != answer[-1]


def test_a_draft_is_a_feature() -> None:
    assert named(asking("How?", drafts=(10, 20)))["draft"] == pytest.approx(math.log1p(15), abs=1e-3)
    assert named(asking("How?"))["has_draft"] == 0


def test_fixed_prompts_beyond_the_first_few_are_taken_together() -> None:
    kinds = Kinds()
    places = [kinds.numbers((*UNKNOWN[:-1], float(kind)))[-KINDS:] for kind in range(10 * KINDS + 5)]
    assert len(places[0]) == KINDS
    assert len({tuple(place) for place in places[:KINDS]}) == KINDS
    assert {tuple(place) for place in places[KINDS:]} == {tuple(places[KINDS - 1])}
    assert len(kinds.numbers(UNKNOWN)) == SIZE


# --- regression


def test_the_regression_finds_the_weights_of_a_line() -> None:
    chance, ridge = random.Random(7), Ridge(3, penalty=0.01, decay=1.0)
    for _ in range(300):
        x = [chance.gauss(5, 2), chance.gauss(-3, 0.1), 1.0]
        ridge.learn(x, 4 + 2 * x[0] - 7 * x[1])
    assert ridge.weights == pytest.approx([2, -7, 0], abs=0.02)
    assert ridge.predict([1, 1, 1]) == pytest.approx(4 + 2 - 7, abs=0.1)


def test_the_regression_forgets_what_no_longer_holds() -> None:
    chance, ridge = random.Random(7), Ridge(1, decay=0.98)
    for slope in (1.0, -1.0):
        for _ in range(400):
            x = chance.random()
            ridge.learn([x], slope * x)
    assert ridge.predict([1.0]) == pytest.approx(-1, abs=0.2)


def test_features_that_say_nothing_leave_the_mean() -> None:
    ridge = Ridge(2)
    for target in (1.0, 2.0, 3.0):
        ridge.learn([5.0, 0.0], target)
    assert ridge.predict([5.0, 0.0]) == pytest.approx(2, abs=0.01)


# --- conformal bounds


@settings(max_examples=30, deadline=None)
@given(st.lists(st.tuples(st.floats(0, 9), st.floats(0, 9)), min_size=1, max_size=40), st.floats(0.5, 0.99))
def test_the_tightest_bound_covers_its_share_of_what_it_was_made_from(
    pairs: list[tuple[float, float]], level: float
) -> None:
    predicted, actual = zip(*pairs, strict=True)
    power, offset = tightest_bound(predicted, actual, level)
    covered = sum(a <= power * p + offset + 1e-9 for p, a in pairs)
    assert covered >= min(len(pairs), level * len(pairs))


def test_short_answers_are_covered_higher_than_long_ones_where_that_is_cheaper() -> None:
    chance = random.Random(7)
    predicted = [math.log(100)] * 200 + [math.log(2000)] * 200
    actual = [p + chance.gauss(0, 0.4) for p in predicted]
    power, offset = tightest_bound(predicted, actual, 0.9)
    in_proportion = conformal_upper([a - p for p, a in zip(predicted, actual, strict=True)], 0.9)
    assert power < 1
    held = sum(math.exp(power * p + offset) for p in predicted)
    assert held < sum(math.exp(p + in_proportion) for p in predicted)


def test_a_level_rises_after_misses_and_comes_back_after_hits() -> None:
    level = Level(0.9)
    for _ in range(10):
        level.observe(covered=False)
    risen = level.now
    assert risen > 0.93
    for _ in range(100):
        level.observe(covered=True)
    assert 0.9 - 0.06 < level.now < risen


# --- lengths


def grown(*, growth: float = 1.0, calls: int = 400, seed: int = 7) -> tuple[Lengths, list[bool]]:
    """Answers of some hundred tokens, `growth` times as long from the middle on; and which of them a bound covered."""
    chance, lengths, covered = random.Random(seed), Lengths(), list[bool]()
    for number in range(calls):
        noted = asking("word " * chance.randint(1, 60))
        tokens = round(40 + 10 * math.expm1(noted[1]) * chance.uniform(0.7, 1.4)) * (
            growth if number > calls / 2 else 1
        )
        bound = lengths.upper(noted, 0.9)
        if bound is not None:
            covered.append(tokens <= bound)
        lengths.learn(noted, round(tokens))
    return lengths, covered


def test_bounds_cover_about_their_level_of_calls_that_were_not_seen() -> None:
    _, covered = grown(calls=500)
    assert 0.87 < sum(covered) / len(covered) < 0.95


def test_bounds_cover_their_level_again_after_answers_became_twice_as_long() -> None:
    _, covered = grown(growth=2.0, calls=800)
    assert sum(covered[385:415]) / 30 < 0.85
    assert sum(covered[-200:]) / 200 > 0.86


def test_nothing_is_said_before_enough_is_known() -> None:
    lengths = Lengths()
    assert lengths.likely(UNKNOWN) is None
    for _ in range(ENOUGH - 1):
        lengths.learn(UNKNOWN, 10)
    assert lengths.upper(UNKNOWN, 0.9) is None
    assert lengths.likely(UNKNOWN) == 10


def test_a_level_that_few_calls_cannot_tell_gets_the_longest_and_a_quarter() -> None:
    lengths = Lengths()
    for tokens in (*[10] * ENOUGH, 100):
        lengths.learn(UNKNOWN, tokens)
    assert lengths.upper(UNKNOWN, 0.99) == 125 + 8


def test_a_bound_at_99_percent_is_calibrated_from_133_calls_on() -> None:
    lengths = Lengths()
    for tokens in (100, *[10] * 131):
        lengths.learn(UNKNOWN, tokens)
    assert lengths.upper(UNKNOWN, 0.99) == 125 + 8
    lengths.learn(UNKNOWN, 10)
    bound = lengths.upper(UNKNOWN, 0.99)
    assert bound is not None
    assert bound < 20


def test_answers_that_are_always_as_long_are_bounded_by_that() -> None:
    lengths = Lengths()
    for _ in range(60):
        lengths.learn(UNKNOWN, 3)
    assert lengths.upper(UNKNOWN, 0.9) == 3


def test_a_prompt_unlike_any_that_was_seen_is_expected_within_what_was_seen() -> None:
    lengths, _ = grown()
    strange = asking("1" * 8_000 + "\\" * 500 + "{" * 900)
    bound, likely = lengths.upper(strange, 0.9), lengths.likely(strange)
    assert bound is not None
    assert likely is not None
    assert 20 < bound < 2_000
    assert 20 < likely < 2_000


# --- input


def test_a_share_of_the_bound_is_held_only_when_enough_was_seen() -> None:
    share, noted = InputShare(600), asking("plain words")
    for _ in range(ENOUGH_INPUTS - 1):
        share.learn(noted, bound=1000, tokens=250)
    assert share.likely(2000) == 500
    assert share.upper(noted, 2000) == 2000
    share.learn(noted, bound=1000, tokens=300)
    assert share.upper(noted, 2000) == 660
    assert share.upper(asking("слова"), 2000) == 2000
