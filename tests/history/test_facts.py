"""Ids, dates, names and amounts, found by their form."""

from __future__ import annotations

import pytest

from agentbudget.history.facts import facts, stands_in, words


@pytest.mark.parametrize(
    ("kind", "fact"),
    [
        ("id", "HAT110"),
        ("id", "mia_li_3668"),
        ("id", "order-1182"),
        ("id", "JFK"),
        ("id", "one_way"),
        ("id", "mia.li@example.com"),
        ("date", "2024-05-20"),
        ("date", "May 20, 2024"),
        ("date", "20/5/2024"),
        ("name", "Mia Li"),
        ("amount", "$2,544.50"),
        ("amount", "15%"),
    ],
)
def test_a_fact_is_known_by_its_form(kind: str, fact: str) -> None:
    assert list(facts(f"it was {fact} again")) == [(kind, fact)]


def test_the_date_of_a_time_stamp_counts_and_the_time_does_not() -> None:
    assert list(facts("created 2024-05-14T06:33:04, leaves at 14:00")) == [("date", "2024-05-14")]


def test_plain_words_are_no_facts() -> None:
    assert list(facts("please book the cheap one for me")) == []


def test_a_fact_is_found_whatever_signs_stand_around_it() -> None:
    known = words('{"amount": 2544, "who": "Mia Li", "at": "2024-05-14T06:33:04"}')
    assert stands_in("$2,544", known)
    assert stands_in("mia li", known)
    assert stands_in("2024-05-14", known)


def test_a_part_of_a_longer_word_is_not_the_fact() -> None:
    assert not stands_in("HAT11", words("HAT110"))
