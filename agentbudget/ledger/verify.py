"""Proof: fold the journal and compare it with every balance that the store keeps."""

from __future__ import annotations

from collections import defaultdict

from agentbudget.ledger.records import Delta, Entry, Verification, plus, units
from agentbudget.ledger.store import GENESIS, Transaction, canonical, chain_hash
from agentbudget.money import Amount

Triple = tuple[int, int, int]


def verify(tx: Transaction) -> Verification:
    """Check the chain of hashes, the accounts, and the holds, in one consistent view."""
    problems: list[str] = []
    folded: defaultdict[str, list[Triple]] = defaultdict(lambda: [(0, 0, 0), (0, 0, 0)])
    count, before = 0, GENESIS
    for entry in tx.entries():
        count += 1
        problems += _check_link(entry, before, count)
        before = entry.hash
        _fold(folded, entry.targets, entry.delta)
    accounts = tx.accounts()
    for account in accounts:
        problems += _compare(f"account {account.name}", folded[account.name], account.held, account.posted)
    holds = tx.holds()
    open_held: defaultdict[str, Triple] = defaultdict(lambda: (0, 0, 0))
    for hold in holds:
        problems += _compare(f"hold {hold.id}", folded[f"hold:{hold.id}"], hold.reserved, hold.spent)
        if hold.state == "open":
            for name in hold.accounts:
                open_held[name] = plus(open_held[name], units(hold.amount))
    for account in accounts:
        held = open_held[account.name]
        if held != units(account.held):
            problems.append(f"account {account.name}: its open holds sum to {held}, it holds {units(account.held)}")
    return Verification(accounts=len(accounts), holds=len(holds), entries=count, problems=tuple(problems))


def _check_link(entry: Entry, before: str, seq: int) -> list[str]:
    digest = chain_hash(
        before,
        entry.seq,
        entry.at_ns,
        entry.kind,
        entry.subject,
        canonical(entry.targets),
        entry.delta,
        canonical(entry.detail),
    )
    if entry.seq != seq:
        return [f"entry {entry.seq} stands where {seq} should: one is missing"]
    return [] if digest == entry.hash else [f"entry {entry.seq} does not match its hash: it was changed"]


def _fold(folded: defaultdict[str, list[Triple]], targets: tuple[str, ...], delta: Delta) -> None:
    for target in targets:
        held, posted = folded[target]
        folded[target] = [plus(held, delta.held), plus(posted, delta.posted)]


def _compare(what: str, folded: list[Triple], held: Amount, posted: Amount) -> list[str]:
    problems: list[str] = []
    for name, entries, kept in (("held", folded[0], held), ("posted", folded[1], posted)):
        if entries != units(kept):
            problems.append(f"{what}: {name} is {units(kept)}, its entries sum to {entries}")
    return problems
