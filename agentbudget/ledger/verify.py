"""Proof: fold the journal and compare it with everything that the store keeps."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass, field
from typing import Any

from agentbudget.ledger.records import Account, Delta, Detail, Entry, HoldRecord, Verification, plus, units
from agentbudget.ledger.store import GENESIS, Transaction, canonical, chain_hash
from agentbudget.money import Amount

Triple = tuple[int, int, int]
NOTHING: Triple = (0, 0, 0)
STATES = {"reserve": "open", "settle": "settled", "void": "voided", "lapse": "lapsed"}


@dataclass(slots=True)
class _Target:
    """What entries say weighs on an account or on a hold."""

    held: Triple = NOTHING
    posted: Triple = NOTHING

    def add(self, delta: Delta) -> None:
        self.held, self.posted = plus(self.held, delta.held), plus(self.posted, delta.posted)


@dataclass(slots=True)
class _Life:
    """What entries say of one hold."""

    state: str = ""
    amount: Triple = NOTHING
    settled: Triple = NOTHING
    meta: Detail = field(default_factory=dict[str, Any])
    detail: Detail = field(default_factory=dict[str, Any])

    def add(self, entry: Entry) -> None:
        if entry.kind in ("reserve", "extend"):
            self.amount = plus(self.amount, entry.delta.held)
        self.settled = plus(self.settled, entry.delta.posted)
        if entry.kind == "reserve":
            self.meta = entry.detail
        elif entry.kind in ("settle", "void", "lapse") or (entry.kind == "correct" and "because" not in entry.detail):
            self.detail = entry.detail
        if entry.kind == "correct" and "because" not in entry.detail:
            self.state = "settled"
        else:
            self.state = STATES.get(entry.kind, self.state)


@dataclass(slots=True)
class _Fold:
    """The journal, folded: all that the store should say."""

    targets: defaultdict[str, _Target] = field(default_factory=lambda: defaultdict[str, _Target](_Target))
    lives: defaultdict[str, _Life] = field(default_factory=lambda: defaultdict[str, _Life](_Life))
    limits: dict[str, Detail] = field(default_factory=dict[str, Detail])
    parents: dict[str, str | None] = field(default_factory=dict[str, "str | None"])

    def add(self, entry: Entry) -> None:
        if entry.kind == "account":
            self.parents[entry.subject] = entry.detail["parent"]
        if entry.kind in ("account", "limit"):
            self.limits[entry.subject] = entry.detail["limit"]
            return
        self.lives[entry.subject].add(entry)
        for target in entry.targets:
            self.targets[target].add(entry.delta)


def verify(tx: Transaction) -> Verification:
    """Check the chain of hashes, the accounts and the holds, in one consistent view."""
    problems: list[str] = []
    fold, count, before = _Fold(), 0, GENESIS
    for entry in tx.entries():
        count += 1
        problems += _check_link(entry, before, count)
        before = entry.hash
        fold.add(entry)
    accounts, holds = tx.accounts(), tx.holds()
    problems += [problem for account in accounts for problem in _check_account(account, fold)]
    problems += [problem for hold in holds for problem in _check_hold(hold, fold)]
    problems += _check_open(accounts, holds)
    problems += _check_missing("account", fold.parents, {account.name for account in accounts})
    problems += _check_missing("hold", fold.lives, {hold.id for hold in holds})
    return Verification(accounts=len(accounts), holds=len(holds), entries=count, problems=tuple(problems))


def _check_link(entry: Entry, before: str, seq: int) -> list[str]:
    targets, detail = canonical(entry.targets), canonical(entry.detail)
    digest = chain_hash(before, entry.seq, entry.at_ns, entry.kind, entry.subject, targets, entry.delta, detail)
    if entry.seq != seq:
        return [f"entry {entry.seq} stands where {seq} should: one is missing"]
    return [] if digest == entry.hash else [f"entry {entry.seq} does not match its hash: it was changed"]


def _check_account(account: Account, fold: _Fold) -> list[str]:
    what, target = f"account {account.name}", fold.targets[account.name]
    limit = {"usd_nano": account.limit.usd_nano, "tokens": account.limit.tokens, "calls": account.limit.calls}
    return [
        *_differs(what, "held", units(account.held), target.held),
        *_differs(what, "posted", units(account.posted), target.posted),
        *_differs(what, "limit", limit, fold.limits.get(account.name)),
        *_differs(what, "parent", account.parent, fold.parents.get(account.name)),
    ]


def _check_hold(hold: HoldRecord, fold: _Fold) -> list[str]:
    what, within, life = f"hold {hold.id}", fold.targets[f"hold:{hold.id}"], fold.lives[hold.id]
    return [
        *_differs(what, "reserved", units(hold.reserved), within.held),
        *_differs(what, "spent", units(hold.spent), within.posted),
        *_differs(what, "state", hold.state, life.state),
        *_differs(what, "amount", units(hold.amount), life.amount),
        *_differs(what, "settled", units(hold.settled or Amount()), life.settled),
        *_differs(what, "presumed", hold.presumed, bool(life.detail.get("presumed"))),
        *_differs(what, "meta", canonical(hold.meta), canonical(life.meta)),
        *_differs(what, "detail", canonical(hold.detail), canonical(life.detail)),
    ]


def _check_open(accounts: list[Account], holds: list[HoldRecord]) -> list[str]:
    """An account holds what its open holds hold."""
    held: defaultdict[str, Triple] = defaultdict(lambda: NOTHING)
    for hold in holds:
        if hold.state == "open":
            for name in hold.accounts:
                held[name] = plus(held[name], units(hold.amount))
    return [
        f"account {account.name}: its open holds sum to {held[account.name]}, it holds {units(account.held)}"
        for account in accounts
        if held[account.name] != units(account.held)
    ]


def _check_missing(kind: str, told: dict[str, Any] | defaultdict[str, _Life], kept: set[str]) -> list[str]:
    return [f"{kind} {name}: the journal has it, its row is gone" for name in told if name not in kept]


def _differs(what: str, name: str, kept: object, told: object) -> list[str]:
    return [] if kept == told else [f"{what}: {name} is {kept}, its entries say {told}"]
