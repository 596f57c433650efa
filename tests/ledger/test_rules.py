"""The six rules of the ledger, over every store."""

from __future__ import annotations

import pytest

from agentbudget.errors import (
    AccountConflict,
    BudgetExceeded,
    HoldClosed,
    HoldConflict,
    Mistake,
    UnknownAccount,
    UnknownHold,
)
from agentbudget.ledger import Ledger
from agentbudget.money import ZERO, Amount, Budget


def amount(usd_nano: int = 0, tokens: int = 0, calls: int = 0) -> Amount:
    return Amount(usd_nano, tokens, calls)


def test_reserve_then_settle_moves_held_to_posted_and_frees_the_rest(ledger: Ledger) -> None:
    ledger.account("run/1", limit=Budget(usd="0.000001", tokens=100))
    hold = ledger.reserve("a", amount(600, 60), accounts=["run/1"])
    assert ledger.balance("run/1").held == amount(600, 60)
    hold.settle(amount(250, 25))
    balance = ledger.balance("run/1")
    assert (balance.held, balance.posted) == (ZERO, amount(250, 25))
    assert balance.available.usd_nano == 750
    assert ledger.verify().ok


def test_a_hold_that_does_not_fit_is_refused_whole(ledger: Ledger) -> None:
    ledger.account("run/1", limit=Budget(tokens=100))
    ledger.account("user/42", limit=Budget(tokens=10))
    with pytest.raises(BudgetExceeded) as refused:
        ledger.reserve("a", amount(tokens=50), accounts=["run/1", "user/42"])
    assert (refused.value.account, refused.value.needed, refused.value.available) == ("user/42", 50, 10)
    assert ledger.balance("run/1").held == ZERO
    assert ledger.hold("a") is None
    assert "by at least 40 tokens" in str(refused.value)


def test_what_fits_exactly_is_admitted(ledger: Ledger) -> None:
    ledger.account("run/1", limit=Budget(tokens=100, calls=1))
    ledger.reserve("a", amount(tokens=100, calls=1), accounts=["run/1"])
    assert ledger.balance("run/1").available.tokens == 0


def test_ancestors_are_held_too(ledger: Ledger) -> None:
    ledger.account("org/acme", limit=Budget(tokens=70))
    ledger.account("user/42", parent="org/acme")
    ledger.reserve("a", amount(tokens=50), accounts=["user/42"])
    with pytest.raises(BudgetExceeded, match="org/acme"):
        ledger.reserve("b", amount(tokens=50), accounts=["user/42"])


def test_the_same_id_is_the_same_hold(ledger: Ledger) -> None:
    ledger.account("run/1", limit=Budget(tokens=100))
    ledger.reserve("a", amount(tokens=60), accounts=["run/1"])
    again = ledger.reserve("a", amount(tokens=60), accounts=["run/1"])
    assert again.replayed
    assert ledger.balance("run/1").held == amount(tokens=60)


def test_the_same_id_with_another_amount_is_an_error(ledger: Ledger) -> None:
    ledger.account("run/1")
    ledger.account("run/2")
    ledger.reserve("a", amount(tokens=60), accounts=["run/1"])
    with pytest.raises(HoldConflict):
        ledger.reserve("a", amount(tokens=61), accounts=["run/1"])
    with pytest.raises(HoldConflict):
        ledger.reserve("a", amount(tokens=60), accounts=["run/2"])


def test_a_settlement_repeated_changes_nothing_and_another_is_an_error(ledger: Ledger) -> None:
    ledger.account("run/1")
    hold = ledger.reserve("a", amount(100), accounts=["run/1"])
    hold.settle(amount(70))
    hold.settle(amount(70))
    assert ledger.balance("run/1").posted == amount(70)
    with pytest.raises(HoldClosed):
        hold.settle(amount(71))


def test_an_overrun_is_booked_in_full(ledger: Ledger) -> None:
    ledger.account("run/1", limit=Budget(usd="0.0000001"))
    hold = ledger.reserve("a", amount(100), accounts=["run/1"])
    record = hold.settle(amount(130))
    assert record.overrun == amount(30)
    balance = ledger.balance("run/1")
    assert (balance.posted, balance.available.usd_nano) == (amount(130), 0)
    assert ledger.verify().ok


def test_void_frees_what_was_never_sent(ledger: Ledger) -> None:
    ledger.account("run/1")
    hold = ledger.reserve("a", amount(100), accounts=["run/1"])
    hold.void()
    hold.void()
    assert ledger.balance("run/1").held == ZERO


def test_what_was_sent_cannot_be_voided(ledger: Ledger) -> None:
    ledger.account("run/1")
    hold = ledger.reserve("a", amount(100), accounts=["run/1"])
    hold.mark_sent()
    with pytest.raises(HoldClosed):
        hold.void()


def test_a_block_that_raises_before_sending_voids(ledger: Ledger) -> None:
    ledger.account("run/1")
    with pytest.raises(ZeroDivisionError), ledger.reserve("a", amount(100), accounts=["run/1"]):
        _ = 1 / 0
    record = ledger.hold("a")
    assert record is not None
    assert record.state == "voided"


async def test_a_block_that_raises_after_sending_is_presumed_spent(ledger: Ledger) -> None:
    ledger.account("run/1")

    async def call() -> None:
        async with ledger.reserve("a", amount(100), accounts=["run/1"]) as hold:
            hold.mark_sent()
            raise TimeoutError

    with pytest.raises(TimeoutError):
        await call()
    record = ledger.hold("a")
    assert record is not None
    assert record.presumed
    assert ledger.balance("run/1").posted == amount(100)


