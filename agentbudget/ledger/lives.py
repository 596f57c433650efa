"""How a hold changes and ends, inside a transaction: extended, settled, voided, lapsed, corrected.

Every change is an entry, and weighs on the accounts of the hold or on the hold that it is within.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final

from agentbudget.errors import HoldClosed, HoldConflict
from agentbudget.ledger.admission import required_hold, shift, weigh, weigh_within
from agentbudget.ledger.owners import life
from agentbudget.ledger.records import (
    EMPTY,
    NOTHING,
    Detail,
    EntryKind,
    HoldRecord,
    HoldState,
    Units,
    closed,
    minus,
    plus,
    units,
)
from agentbudget.ledger.store import Transaction
from agentbudget.money import Amount

_KINDS: Final[Mapping[HoldState, EntryKind]] = {"settled": "settle", "voided": "void", "lapsed": "lapse"}


def required_open(tx: Transaction, hold_id: str, verb: str) -> HoldRecord:
    """The hold. Raises `HoldClosed`, `UnknownHold`."""
    record = required_hold(tx, hold_id)
    if record.state != "open":
        raise HoldClosed(
            f"hold {hold_id!r} is {record.state}: it cannot be {verb}", hold_id=hold_id, state=record.state
        )
    return record


def same(
    tx: Transaction, record: HoldRecord, amount: Units, accounts: tuple[str, ...], within: str | None
) -> HoldRecord:
    """The hold that an id already names, if it is the one that is asked for. Raises `HoldConflict`."""
    if (record.accounts, record.parent) != (accounts, within):
        raise HoldConflict(
            f"hold {record.id!r} weighs on {record.accounts or record.parent}; name another id",
            hold_id=record.id,
            known=record.parent or record.accounts,
            asked=within or accounts,
        )
    if record.amount_units != amount:
        opening = tx.entry(record.number)  # what was first asked for: the amount may have changed since
        if opening is None or opening.held != amount:
            raise HoldConflict(
                f"hold {record.id!r} is for {record.amount}, not {Amount(*amount)}; name another id",
                hold_id=record.id,
                known=record.amount,
                asked=Amount(*amount),
            )
    return record


def book(
    tx: Transaction,
    kind: EntryKind,
    record: HoldRecord,
    held: Units,
    posted: Units,
    *,
    at_ns: int,
    detail: Detail = EMPTY,
    opened: int = 0,
) -> None:
    """Write the entry of a change of an existing hold, and apply it to what the hold weighs on."""
    names, parent = record.accounts, record.parent
    if parent is None:
        weigh(tx, names, held, posted, record.created_ns)
    else:
        weigh_within(tx, required_hold(tx, parent), held, posted, opened)
        names = (f"hold:{parent}",)
    tx.append(kind, record.id, at_ns=at_ns, targets=names, held=held, posted=posted, detail=detail)


def resize(tx: Transaction, kind: EntryKind, record: HoldRecord, change: Units, *, at_ns: int) -> HoldRecord:
    """The hold with more or less in it."""
    record = record._replace(amount_units=plus(record.amount_units, change))
    book(tx, kind, record, change, NOTHING, at_ns=at_ns)
    tx.put_hold(record)
    return record


def close(
    tx: Transaction,
    record: HoldRecord,
    state: HoldState,
    cost: Units,
    *,
    at_ns: int,
    detail: Detail,
    presumed: bool = False,
) -> HoldRecord:
    """The open hold as it ends: `cost` and what was spent within it are posted, the rest is free."""
    spent, children = record[12:14]
    if children:
        record = close_within(tx, record, at_ns=at_ns)
        spent = record.spent_units
    total = cost if spent is NOTHING or spent == NOTHING else shift(cost, spent)
    if presumed:
        detail = {**detail, "presumed": True}
    after = closed(record, state, total, tx.next_seq(), at_ns, detail, presumed)
    hold_id, parent, accounts, (usd, tokens, calls) = record[1:5]
    freed = -usd, -tokens, -calls
    if parent is None:
        weigh(tx, accounts, freed, total, record[10])
    else:
        weigh_within(tx, required_hold(tx, parent), freed, total, -1)
        accounts = (f"hold:{parent}",)
    tx.append(_KINDS[state], hold_id, at_ns=at_ns, targets=accounts, held=freed, posted=total, detail=detail)
    tx.put_hold(after)
    if parent is not None:
        _cover(tx, parent, at_ns=at_ns)
    return after


def close_within(tx: Transaction, record: HoldRecord, *, at_ns: int) -> HoldRecord:
    """Resolve what is still open within a hold that closes."""
    if not record.children:
        return record
    for hold_id in reversed(_open_within(tx, record)):
        resolve(tx, required_hold(tx, hold_id), at_ns=at_ns)
    return required_hold(tx, record.id)


def _open_within(tx: Transaction, record: HoldRecord) -> list[str]:
    """The open holds within a hold, each after the one that it is within. However deep they are: no function calls
    itself for that."""
    found: list[str] = []
    waiting = [record]
    while waiting:
        inner = [hold for hold in tx.holds_within(waiting.pop().id) if hold.state == "open"]
        found += [hold.id for hold in inner]
        waiting += [hold for hold in inner if hold.children]
    return found


def _cover(tx: Transaction, hold_id: str, *, at_ns: int) -> None:
    """Raise an open hold, and those that contain it, to what is known to have been spent within: an overrun weighs at
    once."""
    within: str | None = hold_id
    while within is not None:
        record = required_hold(tx, within)
        (usd, tokens, calls), amount = plus(record.spent_units, record.reserved_units), record.amount_units
        deficit = max(0, usd - amount[0]), max(0, tokens - amount[1]), max(0, calls - amount[2])
        if record.state != "open" or deficit == NOTHING:
            return
        resize(tx, "extend", record, deficit, at_ns=at_ns)
        within = record.parent


def presume(tx: Transaction, record: HoldRecord, *, at_ns: int, detail: Detail) -> HoldRecord:
    """Settle an open hold at what it holds: sent, and nobody knows what it used."""
    record = close_within(tx, record, at_ns=at_ns)
    own = units(record.amount.minus(record.spent))
    return close(tx, record, "settled", own, at_ns=at_ns, presumed=True, detail=detail)


def resolve(tx: Transaction, record: HoldRecord, *, at_ns: int) -> HoldRecord:
    """End a hold that its owner left: not sent → void; sent → presumed spent at what was held for itself."""
    record = close_within(tx, record, at_ns=at_ns)
    if not record.sent and not record.spent:
        reason = "abandoned before anything was sent"
        return close(tx, record, "voided", NOTHING, at_ns=at_ns, detail={"reason": reason})
    own = units(record.amount.minus(record.spent)) if record.sent else NOTHING
    detail = {"reason": "abandoned; outcome unknown"}
    return close(tx, record, "lapsed", own, at_ns=at_ns, presumed=record.sent, detail=detail)


def correct(
    tx: Transaction, record: HoldRecord, cost: Units, *, at_ns: int, presumed: bool, detail: Detail
) -> HoldRecord:
    """Replace a presumption by the truth or a better one, here and in every closed hold that contains it."""
    if presumed:
        detail = {**detail, "presumed": True}
    total = shift(cost, record.spent_units)
    change = plus(total, minus(record.settled_units or NOTHING))
    corrected = record._replace(
        settled_units=total, presumed=presumed, state="settled", closed=tx.next_seq(), closed_ns=at_ns, detail=detail
    )
    book(tx, "correct", corrected, NOTHING, change, detail=detail, at_ns=at_ns)
    tx.put_hold(corrected)
    parent = record.parent
    while parent is not None:
        above = required_hold(tx, parent)
        if above.state == "open":
            _cover(tx, above.id, at_ns=at_ns)
            break
        above = above._replace(settled_units=shift(above.settled_units or NOTHING, change))
        tx.put_hold(above)
        book(tx, "correct", above, NOTHING, change, detail={"because": record.id}, at_ns=at_ns)
        parent = above.parent
    return corrected


def sweep(tx: Transaction, *, at_ns: int, most: int) -> list[HoldRecord]:
    """Resolve ``most`` of the open holds whose owner is gone, with all that is within them; fewer if there are no more.
    See `Ledger.sweep`."""
    opened = tx.holds(state="open")
    gone = {owner: _is_gone(tx, owner, at_ns) for owner in {record.owner for record in opened}}
    waiting = _with_parents([r for r in opened if not gone[r.owner]], {r.id: r for r in opened})
    swept: dict[str, HoldRecord] = {}
    left = most
    for record in opened:  # a hold comes before those within it, which end with it
        if record.parent in swept:
            swept[record.id] = required_hold(tx, record.id)
        elif record.id not in waiting and left:
            left -= 1
            swept[record.id] = resolve(tx, record, at_ns=at_ns)
    return list(swept.values())


def abandoned(tx: Transaction, *, at_ns: int) -> bool:
    """Whether there is an open hold whose owner is gone."""
    return any(_is_gone(tx, owner, at_ns) for owner in {record.owner for record in tx.holds(state="open")})


def _is_gone(tx: Transaction, owner: str, now_ns: int) -> bool:
    seen = life(owner)
    return seen == "dead" or (seen == "unknown" and (tx.lease(owner) or 0) < now_ns)


def _with_parents(holds: Sequence[HoldRecord], known: Mapping[str, HoldRecord]) -> set[str]:
    """The ids of these holds and of all that contain them."""
    found: set[str] = set()
    for hold in holds:
        step: HoldRecord | None = hold
        while step is not None and step.id not in found:
            found.add(step.id)
            step = known.get(step.parent) if step.parent is not None else None
    return found
