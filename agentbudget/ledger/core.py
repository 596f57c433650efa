"""The ledger's rules, written once over any store: admission, settlement, lapse, proof."""

from __future__ import annotations

import os
import socket
import time
import uuid
from collections.abc import Callable, Sequence
from dataclasses import replace
from itertools import islice
from pathlib import Path
from types import TracebackType
from typing import Final, Self

from agentbudget.errors import (
    AccountConflict,
    BudgetExceeded,
    HoldClosed,
    HoldConflict,
    Mistake,
    UnknownAccount,
    UnknownHold,
)
from agentbudget.ledger.memory import MemoryStore
from agentbudget.ledger.records import (
    Account,
    Delta,
    Detail,
    Entry,
    EntryKind,
    HoldRecord,
    HoldState,
    Verification,
    minus,
    plus,
    units,
)
from agentbudget.ledger.sqlite import SqliteStore
from agentbudget.ledger.store import Store, Transaction
from agentbudget.ledger.verify import verify
from agentbudget.money import ZERO, Amount, Budget, format_usd

LEASE_S: Final = 60.0
"""How long a hold outlives the last sign of life of its owner."""

_NO_CHANGE: Final = (0, 0, 0)


class Ledger:
    """Accounts, holds and the journal. Every method is one short transaction, safe for threads and processes.

    The methods are synchronous on purpose: a settlement that cannot be awaited cannot be cancelled half-way.
    """

    def __init__(self, store: Store, *, clock: Callable[[], int] = time.time_ns, owner: str | None = None) -> None:
        self._store = store
        self._clock = clock
        self.owner = owner or f"{socket.gethostname()}:{os.getpid()}:{uuid.uuid4().hex[:8]}"

    @classmethod
    def open(cls, location: str | Path, *, clock: Callable[[], int] = time.time_ns) -> Self:
        """The ledger at a file path, or a fresh one in memory for ``"memory:"``. Sweeps what dead owners left."""
        store: Store = MemoryStore() if str(location) == "memory:" else SqliteStore(Path(location))
        ledger = cls(store, clock=clock)
        ledger.sweep()
        return ledger

    @property
    def location(self) -> str:
        """Where the rows are kept."""
        return self._store.location

    def close(self) -> None:
        """Close the store. Open holds stay, until their lease runs out."""
        self._store.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    # --- accounts

    def account(self, name: str, *, parent: str | None = None, limit: Budget | None = None) -> Account:
        """Open the account `name`, or find it. A `limit` that is given becomes the limit; None leaves what is.

        Raises `AccountConflict` if it exists under another parent, `UnknownAccount` if the parent does not.
        """
        if not name or name.startswith("hold:"):
            raise Mistake(f"{name!r} cannot name an account")
        with self._store.write() as tx:
            account = tx.account(name)
            if account is None:
                if parent is not None:
                    _required(tx, parent)
                account = Account(name, parent, limit or Budget())
                tx.put_account(account)
                self._journal(tx, "account", name, detail={"parent": parent, "limit": _budget_detail(account.limit)})
            elif parent is not None and account.parent != parent:
                raise AccountConflict(f"account {name!r} stands under {account.parent!r}, not {parent!r}")
            elif limit is not None and limit != account.limit:
                account = self._relimit(tx, account, limit)
            return account

    def set_limit(self, name: str, limit: Budget) -> Account:
        """Change an account's limit. Below what is spent, it refuses every new hold and takes nothing back."""
        with self._store.write() as tx:
            return self._relimit(tx, _required(tx, name), limit)

    def _relimit(self, tx: Transaction, account: Account, limit: Budget) -> Account:
        account = replace(account, limit=limit)
        tx.put_account(account)
        self._journal(tx, "limit", account.name, detail={"limit": _budget_detail(limit)})
        return account

    def balance(self, name: str) -> Account:
        """The account as it stands. Raises `UnknownAccount`."""
        with self._store.read() as tx:
            return _required(tx, name)

    def accounts(self) -> list[Account]:
        """Every account, by name."""
        with self._store.read() as tx:
            return tx.accounts()

    # --- holds

    def reserve(
        self,
        hold_id: str,
        amount: Amount,
        *,
        accounts: Sequence[str] = (),
        within: str | None = None,
        tag: str = "",
        meta: Detail | None = None,
        lease_s: float = LEASE_S,
    ) -> Hold:
        """Set `amount` aside on all `accounts` and their ancestors, or inside the hold `within`: all or nothing.

        The same id with the same amount, accounts and parent is the same hold, whatever became of it; look at
        `Hold.record`. Raises `BudgetExceeded` if it does not fit, `HoldConflict` if the id means something else,
        `HoldClosed` if `within` is closed, `UnknownAccount`, `UnknownHold`.
        """
        if bool(accounts) == (within is not None):
            raise Mistake("a hold weighs either on accounts or within another hold: give one of the two")
        with self._store.write() as tx:
            existing = tx.hold(hold_id)
            targets = () if within is not None else _with_ancestors(tx, accounts)
            if existing is not None:
                return Hold(self, _same(existing, amount, targets, within), replayed=True)
            self._admit(tx, amount, targets, within)
            now = self._clock()
            record = HoldRecord(
                id=hold_id,
                parent=within,
                accounts=targets,
                amount=amount,
                state="open",
                sent=False,
                owner=self.owner,
                lease_until_ns=now + int(lease_s * 1e9),
                tag=tag,
                meta=meta or {},
                created_ns=now,
            )
            self._book(tx, "reserve", record, Delta(held=units(amount)), detail=meta or {})
            tx.put_hold(record)
            return Hold(self, record)

    def _admit(self, tx: Transaction, amount: Amount, accounts: tuple[str, ...], within: str | None) -> None:
        """Raise `BudgetExceeded` unless `amount` fits everywhere."""
        if within is not None:
            parent = _required_hold(tx, within)
            if parent.state != "open":
                raise HoldClosed(f"hold {within!r} is {parent.state}: nothing can be reserved within it")
            require_room(within, amount, limit=units(parent.amount), used=units(parent.reserved + parent.spent))
        for name in accounts:
            account = _required(tx, name)
            require_room(name, amount, limit=limits(account.limit), used=units(account.held + account.posted))

    def hold(self, hold_id: str) -> HoldRecord | None:
        """The hold of this id, or None."""
        with self._store.read() as tx:
            return tx.hold(hold_id)

    def holds(self, *, prefix: str = "", state: HoldState | None = None) -> list[HoldRecord]:
        """Holds whose id starts with `prefix`, in order of creation."""
        with self._store.read() as tx:
            return tx.holds(prefix=prefix, state=state)

    def history(self, tag: str, limit: int = 200) -> list[HoldRecord]:
        """The last settled holds with this tag, newest first: what estimates learn from."""
        with self._store.read() as tx:
            return tx.history(tag, limit)

    def adopt(self, hold_id: str, *, lease_s: float = LEASE_S) -> Hold:
        """Take over an open hold, to go on where its owner stopped."""
        with self._store.write() as tx:
            record = _open(tx, hold_id, "adopted")
            record = replace(record, owner=self.owner, lease_until_ns=self._clock() + int(lease_s * 1e9))
            tx.put_hold(record)
            return Hold(self, record, replayed=True)

    def mark_sent(self, hold_id: str) -> HoldRecord:
        """Note that the call leaves now: from here on a crash presumes the hold spent."""
        with self._store.write() as tx:
            record = replace(_open(tx, hold_id, "sent"), sent=True)
            tx.put_hold(record)
            return record

    def extend(self, hold_id: str, to: Amount) -> HoldRecord:
        """Raise an open hold to at least `to` in each unit, where it fits. Raises `BudgetExceeded`."""
        with self._store.write() as tx:
            record = _open(tx, hold_id, "extended")
            more = to.minus(record.amount)
            if not more:
                return record
            self._admit(tx, more, record.accounts, record.parent)
            return self._grow(tx, record, more)

    def _grow(self, tx: Transaction, record: HoldRecord, more: Amount) -> HoldRecord:
        record = replace(record, amount=record.amount + more)
        self._book(tx, "extend", record, Delta(held=units(more)))
        tx.put_hold(record)
        return record

    def settle(
        self, hold_id: str, cost: Amount = ZERO, *, presumed: bool = False, detail: Detail | None = None
    ) -> HoldRecord:
        """Book what the hold cost: `cost` plus all that was spent within it, and free the rest.

        Holds still open within it are resolved first: nothing sent → void, sent → presumed spent. The truth
        is booked in full, an overrun too. A hold that was presumed spent is corrected by this, once; the same
        settlement again changes nothing; another raises `HoldClosed`.
        """
        with self._store.write() as tx:
            record = _required_hold(tx, hold_id)
            if record.state == "open":
                return self._close(tx, record, "settled", cost, presumed=presumed, detail=detail or {})
            if record.presumed and not presumed:
                return self._correct(tx, record, cost, detail or {})
            if record.settled == cost + record.spent:
                return record
            raise HoldClosed(f"hold {hold_id!r} is {record.state} at {record.settled}; it cannot be settled again")

    def void(self, hold_id: str, *, reason: str = "nothing was sent") -> HoldRecord:
        """Free a hold of which nothing was sent. Raises `HoldClosed` if something was: settle that at zero."""
        with self._store.write() as tx:
            record = _required_hold(tx, hold_id)
            if record.state == "voided":
                return record
            if record.state != "open" or record.sent or record.spent:
                raise HoldClosed(f"hold {hold_id!r} is {record.state} and may have been spent; settle it instead")
            return self._close(tx, record, "voided", ZERO, detail={"reason": reason})

    def _close(
        self,
        tx: Transaction,
        record: HoldRecord,
        state: HoldState,
        cost: Amount,
        *,
        presumed: bool = False,
        detail: Detail,
    ) -> HoldRecord:
        for child in tx.holds_within(record.id):
            if child.state == "open":
                self._resolve(tx, child)
        record = _required_hold(tx, record.id)
        total = cost + record.spent
        if presumed:
            detail = {**detail, "presumed": True}
        kinds: dict[HoldState, EntryKind] = {"settled": "settle", "voided": "void", "lapsed": "lapse"}
        self._book(
            tx, kinds[state], record, Delta(held=minus(units(record.amount)), posted=units(total)), detail=detail
        )
        closed = replace(
            record,
            state=state,
            settled=total,
            presumed=presumed,
            closed_ns=self._clock(),
            detail=detail,
        )
        tx.put_hold(closed)
        if closed.parent is not None:
            self._cover(tx, closed.parent)
        return closed

    def _cover(self, tx: Transaction, hold_id: str) -> None:
        """Raise an open hold to what is known to have been spent within it: an overrun weighs at once."""
        record = _required_hold(tx, hold_id)
        deficit = (record.spent + record.reserved).minus(record.amount)
        if record.state == "open" and deficit:
            self._grow(tx, record, deficit)
            if record.parent is not None:
                self._cover(tx, record.parent)

    def _resolve(self, tx: Transaction, record: HoldRecord) -> HoldRecord:
        """End a hold that its owner left: not sent → void; sent → presumed spent at what was held for itself."""
        children = tx.holds_within(record.id)
        for child in children:
            if child.state == "open":
                self._resolve(tx, child)
        record = _required_hold(tx, record.id)
        if not record.sent and not record.spent:
            return self._close(tx, record, "voided", ZERO, detail={"reason": "abandoned before anything was sent"})
        own = record.amount.minus(record.spent) if record.sent else ZERO
        return self._close(
            tx, record, "lapsed", own, presumed=record.sent, detail={"reason": "abandoned; outcome unknown"}
        )

    def _correct(self, tx: Transaction, record: HoldRecord, cost: Amount, detail: Detail) -> HoldRecord:
        """Replace a presumption by the truth, here and in every closed hold that contains it."""
        total = cost + record.spent
        change = plus(units(total), minus(units(record.settled or ZERO)))
        corrected = replace(record, settled=total, presumed=False, state="settled", detail=detail)
        tx.put_hold(corrected)
        self._book(tx, "correct", corrected, Delta(posted=change), detail=detail)
        parent = record.parent
        while parent is not None:
            above = _required_hold(tx, parent)
            if above.state == "open":
                self._cover(tx, above.id)
                break
            above = replace(above, settled=_shift(above.settled or ZERO, change))
            tx.put_hold(above)
            self._book(tx, "correct", above, Delta(posted=change), detail={"because": record.id})
            parent = above.parent
        return corrected

    def _book(
        self, tx: Transaction, kind: EntryKind, record: HoldRecord, delta: Delta, *, detail: Detail | None = None
    ) -> None:
        """Write the entry and apply it to what the hold weighs on: the only place where balances change."""
        if record.parent is not None:
            above = _required_hold(tx, record.parent)
            tx.put_hold(
                replace(
                    above,
                    reserved=_shift(above.reserved, delta.held),
                    spent=_shift(above.spent, delta.posted),
                )
            )
        for name in record.accounts:
            account = _required(tx, name)
            tx.put_account(
                replace(account, held=_shift(account.held, delta.held), posted=_shift(account.posted, delta.posted))
            )
        targets = record.accounts or (f"hold:{record.parent}",)
        self._journal(tx, kind, record.id, targets=targets, delta=delta, detail=detail)

    def _journal(
        self,
        tx: Transaction,
        kind: EntryKind,
        subject: str,
        *,
        targets: tuple[str, ...] = (),
        delta: Delta | None = None,
        detail: Detail | None = None,
    ) -> None:
        tx.append(
            kind, subject=subject, targets=targets, delta=delta or Delta(), detail=detail or {}, at_ns=self._clock()
        )

    # --- leases

    def heartbeat(self, *, lease_s: float = LEASE_S) -> int:
        """Renew the lease of every open hold of this ledger's owner; returns how many."""
        with self._store.write() as tx:
            return tx.renew(self.owner, self._clock() + int(lease_s * 1e9))

    def sweep(self) -> list[HoldRecord]:
        """Resolve the open holds whose owner is gone: lease run out, or its process on this host is dead."""
        with self._store.write() as tx:
            now = self._clock()
            swept: list[HoldRecord] = []
            for record in tx.holds(state="open"):
                current = _required_hold(tx, record.id)
                if current.state == "open" and (current.lease_until_ns < now or owner_is_dead(current.owner)):
                    swept.append(self._resolve(tx, current))
            return swept

    # --- proof

    def entries(self, *, after: int = 0, limit: int | None = None) -> list[Entry]:
        """The journal from entry `after` + 1 on, at most `limit` of it."""
        with self._store.read() as tx:
            return list(islice(tx.entries(after=after), limit))

    def verify(self) -> Verification:
        """Recompute every balance from the entries, and the chain of hashes; name every difference."""
        with self._store.read() as tx:
            return verify(tx)


