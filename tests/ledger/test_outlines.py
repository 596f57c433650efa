"""What others' entries say is kept in outline: whoever asks for such a hold finds all of it."""

from __future__ import annotations

import sqlite3
from collections.abc import Generator
from contextlib import closing
from pathlib import Path
from typing import Any, cast

import pytest

from agentbudget.errors import HoldConflict
from agentbudget.ledger import Ledger
from agentbudget.ledger.outlines import Outline, Outlines
from agentbudget.ledger.sql import Row
from agentbudget.ledger.sqlite import SqliteStore
from agentbudget.ledger.tail import LONGEST
from agentbudget.money import Amount, Budget

ONE = Amount(calls=1)
Pair = tuple[Ledger, Ledger]


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "ledger.db"


@pytest.fixture
def pair(path: Path) -> Generator[Pair]:
    """Two ledgers at one file, each of which knows that the other writes."""
    with Ledger(SqliteStore(path)) as one, Ledger(SqliteStore(path)) as other:
        one.account("a", limit=Budget(calls=1000))
        for n in range(3):
            for name, ledger in (("one", one), ("other", other)):
                ledger.reserve(f"{name}-{n}", ONE, accounts=["a"]).settle(ONE)
        yield one, other


def line(seq: int, kind: str, subject: str, targets: str = '["a"]') -> Row:
    return (seq, 0, kind, subject, targets, 0, 0, 1, 0, 0, 0, "{}", b"", 1)


def test_a_hold_is_kept_from_its_opening_to_its_end() -> None:
    outlines = Outlines()
    assert outlines.keep([line(n, kind, "h") for n, kind in enumerate(("reserve", "sent", "settle"), 1)])
    found = outlines.pop("h")
    assert found is not None
    assert (found.opened[0], found.sent and found.sent[0], found.ended and found.ended[0]) == (1, 2, 3)
    assert "h" not in outlines


@pytest.mark.parametrize("kind", ["extend", "reduce", "settle"])
def test_what_takes_more_than_to_keep_it_is_left_to_others(kind: str) -> None:
    outlines = Outlines()
    assert not outlines.keep([line(1, kind, "unknown")])
    assert outlines.keep([line(2, "reserve", "h"), line(3, "void", "h")])
    assert not outlines.keep([line(4, kind, "h")])
    assert outlines.pop("h") is not None


def test_of_entries_that_take_more_none_is_kept() -> None:
    outlines = Outlines()
    outlines.keep([line(1, "reserve", "open")])
    assert not outlines.keep([line(2, "reserve", "h"), line(3, "settle", "open"), line(4, "extend", "h")])
    assert "h" not in outlines
    assert outlines.pop_all() == [("open", Outline(line(1, "reserve", "open")))]


def test_what_the_tables_have_of_an_ended_hold_is_dropped_and_of_an_open_one_kept() -> None:
    outlines = Outlines()
    outlines.keep([line(1, "reserve", "ended"), line(2, "reserve", "open"), line(3, "settle", "ended")])
    outlines.rebase(2)
    assert len(outlines) == 2
    outlines.rebase(3)
    assert [outline.opened[3] for _, outline in outlines.pop_all()] == ["open"]


def test_a_hold_of_another_can_be_settled_extended_and_held_within(pair: Pair) -> None:
    one, other = pair
    for name in ("settled", "extended", "parent", "sent"):
        one.reserve(name, Amount(calls=2), accounts=["a"], tag="t", meta={"of": name})
    one.mark_sent("sent")
    other.reserve("n", ONE, accounts=["a"]).void()  # follows

    assert other.settle("settled", ONE).meta == {"of": "settled"}
    assert other.extend("extended", Amount(calls=5)).amount.calls == 5
    other.reserve("child", ONE, within="parent").settle(ONE)
    assert one.reserve("grandchild", ONE, within="parent").record.parent == "parent"
    assert other.settle("parent").settled == ONE
    assert [hold.sent for hold in other.holds(prefix="sent")] == [True]
    assert other.presume("sent").presumed

    for ledger in pair:
        balance = ledger.balance("a")
        assert (balance.posted.calls, balance.held.calls) == (6 + 1 + 1 + 2, 5)
        assert ledger.verify().ok


def test_an_id_that_another_has_just_used_is_taken(pair: Pair) -> None:
    one, other = pair
    one.reserve("same", ONE, accounts=["a"]).settle(ONE)
    other.reserve("n", ONE, accounts=["a"])  # follows
    assert other.reserve("same", ONE, accounts=["a"]).replayed
    with pytest.raises(HoldConflict):
        other.reserve("same", Amount(calls=2), accounts=["a"])


def test_lists_and_history_name_holds_of_others(pair: Pair) -> None:
    one, other = pair
    one.reserve("done", ONE, accounts=["a"], tag="t").settle(ONE)
    one.reserve("open", ONE, accounts=["a"], tag="t")
    other.reserve("n", ONE, accounts=["a"]).void()
    assert [hold.id for hold in other.history("t")] == ["done"]
    assert [hold.id for hold in other.holds(state="open")] == ["open"]
    assert [hold.id for hold in other.sweep()] == [], "its owner lives"


def test_whoever_brings_the_tables_up_writes_what_others_did(pair: Pair, path: Path) -> None:
    one, other = pair
    one.reserve("open", ONE, accounts=["a"])
    one.reserve("sent", ONE, accounts=["a"]).mark_sent()
    for n in range(LONGEST // 4):
        one.reserve(f"before-{n}", ONE, accounts=["a"]).settle(ONE)
        other.reserve(f"beside-{n}", ONE, accounts=["a"]).void()
    other.account("b")  # the tables follow
    with closing(sqlite3.connect(path)) as db:
        states = dict(db.execute("SELECT id, state FROM holds WHERE id IN ('open', 'before-0', 'beside-0')"))
        assert states == {"open": "open", "before-0": "settled", "beside-0": "voided"}
        assert db.execute("SELECT sent FROM holds WHERE id = 'sent'").fetchone() == (1,)
    one.settle("open", ONE)
    other.reserve("n", ONE, accounts=["a"]).void()
    assert other.settle("open", ONE).settled == ONE, "the same again"
    assert other.verify().ok


def test_tables_that_followed_what_was_read_ahead_are_not_asked_for_it_again(
    pair: Pair, monkeypatch: pytest.MonkeyPatch
) -> None:
    one, other = pair
    for n in range(LONGEST):
        one.reserve(f"more-{n}", ONE, accounts=["a"]).settle(ONE)
    writer = cast(Any, other)._store.write()
    writer._read_ahead()
    asked: list[object] = []
    monkeypatch.setattr(writer._tx, "learn", asked.append)
    other.reserve("next", ONE, accounts=["a"])
    assert asked == []
    assert other.balance("a").held == ONE
