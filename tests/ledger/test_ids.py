"""What may name things, and what may go with them."""

from __future__ import annotations

from typing import Any, cast

import pytest

from agentbudget.errors import InvalidAmount, Mistake
from agentbudget.ledger import Ledger
from agentbudget.ledger.core import open_store
from agentbudget.ledger.store import LONGEST
from agentbudget.money import MAX, Amount, Budget

ODD = ["", "a\0b", "\0", "lone \ud800", "\U0010ffff", "before \U0010ffff after", "x" * (LONGEST + 1)]
PLAIN = ["ä|ö\n'\"\\%_", "🧾" * LONGEST, " ", "hold:x", "\ue000\U0010fffe", "x" * LONGEST, "null", "[1]", "\x01\x7f"]


@pytest.mark.parametrize("text", ODD, ids=ascii)
def test_a_name_that_some_store_could_not_keep_is_refused_by_all(ledger: Ledger, text: str) -> None:
    ledger.account("a", limit=Budget(tokens=9))
    with pytest.raises(Mistake):
        ledger.account(text)
    with pytest.raises(Mistake):
        ledger.reserve(text, Amount(1), accounts=["a"])
    with pytest.raises(Mistake):
        ledger.top_up("a", Budget(tokens=1), topup_id=text)
    with pytest.raises(Mistake):
        Ledger(open_store("memory:"), owner=text)
    if text:
        with pytest.raises(Mistake):
            ledger.reserve("x", Amount(1), accounts=["a"], tag=text)
    assert ledger.holds() == []
    assert [account.name for account in ledger.accounts()] == ["a"]
    assert ledger.verify().ok


@pytest.mark.parametrize("text", PLAIN, ids=range(len(PLAIN)))
def test_any_other_text_is_a_name(ledger: Ledger, text: str) -> None:
    name = f"a{text}"[:LONGEST]
    ledger.account(name, limit=Budget(tokens=9))
    ledger.account("b")
    ledger.top_up(name, Budget(tokens=1), topup_id=text)
    ledger.freeze("b", reason=text)
    ledger.reserve(text, Amount(1), accounts=[name], tag=text, meta={text: [text]}).settle(detail={text: text})
    ledger.reserve("within", Amount(1), accounts=[name])
    ledger.reserve(f"w{text}"[:LONGEST], Amount(1), within="within")
    assert [hold.id for hold in ledger.holds(prefix=text)] == [text]
    assert [hold.meta for hold in ledger.history(text)] == [{text: [text]}]
    assert [account.name for account in ledger.accounts(prefix=name)] == [name]
    assert ledger.verify().ok


def test_a_prefix_lists_all_that_begin_with_it_in_order(ledger: Ledger) -> None:
    names = ["run", "run/", "run/1", "run/10", "run/\U0010fffe", "run0", "ruo"]
    for name in names:
        ledger.account(name)
        ledger.reserve(name, Amount(1), accounts=[name])
    assert [account.name for account in ledger.accounts(prefix="run/")] == names[1:5]
    assert [hold.id for hold in ledger.holds(prefix="run/", state="open")] == names[1:5]
    assert len(ledger.holds()) == len(names)


@pytest.mark.parametrize(
    "said",
    [
        {"tokens": {2: 1, 10: 1}},
        {1: "one"},
        {"a": [{None: 1}]},
        {"text": "lone \ud800"},
        {"nan": float("nan")},
        {"what": object()},
        {"amount": Amount(1)},
    ],
    ids=range(7),
)
def test_what_would_not_come_back_from_json_as_it_went_is_refused(ledger: Ledger, said: dict[Any, Any]) -> None:
    ledger.account("a")
    with pytest.raises(Mistake, match="JSON"):
        ledger.reserve("x", Amount(1), accounts=["a"], meta=said)
    assert ledger.hold("x") is None
    hold = ledger.reserve("x", Amount(1), accounts=["a"])
    with pytest.raises(Mistake, match="JSON"):
        hold.settle(detail=said)
    assert hold.refresh().state == "open"
    assert ledger.verify().ok


def test_the_largest_amounts_add_up_and_larger_ones_are_refused_whole(ledger: Ledger) -> None:
    most = Amount(MAX, MAX, MAX)
    ledger.account("a", limit=Budget(tokens=MAX, calls=MAX), windows={"day": Budget(calls=MAX), "60s": Budget()})
    ledger.account("b", windows={"day": Budget(tokens=MAX)})
    hold = ledger.reserve("x", most, accounts=["a"])
    with pytest.raises((InvalidAmount, Mistake)):
        ledger.reserve("y", Amount(1), accounts=["a"])
    hold.settle(most)
    for number in range(2):  # what is held and posted may each fill a column
        ledger.reserve(f"b{number}", Amount(MAX, 1, MAX), accounts=["b"]).settle(Amount(number, 1, 0))
    ledger.reserve("b2", Amount(MAX - 1, MAX - 2, MAX), accounts=["b"])
    with pytest.raises(InvalidAmount):
        ledger.settle("x", Amount(MAX + 1))
    with pytest.raises(InvalidAmount):
        ledger.top_up("a", Budget(tokens=1), topup_id="t")
    assert ledger.balance("b").held == Amount(MAX - 1, MAX - 2, MAX)
    assert ledger.windows("b")[0].available.tokens == 0
    assert ledger.verify().ok


def test_an_overrun_that_no_column_holds_is_refused_and_the_hold_stays_open(ledger: Ledger) -> None:
    ledger.account("a")
    ledger.reserve("x", Amount(MAX), accounts=["a"]).settle(Amount(MAX))
    hold = ledger.reserve("y", Amount(0), accounts=["a"])
    with pytest.raises(InvalidAmount):
        hold.settle(Amount(1))
    assert hold.refresh().state == "open"
    assert hold.void().state == "voided"
    assert ledger.verify().ok


@pytest.mark.parametrize("name", [None, 5, b"x", ["a"]])
def test_a_name_that_is_no_text_is_refused(ledger: Ledger, name: object) -> None:
    with pytest.raises(Mistake, match="is text"):
        ledger.account(cast(Any, name))
    ledger.account("a")
    with pytest.raises(Mistake, match="is text"):
        ledger.reserve(cast(Any, name), Amount(1), accounts=["a"])
