"""Moments at which SQLite says at once that a file is busy, and does not wait itself."""

from __future__ import annotations

import multiprocessing
import os
import sys
import time
from multiprocessing.synchronize import Event
from pathlib import Path

import pytest

from agentbudget.ledger import Ledger
from agentbudget.money import Amount, Budget

ONE = Amount(calls=1)
HEADERS = 96
"""Bytes at the beginning of the index of the log: two copies of what says how far the log is."""
WRITE, RECOVER = 120, 122
"""Bytes after them that are locked by who writes, and by who makes the index anew
(https://sqlite.org/walformat.html#wal_locks)."""


def _recover_slowly(index: Path, begun: Event) -> None:
    """Do as a process does that finds the index half written, since its writer was killed, and takes its time."""
    import fcntl

    file = os.open(index, os.O_RDWR)
    for byte in (WRITE, RECOVER):
        fcntl.lockf(file, fcntl.LOCK_EX, 1, byte)
    os.pwrite(file, bytes(HEADERS), 0)
    begun.set()
    time.sleep(0.5)
    os.close(file)


@pytest.mark.skipif(sys.platform == "win32", reason="advisory locks of POSIX")
@pytest.mark.parametrize("others_about", [False, True])
def test_who_writes_waits_for_the_recovery_of_the_log(tmp_path: Path, others_about: bool) -> None:
    path = tmp_path / "ledger.db"
    with Ledger.open(path) as ledger:
        ledger.account("a", limit=Budget(calls=1000))
        for n in range(0 if others_about else 40):  # until it takes itself to be alone
            ledger.reserve(f"before-{n}", ONE, accounts=["a"]).void()
        context = multiprocessing.get_context("spawn")
        begun = context.Event()
        process = context.Process(target=_recover_slowly, args=(path.with_name("ledger.db-shm"), begun))
        process.start()
        assert begun.wait(60)
        ledger.reserve("meanwhile", ONE, accounts=["a"]).settle(ONE)
        process.join()
        assert ledger.balance("a").posted == ONE
        assert ledger.verify().ok
