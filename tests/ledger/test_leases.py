"""What becomes of holds whose owner is gone."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from agentbudget.ledger import Ledger
from agentbudget.ledger.memory import MemoryStore, MemoryTransaction
from agentbudget.ledger.owners import new_owner
from agentbudget.money import Amount, Budget
from agentbudget.testing import ManualClock


def test_a_lease_that_ran_out_is_swept() -> None:
    clock = ManualClock()
    ledger = Ledger(MemoryStore(), clock=clock, owner="elsewhere:1:x")
    ledger.account("run/1", limit=Budget(tokens=100))
    ledger.reserve("unsent", Amount(tokens=10), accounts=["run/1"])
    ledger.reserve("sent", Amount(tokens=20), accounts=["run/1"]).mark_sent()
    assert ledger.sweep() == []
    clock.advance(59)
    ledger.heartbeat()
    clock.advance(59)
    assert ledger.sweep() == []
    clock.advance(2)
    assert [(r.id, r.state) for r in ledger.sweep()] == [("unsent", "voided"), ("sent", "lapsed")]
    assert ledger.balance("run/1").posted == Amount(tokens=20)
    assert ledger.verify().ok


CRASH = """
import os, signal, sys
from agentbudget.ledger import Ledger
from agentbudget.money import Amount, Budget
ledger = Ledger.open(sys.argv[1])
ledger.account("run/1", limit=Budget(tokens=100))
step = ledger.reserve("step", Amount(tokens=60), accounts=["run/1"])
ledger.reserve("done", Amount(tokens=20), within="step").settle(Amount(tokens=7))
ledger.reserve("sent", Amount(tokens=20), within="step").mark_sent()
ledger.reserve("unsent", Amount(tokens=20), within="step")
os.kill(os.getpid(), signal.SIGKILL)
"""


def test_after_kill_9_the_next_process_settles_what_is_known_and_presumes_the_rest(tmp_path: Path) -> None:
    path = tmp_path / "ledger.db"
    killed = subprocess.run([sys.executable, "-c", CRASH, str(path)], check=False)
    assert killed.returncode == -9
    with Ledger.open(path) as ledger:
        balance = ledger.balance("run/1")
        assert (balance.posted.tokens, balance.held.tokens) == (27, 0)
        assert ledger.verify().ok


def test_a_dead_process_of_this_host_needs_no_lease_to_run_out() -> None:
    owner = new_owner().replace(f":{os.getpid()}:", ":999999999:")
    ledger = Ledger(MemoryStore(), owner=owner)
    ledger.account("run/1")
    ledger.reserve("a", Amount(1), accounts=["run/1"])
    assert [r.state for r in ledger.sweep()] == ["voided"]


def test_a_live_owner_of_this_host_keeps_its_holds_whatever_the_clock_says(tmp_path: Path) -> None:
    clock = ManualClock()
    path = tmp_path / "ledger.db"
    with Ledger.open(path, clock=clock) as ledger:
        ledger.account("run/1")
        ledger.reserve("a", Amount(1), accounts=["run/1"])
        clock.advance(86_400)
        with Ledger.open(path, clock=clock) as other:
            assert other.sweep() == []


def test_who_closed_its_ledger_keeps_its_holds_for_a_lease(tmp_path: Path) -> None:
    clock = ManualClock()
    path = tmp_path / "ledger.db"
    with Ledger.open(path, clock=clock) as ledger:
        ledger.account("run/1")
        ledger.reserve("a", Amount(1), accounts=["run/1"])
    with Ledger.open(path, clock=clock) as other:
        assert other.sweep() == []
        clock.advance(61)
        assert [record.id for record in other.sweep()] == ["a"]


def test_many_holds_are_swept_a_few_at_a_time_so_that_nobody_waits_for_all(monkeypatch: pytest.MonkeyPatch) -> None:
    class Counted(MemoryStore):
        writes = 0

        def write(self) -> MemoryTransaction:
            self.writes += 1
            return super().write()

    monkeypatch.setattr("agentbudget.ledger.core.SWEPT_AT_ONCE", 4)
    store, clock = Counted(), ManualClock()
    dead, alive = Ledger(store, clock=clock, owner="elsewhere:1:x"), Ledger(store, clock=clock)
    alive.account("org")
    for n in range(10):
        dead.reserve(f"step-{n}", Amount(calls=3), accounts=["org"])
        dead.reserve(f"call-{n}", Amount(calls=2), within=f"step-{n}").mark_sent()
    alive.reserve("waits", Amount(calls=1), within="step-5")
    clock.advance(61)
    before = store.writes
    swept = alive.sweep()
    assert store.writes - before > 10 / 4
    ended = [f"{kind}-{n}" for n in range(10) for kind in ("step", "call") if (kind, n) != ("step", 5)]
    assert sorted(record.id for record in swept) == sorted(ended)
    assert {record.state for record in swept} == {"lapsed"}
    assert [hold.id for hold in alive.holds(state="open")] == ["step-5", "waits"]
    assert alive.verify().ok