def test_a_presumption_is_corrected_by_the_truth_once(ledger: Ledger) -> None:
    ledger.account("run/1")
    step = ledger.reserve("step", amount(500), accounts=["run/1"])
    call = ledger.reserve("call", amount(100), within="step")
    call.mark_sent()
    call.presume()
    step.settle()
    assert ledger.balance("run/1").posted == amount(100)
    ledger.settle("call", amount(40))
    assert ledger.balance("run/1").posted == amount(40)
    parent = ledger.hold("step")
    assert parent is not None
    assert parent.settled == amount(40)
    with pytest.raises(HoldClosed):
        ledger.settle("call", amount(39))
    assert ledger.verify().ok


def test_holds_within_a_hold_share_its_amount(ledger: Ledger) -> None:
    ledger.account("run/1", limit=Budget(tokens=100))
    step = ledger.reserve("step", amount(tokens=60), accounts=["run/1"])
    ledger.reserve("c1", amount(tokens=40), within="step").settle(amount(tokens=30))
    with pytest.raises(BudgetExceeded, match="step has 30 tokens left"):
        ledger.reserve("c2", amount(tokens=31), within="step")
    ledger.reserve("c2", amount(tokens=30), within="step").settle(amount(tokens=5))
    assert ledger.balance("run/1").held == amount(tokens=60)
    step.settle()
    balance = ledger.balance("run/1")
    assert (balance.held, balance.posted) == (ZERO, amount(tokens=35))


def test_a_call_that_overruns_its_step_weighs_on_the_account_at_once(ledger: Ledger) -> None:
    ledger.account("run/1", limit=Budget(tokens=100))
    ledger.reserve("step", amount(tokens=60), accounts=["run/1"])
    ledger.reserve("call", amount(tokens=60), within="step").settle(amount(tokens=90))
    with pytest.raises(BudgetExceeded):
        ledger.reserve("other", amount(tokens=11), accounts=["run/1"])
    ledger.settle("step")
    assert ledger.balance("run/1").posted == amount(tokens=90)
    assert ledger.verify().ok


def test_nothing_is_reserved_within_a_closed_hold(ledger: Ledger) -> None:
    ledger.account("run/1")
    ledger.reserve("step", amount(10), accounts=["run/1"]).void()
    with pytest.raises(HoldClosed):
        ledger.reserve("call", amount(1), within="step")


def test_closing_a_parent_resolves_what_is_still_open_within_it(ledger: Ledger) -> None:
    ledger.account("run/1")
    step = ledger.reserve("step", amount(100), accounts=["run/1"])
    ledger.reserve("unsent", amount(20), within="step")
    ledger.reserve("sent", amount(30), within="step").mark_sent()
    step.settle()
    unsent, sent = ledger.hold("unsent"), ledger.hold("sent")
    assert unsent is not None
    assert sent is not None
    assert (unsent.state, sent.state, sent.presumed) == ("voided", "lapsed", True)
    assert ledger.balance("run/1").posted == amount(30)


def test_extend_raises_a_hold_where_it_fits(ledger: Ledger) -> None:
    ledger.account("run/1", limit=Budget(tokens=100))
    hold = ledger.reserve("a", amount(tokens=50), accounts=["run/1"])
    hold.extend(amount(tokens=80))
    hold.extend(amount(tokens=70))
    assert ledger.balance("run/1").held == amount(tokens=80)
    with pytest.raises(BudgetExceeded):
        hold.extend(amount(tokens=101))
    assert ledger.balance("run/1").held == amount(tokens=80)


def test_lowering_a_limit_below_what_is_spent_refuses_new_holds(ledger: Ledger) -> None:
    ledger.account("run/1", limit=Budget(tokens=100))
    ledger.reserve("a", amount(tokens=50), accounts=["run/1"]).settle(amount(tokens=50))
    ledger.set_limit("run/1", Budget(tokens=10))
    with pytest.raises(BudgetExceeded):
        ledger.reserve("b", amount(tokens=1), accounts=["run/1"])
    assert ledger.balance("run/1").posted == amount(tokens=50)


def test_mistakes_are_named(ledger: Ledger) -> None:
    with pytest.raises(UnknownAccount, match=r"ledger\.account"):
        ledger.reserve("a", amount(1), accounts=["nobody"])
    with pytest.raises(UnknownHold):
        ledger.settle("nothing")
    with pytest.raises(Mistake, match="one of the two"):
        ledger.reserve("a", amount(1))
    with pytest.raises(UnknownAccount):
        ledger.account("child", parent="nobody")
    ledger.account("a")
    ledger.account("b")
    ledger.account("child", parent="a")
    with pytest.raises(AccountConflict):
        ledger.account("child", parent="b")


def test_history_lists_true_settlements_of_a_tag_newest_first(ledger: Ledger) -> None:
    ledger.account("run/1")
    for i in range(3):
        ledger.reserve(f"h{i}", amount(10), accounts=["run/1"], tag="answer|m").settle(amount(i), detail={"n": i})
    guess = ledger.reserve("guess", amount(10), accounts=["run/1"], tag="answer|m")
    guess.mark_sent()
    guess.presume()
    assert [r.detail["n"] for r in ledger.history("answer|m", 2)] == [2, 1]


def test_a_glance_at_an_account_shows_what_this_process_last_did(ledger: Ledger) -> None:
    ledger.account("user/42", limit=Budget(usd="1"))
    hold = ledger.reserve("h", Amount.of(usd="0.25"), accounts=["user/42"])
    assert ledger.glance("user/42") == ledger.balance("user/42")
    hold.settle(Amount.of(usd="0.125"))
    assert ledger.glance("user/42") == ledger.balance("user/42")
    assert ledger.glance("user/42").posted == Amount.of(usd="0.125")
    with pytest.raises(UnknownAccount):
        ledger.glance("nobody")
