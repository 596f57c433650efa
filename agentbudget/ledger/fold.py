"""What the journal says: every balance, limit and hold, from the entries alone."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from datetime import datetime
from itertools import islice
from typing import Any

from agentbudget.errors import InvalidArgument
from agentbudget.ledger.records import (
    NOTHING,
    UNLIMITED,
    Account,
    Detail,
    Entry,
    Limits,
    Units,
    WindowBalance,
    WindowLimit,
    plus,
)
from agentbudget.ledger.windows import Window

STATES = {"reserve": "open", "settle": "settled", "void": "voided", "lapse": "lapsed"}
CLOSING = frozenset({"settle", "void", "lapse"})
LAST_YEAR = 9000
"""Python's calendar ends in 9999, and a period may end some time later."""


@dataclass(slots=True)
class Weight:
    """What entries say weighs on an account or on a hold."""

    held: Units = NOTHING
    posted: Units = NOTHING

    def add(self, entry: Entry) -> None:
        self.held, self.posted = plus(self.held, entry.held), plus(self.posted, entry.posted)


@dataclass(slots=True)
class Life:
    """What entries say of one hold."""

    state: str = ""
    began_ns: int = 0
    amount: Units = NOTHING
    settled: Units = NOTHING
    sent: bool = False
    presumed: bool = False
    targets: tuple[str, ...] = ()
    opened: int = 0
    closed: int | None = None

    @property
    def parent(self) -> str | None:
        """The hold that it is within."""
        first = self.targets[0] if self.targets else ""
        return first.removeprefix("hold:") if first.startswith("hold:") else None

    @property
    def accounts(self) -> tuple[str, ...]:
        """The accounts that it weighs on."""
        return self.targets if self.parent is None else ()

    def add(self, entry: Entry) -> None:
        if entry.kind == "reserve":
            self.opened, self.began_ns, self.targets = entry.seq, entry.at_ns, entry.targets
        if entry.kind in ("reserve", "extend", "reduce"):
            self.amount = plus(self.amount, entry.held)
        self.settled = plus(self.settled, entry.posted)
        self.sent = self.sent or entry.kind == "sent"
        self.state = STATES.get(entry.kind, self.state)
        if entry.kind in CLOSING or (entry.kind == "correct" and "because" not in entry.detail):
            self.closed, self.presumed = entry.seq, bool(entry.detail.get("presumed"))
            self.state = "settled" if entry.kind == "correct" else self.state


