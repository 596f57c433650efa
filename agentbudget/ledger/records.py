"""What the ledger keeps: accounts, holds and entries, as immutable values."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from agentbudget.money import ZERO, Amount, Budget

HoldState = Literal["open", "settled", "voided", "lapsed"]
EntryKind = Literal["account", "limit", "reserve", "extend", "settle", "void", "lapse", "correct"]
Detail = Mapping[str, Any]
"""JSON-serialisable facts that go with a hold or an entry: skill, model, usage, price, seconds."""


@dataclass(frozen=True, slots=True)
class Delta:
    """A signed change of what is held and what is posted, in every unit."""

    held: tuple[int, int, int] = (0, 0, 0)
    posted: tuple[int, int, int] = (0, 0, 0)


def units(amount: Amount) -> tuple[int, int, int]:
    """(nano-dollars, tokens, calls): the order of every triple in the ledger."""
    return (amount.usd_nano, amount.tokens, amount.calls)


def minus(a: tuple[int, int, int]) -> tuple[int, int, int]:
    """The triple with its signs turned."""
    return (-a[0], -a[1], -a[2])


def plus(a: tuple[int, int, int], b: tuple[int, int, int]) -> tuple[int, int, int]:
    """The sum of two triples."""
    return (a[0] + b[0], a[1] + b[1], a[2] + b[2])


@dataclass(frozen=True, slots=True)
class Account:
    """A named purse. ``limit`` fields that are None do not limit; `posted` + `held` never exceed the others
    by an admission (an overrun that a provider billed is booked even so)."""

    name: str
    parent: str | None = None
    limit: Budget = field(default_factory=Budget)
    posted: Amount = ZERO
    held: Amount = ZERO

    @property
    def available(self) -> Budget:
        """What a new hold may still take; negative room after an overrun counts as 0."""

        def left(limit: int | None, posted: int, held: int) -> int | None:
            return None if limit is None else max(0, limit - posted - held)

        usd_nano = left(self.limit.usd_nano, self.posted.usd_nano, self.held.usd_nano)
        return Budget(
            usd=None if usd_nano is None else Amount(usd_nano).usd,
            tokens=left(self.limit.tokens, self.posted.tokens, self.held.tokens),
            calls=left(self.limit.calls, self.posted.calls, self.held.calls),
        )


@dataclass(frozen=True, slots=True)
class HoldRecord:
    """An amount set aside, and how its life went.

    ``accounts`` are the accounts it weighs on, ancestors included; empty for a hold within another
    (``parent``), which weighs on that one. ``reserved`` and ``spent`` are what open and closed holds within
    this one take of ``amount``. ``settled`` is what it cost in the end; ``presumed`` marks a settlement at
    the held amount because nobody knows better.
    """

    id: str
    parent: str | None
    accounts: tuple[str, ...]
    amount: Amount
    state: HoldState
    sent: bool
    owner: str
    lease_until_ns: int
    tag: str
    meta: Detail
    created_ns: int
    reserved: Amount = ZERO
    spent: Amount = ZERO
    settled: Amount | None = None
    presumed: bool = False
    closed_ns: int | None = None
    detail: Detail = field(default_factory=dict[str, Any])

    @property
    def room(self) -> Amount:
        """What holds within this one may still take."""
        return self.amount.minus(self.reserved).minus(self.spent)

    @property
    def overrun(self) -> Amount:
        """Settled above the hold, per unit."""
        return ZERO if self.settled is None else self.settled.minus(self.amount)


@dataclass(frozen=True, slots=True)
class Entry:
    """One immutable line of the journal. ``targets`` are the accounts (or ``hold:<id>``) that ``delta`` changes;
    ``hash`` covers this line and the hash of the line before."""

    seq: int
    at_ns: int
    kind: EntryKind
    subject: str
    targets: tuple[str, ...]
    delta: Delta
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