class Hold:
    """A hold in the hands of whoever reserved it.

    As a context manager (``with`` or ``async with``) it is resolved when the block ends: left open and never
    sent it is voided; sent and not settled it is presumed spent.
    """

    def __init__(self, ledger: Ledger, record: HoldRecord, *, replayed: bool = False) -> None:
        self._ledger = ledger
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
        self.record = self._ledger.hold(self.id) or self.record
        return self.record

    def mark_sent(self) -> None:
        """See `Ledger.mark_sent`."""
        self.record = self._ledger.mark_sent(self.id)

    def extend(self, to: Amount) -> None:
        """See `Ledger.extend`."""
        self.record = self._ledger.extend(self.id, to)

    def settle(self, cost: Amount = ZERO, *, presumed: bool = False, detail: Detail | None = None) -> HoldRecord:
        """See `Ledger.settle`."""
        self.record = self._ledger.settle(self.id, cost, presumed=presumed, detail=detail)
        return self.record

    def presume(self, *, detail: Detail | None = None) -> HoldRecord:
        """Settle at what was held, marked as presumed: sent, and nobody knows what it used."""
        return self.settle(self.amount.minus(self.refresh().spent), presumed=True, detail=detail)

    def void(self, *, reason: str = "nothing was sent") -> HoldRecord:
        """See `Ledger.void`."""
        self.record = self._ledger.void(self.id, reason=reason)
        return self.record

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        record = self.refresh()
        if record.state != "open":
            return
        if record.sent:
            self.presume(detail={"reason": "left unsettled", "error": kind.__name__ if kind else None})
        elif record.spent or record.reserved:
            self.settle()
        else:
            self.void(reason=kind.__name__ if kind else "left unused")

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.__exit__(kind, error, trace)


