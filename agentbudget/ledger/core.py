"""The ledger: what its callers ask, each one transaction by the rules, over any store."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import datetime
from itertools import islice
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Final, Self

from agentbudget.errors import (
    AccountConflict,
    AccountFrozen,
    BudgetExceeded,
    HoldClosed,
    InvalidArgument,
    StoreError,
    StoreInterrupted,
    StoreUnavailable,
    UnknownAccount,
)
from agentbudget.ledger import limiting, lives
from agentbudget.ledger.admission import admit_on, admit_within, required, required_hold, weigh_within
from agentbudget.ledger.arguments import (
    DEEPEST_BILL,
    POSTGRES,
    check_account_name,
    check_accounts,
    check_amount,
    check_count,
    check_detail,
    check_location,
    check_seconds,
)
from agentbudget.ledger.charge import AmountOf, Charge, CostOf, NamesOf, TextOf
from agentbudget.ledger.hold import Hold
from agentbudget.ledger.memory import MemoryStore
from agentbudget.ledger.owed import Owed
from agentbudget.ledger.owners import Owner
from agentbudget.ledger.records import (
    EMPTY,
    NOTHING,
    Account,
    Detail,
    Entry,
    HoldRecord,
    HoldState,
    Limits,
    Units,
    Verification,
    WindowBalance,
    limits,
    minus,
    opened,
    units,
)
from agentbudget.ledger.repeat import again, repeated
from agentbudget.ledger.store import check_text, note
from agentbudget.ledger.windows import NS, Window
from agentbudget.money import ZERO, Amount, Budget

if TYPE_CHECKING:
    from agentbudget.ledger.export import Export, OnPage
    from agentbudget.ledger.leased import LeasedBudget
    from agentbudget.ledger.store import Store, Transaction

_log = logging.getLogger(__name__)

LEASE_S: Final = 60.0
"""How long a hold outlives the last sign of life of its owner."""

RENEW_S: Final = 5.0
"""How long a leased block is used before it is settled, and its worker takes another."""

SWEPT_AT_ONCE: Final = 500
"""So many holds are resolved in one transaction: whoever else writes has to wait for no more than these."""

_CACHED_LINEAGES: Final = 10_000

_LONGEST_REASON: Final = 1 << 20
_OWN_WORDS: Final = frozenset({"presumed", "because"})
_OPERATIONS: Final = (
    "account",
    "set_limit",
    "top_up",
    "freeze",
    "unfreeze",
    "balance",
    "accounts",
    "all_windows",
    "hold",
    "holds",
    "history",
    "adopt",
    "mark_sent",
    "extend",
    "reduce",
    "presume",
    "void",
    "heartbeat",
    "_has_abandoned",
    "_sweep_some",
    "resolve",
    "entries",
    "verify",
)
"""The methods that are one transaction each, beside those that are called most: `reserve` and `settle` see to it
themselves that they are asked again."""

_ENDS: Final = {"presume": False, "void": True, "resolve": True}
"""The methods that end a hold, beside `settle`, which sees to it itself, and whether what is owed is booked before: a
presumption gives way to the truth that comes later, nothing else does."""


class Ledger:
    """Accounts, holds and the journal. Every method is one short transaction, safe for threads and processes.

    The methods are synchronous on purpose: a settlement that cannot be awaited cannot be cancelled half-way.
    ``owner`` names whoever holds (by default this process), ``lease_s`` how long its holds outlive its last sign of
    life where nobody can see whether it still runs. ``clock`` gives nanoseconds since 1970; by default the store's.
    """

    def __init__(
        self,
        store: Store,
        *,
        clock: Callable[[], int] | None = None,
        owner: str | None = None,
        lease_s: float = LEASE_S,
    ) -> None:
        self._store = store
        check_seconds("lease_s", lease_s)
        self._clock = clock
        self._lease_ns = int(lease_s * 1e9)
        self._lineages: dict[tuple[str, ...], tuple[str, ...]] = {}
        self._owner = Owner(owner)
        self._owed = Owed()
        if store.interruptible:  # bound here: as decorators they would slow down the stores that need them not
            for name in _OPERATIONS:
                setattr(self, name, repeated(getattr(self, name)))
            for name, after_owed in _ENDS.items():
                setattr(self, name, self._owed.noting(getattr(self, name), after_owed=after_owed))

    @classmethod
    def open(cls, location: str | Path, *, clock: Callable[[], int] | None = None, lease_s: float = LEASE_S) -> Self:
        """The ledger at a file path, at ``"postgresql://…"``, or a fresh one in memory for ``"memory:"``.

        Sweeps what dead owners left, where it may write. Raises `StoreUnavailable`, `StoreBusy`, `SchemaMismatch`.
        """
        check_seconds("lease_s", lease_s)  # before there is a store to close
        ledger = cls(open_store(location), clock=clock, lease_s=lease_s)
        try:
            if ledger._has_abandoned():
                ledger._sweep_if_writable()
        except BaseException:
            ledger.close()
            raise
        return ledger

    @property
    def location(self) -> str:
        """Where the rows are kept."""
        return self._store.location

    def close(self) -> None:
        """Close the store. Open holds stay, until their owner is known to be gone or their lease runs out."""
        try:
            self._owed.pay()
        except StoreError as error:
            _log.warning("ends of holds in %s are not booked, and left for a sweep: %s", self.location, error)
        self._owner.retire()
        self._store.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    @property
    def owner(self) -> str:
        """Who holds what is reserved here."""
        return self._owner.name

    def _now(self, tx: Transaction) -> int:
        return self._clock() if self._clock is not None else tx.now_ns()

    # --- accounts

    def account(
        self,
        name: str,
        *,
        parent: str | None = None,
        limit: Budget | None = None,
        windows: Mapping[str, Budget] | None = None,
    ) -> Account:
        """Open the account `name`, or find it. Limits that are given become its limits; None leaves what is.

        ``windows`` are limits within a time, under ``"hour"``, ``"day"``, ``"month"`` (UTC),
        ``"day@Europe/Berlin"`` or a rolling ``"90s"``, ``"15m"``, ``"24h"``, ``"7d"``. Raises `AccountConflict`
        if it exists under another parent, `UnknownAccount` if the parent does not exist.
        """
        check_account_name(name)
        wanted = [] if limit is None else [(None, limits(limit))]
        wanted += [(Window.parse(text), limits(budget)) for text, budget in (windows or {}).items()]
        with self._store.write() as tx:
            account = tx.account(name)
            if account is None:
                if parent is not None:
                    required(tx, parent)
                account = Account(name, parent)
                tx.put_account(account)
                note(tx, "account", name, {"parent": parent}, at_ns=self._now(tx))
            elif parent is not None and account.parent != parent:
                raise AccountConflict(
                    f"account {name!r} stands under {account.parent!r}, not {parent!r}",
                    account=name,
                    known=account.parent,
                    asked=parent,
                )
            for window, triple in wanted:
                account = limiting.relimit(tx, account, window, triple, at_ns=self._now(tx))
            return account

    def set_limit(self, name: str, limit: Budget, *, window: str = "total", keep_others: bool = False) -> Account:
        """Change an account's limit, for all time or within a window; ``Budget()`` takes it away.

        With ``keep_others``, units that ``limit`` does not name stay limited as they are. Below what is spent, it
        refuses every new hold and takes nothing back.
        """
        parsed = None if window == "total" else Window.parse(window)
        wanted = limits(limit)
        with self._store.write() as tx:
            account = required(tx, name)
            return limiting.relimit(tx, account, parsed, wanted, at_ns=self._now(tx), keep_others=keep_others)

    def top_up(self, name: str, by: Budget, *, topup_id: str, window: str = "total") -> Account:
        """Raise a limit by an amount, once: the same id again changes nothing.

        Raises `AccountConflict` if the id was used for another top-up, `InvalidArgument` where there is no limit.
        """
        check_text("topup_id", topup_id)
        parsed = None if window == "total" else Window.parse(window)
        more = limits(by)
        with self._store.write() as tx:
            return limiting.top_up(tx, name, parsed, more, topup_id=topup_id, at_ns=self._now(tx))

    def freeze(self, name: str, *, reason: str = "") -> Account:
        """Refuse every new hold on this account and below it, also within holds that are open, until `unfreeze`.

        What was sent is settled as ever. Raises `UnknownAccount`.
        """
        check_text("reason", reason, least=0, most=_LONGEST_REASON)
        return self._set_frozen(name, reason)

    def unfreeze(self, name: str) -> Account:
        """Let holds in again. Raises `UnknownAccount`."""
        return self._set_frozen(name, None)

    def _set_frozen(self, name: str, reason: str | None) -> Account:
        with self._store.write() as tx:
            account = required(tx, name)
            if account.frozen != reason:
                account = account._replace(frozen=reason)
                tx.put_account(account)
                kind = "unfreeze" if reason is None else "freeze"
                note(tx, kind, name, {"reason": reason}, at_ns=self._now(tx))
            return account

    def balance(self, name: str, *, at: datetime | None = None) -> Account:
        """The account as it stands, or stood at a moment. Raises `UnknownAccount`."""
        if at is not None:
            found = [account for account in self.accounts(at=at) if account.name == name]
            if not found:
                raise UnknownAccount(f"there was no account {name!r} at {at.isoformat()}", account=name)
            return found[0]
        with self._store.read() as tx:
            return required(tx, name)

    def glance(self, name: str) -> Account:
        """The account as this process last knew it: after its own settlement as it stood then, without a look at what
        others wrote since. For what is only shown, such as a span's attributes. Raises `UnknownAccount`.
        """
        return self._store.glance(name) or self.balance(name)

    def accounts(self, *, prefix: str = "", at: datetime | None = None) -> list[Account]:
        """The accounts whose name starts with `prefix`, by name, as they stand, or stood at a moment."""
        from agentbudget.ledger.fold import accounts_at

        with self._store.read() as tx:
            if at is None:
                return tx.accounts(prefix=prefix)
            return [account for account in accounts_at(tx.entries, at) if account.name.startswith(prefix)]

    def windows(self, name: str, *, at: datetime | None = None) -> list[WindowBalance]:
        """How the account stands in each of its windows now, or stood at a moment. Raises `UnknownAccount`."""
        found = self.all_windows([name], at=at).get(name)
        if found is None:
            raise UnknownAccount(f"there was no account {name!r} at {at}", account=name)
        return found

    def all_windows(self, names: Sequence[str], *, at: datetime | None = None) -> dict[str, list[WindowBalance]]:
        """How these accounts stand in each of their windows; at a moment, those that there were then.

        Raises `UnknownAccount`.
        """
        from agentbudget.ledger.fold import window_balance, windows_at

        with self._store.read() as tx:
            if at is not None:
                return windows_at(tx.entries, at, frozenset(names))
            now = self._now(tx)
            return {
                name: [
                    window_balance(name, limit, now, tx.period(name, limit.window.text, limit.window.since(now)))
                    for limit in required(tx, name).windows
                ]
                for name in names
            }

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
    ) -> Hold:
        """Set `amount` aside on all `accounts` and their ancestors, or inside the hold `within`: all or nothing.

        The same id with the same amount, accounts and parent is the same hold, whatever became of it; look at
        `Hold.record`. Raises `BudgetExceeded` if it does not fit, `AccountFrozen`, `HoldConflict` if the id means
        something else, `HoldClosed` if `within` is closed, `UnknownAccount`, `UnknownHold`.
        """
        try:
            return self._reserve(hold_id, amount, accounts, within, tag, meta)
        except StoreInterrupted:
            return again(self._reserve, hold_id, amount, accounts, within, tag, meta)

    def _reserve(
        self,
        hold_id: str,
        amount: Amount,
        accounts: Sequence[str],
        within: str | None,
        tag: str,
        meta: Detail | None,
    ) -> Hold:
        if (within is None) == (not accounts):
            raise InvalidArgument(
                "a hold weighs either on accounts or within another hold: give one of the two",
                argument="accounts",
                value=accounts,
            )
        check_text("hold_id", hold_id)
        more = units(amount)
        if self._owed:
            self._owed.pay()
        if tag:
            check_text("tag", tag)
        if meta is not None:
            check_detail("meta", meta)
        lineage: tuple[str, ...] = ()
        held: Sequence[Account] = ()
        above: HoldRecord | None = None
        with self._store.write() as tx:
            now = self._clock() if self._clock is not None else tx.now_ns()
            try:
                if within is None:
                    lineage = self._lineage(tx, accounts)
                    held = admit_on(tx, lineage, more, now)
                else:
                    above = required_hold(tx, within)
                    admit_within(tx, above, more)
            except (BudgetExceeded, AccountFrozen, HoldClosed):
                existing = tx.hold(hold_id)
                if existing is None:
                    raise
                return Hold(self, lives.same(tx, existing, more, lineage, within), True)
            said = dict(meta) if meta else EMPTY
            record = opened(tx.next_seq(), hold_id, within, lineage, more, self._owner.name, tag, said, now)
            if not tx.add_hold(record):
                return Hold(self, lives.same(tx, required_hold(tx, hold_id), more, lineage, within), True)
            leased = now >= self._owner.lease_due
            if leased:
                tx.put_lease(self.owner, now + self._lease_ns)
            if above is None:
                tx.put_balances(held)
                for account in held:
                    for window, _ in account[3]:
                        tx.shift(account[0], window.text, window.start(now), more, NOTHING)
            else:
                weigh_within(tx, above, more, NOTHING, 1)
            tx.append(
                "reserve",
                hold_id,
                at_ns=now,
                targets=lineage or (f"hold:{within}",),
                held=more,
                posted=NOTHING,
                detail=_opening(tag, said) if tag or said else EMPTY,
            )
        if leased:
            self._owner.lease_due = now + self._lease_ns // 2
        return Hold(self, record)

    def charged(
        self,
        amount: Amount | AmountOf,
        *,
        accounts: Sequence[str] | NamesOf = (),
        within: str | TextOf | None = None,
        cost: CostOf | None = None,
        hold_id: TextOf | None = None,
        passing: str | None = None,
        tag: str = "",
        meta: Detail | None = None,
    ) -> Charge:
        """A decorator: every call of the function reserves ``amount``, is marked as sent, and is settled.

        ``cost`` tells from the result what it cost; without it, a call costs what was held. ``amount``, ``accounts``,
        ``within`` and ``hold_id`` may be functions of the arguments. A ``hold_id`` makes a call happen once: again, it
        raises `HoldClosed` (or `HoldConflict` while the first goes on), unless nothing was sent of the first.

        A call that raises, and one whose cost cannot be told, is presumed spent: nobody knows what was sent. With
        ``passing="hold"`` the function gets its hold as that keyword, and says itself when something is sent
        (``hold.mark_sent()``): if it raises before, nothing is booked. It may also extend, reduce and settle.

        >>> ledger = Ledger.open("memory:")
        >>> account = ledger.account("user/42", limit=Budget(usd="0.05"))
        >>> @ledger.charged(Amount.of(usd="0.02"), accounts=["user/42"], cost=lambda text: Amount(len(text)))
        ... def ask(question: str) -> str:
        ...     return question.upper()
        >>> ask("why?"), ledger.balance("user/42").posted.usd_nano
        ('WHY?', 4)
        """
        return Charge(self, amount, accounts, within, cost, hold_id, passing, tag, meta)

    def _lineage(self, tx: Transaction, accounts: Sequence[str]) -> tuple[str, ...]:
        """The accounts and all that stands above them. A parent never changes, so that it is looked up once."""
        try:
            key = () if isinstance(accounts, str) else tuple(accounts)
            found = self._lineages.get(key)
        except TypeError:
            check_accounts(accounts)
            raise
        if found is None:
            check_accounts(accounts)
            steps: dict[str, None] = {}
            for name in accounts:
                step: str | None = name
                while step is not None and step not in steps:
                    steps[step] = None
                    step = required(tx, step).parent
            found = tuple(steps)
            if len(self._lineages) >= _CACHED_LINEAGES:
                self._lineages.clear()
            self._lineages[key] = found
        return found

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
        check_count("limit", limit)
        with self._store.read() as tx:
            return tx.history(tag, limit)

    def adopt(self, hold_id: str) -> Hold:
        """Take over an open hold, to go on where its owner stopped."""
        with self._store.write() as tx:
            record, now = lives.required_open(tx, hold_id, "adopted"), self._now(tx)
            tx.put_lease(self.owner, now + self._lease_ns)
            if record.owner != self.owner:
                record = record._replace(owner=self.owner)
                tx.put_hold(record)
                note(tx, "adopt", hold_id, {"owner": self.owner}, at_ns=now)
        self._owner.lease_due = now + self._lease_ns // 2
        return Hold(self, record, True)

    def mark_sent(self, hold_id: str) -> HoldRecord:
        """Note that the call leaves now: from here on a crash presumes the hold spent."""
        with self._store.write() as tx:
            record = lives.required_open(tx, hold_id, "sent")
            if record.sent:
                return record
            record = record._replace(sent=True)
            tx.put_hold(record)
            note(tx, "sent", hold_id, EMPTY, at_ns=self._now(tx))
            return record

    def extend(self, hold_id: str, to: Amount) -> HoldRecord:
        """Raise an open hold to at least `to` in each unit, where it fits. Raises `BudgetExceeded`.

        The more counts where the hold does: in the period of each window in which it was reserved.
        """
        with self._store.write() as tx:
            record = lives.required_open(tx, hold_id, "extended")
            check_amount(to)
            more = units(to.minus(record.amount))
            if more == NOTHING:
                return record
            if record.parent is not None:
                admit_within(tx, required_hold(tx, record.parent), more)
            else:
                admit_on(tx, record.accounts, more, self._now(tx), reserved_ns=record.created_ns)
            return lives.resize(tx, "extend", record, more, at_ns=self._now(tx))

    def reduce(self, hold_id: str, to: Amount) -> HoldRecord:
        """Lower an open hold to `to` in each unit, but not below what is reserved and spent within it."""
        with self._store.write() as tx:
            record = lives.required_open(tx, hold_id, "reduced")
            check_amount(to)
            least = record.reserved + record.spent
            less = units(record.amount.minus(to.at_least(least)))
            return record if less == NOTHING else lives.resize(tx, "reduce", record, minus(less), at_ns=self._now(tx))

    def settle(
        self, hold_id: str, cost: Amount = ZERO, *, presumed: bool = False, detail: Detail | None = None
    ) -> HoldRecord:
        """Book what the hold cost: `cost` plus all that was spent within it, and free the rest.

        Holds still open within it are resolved first: nothing sent → void, sent → presumed spent. The truth
        is booked in full, an overrun too. A hold that was presumed spent is corrected by this, once; a better
        presumption (``presumed``) may come before. The same settlement again changes nothing; another raises
        `HoldClosed`. One that a store failed to take (`StoreError`) is booked before this ledger's next reservation or
        settlement.
        """
        try:
            if self._owed:
                self._owed.pay()
            try:
                return self._settle(hold_id, cost, presumed, detail)
            except StoreInterrupted:
                return again(self._settle, hold_id, cost, presumed, detail)
        except StoreError:
            self._owed.note(lambda: again(self._settle, hold_id, cost, presumed, detail))
            raise

    def _settle(self, hold_id: str, cost: Amount, presumed: bool, detail: Detail | None) -> HoldRecord:
        own = units(cost)
        said = EMPTY if detail is None else _said(detail)
        with self._store.write() as tx:
            record = required_hold(tx, hold_id)
            now = self._clock() if self._clock is not None else tx.now_ns()
            if record[5] == "open":
                return lives.close(tx, record, "settled", own, at_ns=now, detail=said, presumed=presumed)
            repeat = record.settled == cost + record.spent
            # What a sweep presumed, its owner may presume as well, and knows more of: a block, what was paid inside.
            if record.presumed and not (presumed and repeat and record.state == "settled"):
                return lives.correct(tx, record, own, at_ns=now, detail=said, presumed=presumed)
            if repeat:
                return record
            raise HoldClosed(
                f"hold {hold_id!r} is {record.state} at {record.settled}; it cannot be settled again",
                hold_id=hold_id,
                state=record.state,
            )

    def presume(self, hold_id: str, *, detail: Detail | None = None) -> HoldRecord:
        """Settle an open hold at what it holds, marked as presumed: sent, and nobody knows what it used.

        What was spent within it is part of that. The same again changes nothing; raises `HoldClosed` if the truth
        is known.
        """
        with self._store.write() as tx:
            record = required_hold(tx, hold_id)
            if record.state == "open":
                return lives.presume(tx, record, at_ns=self._now(tx), detail=_said(detail))
            if record.presumed:
                return record
            raise HoldClosed(
                f"hold {hold_id!r} is {record.state} at {record.settled}; nothing is left to presume",
                hold_id=hold_id,
                state=record.state,
            )

    def void(self, hold_id: str, *, reason: str = "nothing was sent") -> HoldRecord:
        """Free a hold of which nothing was sent, and what is open within it.

        Raises `HoldClosed`, and changes nothing, if something was sent, also within it: settle that at zero.
        """
        check_text("reason", reason, least=0, most=_LONGEST_REASON)
        with self._store.write() as tx:
            record, now = required_hold(tx, hold_id), self._now(tx)
            if record.state == "voided":
                return record
            if record.state == "open":
                record = lives.close_within(tx, record, at_ns=now)  # what was sent of it is spent now
            if record.state != "open" or record.sent or record.spent:
                raise HoldClosed(
                    f"hold {hold_id!r} is {record.state} and may have been spent; settle it instead",
                    hold_id=hold_id,
                    state=record.state,
                )
            return lives.close(tx, record, "voided", NOTHING, at_ns=now, detail={"reason": reason})

    # --- leases

    def heartbeat(self) -> None:
        """Say that this ledger's owner lives: its holds are left alone for another lease."""
        with self._store.write() as tx:
            now = self._now(tx)
            tx.put_lease(self.owner, now + self._lease_ns)
        self._owner.lease_due = now + self._lease_ns // 2
        self._owed.pay()

    def sweep(self) -> list[HoldRecord]:
        """Resolve the open holds whose owner is gone, and return them.

        An owner on this host is gone if its process no longer runs; of another host's, if its lease ran out. A hold
        in which somebody who lives still holds something waits for them.
        """
        if not self.holds(state="open"):
            return []
        swept: list[HoldRecord] = []
        while found := self._sweep_some():
            swept += found
        return swept

    def _sweep_if_writable(self) -> None:
        """Sweep what can be read, though perhaps no more than read: by a role without other rights, on a full disk."""
        try:
            self.sweep()
        except StoreUnavailable as error:
            _log.warning("what dead owners hold stays held until it is swept by somebody who may write: %s", error)

    def _has_abandoned(self) -> bool:
        with self._store.read() as tx:
            return lives.abandoned(tx, at_ns=self._now(tx))

    def _sweep_some(self) -> list[HoldRecord]:
        with self._store.write() as tx:
            return lives.sweep(tx, at_ns=self._now(tx), most=SWEPT_AT_ONCE)

    def resolve(self, hold_id: str) -> HoldRecord:
        """End an open hold as `sweep` ends those of a dead owner, because you know that its owner left it.

        Nothing sent → void; sent → presumed spent. A hold that has ended stays as it is. Raises `UnknownHold`.
        """
        with self._store.write() as tx:
            record = required_hold(tx, hold_id)
            return lives.resolve(tx, record, at_ns=self._now(tx)) if record.state == "open" else record

    # --- blocks

    def lease(
        self,
        accounts: Sequence[str],
        *,
        block: Amount,
        most: Budget | None = None,
        journal: str | Path | None = None,
        name: str = "worker",
        renew_s: float = RENEW_S,
        tend_s: float | None = None,
    ) -> LeasedBudget:
        """Lease blocks of these accounts' budget, to reserve inside them without a transaction on this ledger.

        For accounts so busy that their rows are waited for. Nothing is leased before the first reservation. A block
        begins at ``block``, doubles while the worker uses it up, up to ``most`` (64 blocks unless given; a unit left
        out has no end; a single reservation may be larger), and halves while it uses little. It is settled, and
        another opened, after ``renew_s`` seconds by whoever calls `LeasedBudget.tend`, after twice that by whoever
        reserves; also after 1,000 holds and when a window of an account turns over.

        - Never overspent: what is reserved inside a block fits the block, and the block was admitted here.
        - A reservation may be refused though it would fit what other workers have free (`LeasedBudget.room`): at
          most ``most`` each, while one is renewed twice, and less as the accounts empty, since a block takes ahead at
          most an eighth of what is left. A worker that falls idle gives all back within twice ``renew_s``.
        - What is spent is posted here when its block is settled: once its time is over and the last hold in it has
          ended. Until then it is held.
        - A freeze, or a lowered limit, reaches a worker when it next tends, grows or renews.
        - With a ``journal``, a folder of this worker's own, a crash loses nothing: the folder's next user (or
          `recover`) settles each block at the truth, also if a sweep presumed it spent meanwhile. Calls in flight are
          void or presumed spent as ever. Without one the block lapses with its owner, presumed spent as a whole,
          which ``settle(block_id, true_cost)`` corrects.
        - On an account with a rolling window a block is renewed every hundredth of it: what is spent inside may leave
          the window that much early.

        `LeasedBudget.tend` is to be called about once a second: by you, or every ``tend_s`` by a thread. Raises
        `UnknownAccount`, `StoreBusy` if another worker uses the journal, `InvalidArgument` if the block is empty.
        """
        from agentbudget.ledger.blocks import Blocks, Terms, steady_ns
        from agentbudget.ledger.books import Books
        from agentbudget.ledger.leased import LeasedBudget

        if accounts:
            check_accounts(accounts)
        first = units(block)
        check_text("name", name, most=100)
        check_seconds("renew_s", renew_s)
        if tend_s is not None:
            check_seconds("tend_s", tend_s)
        if not block:
            raise InvalidArgument(
                "a block must hold something: give an amount, as in block=Amount.of(usd='0.50')",
                argument="block",
                value=block,
            )
        cap = limits(most) if most is not None else _times(first, 64)
        terms = Terms(first, cap, renew_ns=int(renew_s * NS), heartbeat_ns=self._lease_ns // 3)
        books = Books(lambda store: Ledger(store, clock=self._clock), None if journal is None else Path(journal))
        try:
            blocks = Blocks(self, accounts, terms, books=books, name=name, tick=self._clock or steady_ns)
            return LeasedBudget(accounts, blocks, tend_s=tend_s)
        except BaseException:
            books.close()
            raise

    def recover(self, journal: str | Path) -> list[HoldRecord]:
        """Settle the blocks that a worker which died left in its journal, at the truth; returns their holds.

        Raises `StoreBusy` if the worker lives, `UnknownHold` if the journal is of another ledger.
        """
        with self.lease([], block=Amount(calls=1), journal=journal) as left:
            return left.recovered

    # --- proof

    def entries(
        self, *, after: int = 0, limit: int | None = None, last: int | None = None, subject: str | None = None
    ) -> list[Entry]:
        """The journal from entry `after` + 1 on, at most `limit` of it; or its `last` entries.

        With `subject`, only the entries of one hold or account. `export` is for a journal that memory cannot hold.
        """
        for argument, value in (("after", after), ("limit", limit), ("last", last)):
            if value is not None:
                check_count(argument, value)
        with self._store.read() as tx:
            if last is not None:
                after = max(after, tx.next_seq() - 1 - last) if subject is None else after
            found: Iterator[Entry] = tx.entries(after=after)
            if subject is not None:
                found = (entry for entry in found if entry.subject == subject)
            listed = list(islice(found, limit))
            return listed if last is None else listed[max(0, len(listed) - last) :]

    def export(self, path: str | Path, *, on_page: OnPage | None = None) -> Export:
        """Write the whole journal to a file: ``.jsonl``, ``.jsonl.gz`` or ``.parquet`` (extra ``parquet``).

        A file that is there is replaced when the new one is complete. Check it with `verify_export`. Raises
        `ExportError`, `MissingDependency`, `InvalidArgument` for another suffix.
        """
        from agentbudget.ledger.export import export

        return export(self, Path(path), on_page)

    def verify(self) -> Verification:
        """Recompute every balance from the entries, and the chain of hashes; name every difference."""
        from agentbudget.ledger.verify import verify

        with self._store.read() as tx:
            return verify(tx)


def _times(amount: Units, n: int) -> Limits:
    """So many times an amount; a unit that it does not name has no end."""
    usd, tokens, calls = (n * value or None for value in amount)
    return (usd, tokens, calls)


def open_store(location: str | Path) -> Store:
    """The store at a location, as `Ledger.open` reads it."""
    check_location(location)
    text = str(location)
    if text == "memory:":
        return MemoryStore()
    if text.startswith(POSTGRES):
        from agentbudget.ledger.postgres import PostgresStore

        return PostgresStore(text)
    from agentbudget.ledger.sqlite import SqliteStore

    return SqliteStore(Path(location))


def _opening(tag: str, meta: Detail) -> Detail:
    """What the journal says of a new hold beside its amount."""
    opening: dict[str, object] = {"tag": tag} if tag else {}
    if meta:
        opening["meta"] = meta
    return opening


def _said(detail: Detail | None) -> Detail:
    """What a caller says of a settlement. Raises `InvalidArgument` on the words by which the journal marks its own."""
    if detail is None:
        return EMPTY
    check_detail("detail", detail, deepest=DEEPEST_BILL)
    taken = _OWN_WORDS.intersection(detail)
    if taken:
        raise InvalidArgument(
            f"{sorted(taken)} in what goes with a settlement are the ledger's own words; name them otherwise",
            argument="detail",
            value=detail,
        )
    return detail
