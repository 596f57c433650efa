"""Workers as processes on one ledger: together they never overspend, and whoever is killed loses nothing."""

from __future__ import annotations

import random
import subprocess
import sys
import time
from pathlib import Path

from agentbudget.ledger import Ledger
from agentbudget.money import Amount, Budget
from tests.ledger.blocks_worker import COST, HELD, work

ROOT = Path(__file__).parents[2]


def start(
    folder: Path, name: str, calls: int, *, journal: bool = True, pause_s: float = 0.0
) -> subprocess.Popen[bytes]:
    command = [sys.executable, "-m", "tests.ledger.blocks_worker", str(folder / "ledger.db"), name]
    command += [str(folder / f"journal-{name}") if journal else "-", str(folder / f"{name}.log"), str(calls)]
    command += [str(pause_s), "60"]
    return subprocess.Popen(command, cwd=ROOT)


def kill_when_it_has_paid(worker: subprocess.Popen[bytes], log: Path, calls: int) -> None:
    """kill -9, at some moment after so many calls."""
    while worker.poll() is None and billed(log) < calls:
        time.sleep(0.002)
    time.sleep(random.random() * 0.01)
    worker.kill()
    assert worker.wait(timeout=60) in (-9, 0)  # 0: on a machine this slow it was done before


def billed(log: Path) -> int:
    """Calls that a provider billed to a worker."""
    return log.read_text().count("\n") if log.exists() else 0


def a_ledger(folder: Path, calls: int) -> Ledger:
    ledger = Ledger.open(folder / "ledger.db")
    ledger.account("hot", limit=Budget(usd=Amount(COST.usd_nano * calls).usd))
    return ledger


def test_workers_spend_a_limit_to_the_end_and_not_a_call_more(tmp_path: Path) -> None:
    with a_ledger(tmp_path, 2000) as ledger:
        names = ["a", "b", "c", "d"]
        workers = [start(tmp_path, name, 1000) for name in names]
        assert [worker.wait(timeout=120) for worker in workers] == [0, 0, 0, 0]
        work(str(tmp_path / "ledger.db"), "last", None, tmp_path / "last.log", 2000)  # what the refused left
        paid = sum(billed(tmp_path / f"{name}.log") for name in [*names, "last"])
        balance = ledger.balance("hot")
        assert (balance.posted.calls, balance.posted.usd_nano, balance.held) == (paid, 3 * paid, Amount())
        assert 6000 - HELD.usd_nano < balance.posted.usd_nano <= 6000
        assert ledger.verify().ok


def test_a_worker_killed_in_mid_flight_goes_on_where_it_was(tmp_path: Path) -> None:
    with a_ledger(tmp_path, 10_000) as ledger:
        others = [start(tmp_path, name, 300) for name in ("b", "c")]
        for paid in (30, 60, 90):
            kill_when_it_has_paid(start(tmp_path, "a", 300, pause_s=0.003), tmp_path / "a.log", paid)
            ledger.sweep()  # a sweep presumes its blocks spent; its journal knows better
        assert [worker.wait(timeout=120) for worker in (*others, start(tmp_path, "a", 300))] == [0, 0, 0]
        lines = (tmp_path / "a.log").read_text().split()
        assert len(lines) == len(set(lines)) <= 300  # no call was bought twice
        total = sum(billed(tmp_path / f"{name}.log") for name in ("a", "b", "c"))
        balance = ledger.balance("hot")
        # A call in flight at a kill is presumed spent at what it held: three kills, a nano-dollar each, and at most
        # three calls that were marked as sent and had not left yet.
        assert 3 * total <= balance.posted.usd_nano <= 3 * total + 3 * HELD.usd_nano
        assert balance.held == Amount()
        assert ledger.verify().ok


def test_without_a_journal_a_killed_worker_strands_its_block_until_it_is_corrected(tmp_path: Path) -> None:
    with a_ledger(tmp_path, 10_000) as ledger:
        kill_when_it_has_paid(start(tmp_path, "a", 5000, journal=False, pause_s=0.001), tmp_path / "a.log", 100)
        lapsed = ledger.sweep()
        paid = billed(tmp_path / "a.log")
        stranded = ledger.balance("hot").posted.usd_nano - 3 * paid
        assert 0 <= stranded <= sum(record.amount.usd_nano for record in lapsed)
        for record in lapsed:
            elsewhere = ledger.balance("hot").posted.minus(record.settled or Amount())
            ledger.settle(record.id, Amount(3 * paid, calls=paid).minus(elsewhere))
        assert ledger.balance("hot").posted == Amount(3 * paid, calls=paid)
        assert ledger.verify().ok
