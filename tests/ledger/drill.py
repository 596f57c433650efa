"""Operations on a ledger, drawn at random and foreseen by `tests.ledger.model`; after each, everything is compared."""

from __future__ import annotations

import shutil
import tempfile
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from random import Random
from typing import Final, Literal

import pytest

from agentbudget.errors import (
    AccountConflict,
    AccountFrozen,
    BudgetExceeded,
    HoldClosed,
    HoldConflict,
    Mistake,
    UnknownAccount,
    UnknownHold,
)
from agentbudget.ledger import Account as Told
from agentbudget.ledger import Hold as Held
from agentbudget.ledger import HoldRecord, Ledger, WindowBalance, limits
from agentbudget.ledger.core import open_store
from agentbudget.ledger.owners import new_owner
from agentbudget.ledger.store import Store
from agentbudget.money import Amount, Budget, nano_to_usd
from agentbudget.testing import ManualClock
from tests.ledger.model import (
    UNLIMITED,
    ZERO,
    Account,
    Hold,
    Limits,
    Model,
    Refusal,
    Triple,
    first_place,
    less,
    most,
    place,
    plus,
)

TREE: Final[dict[str, str | None]] = {
    "org": None,
    "org/a": "org",
    "org/b": "org",
    "org/a/x": "org/a",
    "user": None,
    "run": None,
}
WINDOWS: Final = {
    "total": "total",
    "day": "day@UTC",
    "hour@Europe/Berlin": "hour@Europe/Berlin",
    "day@Europe/Berlin": "day@Europe/Berlin",
    "day@Africa/Cairo": "day@Africa/Cairo",  # its clocks move at midnight
    "day@America/Havana": "day@America/Havana",  # it has midnight twice
    "hour@Asia/Kolkata": "hour@Asia/Kolkata",
    "month@America/New_York": "month@America/New_York",
    "90s": "90s",
    "15m": "900s",
    "24h": "86400s",
}
"""As they are written, and as they are called."""
STARTS: Final = (
    datetime(2026, 3, 28, 23, 30, tzinfo=UTC),  # an hour and a half before Berlin's clocks go forward
    datetime(2026, 10, 25, 0, 15, tzinfo=UTC),  # in the hour that Berlin has twice
    datetime(2026, 4, 23, 21, 40, tzinfo=UTC),  # before the midnight that Cairo leaves out
    datetime(2026, 10, 29, 20, 50, tzinfo=UTC),  # before the hour that Cairo has twice
    datetime(2026, 11, 1, 4, 10, tzinfo=UTC),  # in the first of the two hours after Havana's midnight
    datetime(2027, 1, 1, 4, 59, 59, tzinfo=UTC),  # a second before New York's new year
    datetime(2028, 2, 29, 18, 29, 30, tzinfo=UTC),
)
PASSING_S: Final = (0.000001, 0.09, 1, 29, 31, 61, 95, 400, 910, 1800, 3600, 7300, 40_000, 86_500, 200_000, 3e6)
LEASE_NS: Final = 60 * 10**9
DAY_NS: Final = 86_400 * 10**9
REFUSED: Final[dict[Refusal, type[Exception]]] = {"exceeded": BudgetExceeded, "frozen": AccountFrozen}

Actor = Literal["here", "there", "yonder", "ghost"]
ACTORS: Final[tuple[Actor, ...]] = ("here", "there", "yonder", "ghost")
"""A process that runs; two of other hosts, of which the lease says whether they do; one that has ended."""


def amount(triple: Triple) -> Amount:
    return Amount(*triple)


def budget(triple: Limits) -> Budget:
    usd_nano, tokens, calls = triple
    return Budget(usd=None if usd_nano is None else nano_to_usd(usd_nano), tokens=tokens, calls=calls)


def units(of: Amount) -> Triple:
    return (of.usd_nano, of.tokens, of.calls)


@dataclass(frozen=True)
class Place:
    """A new store, by two connections where it can have two, and how it goes away."""

    name: str
    stores: tuple[Store, Store]
    remove: Callable[[], None]


def in_memory() -> Place:
    store = open_store("memory:")
    return Place("memory", (store, store), store.close)


