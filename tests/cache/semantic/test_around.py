from __future__ import annotations

import numpy as np
import pytest

from agentbudget.cache.semantic.around import NEAREST, Around, Outcomes, around, middle, weigh

HERE = np.array([1, 0], np.float32)
THERE = np.array([0, 1], np.float32)


def outcomes(*rows: tuple[float, bool, float]) -> Outcomes:
    """Outcomes at so many degrees from `HERE`, whether each was right, and how likely that was thought."""
    angles = np.radians([row[0] for row in rows])
    return Outcomes(
        np.stack([np.cos(angles), np.sin(angles)], axis=1).astype(np.float32),
        np.array([row[1] for row in rows]),
        np.array([row[2] for row in rows]),
    )


def test_the_middle_of_two_questions_is_as_near_to_both() -> None:
    between = middle(HERE, THERE)
    assert between @ HERE == pytest.approx(between @ THERE)
    assert np.linalg.norm(between) == pytest.approx(1)


def test_without_outcomes_nothing_is_said() -> None:
    nothing = Outcomes(np.empty((0, 2), np.float32), np.empty(0, np.bool_), np.empty(0))
    assert list(around(np.stack([HERE, THERE]), nothing)) == [Around(), Around()]


def test_an_outcome_counts_where_it_was_found_and_hardly_elsewhere() -> None:
    here, there = around(np.stack([HERE, THERE]), outcomes((0, True, 0.2)))
    assert here == Around(pytest.approx(0.8), 0)
    assert there.right < 1e-6


def test_what_was_expected_says_little() -> None:
    [known] = around(HERE[None], outcomes((0, True, 0.95), (0, False, 0.05)))
    assert known == Around(pytest.approx(0.05), pytest.approx(0.05))
    [news] = around(HERE[None], outcomes((0, True, 0.05), (0, False, 0.95)))
    assert news == Around(pytest.approx(0.95), pytest.approx(0.95))


def test_only_the_nearest_count() -> None:
    cosines = np.linspace(1, 0.9, 2 * NEAREST).astype(np.float32)
    same, expected = np.ones(len(cosines), np.bool_), np.zeros(len(cosines))
    assert weigh(cosines, same, expected) == weigh(cosines[:NEAREST], same[:NEAREST], expected[:NEAREST])
