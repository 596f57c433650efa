from __future__ import annotations

from decimal import Decimal
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agentbudget.errors import InvalidAmount
from agentbudget.money import MAX, NANO, Amount, Budget, format_usd, nano_to_usd, usd_to_nano


@pytest.mark.parametrize(
    ("text", "nano"), [("0.05", 50_000_000), ("$1", NANO), (2, 2 * NANO), (Decimal("1e-9"), 1), ("1e-10", 1), ("0", 0)]
)
def test_dollars_become_nano_dollars_rounded_up(text: str | int | Decimal, nano: int) -> None:
    assert usd_to_nano(text) == nano


@pytest.mark.parametrize("bad", [0.05, "NaN", "inf", "five", "-1", "1e30", True, None])
def test_what_is_no_exact_amount_is_refused(bad: Any) -> None:
    with pytest.raises(InvalidAmount):
        usd_to_nano(bad)


@pytest.mark.parametrize("bad", [-1, MAX + 1, 1.5, True])
def test_an_amount_takes_whole_numbers_only(bad: Any) -> None:
    with pytest.raises(InvalidAmount):
        Amount(tokens=bad)


@given(st.integers(0, MAX // NANO * NANO))
def test_nano_dollars_survive_the_way_there_and_back(nano: int) -> None:
    assert usd_to_nano(nano_to_usd(nano)) == nano


@pytest.mark.parametrize(
    ("nano", "text"),
    [
        (0, "$0.00"),
        (50_000_000, "$0.05"),
        (1_234_567, "$0.001235"),
        (12 * NANO + 340_000_000, "$12.34"),
        (7, "$0.000000007"),
    ],
)
def test_dollars_for_a_person(nano: int, text: str) -> None:
    assert format_usd(nano) == text


def test_a_budget_keeps_what_is_not_limited_apart_from_zero() -> None:
    assert Budget(usd="0.05").usd_nano == 50_000_000
    assert Budget(usd="0.05").tokens is None
    with pytest.raises(InvalidAmount):
        Budget(tokens=-1)