def in_a_file() -> Place:
    folder = tempfile.mkdtemp()
    path = Path(folder) / "ledger.db"
    stores = (open_store(path), open_store(path))

    def remove() -> None:
        for store in stores:
            store.close()
        shutil.rmtree(folder)

    return Place("sqlite", stores, remove)


def at(url: str) -> Place:
    """In a new database of a server."""
    stores = (open_store(url), open_store(url))

    def remove() -> None:
        for store in stores:
            store.close()

    return Place("postgresql", stores, remove)


class Drill:
    """One ledger, used by four owners through two connections, and the model of it."""

    def __init__(self, place: Place, random: Random) -> None:
        self.place = place
        self.model = Model()
        self.clock = ManualClock(int(random.choice(STARTS).timestamp()) * 10**9 + random.randrange(10**9))
        first, second = place.stores
        ghost = new_owner()
        ghost = f"{ghost.partition(':')[0]}:999999999:{ghost.split(':', 2)[2]}"
        self.ledgers: dict[Actor, Ledger] = {
            "here": Ledger(first, clock=self.clock),
            "there": Ledger(first, clock=self.clock, owner="there:1:x"),
            "yonder": Ledger(second, clock=self.clock, owner="yonder:2:y"),
            "ghost": Ledger(second, clock=self.clock, owner=ghost),
        }
        self.windows = ["total", *random.sample(list(WINDOWS)[1:], 3)]
        """The few that are used in this life, so that they are taken away and come again."""
        self.due: Counter[Actor] = Counter()
        self.done: list[tuple[str, Callable[[], object]]] = []
        """What may be asked again at any time, and changes nothing then."""
        self.counts: Counter[str] = Counter()
        self.ids = 0
        while not self.model.accounts:
            self.account(random)

    def close(self) -> None:
        self.place.remove()

    # --- drawing

    def actor(self, random: Random) -> Actor:
        return random.choice(ACTORS)

    def hold(self, random: Random, *, state: str | None = None) -> Hold | None:
        holds = [hold for hold in self.model.holds.values() if state is None or hold.state == state]
        return random.choice(holds[-12:] if random.randrange(3) else holds) if holds else None

    def mostly_open(self, random: Random) -> Hold | None:
        """Often one with others in it, or in another."""
        holds = [hold for hold in self.model.holds.values() if hold.state == "open"]
        nested = [hold for hold in holds if hold.within or hold.parent is not None]
        if nested and random.randrange(2):
            return random.choice(nested)
        return self.hold(random, state="open" if random.randrange(8) else None)

    def fresh(self, kind: str) -> str:
        self.ids += 1
        return f"{kind}{self.ids}"

    def triple(self, random: Random, up_to: int = 400) -> Triple:
        return (random.randint(0, up_to), random.randint(0, up_to), random.randint(0, 3))

    def some_limits(self, random: Random) -> Limits:
        if random.randrange(2):
            return UNLIMITED
        most = random.choice((0, 500, 500, 3000, 9000, 20_000))
        usd, tokens, calls = (random.choice((None, random.randint(most // 2, most))) for _ in range(3))
        return (usd, tokens, None if calls is None else calls // 100)

    def near(self, random: Random, used: list[tuple[Triple, Limits]], otherwise: Triple) -> Triple:
        """Exactly what is left of some limit, or one more: there a ledger shows whether it can count."""
        left = [
            (unit, m - u)
            for taken, limit in used
            for unit, (u, m) in enumerate(zip(taken, limit, strict=True))
            if m is not None and m >= u
        ]
        if not left or random.randrange(3):
            return otherwise
        unit, rest = random.choice(left)
        more = list(otherwise)
        more[unit] = rest + random.randint(0, 1)
        return (more[0], more[1], more[2])

    # --- doing

    def now(self) -> int:
        return self.clock()

    def last(self) -> int:
        entries = self.ledgers["here"].entries(last=1)
        return entries[0].seq if entries else 0

    def count(self, what: str) -> None:
        self.counts[what] += 1

    def refused(self, what: str, errors: tuple[type[Exception], ...], call: Callable[[], object]) -> None:
        """It raises one of these, and changes nothing."""
        before = self.last()
        with pytest.raises(errors):
            call()
        assert self.last() == before
        self.count(f"{what}: refused")

    def idle(self, call: Callable[[], object], *errors: type[Exception]) -> None:
        """It changes nothing; it may be refused."""
        before = self.last()
        with suppress(*errors):
            call()
        assert self.last() == before

    def did(self, what: str, again: Callable[[], object], random: Random, *, for_good: bool = False) -> None:
        """It is done: asked again at once, and, if it names what it does, at any time, it changes nothing."""
        self.count(what)
        if for_good:
            self.done.append((what, again))
        if random.randrange(4) == 0:
            self.idle(again)
            self.count(f"{what}: again")

    def may(self, what: str, refusals: set[Refusal], call: Callable[[], object]) -> bool:
        """Whether it was done; refused if and only if the model says so, and for a reason that it knows."""
        if refusals:
            self.refused(what, tuple(REFUSED[reason] for reason in refusals), call)
            return False
        call()
        return True

    def leased(self, actor: Actor, *, always: bool = False) -> None:
        if always or self.now() >= self.due[actor]:
            self.model.leases[self.ledgers[actor].owner] = self.now() + LEASE_NS
            self.due[actor] = self.now() + LEASE_NS // 2

    # --- operations on accounts

    def account(self, random: Random) -> None:
        name, ledger = random.choice(list(TREE)), self.ledgers[self.actor(random)]
        parent, limit = TREE[name], self.some_limits(random)
        windows = {window: self.some_limits(random) for window in random.sample(self.windows[1:], random.randint(0, 2))}

        def call() -> object:
            given = {window: budget(triple) for window, triple in windows.items()}
            return ledger.account(name, parent=parent, limit=budget(limit), windows=given)

        if parent is not None and parent not in self.model.accounts:
            self.refused("account", (UnknownAccount,), call)
            return
        call()
        self.model.accounts.setdefault(name, Account(name, parent))
        for window, triple in [("total", limit), *windows.items()]:
            self.model.limit(name, WINDOWS[window], triple)
        self.did("account", call, random)
        others = [known for known in (*self.model.accounts, "nobody") if known not in (parent, name)]
        self.refused(
            "account elsewhere", (AccountConflict,), lambda: ledger.account(name, parent=random.choice(others))
        )

    def set_limit(self, random: Random) -> None:
        name, window = random.choice(list(self.model.accounts)), random.choice(self.windows)
        ledger, triple = self.ledgers[self.actor(random)], self.some_limits(random)
        if random.randrange(4) == 0:
            triple = UNLIMITED

        def call() -> object:
            return ledger.set_limit(name, budget(triple), window=window)

        call()
        self.model.limit(name, WINDOWS[window], triple)
        self.did("set_limit" if triple != UNLIMITED else "set_limit: removed", call, random)

    def top_up(self, random: Random) -> None:
        name, window = random.choice(list(self.model.accounts)), random.choice(self.windows)
        ledger, ours = self.ledgers[self.actor(random)], self.model.accounts[name].limits
        more: Limits = (random.choice((None, random.randint(0, 300))), random.choice((None, 100)), None)
        if self.model.topups and random.randrange(3) == 0:
            topup = random.choice(list(self.model.topups))
        else:
            topup = self.fresh("t")

        def call() -> object:
            return ledger.top_up(name, budget(more), topup_id=topup, window=window)

        if topup in self.model.topups:
            if self.model.topups[topup] == (name, WINDOWS[window], more):
                self.idle(call)
            else:
                self.refused("top_up again", (AccountConflict,), call)
            return
        before = ours.get(WINDOWS[window], UNLIMITED)
        if any(m and limit is None for m, limit in zip(more, before, strict=True)):
            self.refused("top_up", (Mistake,), call)
            return
        call()
        usd, tokens, calls = (b if b is None else b + (m or 0) for b, m in zip(before, more, strict=True))
        self.model.limit(name, WINDOWS[window], (usd, tokens, calls))
        self.model.topups[topup] = (name, WINDOWS[window], more)
        self.did("top_up", call, random, for_good=True)

    def freeze(self, random: Random) -> None:
        name, ledger = random.choice(list(self.model.accounts)), self.ledgers[self.actor(random)]
        reason = random.choice((*[None] * 14, "", "stop"))

        def call() -> object:
            return ledger.unfreeze(name) if reason is None else ledger.freeze(name, reason=reason)

        call()
        self.model.accounts[name].frozen = reason
        self.did("unfreeze" if reason is None else "freeze", call, random)

    # --- operations on holds

    def reserve(self, random: Random) -> None:
        actor, hold_id = self.actor(random), self.fresh("h")
        names = random.sample(list(self.model.accounts), min(random.choice((1, 1, 2, 3)), len(self.model.accounts)))
        lineage, tag = self.model.lineage(names), random.choice(("", "skill"))
        more = self.triple(random, random.choice((30, 150, 400)))
        more = self.near(random, [room for name in lineage for room in self.model.room(name, self.now())], more)
        ledger = self.ledgers[actor]

        def call() -> object:
            return ledger.reserve(hold_id, amount(more), accounts=names, tag=tag, meta={"id": hold_id})

        if self.may("reserve", self.model.refusals(lineage, more, self.now()), call):
            self.model.reserve(hold_id, lineage, None, more, self.now(), ledger.owner)
            self.leased(actor)
            self.did("reserve", call, random, for_good=True)

    def reserve_within(self, random: Random) -> None:
        parent = self.mostly_open(random)
        if parent is None or parent.depth >= 3:
            return
        actor, hold_id = self.actor(random), self.fresh("w")
        ledger, room = self.ledgers[actor], less(less(parent.amount, parent.reserved), parent.spent)
        more = self.triple(random, 150)
        if random.randrange(4):
            more = (random.randint(0, room[0]), random.randint(0, room[1]), random.randint(0, room[2]))
        more = self.near(random, [(ZERO, room)], more)

        def call() -> object:
            return ledger.reserve(hold_id, amount(more), within=parent.id)

        if parent.state != "open":
            self.refused("reserve within a closed hold", (HoldClosed,), call)
        elif self.may(f"reserve at depth {parent.depth + 1}", self.model.refusals_within(parent, more), call):
            self.model.reserve(hold_id, (), parent, more, self.now(), ledger.owner)
            self.leased(actor)
            self.did(f"reserve at depth {parent.depth + 1}", call, random, for_good=True)

    def reserve_anew(self, random: Random) -> None:
        """The id of a hold for something else."""
        hold, ledger = self.hold(random), self.ledgers[self.actor(random)]
        if hold is None:
            return
        other = plus(hold.asked, hold.amount)
        if other not in (hold.asked, hold.amount):
            self.refused("reserve for another amount", (HoldConflict,), lambda: self._same(ledger, hold, other))
        names = [random.choice(list(self.model.accounts))]
        if self.model.lineage(names) != hold.accounts:
            self.refused(
                "reserve on other accounts",
                (HoldConflict,),
                lambda: ledger.reserve(hold.id, amount(hold.asked), accounts=names),
            )
        self.idle(lambda: self._same(ledger, hold, hold.amount))
        self.refused("reserve on nobody", (UnknownAccount,), lambda: ledger.reserve("x", Amount(), accounts=["nobody"]))
        self.refused("reserve within nothing", (UnknownHold,), lambda: ledger.reserve("x", Amount(), within="nothing"))

    def _same(self, ledger: Ledger, hold: Hold, more: Triple) -> object:
        if hold.parent is not None:
            return ledger.reserve(hold.id, amount(more), within=hold.parent.id)
        return ledger.reserve(hold.id, amount(more), accounts=hold.accounts)

    def extend(self, random: Random) -> None:
        hold, ledger = self.mostly_open(random), self.ledgers[self.actor(random)]
        if hold is None:
            return
        more = self.triple(random, 80)
        if hold.parent is None:
            used = [room for name in hold.accounts for room in self.model.room(name, self.now())]
            more = self.near(random, used, more)
        to = plus(hold.amount, more)

        def call() -> object:
            return ledger.extend(hold.id, amount(to))

        if hold.state != "open":
            self.refused("extend a closed hold", (HoldClosed,), call)
            return
        if more == ZERO:
            self.idle(call)
            return
        if hold.parent is not None:
            refusals = self.model.refusals_within(hold.parent, more)
        else:
            refusals = self.model.refusals(hold.accounts, more, self.now(), hold)
        if self.may("extend", refusals, call):
            hold.amount = to
            self.did("extend", call, random)

    def reduce(self, random: Random) -> None:
        hold, ledger = self.mostly_open(random), self.ledgers[self.actor(random)]
        if hold is None:
            return
        to = self.triple(random, 250)

        def call() -> object:
            return ledger.reduce(hold.id, amount(to))

        if hold.state != "open":
            self.refused("reduce a closed hold", (HoldClosed,), call)
            return
        call()
        hold.amount = less(hold.amount, less(hold.amount, most(to, plus(hold.reserved, hold.spent))))
        self.did("reduce", call, random)

    def mark_sent(self, random: Random) -> None:
        hold, ledger = self.mostly_open(random), self.ledgers[self.actor(random)]
        if hold is None:
            return

        def call() -> object:
            return ledger.mark_sent(hold.id)

        if hold.state != "open":
            self.refused("mark_sent of a closed hold", (HoldClosed,), call)
            return
        call()
        hold.sent = True
        self.did("mark_sent", call, random)

    def settle(self, random: Random) -> None:
        hold = self.mostly_open(random)
        if hold is None or hold.state != "open":
            return
        ledger, presumed = self.ledgers[self.actor(random)], random.randrange(6) == 0
        room = less(less(hold.amount, hold.spent), hold.reserved)
        kind = random.choice(("exactly", "under", "over", "at nothing"))
        cost = {
            "exactly": room,
            "under": (random.randint(0, room[0]), random.randint(0, room[1]), random.randint(0, room[2])),
            "over": plus(room, self.triple(random, 60)),
            "at nothing": ZERO,
        }[kind]

        def call() -> object:
            return ledger.settle(hold.id, amount(cost), presumed=presumed, detail={"kind": kind})

        call()
        self.model.close(hold, "settled", cost, presumed=presumed)
        if presumed:
            self.did("settle: presumed", call, random)
        else:
            self.did(f"settle {kind}", call, random, for_good=True)

    def settle_late(self, random: Random) -> None:
        """The truth of what was presumed; of anything else that is closed, another truth."""
        closed = [hold for hold in self.model.holds.values() if hold.state != "open"]
        guessed = [hold for hold in closed if hold.presumed]
        if not closed:
            return
        hold = random.choice(guessed if guessed and random.randrange(3) else closed)
        ledger, own = self.ledgers[self.actor(random)], self.triple(random, 200)

        def call() -> object:
            return ledger.settle(hold.id, amount(own))

        if hold.presumed:
            call()
            self.model.correct(hold, own)
            self.did("correct", call, random, for_good=True)
        elif own == hold.own:
            self.idle(call)
        else:
            self.refused("settle a closed hold", (HoldClosed,), call)

    def void(self, random: Random) -> None:
        hold, ledger = self.mostly_open(random), self.ledgers[self.actor(random)]
        if hold is None:
            return

        def call() -> object:
            return ledger.void(hold.id)

        if hold.state == "voided":
            self.idle(call)
        elif hold.state != "open" or hold.sent or hold.left_alone != ZERO:
            self.refused("void", (HoldClosed,), call)
        else:
            call()
            self.model.close(hold, "voided", ZERO)
            self.did("void", call, random, for_good=True)

    def presume(self, random: Random) -> None:
        hold, ledger = self.hold(random, state=random.choice(("open", None))), self.ledgers[self.actor(random)]
        if hold is None:
            return

        def call() -> object:
            return ledger.presume(hold.id)

        if hold.state == "open":
            call()
            self.model.presume(hold)
            self.did("presume", call, random)
        elif hold.presumed:
            self.idle(call)
        else:
            self.refused("presume what is known", (HoldClosed,), call)

    def presume_better(self, random: Random) -> None:
        """Another presumption, before the truth."""
        guessed = [hold for hold in self.model.holds.values() if hold.presumed]
        if not guessed:
            return
        hold, ledger, own = random.choice(guessed), self.ledgers[self.actor(random)], self.triple(random, 100)

        def call() -> object:
            return ledger.settle(hold.id, amount(own), presumed=True)

        if own == hold.own and hold.state == "settled":
            self.idle(call)
            return
        call()
        self.model.correct(hold, own, presumed=True)
        self.did("presume better", call, random)

    def resolve(self, random: Random) -> None:
        """Somebody knows that its owner left it."""
        hold, ledger = self.mostly_open(random), self.ledgers[self.actor(random)]
        if hold is None:
            return

        def call() -> object:
            return ledger.resolve(hold.id)

        if hold.state != "open":
            self.idle(call)
            return
        call()
        self.model.leave(hold)
        self.did("resolve", call, random, for_good=True)

    def adopt(self, random: Random) -> None:
        hold, actor = self.mostly_open(random), self.actor(random)
        if hold is None:
            return
        ledger = self.ledgers[actor]

        def call() -> object:
            return ledger.adopt(hold.id)

        if hold.state != "open":
            self.refused("adopt a closed hold", (HoldClosed,), call)
            return
        call()
        hold.owner = ledger.owner
        self.leased(actor, always=True)
        self.did("adopt", call, random)

    def leave(self, random: Random) -> None:
        """What the block around a hold does when it ends."""
        hold, ledger = self.hold(random, state="open"), self.ledgers[self.actor(random)]
        if hold is None:
            return
        Held(ledger, self._record(ledger, hold)).__exit__(None, None, None)
        if hold.sent:
            self.model.presume(hold)
        elif hold.spent != ZERO or hold.children:
            self.model.close(hold, "settled", ZERO)
        else:
            self.model.close(hold, "voided", ZERO)
        self.count("block ends")

    def _record(self, ledger: Ledger, hold: Hold) -> HoldRecord:
        record = ledger.hold(hold.id)
        assert record is not None
        return record

    # --- owners, clocks, repetitions

    def heartbeat(self, random: Random) -> None:
        actor = self.actor(random)
        self.ledgers[actor].heartbeat()
        self.leased(actor, always=True)
        self.count("heartbeat")

    def sweep(self, random: Random) -> None:
        ledger = self.ledgers[self.actor(random)]
        gone = {self.ledgers["ghost"].owner}
        for actor in ("there", "yonder"):
            owner = self.ledgers[actor].owner
            if self.model.leases.get(owner, 0) < self.now():
                gone.add(owner)
        left = self.model.left_by(gone)
        assert [record.id for record in ledger.sweep()] == [hold.id for hold in left]
        for hold in left:
            if hold.state == "open":
                self.model.leave(hold)
        self.did("sweep" if left else "sweep: nothing", ledger.sweep, random)

    def pass_time(self, random: Random) -> None:
        self.clock.advance(random.choice(PASSING_S) * random.choice((1, 1, random.random())))
        self.count("time passes")

    def pass_time_to_an_edge(self, random: Random) -> None:
        """To the moment at which a hold leaves a window, give or take a nanosecond."""
        hold, window = self.hold(random), WINDOWS[random.choice(self.windows[1:])]
        if hold is None:
            return
        before, after = self.now(), self.now() + 40 * DAY_NS
        while after - before > 1:
            middle = (before + after) // 2
            if first_place(window, middle) > place(window, hold.made_ns):
                after = middle
            else:
                before = middle
        self.clock.now_ns = after + random.randint(-1, 1)
        self.count("time passes to an edge")

    def reserve_what_cannot_be_kept(self, random: Random) -> None:
        """It fails after it was admitted; the id is free for another."""
        parent, hold_id = self.hold(random, state="open"), self.fresh("n")
        ledger, name = self.ledgers[self.actor(random)], random.choice(list(self.model.accounts))
        if parent is None or self.model.refusals_within(parent, ZERO) or parent.depth >= 3:
            return
        bad = {"unfit": object()}
        self.refused(
            "reserve, unfit", (Mistake,), lambda: ledger.reserve(hold_id, Amount(), within=parent.id, meta=bad)
        )
        self.refused("settle, unfit", (Mistake,), lambda: ledger.settle(parent.id, Amount(1), detail=bad))
        lineage = self.model.lineage([name])

        def call() -> object:
            return ledger.reserve(hold_id, Amount(), accounts=[name])

        if self.may("reserve", self.model.refusals(lineage, ZERO, self.now()), call):
            self.model.reserve(hold_id, lineage, None, ZERO, self.now(), ledger.owner)
            self.leased(next(actor for actor in ACTORS if self.ledgers[actor] is ledger))

    def put_back_the_clock(self, random: Random) -> None:
        self.clock.advance(-random.choice(PASSING_S[:-1]))
        self.count("clock put back")

    def again(self, random: Random) -> None:
        """Anything that was done before and names what it does."""
        if self.done:
            what, call = random.choice(self.done)
            self.idle(call)
            self.count(f"{what.partition(' ')[0].rstrip(':')}: again, later")

    # --- everything compared

    def check(self, random: Random) -> None:
        """Both connections say what the model says; `verify` agrees."""
        for ledger in {id(ledger): ledger for ledger in (self.ledgers["here"], self.ledgers["yonder"])}.values():
            accounts = ledger.accounts()
            assert [account.name for account in accounts] == sorted(self.model.accounts)
            for account in accounts:
                self._check_account(ledger, account)
        reader = self.ledgers[random.choice(ACTORS)]
        told = reader.holds()
        assert [record.id for record in told] == list(self.model.holds)
        for record in told:
            self._check_hold(record)
        verification = reader.verify()
        assert verification.ok, verification.problems

    def _check_account(self, ledger: Ledger, told: Told) -> None:
        known = self.model.accounts[told.name]
        assert (told.parent, told.frozen) == (known.parent, known.frozen)
        limit = known.limits.get("total", UNLIMITED)
        self._check_balance(told, limit, self.model.held(told.name), self.model.posted(told.name))
        windows = ledger.windows(told.name)
        assert [window.window.text for window in windows] == sorted(known.limits.keys() - {"total"})
        for window in windows:
            text = window.window.text
            self._check_balance(window, known.limits[text], *self.model.in_window(told.name, text, self.now()))
            assert window.resets_ns > self.now()

    def _check_balance(self, told: Told | WindowBalance, limit: Limits, held: Triple, posted: Triple) -> None:
        assert told.limits == limit
        assert (units(told.held), units(told.posted)) == (held, posted)
        for m, h, p, a in zip(limit, held, posted, limits(told.available), strict=True):
            assert (m is None) == (a is None)
            if m is not None and a is not None:
                assert h + p + a == m if h + p <= m else a == 0

    def _check_hold(self, told: HoldRecord) -> None:
        hold = self.model.holds[told.id]
        assert told.parent == (None if hold.parent is None else hold.parent.id)
        assert told.accounts == hold.accounts
        assert (told.state, told.sent, told.presumed) == (hold.state, hold.sent, hold.presumed)
        assert (told.owner, told.created_ns) == (hold.owner, hold.made_ns)
        assert units(told.amount) == hold.amount
        assert (units(told.reserved), units(told.spent), told.children) == (hold.reserved, hold.spent, hold.children)
        assert told.settled == (None if hold.state == "open" else amount(hold.cost))


OPERATIONS: Final[dict[str, int]] = {
    "account": 2,
    "set_limit": 5,
    "top_up": 3,
    "freeze": 2,
    "reserve": 14,
    "reserve_within": 16,
    "reserve_anew": 2,
    "extend": 6,
    "reduce": 3,
    "mark_sent": 9,
    "settle": 9,
    "settle_late": 5,
    "void": 4,
    "presume": 2,
    "presume_better": 1,
    "resolve": 1,
    "adopt": 2,
    "leave": 2,
    "heartbeat": 2,
    "sweep": 3,
    "reserve_what_cannot_be_kept": 2,
    "pass_time": 4,
    "pass_time_to_an_edge": 3,
    "put_back_the_clock": 2,
    "again": 5,
}
"""How often each is drawn, against the others."""


def run(place: Place, random: Random, operations: int) -> Counter[str]:
    """So many operations on a new ledger, and how often each of them came."""
    drill = Drill(place, random)
    names, weights = list(OPERATIONS), list(OPERATIONS.values())
    try:
        for name in random.choices(names, weights, k=operations):
            getattr(drill, name)(random)
            drill.check(random)
    finally:
        drill.close()
    return drill.counts
