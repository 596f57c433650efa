"""Proof: fold the journal and compare it with everything that the store keeps."""

from __future__ import annotations

from collections.abc import Iterable

from agentbudget.errors import Mistake, SchemaMismatch
from agentbudget.ledger.fold import Fold
from agentbudget.ledger.records import NOTHING, Account, Entry, HoldRecord, Units, Verification, plus
from agentbudget.ledger.store import GENESIS, Transaction, canonical, chain_hash, targets_text
from agentbudget.money import MAX


def verify(tx: Transaction) -> Verification:
    """Check the chain of hashes, the accounts with their windows, the holds and the top-ups, in one consistent view."""
    problems: list[str] = []
    accounts, holds, count = 0, 0, 0
    try:
        kept = tx.accounts()
        accounts, fold, before = len(kept), Fold(windowed=frozenset(a.name for a in kept if a.windows)), GENESIS
        for entry in tx.entries():
            count += 1
            problems += check_link(entry, before, count)
            before = bytes.fromhex(entry.hash)
            fold.add(entry)
        if count < tx.next_seq() - 1:
            problems.append(
                f"the journal ends at entry {count}, but {tx.next_seq() - 1} were written: some are missing"
            )
        found = tx.holds()
        holds = len(found)
        problems += _check_rows(tx, kept, found, fold)
    except (Mistake, SchemaMismatch, ValueError, ArithmeticError, LookupError, TypeError, AttributeError) as error:
        # Somebody else wrote this.
        problems.append(f"what stands after entry {count} cannot be read: {type(error).__name__}: {error}")
    return Verification(accounts=accounts, holds=holds, entries=count, problems=tuple(problems))


def _check_rows(tx: Transaction, accounts: list[Account], holds: list[HoldRecord], fold: Fold) -> list[str]:
    problems = [problem for account in accounts for problem in _check_account(account, fold)]
    problems += [problem for account in accounts for problem in _check_windows(tx, account, fold)]
    problems += [problem for hold in holds for problem in _check_hold(hold, fold)]
    problems += _check_open(accounts, holds)
    for topup, seq in fold.topups.items():
        problems += _differs(f"top-up {topup}", "entry", tx.mark(f"topup/{topup}"), seq)
    problems += _check_missing("account", fold.parents, {account.name for account in accounts})
    problems += _check_missing("hold", fold.lives, {hold.id for hold in holds})
    return problems


def check_link(entry: Entry, before: bytes, seq: int) -> list[str]:
    """What is wrong with an entry that should be number `seq`, after one of the hash `before`."""
    targets, detail = targets_text(entry.targets), canonical(entry.detail)
    digest = chain_hash(
        before, entry.seq, entry.at_ns, entry.kind, entry.subject, targets, entry.held, entry.posted, detail
    )
    if entry.seq != seq:
        return [f"entry {entry.seq} stands where {seq} should: one is missing"]
    return [] if digest.hex() == entry.hash else [f"entry {entry.seq} does not match its hash: it was changed"]


def _check_account(account: Account, fold: Fold) -> list[str]:
    what, told = f"account {account.name}", fold.account(account.name)
    return [
        *_differs(what, "held", account.held_units, told.held_units),
        *_differs(what, "posted", account.posted_units, told.posted_units),
        *_differs(what, "limit", account.limits, told.limits),
        *_differs(what, "windows", account.windows, told.windows),
        *_differs(what, "parent", account.parent, told.parent),
        *_differs(what, "frozen", account.frozen, told.frozen),
    ]


def _check_windows(tx: Transaction, account: Account, fold: Fold) -> list[str]:
    problems: list[str] = []
    for window, _ in account.windows:
        told = fold.periods(account.name, window)
        kept = {start: (held, posted) for start, held, posted in tx.period(account.name, window.text, -MAX)}
        for start in sorted(told.keys() | kept.keys()):
            what = f"account {account.name}, {window} from {start}"
            problems += _differs(what, "held and posted", kept.get(start), told.get(start))
    return problems


def _check_hold(hold: HoldRecord, fold: Fold) -> list[str]:
    target = f"hold:{hold.id}"
    what, within, life = f"hold {hold.id}", fold.weights[target], fold.lives[hold.id]
    return [
        *_differs(what, "reserved", hold.reserved_units, within.held),
        *_differs(what, "spent", hold.spent_units, within.posted),
        *_differs(what, "open holds within", hold.children, fold.open_within[target]),
        *_differs(what, "state", hold.state, life.state),
        *_differs(what, "sent", hold.sent, life.sent),
        *_differs(what, "amount", hold.amount_units, life.amount),
        *_differs(what, "settled", hold.settled_units or NOTHING, life.settled),
        *_differs(what, "presumed", hold.presumed, life.presumed),
        *_differs(what, "what it weighs on", hold.accounts if hold.parent is None else (), life.accounts),
        *_differs(what, "parent", hold.parent, life.parent),
        *_differs(what, "first entry", hold.number, life.opened),
        *_differs(what, "last entry", hold.closed, life.closed),
    ]


def _check_open(accounts: list[Account], holds: list[HoldRecord]) -> list[str]:
    """An account holds what its open holds hold."""
    held: dict[str, Units] = {}
    for hold in holds:
        if hold.state == "open":
            for name in hold.accounts:
                held[name] = plus(held.get(name, NOTHING), hold.amount_units)
    return [
        f"account {account.name}: its open holds sum to {held.get(account.name, NOTHING)}, "
        f"it holds {account.held_units}"
        for account in accounts
        if held.get(account.name, NOTHING) != account.held_units
    ]


def _check_missing(kind: str, told: Iterable[str], kept: set[str]) -> list[str]:
    return [f"{kind} {name}: the journal has it, its row is gone" for name in told if name not in kept]


def _differs(what: str, name: str, kept: object, told: object) -> list[str]:
    return [] if kept == told else [f"{what}: {name} is {kept}, its entries say {told}"]
