"""A hold in the hands of whoever reserved it."""

from __future__ import annotations

from types import TracebackType
from typing import Protocol, Self

from agentbudget.errors import HoldClosed, StoreError
from agentbudget.ledger.records import Detail, HoldRecord
from agentbudget.money import ZERO, Amount


class Keeper(Protocol):
    """Whoever keeps a hold: the `Ledger`, or a `LeasedBudget`."""

    def hold(self, hold_id: str) -> HoldRecord | None: ...

    def mark_sent(self, hold_id: str) -> HoldRecord: ...

    def extend(self, hold_id: str, to: Amount) -> HoldRecord: ...

    def reduce(self, hold_id: str, to: Amount) -> HoldRecord: ...

    def settle(
        self, hold_id: str, cost: Amount = ZERO, *, presumed: bool = False, detail: Detail | None = None
    ) -> HoldRecord: ...

    def presume(self, hold_id: str, *, detail: Detail | None = None) -> HoldRecord: ...

    def void(self, hold_id: str, *, reason: str = "nothing was sent") -> HoldRecord: ...

    def resolve(self, hold_id: str) -> HoldRecord: ...


class Hold:
    """A hold in the hands of whoever reserved it.

    As a context manager (``with`` or ``async with``) it is resolved when the block ends: left open and never
    sent it is voided; sent and not settled it is presumed spent. ``record`` is the hold as this handle last saw it.
    """

    __slots__ = ("_keeper", "record", "replayed")

    def __init__(self, keeper: Keeper, record: HoldRecord, replayed: bool = False) -> None:
        self._keeper = keeper
        self.record = record
        self.replayed = replayed

    @property
    def id(self) -> str:
        """The id that the caller gave."""
        return self.record.id

    @property
    def amount(self) -> Amount:
        """What is held."""
        return self.record.amount

    def refresh(self) -> HoldRecord:
        """Read the hold as it stands now."""
        self.record = self._keeper.hold(self.record.id) or self.record
        return self.record

    def mark_sent(self) -> None:
        """See `Ledger.mark_sent`."""
        self.record = self._keeper.mark_sent(self.record.id)

    def extend(self, to: Amount) -> None:
        """See `Ledger.extend`."""
        self.record = self._keeper.extend(self.record.id, to)

    def reduce(self, to: Amount) -> None:
        """See `Ledger.reduce`."""
        self.record = self._keeper.reduce(self.record.id, to)

    def settle(self, cost: Amount = ZERO, *, presumed: bool = False, detail: Detail | None = None) -> HoldRecord:
        """See `Ledger.settle`."""
        self.record = self._keeper.settle(self.record.id, cost, presumed=presumed, detail=detail)
        return self.record

    def presume(self, *, detail: Detail | None = None) -> HoldRecord:
        """See `Ledger.presume`."""
        self.record = self._keeper.presume(self.record.id, detail=detail)
        return self.record

    def void(self, *, reason: str = "nothing was sent") -> HoldRecord:
        """See `Ledger.void`."""
        self.record = self._keeper.void(self.record.id, reason=reason)
        return self.record

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        record, seen = self.record, True
        try:
            record = self.refresh()
        except StoreError:  # then its end is owed
            seen = False
        if record.state != "open":
            return
        try:
            if record.sent:
                self.presume(detail={"reason": "left unsettled", "error": kind.__name__ if kind else None})
            elif not seen:  # what was spent within it, or sent by others, is known once it can be read
                self.record = self._keeper.resolve(self.id)
            elif record.spent or record.children:
                self.settle()
            else:
                self.void(reason=kind.__name__ if kind else "left unused")
        except HoldClosed:  # a settlement that was broken off on its way had arrived all the same
            self.refresh()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.__exit__(kind, error, trace)
