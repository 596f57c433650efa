"""Writes ``schema2.sql``: a ledger of schema 2 with holds in every state, as agentbudget 0.2 left it.

It ran once, with the last version that wrote schema 2: ``python schema2.py > schema2.sql``.
"""

from __future__ import annotations

import tempfile
from itertools import count
from pathlib import Path

from agentbudget.ledger import Ledger
from agentbudget.ledger.sqlite import SqliteStore
from agentbudget.money import Amount, Budget
from tests.ledger.data.schema1 import dump


def write(path: Path) -> None:
    """Accounts with windows, a top-up, a freeze, and holds in every state, inside of each other too."""
    ticks = count(1_790_000_000_000_000_000, 1_000_000_000)
    ledger = Ledger(SqliteStore(path), clock=lambda: next(ticks), owner="elsewhere:42:0a1b2c3d")
    ledger.account("org/acme", limit=Budget(usd="10"), windows={"day": Budget(calls=1000), "90s": Budget(tokens=9000)})
    ledger.account("user/42", parent="org/acme", limit=Budget(usd="5"))
    ledger.top_up("org/acme", Budget(usd="2"), topup_id="t")
    step = ledger.reserve("step", Amount(5_000, 900, 3), accounts=["user/42"], tag="step", meta={"skill": "x"})
    call = ledger.reserve("step/1", Amount(2_000, 400, 1), within="step", tag="call")
    call.mark_sent()
    call.settle(Amount(2_500, 300, 1), detail={"seconds": 0.25})
    step.settle()
    lost = ledger.reserve("lost", Amount(800, 80, 1), accounts=["user/42"])
    lost.mark_sent()
    lost.presume()
    ledger.reserve("void", Amount(10), accounts=["user/42"]).void()
    ledger.reserve("open", Amount(1_000, 100, 2), accounts=["user/42"], tag="step")
    ledger.reserve("open/1", Amount(300, 30, 1), within="open").mark_sent()
    assert ledger.verify().ok
    ledger.close()


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as folder:
        write(Path(folder, "ledger.db"))
        print(dump(Path(folder, "ledger.db")))