@dataclass(slots=True)
class Fold:
    """The journal, folded: all that the store should say."""

    weights: defaultdict[str, Weight] = field(default_factory=lambda: defaultdict[str, Weight](Weight))
    lives: defaultdict[str, Life] = field(default_factory=lambda: defaultdict[str, Life](Life))
    limits: dict[str, dict[str, Limits]] = field(default_factory=dict[str, "dict[str, Limits]"])
    parents: dict[str, str | None] = field(default_factory=dict[str, "str | None"])
    frozen: dict[str, str | None] = field(default_factory=dict[str, "str | None"])
    open_within: defaultdict[str, int] = field(default_factory=lambda: defaultdict[str, int](int))
    changes: defaultdict[str, list[tuple[int, Units, Units]]] = field(
        default_factory=lambda: defaultdict[str, "list[tuple[int, Units, Units]]"](list)
    )
    """For each account: when the hold was reserved, and what changed; what windows are made of."""
    topups: dict[str, int] = field(default_factory=dict[str, int])
    windowed: frozenset[str] = frozenset()
    """The accounts whose `changes` are wanted."""

    def add(self, entry: Entry) -> None:
        match entry.kind:
            case "account":
                self.parents[entry.subject] = entry.detail["parent"]
                self.limits[entry.subject] = {}
            case "limit" | "topup":
                if entry.kind == "topup":
                    self.topups[entry.detail["id"]] = entry.seq
                triple: list[int | None] = entry.detail["limit"]
                self.limits.setdefault(entry.subject, {})[entry.detail["window"]] = (triple[0], triple[1], triple[2])
            case "freeze" | "unfreeze":
                self.frozen[entry.subject] = entry.detail["reason"]
            case "migrate":
                pass  # says which chain this one goes on from
            case _:
                self._add_to_hold(entry)

    def _add_to_hold(self, entry: Entry) -> None:
        life = self.lives[entry.subject]
        life.add(entry)
        for target in entry.targets:
            self.weights[target].add(entry)
            if target in self.windowed:
                self.changes[target].append((life.began_ns, entry.held, entry.posted))
        if entry.kind == "reserve" or entry.kind in CLOSING:
            for target in entry.targets:
                self.open_within[target] += 1 if entry.kind == "reserve" else -1

    def account(self, name: str) -> Account:
        """The account as the entries have it."""
        limits, weight = self.limits.get(name, {}), self.weights[name]
        windows = [
            WindowLimit(Window.parse(text), triple)
            for text, triple in sorted(limits.items())
            if text != "total" and triple != UNLIMITED
        ]
        return Account(
            name,
            self.parents.get(name),
            limits.get("total", UNLIMITED),
            tuple(windows),
            weight.posted,
            weight.held,
            self.frozen.get(name),
        )

    def windows(self, name: str, now_ns: int) -> list[WindowBalance]:
        """How an account of `windowed` stands in each of its windows at a moment."""
        return [
            window_balance(
                name, limit, now_ns, [(start, *both) for start, both in self.periods(name, limit.window).items()]
            )
            for limit in self.account(name).windows
        ]

    def periods(self, account: str, window: Window) -> dict[int, tuple[Units, Units]]:
        """What is held and posted in each period of a window that the account has."""
        found: dict[int, tuple[Units, Units]] = {}
        for began_ns, held, posted in self.changes[account]:
            start = window.start(began_ns)
            before = found.get(start, (NOTHING, NOTHING))
            found[start] = (plus(before[0], held), plus(before[1], posted))
        return found


def accounts_at(entries: Callable[[], Iterable[Entry]], at: datetime) -> list[Account]:
    """Every account as the journal had it at a moment, by name.

    Where a clock was put back, what stands before an entry in the journal happened before it, whatever its time.
    """
    fold, _ = _fold_at(entries, at, frozenset())
    return [fold.account(name) for name in sorted(fold.parents)]


def windows_at(
    entries: Callable[[], Iterable[Entry]], at: datetime, names: frozenset[str]
) -> dict[str, list[WindowBalance]]:
    """How these accounts stood in each of their windows at a moment; those that there were."""
    if isinstance(at, datetime) and at.year > LAST_YEAR:
        raise InvalidArgument(f"no calendar has windows for the year {at.year}", argument="at", value=at)
    fold, at_ns = _fold_at(entries, at, names)
    return {name: fold.windows(name, at_ns) for name in sorted(names & fold.parents.keys())}


def _fold_at(entries: Callable[[], Iterable[Entry]], at: datetime, windowed: frozenset[str]) -> tuple[Fold, int]:
    """The journal as it was at a moment, and the moment in ns."""
    if not isinstance(at, datetime) or at.tzinfo is None:
        raise InvalidArgument(
            f"{at!s} is no moment with a time zone: give one, as in datetime(2026, 1, 31, tzinfo=UTC)",
            argument="at",
            value=at,
        )
    until_ns = int(at.timestamp() * 1e9)
    last = max((entry.seq for entry in entries() if entry.at_ns <= until_ns), default=0)
    fold = Fold(windowed=windowed)
    for entry in islice(entries(), last):
        fold.add(entry)
    return fold, until_ns


def window_balance(
    name: str, limit: WindowLimit, now_ns: int, periods: Iterable[tuple[int, Units, Units]]
) -> WindowBalance:
    """What counts now of the periods (start, held, posted) of an account's window."""
    window, held, posted = limit.window, NOTHING, NOTHING
    since = window.since(now_ns)
    for start, h, p in periods:
        if start >= since:
            held, posted = plus(held, h), plus(posted, p)
    return WindowBalance(name, window, limit.limits, posted, held, window.ends(window.start(now_ns)))


def meta_of(opening: Detail) -> Detail:
    """What a caller said of a hold, from the entry that opened it."""
    meta: Any = opening.get("meta", {})
    return meta