def owner_is_dead(owner: str) -> bool:
    """True if the owner is a process of this host that no longer runs. Of other hosts nothing is known."""
    host, _, rest = owner.partition(":")
    pid, _, _ = rest.partition(":")
    if host != socket.gethostname() or not pid.isdigit():
        return False
    try:
        os.kill(int(pid), 0)
    except ProcessLookupError:
        return True
    except PermissionError:
        return False
    return False


def _required(tx: Transaction, name: str) -> Account:
    account = tx.account(name)
    if account is None:
        raise UnknownAccount(f"no account {name!r}; open it with ledger.account({name!r})")
    return account


def _required_hold(tx: Transaction, hold_id: str) -> HoldRecord:
    record = tx.hold(hold_id)
    if record is None:
        raise UnknownHold(f"no hold {hold_id!r}")
    return record


def _open(tx: Transaction, hold_id: str, verb: str) -> HoldRecord:
    record = _required_hold(tx, hold_id)
    if record.state != "open":
        raise HoldClosed(f"hold {hold_id!r} is {record.state}: it cannot be {verb}")
    return record


def _same(record: HoldRecord, amount: Amount, accounts: tuple[str, ...], within: str | None) -> HoldRecord:
    if (record.accounts, record.parent) != (accounts, within):
        raise HoldConflict(f"hold {record.id!r} weighs on {record.accounts or record.parent}; name another id")
    # An extension raises the amount of an open hold; the id still names the same hold.
    if amount.minus(record.amount) or (record.state != "open" and record.amount != amount):
        raise HoldConflict(f"hold {record.id!r} is for {record.amount}, not {amount}; name another id")
    return record


