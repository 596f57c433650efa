"""Writes ``schema1.sql``: a ledger of schema 1 in which everything happened that schema 1 knew.

It ran once, with agentbudget 0.1.0: ``python schema1.py > schema1.sql``. Today's ledger writes another schema.
"""

from __future__ import annotations

import sqlite3
import tempfile
from contextlib import suppress
from itertools import count
from pathlib import Path

from agentbudget.errors import BudgetExceeded
from agentbudget.ledger import Ledger
from agentbudget.ledger.sqlite import SqliteStore
from agentbudget.money import Amount, Budget


def write(path: Path) -> None:
    """Accounts with and without limits, and holds in every state, inside of each other too."""
    ticks = count(1_760_000_000_000_000_000, 1_000_000_000)
    ledger = Ledger(SqliteStore(path), clock=lambda: next(ticks), owner="elsewhere:42:0a1b2c3d")
    ledger.account("org/acme", limit=Budget(usd="10", tokens=100_000, calls=1000))
    ledger.account("user/42", parent="org/acme", limit=Budget(usd="0.05"))
    ledger.account("feature/ünïcode", parent="org/acme")
    ledger.account("user/42", limit=Budget(usd="5"))
    ledger.set_limit("org/acme", Budget(usd="12", tokens=200_000))
    meta = {"kind": "step", "skill": "answer", "estimated": {"usd_nano": 7}}

    step = ledger.reserve("run-1/answer", Amount(5_000, 900, 3), accounts=["user/42"], tag="step|answer", meta=meta)
    draft = ledger.reserve("run-1/answer/1", Amount(2_000, 400, 1), within=step.id, tag="call|draft")
    draft.mark_sent()
    draft.settle(Amount(1_500, 300, 1), detail={"seconds": 0.25, "score": float("nan"), "text": "“quoted”|pipe"})
    escalated = ledger.reserve("run-1/answer/2", Amount(3_000, 400, 1), within=step.id, meta={"kind": "call"})
    escalated.mark_sent()
    escalated.settle(Amount(4_500, 700, 1))  # an overrun: raises the step
    step.settle(detail={"verdict": "accepted"})

    lost = ledger.reserve("run-2/lost", Amount(800, 80, 1), accounts=["user/42", "feature/ünïcode"], tag="call|x")
    lost.mark_sent()
    lost.presume(detail={"error": "timeout"})
    guessed = ledger.reserve("run-2/guessed", Amount(900, 90, 2), accounts=["user/42"])
    inner = ledger.reserve("run-2/guessed/1", Amount(600, 60, 1), within=guessed.id)
    inner.mark_sent()
    guessed.settle()  # the call within lapses: presumed
    ledger.settle("run-2/guessed/1", Amount(100, 10, 1), detail={"late": True})  # and is corrected, here and above

    ledger.reserve("run-3/void", Amount(10, 1, 1), accounts=["user/42"]).void(reason="cached")
    ledger.reserve("run-3/grown", Amount(10, 1, 1), accounts=["user/42"]).extend(Amount(40, 4, 1))
    with suppress(BudgetExceeded):
        ledger.reserve("run-3/refused", Amount(10**12), accounts=["user/42"])
    open_step = ledger.reserve("run-4/open", Amount(1_000, 100, 2), accounts=["user/42"], tag="step|answer")
    ledger.reserve("run-4/open/1", Amount(300, 30, 1), within=open_step.id).mark_sent()
    ledger.reserve("run-4/open/2", Amount(300, 30, 1), within=open_step.id)
    assert ledger.verify().ok
    ledger.close()


def dump(path: Path) -> str:
    """The file as SQL, with what marks it as a ledger of its version."""
    db = sqlite3.connect(path)
    marks = [
        f"PRAGMA {name} = {db.execute(f'PRAGMA {name}').fetchone()[0]};" for name in ("application_id", "user_version")
    ]
    return "\n".join([*db.iterdump(), *marks])


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as folder:
        write(Path(folder, "ledger.db"))
        print(dump(Path(folder, "ledger.db")))
