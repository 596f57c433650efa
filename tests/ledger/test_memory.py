"""What only the store in memory can get wrong."""

from __future__ import annotations

import pytest

from agentbudget.ledger import Ledger
from agentbudget.ledger.memory import MemoryStore
from agentbudget.money import Amount, Budget


def test_holds_whose_end_was_undone_are_open_again_in_their_old_order() -> None:
    store = MemoryStore()
    ledger = Ledger(store)
    ledger.account("a", limit=Budget(tokens=10))
    for hold_id in ("first", "second", "third"):
        ledger.reserve(hold_id, Amount.of(tokens=1), accounts=["a"])

    def end_two_and_fail() -> None:
        with store.write() as tx:
            for hold_id in ("second", "first"):
                hold = tx.hold(hold_id)
                assert hold is not None
                tx.put_hold(hold._replace(state="voided"))
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        end_two_and_fail()
    with store.read() as tx:
        assert [hold.id for hold in tx.holds(state="open")] == ["first", "second", "third"]