def _with_ancestors(tx: Transaction, names: Sequence[str]) -> tuple[str, ...]:
    found: dict[str, None] = {}
    for name in names:
        step: str | None = name
        while step is not None and step not in found:
            found[step] = None
            step = _required(tx, step).parent
    return tuple(found)


def limits(budget: Budget) -> tuple[int | None, int | None, int | None]:
    """A budget in the ledger's order of units; None does not limit."""
    return (budget.usd_nano, budget.tokens, budget.calls)


def require_room(
    name: str, amount: Amount, *, limit: tuple[int | None, int | None, int | None], used: tuple[int, int, int]
) -> None:
    """Raise `BudgetExceeded`, naming what is short and by how much, unless `amount` fits beside what is `used`."""
    for unit, needed, most, taken in zip(("usd", "tokens", "calls"), units(amount), limit, used, strict=True):
        if most is not None and taken + needed > most:
            raise BudgetExceeded(
                f"{name} has {_show(unit, max(0, most - taken))} left of {_show(unit, most)}, and this needs "
                f"{_show(unit, needed)}: raise the limit by at least {_show(unit, taken + needed - most)}",
                account=name,
                unit=unit,
                needed=needed,
                available=max(0, most - taken),
                requested=amount,
            )


def _show(unit: str, value: int) -> str:
    return format_usd(value) if unit == "usd" else f"{value:,} {unit}"


def _shift(amount: Amount, change: tuple[int, int, int]) -> Amount:
    if change == _NO_CHANGE:
        return amount
    return Amount(amount.usd_nano + change[0], amount.tokens + change[1], amount.calls + change[2])


def _budget_detail(limit: Budget) -> dict[str, int | None]:
    return {"usd_nano": limit.usd_nano, "tokens": limit.tokens, "calls": limit.calls}
