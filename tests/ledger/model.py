"""What a ledger should say, worked out anew from what was done: no balances are kept, everything is a sum over holds.

It shares no code with the ledger. Times are nanoseconds, amounts are (nano-dollars, tokens, calls).
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from functools import lru_cache
from typing import Literal
from zoneinfo import ZoneInfo

Triple = tuple[int, int, int]
Limits = tuple[int | None, int | None, int | None]
State = Literal["open", "settled", "voided", "lapsed"]
Refusal = Literal["exceeded", "frozen"]

ZERO: Triple = (0, 0, 0)
UNLIMITED: Limits = (None, None, None)
EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


def plus(a: Triple, b: Triple) -> Triple:
    return (a[0] + b[0], a[1] + b[1], a[2] + b[2])


def less(a: Triple, b: Triple) -> Triple:
    """What is left of `a` without `b`, at least nothing."""
    return (max(0, a[0] - b[0]), max(0, a[1] - b[1]), max(0, a[2] - b[2]))


def most(a: Triple, b: Triple) -> Triple:
    return (max(a[0], b[0]), max(a[1], b[1]), max(a[2], b[2]))


def fits(used: Triple, limit: Limits) -> bool:
    return all(m is None or u <= m for u, m in zip(used, limit, strict=True))


@lru_cache(maxsize=100_000)
def place(window: str, at_ns: int) -> tuple[int, ...]:
    """Where a moment stands among the periods of a window (the steps, where it rolls): later ones are greater."""
    rolling = re.fullmatch(r"(\d+)s", window)
    if rolling:
        return (at_ns * 1000 // (int(rolling[1]) * 10**9),)
    kind, _, zone = window.partition("@")
    local = (EPOCH + timedelta(seconds=at_ns // 10**9)).astimezone(ZoneInfo(zone))
    if kind == "hour":  # no zone here moves its clocks by less than an hour
        offset = local.utcoffset() or timedelta()
        return ((at_ns // 10**9 + int(offset.total_seconds()) % 3600) // 3600,)
    return (local.year, local.month, local.day) if kind == "day" else (local.year, local.month)


def first_place(window: str, now_ns: int) -> tuple[int, ...]:
    """The first period that counts now."""
    rolling = re.fullmatch(r"(\d+)s", window)
    return place(window, now_ns - int(rolling[1]) * 10**9) if rolling else place(window, now_ns)


def last_place(window: str, at_ns: int) -> tuple[int, ...]:
    """The last period that counts together with one that `at_ns` is in."""
    (start, *rest) = place(window, at_ns)
    return (start + 1000,) if window.endswith("s") else (start, *rest)


@dataclass
class Account:
    name: str
    parent: str | None
    limits: dict[str, Limits] = field(default_factory=dict[str, Limits])
    """By window; "total" is the one without end."""
    frozen: str | None = None


@dataclass
class Hold:
    id: str
    parent: Hold | None
    accounts: tuple[str, ...]
    asked: Triple
    amount: Triple
    made_ns: int
    owner: str
    state: State = "open"
    sent: bool = False
    presumed: bool = False
    own: Triple = ZERO
    """What it cost apart from what is within."""
    within: list[Hold] = field(default_factory=list["Hold"])

    @property
    def spent(self) -> Triple:
        total = ZERO
        for hold in self.within:
            if hold.state != "open":
                total = plus(total, hold.cost)
        return total

    @property
    def reserved(self) -> Triple:
        total = ZERO
        for hold in self.within:
            if hold.state == "open":
                total = plus(total, hold.amount)
        return total

    @property
    def children(self) -> int:
        return sum(hold.state == "open" for hold in self.within)

    @property
    def cost(self) -> Triple:
        return plus(self.own, self.spent)

    @property
    def depth(self) -> int:
        return 1 if self.parent is None else 1 + self.parent.depth

    @property
    def root(self) -> Hold:
        return self if self.parent is None else self.parent.root

    @property
    def left_alone(self) -> Triple:
        """What it would cost if its owner were gone."""
        spent = self.spent
        for hold in self.within:
            if hold.state == "open":
                spent = plus(spent, hold.left_alone)
        return most(self.amount, spent) if self.sent else spent


class Model:
    """Accounts, holds, leases. What changes them is told what it does; whether it may is asked first."""

    def __init__(self) -> None:
        self.accounts: dict[str, Account] = {}
        self.holds: dict[str, Hold] = {}
        self.topups: dict[str, tuple[str, str, Limits]] = {}
        self.leases: dict[str, int] = {}

    # --- what stands

    def lineage(self, names: list[str]) -> tuple[str, ...]:
        found: list[str] = []
        for name in names:
            step: str | None = name
            while step is not None:
                if step not in found:
                    found.append(step)
                step = self.accounts[step].parent
        return tuple(found)

    def held(self, account: str) -> Triple:
        total = ZERO
        for hold in self.holds.values():
            if account in hold.accounts and hold.state == "open":
                total = plus(total, hold.amount)
        return total

    def posted(self, account: str) -> Triple:
        total = ZERO
        for hold in self.holds.values():
            if account in hold.accounts and hold.state != "open":
                total = plus(total, hold.cost)
        return total

    def in_window(self, account: str, window: str, now_ns: int) -> tuple[Triple, Triple]:
        """What is held and posted of holds that were made in a period that counts now, or in what is yet to come
        for a clock that was put back."""
        held = posted = ZERO
        first = first_place(window, now_ns)
        for hold in self.holds.values():
            if account in hold.accounts and place(window, hold.made_ns) >= first:
                if hold.state == "open":
                    held = plus(held, hold.amount)
                else:
                    posted = plus(posted, hold.cost)
        return held, posted

    def _beside(self, account: str, window: str, hold: Hold, now_ns: int) -> Triple:
        """The most that counts, in each unit, in any time in which more for `hold` would count."""
        if not window.endswith("s") and place(window, hold.made_ns) >= first_place(window, now_ns):
            return plus(*self.in_window(account, window, now_ns))
        first, last = place(window, hold.made_ns), last_place(window, hold.made_ns)
        others = [other for other in self.holds.values() if account in other.accounts]
        ends = {first, *(place(window, other.made_ns) for other in others)}
        found = ZERO
        for end in ends:
            if first <= end <= last:
                begin = (end[0] - 1000,) if window.endswith("s") else first
                total = ZERO
                for other in others:
                    if begin <= place(window, other.made_ns) <= end:
                        total = plus(total, other.amount if other.state == "open" else other.cost)
                found = most(found, total)
        return found

    def room(self, account: str, now_ns: int) -> list[tuple[Triple, Limits]]:
        """What is used of each limit, and the limit."""
        found: list[tuple[Triple, Limits]] = []
        for window, limit in self.accounts[account].limits.items():
            used = (self.held(account), self.posted(account))
            if window != "total":
                used = self.in_window(account, window, now_ns)
            found.append((plus(*used), limit))
        return found

    # --- may it be

    def refusals(self, accounts: tuple[str, ...], more: Triple, now_ns: int, hold: Hold | None = None) -> set[Refusal]:
        """Why no more may be held on these accounts, for `hold` or for a new one; empty if it may."""
        found: set[Refusal] = set()
        for name in accounts:
            account = self.accounts[name]
            if account.frozen is not None:
                found.add("frozen")
            for window, limit in account.limits.items():
                if window == "total":
                    used = plus(self.held(name), self.posted(name))
                elif hold is None:
                    used = plus(*self.in_window(name, window, now_ns))
                else:
                    used = self._beside(name, window, hold, now_ns)
                if not fits(plus(used, more), limit):
                    found.add("exceeded")
        return found

    def refusals_within(self, parent: Hold, more: Triple) -> set[Refusal]:
        found: set[Refusal] = set()
        if not fits(plus(plus(parent.reserved, parent.spent), more), parent.amount):
            found.add("exceeded")
        if any(self.accounts[name].frozen is not None for name in parent.root.accounts):
            found.add("frozen")
        return found

    # --- what happens

    def reserve(
        self, hold_id: str, accounts: tuple[str, ...], parent: Hold | None, amount: Triple, now_ns: int, owner: str
    ) -> Hold:
        hold = self.holds[hold_id] = Hold(hold_id, parent, accounts, amount, amount, now_ns, owner)
        if parent is not None:
            parent.within.append(hold)
        return hold

    def limit(self, account: str, window: str, triple: Limits) -> None:
        limits = self.accounts[account].limits
        limits.pop(window, None)
        if triple != UNLIMITED:
            limits[window] = triple

    def close(self, hold: Hold, state: State, own: Triple, *, presumed: bool = False) -> None:
        """It ends; what is open within ends first, as if left alone."""
        for inner in hold.within:
            if inner.state == "open":
                self.leave(inner)
        hold.state, hold.own, hold.presumed = state, own, presumed
        self._cover(hold.parent)

    def presume(self, hold: Hold) -> None:
        for inner in hold.within:
            if inner.state == "open":
                self.leave(inner)
        self.close(hold, "settled", less(hold.amount, hold.spent), presumed=True)

    def leave(self, hold: Hold) -> None:
        """Its owner is gone."""
        for inner in hold.within:
            if inner.state == "open":
                self.leave(inner)
        if not hold.sent and hold.spent == ZERO:
            self.close(hold, "voided", ZERO)
        else:
            own = less(hold.amount, hold.spent) if hold.sent else ZERO
            self.close(hold, "lapsed", own, presumed=hold.sent)

    def correct(self, hold: Hold, own: Triple, *, presumed: bool = False) -> None:
        hold.state, hold.own, hold.presumed = "settled", own, presumed
        above = hold.parent
        while above is not None and above.state != "open":
            above = above.parent
        self._cover(above)

    def _cover(self, hold: Hold | None) -> None:
        """What was spent within an open hold weighs at once, also above what it holds."""
        while hold is not None and hold.state == "open":
            hold.amount = most(hold.amount, plus(hold.spent, hold.reserved))
            hold = hold.parent

    def left_by(self, gone: set[str]) -> list[Hold]:
        """The open holds of these owners, but for those in which somebody else still holds something."""
        waiting: set[str] = set()
        for hold in self.holds.values():
            if hold.state == "open" and hold.owner not in gone:
                step: Hold | None = hold
                while step is not None:
                    waiting.add(step.id)
                    step = step.parent
        return [hold for hold in self.holds.values() if hold.state == "open" and hold.id not in waiting]
