"""JSON in fewer tokens, with every value in it."""

from __future__ import annotations

import json
from typing import Any, cast

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agentbudget.history import compact
from agentbudget.history.tables import parsed, rendered, table_of
from agentbudget.models.base import Message
from tests.history.talk import BOOKING, FLIGHTS


def test_objects_of_the_same_keys_become_a_table() -> None:
    assert rendered(FLIGHTS).splitlines()[:2] == [
        "flight|from|prices.economy|prices.business|leaves",
        "HAT110|JFK|105|496|14:00:00",
    ]


def test_rows_that_go_together_stay_together() -> None:
    table = table_of([FLIGHTS[:2], FLIGHTS[1:]])
    assert table is not None
    assert [len(group) for group in table.groups] == [2, 2]
    assert str(table).count("\n") == 2


def test_an_object_becomes_lines_of_pairs() -> None:
    assert rendered(BOOKING).splitlines() == [
        "id: M05KNL",
        "cabin: business",
        "passenger: (name Mia Li, born 1990-04-05)",
    ]


@pytest.mark.parametrize("depth", [100, 500, 100_000])
@pytest.mark.parametrize(("opens", "shuts"), [("[", "]"), ('{"a":', "}")])
def test_what_is_nested_beyond_sense_is_text(opens: str, shuts: str, depth: int) -> None:
    hostile = opens * depth + "1" + shuts * depth
    assert parsed(hostile) is None
    said = [Message("user", "hello"), Message("assistant", hostile), Message("user", hostile), Message("user", "so?")]
    assert compact([*said, *said]).messages[-1] == said[-1]


def test_objects_of_different_keys_are_no_table() -> None:
    assert table_of([{"a": 1}, {"b": 2}]) is None


def test_what_is_no_json_object_is_left_alone() -> None:
    assert parsed("Error: no such user") is None
    assert parsed("[not json") is None


plain = st.one_of(st.integers(), st.booleans(), st.text("abcdef", min_size=1, max_size=8))
data = st.recursive(
    plain, lambda part: st.one_of(st.lists(part, max_size=3), st.dictionaries(st.text("xyz", min_size=1), part))
)


@given(st.one_of(st.lists(data, max_size=4), st.dictionaries(st.text("xyz", min_size=1), data)))
def test_no_value_is_lost(value: Any) -> None:
    text = rendered(value)
    assert all((leaf if isinstance(leaf, str) else json.dumps(leaf)) in text for leaf in leaves(value))


def leaves(value: Any) -> list[Any]:
    if isinstance(value, dict):
        value = list(cast("dict[str, Any]", value).values())
    if isinstance(value, list):
        return [leaf for part in cast("list[Any]", value) for leaf in leaves(part)]
    return [value]
