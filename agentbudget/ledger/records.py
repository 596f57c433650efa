"""What the ledger keeps: accounts, holds and entries, as immutable values.

They are named tuples, not dataclasses: a store makes two of them for every reservation, and a tuple is made in a
third of the time. Amounts inside are triples in the order of `units`; properties give them as `Amount` and `Budget`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final, Literal, NamedTuple, Protocol, TypeVar, cast

from agentbudget.errors import InvalidAmount
from agentbudget.ledger.windows import Window
from agentbudget.money import Amount, Budget, nano_to_usd

HoldState = Literal["open", "settled", "voided", "lapsed"]
EntryKind = Literal[
    "account",
    "limit",
    "topup",
    "freeze",
    "unfreeze",
    "reserve",
    "extend",
    "reduce",
    "sent",
    "adopt",
    "settle",
    "void",
    "lapse",
    "correct",
    "migrate",
]
Detail = Mapping[str, Any]
"""JSON-serialisable facts that go with a hold or an entry: skill, model, usage, price, seconds."""

Units = tuple[int, int, int]
"""(nano-dollars, tokens, calls): the order of every triple in the ledger."""
Limits = tuple[int | None, int | None, int | None]
"""The same order; None does not limit."""

EMPTY: Final[Detail] = {}
NOTHING: Final[Units] = (0, 0, 0)
UNLIMITED: Final[Limits] = (None, None, None)

_R = TypeVar("_R")


class _New(Protocol):
    def __call__(self, kind: type[_R], fields: tuple[Any, ...], /) -> _R: ...


new_tuple: Final = cast(_New, tuple.__new__)
"""Makes a record of all its fields in half of the time that its name takes: for what every reservation makes."""


def units(amount: Amount) -> Units:
    """An amount as a triple. Raises `InvalidAmount` for a bare number, which does not say of what."""
    if not isinstance(amount, Amount):
        raise InvalidAmount(f"{amount!r} is no Amount: write Amount.of(usd='0.02', tokens=1000)", value=amount)
    return (amount.usd_nano, amount.tokens, amount.calls)


def limits(budget: Budget) -> Limits:
    """A budget as a triple; None does not limit. Raises `InvalidAmount` for what is none."""
    if not isinstance(budget, Budget):
        raise InvalidAmount(f"{budget!r} is no Budget: write Budget(usd='1.00', tokens=20_000)", value=budget)
    return (budget.usd_nano, budget.tokens, budget.calls)


def as_budget(triple: Limits) -> Budget:
    """A triple of limits as a person reads it."""
    usd_nano, tokens, calls = triple
    return Budget(usd=None if usd_nano is None else nano_to_usd(usd_nano), tokens=tokens, calls=calls)


def minus(a: Units) -> Units:
    """The triple with its signs turned."""
    return (-a[0], -a[1], -a[2])


def plus(a: Units, b: Units) -> Units:
    """The sum of two triples."""
    return (a[0] + b[0], a[1] + b[1], a[2] + b[2])


def left(limit: Limits, used: Units) -> Budget:
    """What a limit leaves beside what is used; an overrun leaves 0."""
    usd_nano, tokens, calls = (None if m is None else max(0, m - u) for m, u in zip(limit, used, strict=True))
    return as_budget((usd_nano, tokens, calls))


class WindowLimit(NamedTuple):
    """A limit that holds within a window of time."""

    window: Window
    limits: Limits


class Account(NamedTuple):
    """A named purse.

    `limit` holds for all time, ``windows`` within hours, days, months or a rolling time. `posted` + `held` never
    exceed a limit by an admission (an overrun that a provider billed is booked even so). ``frozen`` is the reason
    why nothing may be reserved, or None.
    """

    name: str
    parent: str | None = None
    limits: Limits = UNLIMITED
    windows: tuple[WindowLimit, ...] = ()
    posted_units: Units = NOTHING
    held_units: Units = NOTHING
    frozen: str | None = None

    @property
    def limit(self) -> Budget:
        """The limit for all time."""
        return as_budget(self.limits)

    @property
    def posted(self) -> Amount:
        """What was settled."""
        return Amount(*self.posted_units)

    @property
    def held(self) -> Amount:
        """What open holds set aside."""
        return Amount(*self.held_units)

    @property
    def available(self) -> Budget:
        """What a new hold may still take of `limit`; negative room after an overrun counts as 0."""
        return left(self.limits, plus(self.posted_units, self.held_units))


class WindowBalance(NamedTuple):
    """How an account stands within one window now. ``resets_ns`` is when all of it will be free again."""

    account: str
    window: Window
    limits: Limits
    posted_units: Units
    held_units: Units
    resets_ns: int

    @property
    def limit(self) -> Budget:
        """What the window admits."""
        return as_budget(self.limits)

    @property
    def posted(self) -> Amount:
        """What was settled of holds reserved within the window."""
        return Amount(*self.posted_units)

    @property
    def held(self) -> Amount:
        """What is open of holds reserved within the window."""
        return Amount(*self.held_units)

    @property
    def available(self) -> Budget:
        """What a new hold may still take."""
        return left(self.limits, plus(self.posted_units, self.held_units))


class HoldRecord(NamedTuple):
    """An amount set aside, and how its life went.

    ``number`` is the entry that opened it, ``closed`` the one that last said how it ended. ``accounts`` are the
    accounts it weighs on, ancestors included; empty for a hold within another (``parent``), which weighs on that
    one. `reserved` and `spent` are what open and closed holds within this one take of `amount`; ``children`` counts
    the open ones. `settled` is what it cost in the end; ``presumed`` marks a settlement at the held amount because
    nobody knows better.
    """

    number: int
    id: str
    parent: str | None
    accounts: tuple[str, ...]
    amount_units: Units
    state: HoldState
    sent: bool
    owner: str
    tag: str
    meta: Detail
    created_ns: int
    reserved_units: Units = NOTHING
    spent_units: Units = NOTHING
    children: int = 0
    settled_units: Units | None = None
    presumed: bool = False
    closed: int | None = None
    closed_ns: int | None = None
    detail: Detail = EMPTY

    @property
    def amount(self) -> Amount:
        """What is (or was, when it closed) set aside."""
        return Amount(*self.amount_units)

    @property
    def reserved(self) -> Amount:
        """What open holds within this one take of it."""
        return Amount(*self.reserved_units)

    @property
    def spent(self) -> Amount:
        """What closed holds within this one cost."""
        return Amount(*self.spent_units)

    @property
    def settled(self) -> Amount | None:
        """What it cost in the end; None while it is open."""
        return None if self.settled_units is None else Amount(*self.settled_units)

    @property
    def room(self) -> Amount:
        """What holds within this one may still take."""
        a, r, s = self.amount_units, self.reserved_units, self.spent_units
        return Amount(max(0, a[0] - r[0] - s[0]), max(0, a[1] - r[1] - s[1]), max(0, a[2] - r[2] - s[2]))

    @property
    def overrun(self) -> Amount:
        """Settled above the hold, per unit."""
        if self.settled_units is None:
            return Amount()
        s, a = self.settled_units, self.amount_units
        return Amount(max(0, s[0] - a[0]), max(0, s[1] - a[1]), max(0, s[2] - a[2]))


def opened(
    number: int,
    hold_id: str,
    parent: str | None,
    accounts: tuple[str, ...],
    amount: Units,
    owner: str,
    tag: str,
    meta: Detail,
    at_ns: int,
) -> HoldRecord:
    """A hold as it begins."""
    # fmt: off
    return new_tuple(HoldRecord, (
        number, hold_id, parent, accounts, amount, "open", False, owner, tag, meta, at_ns,
        NOTHING, NOTHING, 0, None, False, None, None, EMPTY,
    ))
    # fmt: on


def closed(
    hold: HoldRecord, state: HoldState, total: Units, number: int, at_ns: int, detail: Detail, presumed: bool
) -> HoldRecord:
    """A hold as it ends, by entry `number`."""
    # fmt: off
    (first, hold_id, parent, accounts, amount, _, sent, owner, tag, meta, began_ns,
     reserved, spent, children, _, _, _, _, _) = hold
    return new_tuple(HoldRecord, (
        first, hold_id, parent, accounts, amount, state, sent, owner, tag, meta, began_ns,
        reserved, spent, children, total, presumed, number, at_ns, detail,
    ))
    # fmt: on


class Entry(NamedTuple):
    """One immutable line of the journal. ``targets`` are the accounts (or ``hold:<id>``) on which ``held`` and
    ``posted`` weigh, as signed changes; ``hash`` covers this line and the hash of the line before."""

    seq: int
    at_ns: int
    kind: EntryKind
    subject: str
    targets: tuple[str, ...]
    held: Units
    posted: Units
    detail: Detail
    hash: str


@dataclass(frozen=True, slots=True)
class Verification:
    """What `Ledger.verify` found: the number of things checked, and every difference in words."""

    accounts: int
    holds: int
    entries: int
    problems: tuple[str, ...] = ()

    @property
    def ok(self) -> bool:
        """True if every balance is the fold of the entries and the chain of hashes is whole."""
        return not self.problems
