"""The ledger: reserve before, settle after, prove it. Usable alone, without a model or a graph.

>>> from agentbudget.ledger import Ledger
>>> from agentbudget.money import Amount, Budget
>>> ledger = Ledger.open("memory:")
>>> account = ledger.account("user/42", limit=Budget(usd="0.05"), windows={"day": Budget(calls=1000)})
>>> with ledger.reserve("call-1", Amount.of(usd="0.02"), accounts=["user/42"]) as hold:
...     hold.mark_sent()
...     done = hold.settle(Amount.of(usd="0.013"))
>>> ledger.balance("user/42").available.usd
Decimal('0.037')
"""

from agentbudget.ledger.admission import require_room
from agentbudget.ledger.core import LEASE_S, Ledger
from agentbudget.ledger.export import Export, ExportVerification, read_export, verify_export
from agentbudget.ledger.hold import Hold
from agentbudget.ledger.leased import LeasedBudget
from agentbudget.ledger.records import (
    Account,
    Detail,
    Entry,
    EntryKind,
    HoldRecord,
    HoldState,
    Verification,
    WindowBalance,
    WindowLimit,
    limits,
    units,
)
from agentbudget.ledger.windows import Window

__all__ = [
    "LEASE_S",
    "Account",
    "Detail",
    "Entry",
    "EntryKind",
    "Export",
    "ExportVerification",
    "Hold",
    "HoldRecord",
    "HoldState",
    "LeasedBudget",
    "Ledger",
    "Verification",
    "Window",
    "WindowBalance",
    "WindowLimit",
    "limits",
    "read_export",
    "require_room",
    "units",
    "verify_export",
]
