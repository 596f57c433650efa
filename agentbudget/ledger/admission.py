"""May an amount be set aside: the one question that every reservation asks of every account it weighs on."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime

from agentbudget.errors import AccountFrozen, BudgetExceeded, HoldClosed, InvalidAmount, UnknownAccount, UnknownHold
from agentbudget.ledger.records import NOTHING, Account, HoldRecord, Limits, Units, WindowLimit, new_tuple, plus
from agentbudget.ledger.store import Transaction
from agentbudget.ledger.windows import NS
from agentbudget.money import MAX, Amount, format_usd


def admit_on(
    tx: Transaction, lineage: Sequence[str], more: Units, now_ns: int, *, reserved_ns: int | None = None
) -> list[Account]:
    """The accounts of `lineage` as they are with `more` held, if it fits on each of them in every window.

    ``reserved_ns`` is when the hold that asks for more was reserved; None for a new one.
    Raises `BudgetExceeded`, `AccountFrozen`, `UnknownAccount`, `InvalidAmount`.
    """
    accounts: list[Account] = []
    m_usd, m_tokens, m_calls = more
    for name in lineage:
        account = tx.account(name) or required(tx, name)
        _, parent, limits, windows, posted, held, frozen = account
        if frozen is not None:
            raise AccountFrozen(
                f"account {name!r} is frozen ({frozen or 'no reason given'}): nothing may be reserved on it "
                f"until it is unfrozen",
                account=name,
            )
        usd, tokens, calls = limits
        h_usd, h_tokens, h_calls = held
        h_usd += m_usd
        h_tokens += m_tokens
        h_calls += m_calls
        if (
            (usd is not None and h_usd + posted[0] > usd)
            or (tokens is not None and h_tokens + posted[1] > tokens)
            or (calls is not None and h_calls + posted[2] > calls)
        ):
            require_room(name, more, limit=limits, used=plus(held, posted))
        for limit in windows:
            _admit_in_window(tx, name, limit, more, now_ns, reserved_ns)
        if h_usd + h_tokens + h_calls > MAX:
            shift(held, more)
        accounts.append(new_tuple(Account, (name, parent, limits, windows, posted, (h_usd, h_tokens, h_calls), None)))
    return accounts


def weigh(tx: Transaction, names: Sequence[str], held: Units, posted: Units, created_ns: int) -> None:
    """Apply a change to the accounts that a hold weighs on, in the periods in which it was reserved (`created_ns`).

    Raises `InvalidAmount` if a balance is more than any store can hold.
    """
    h_usd, h_tokens, h_calls = held
    p_usd, p_tokens, p_calls = posted
    weighed: list[Account] = []
    for name in names:
        _, parent, limits, windows, was_posted, was_held, frozen = tx.account(name) or required(tx, name)
        usd, tokens, calls = was_held
        now_held = usd, tokens, calls = usd + h_usd, tokens + h_tokens, calls + h_calls
        if usd + tokens + calls > MAX:  # then one of them may be: `shift` tells
            shift(was_held, held)
        usd, tokens, calls = was_posted
        now_posted = usd, tokens, calls = usd + p_usd, tokens + p_tokens, calls + p_calls
        if usd + tokens + calls > MAX:
            shift(was_posted, posted)
        weighed.append(new_tuple(Account, (name, parent, limits, windows, now_posted, now_held, frozen)))
        for window, _ in windows:
            tx.shift(name, window.text, window.start(created_ns), held, posted)
    tx.put_balances(weighed)


def weigh_within(tx: Transaction, above: HoldRecord, held: Units, posted: Units, opened: int = 0) -> None:
    """Apply a change to the hold that another weighs on; `opened` counts that one in (1) or out (-1)."""
    tx.put_hold(
        above._replace(
            reserved_units=shift(above.reserved_units, held),
            spent_units=shift(above.spent_units, posted),
            children=above.children + opened,
        )
    )


def _admit_in_window(
    tx: Transaction, name: str, limit: WindowLimit, more: Units, now_ns: int, reserved_ns: int | None
) -> None:
    window = limit.window
    since = window.since(now_ns)
    if reserved_ns is not None:
        start = window.start(reserved_ns)
        if window.kind == "rolling" or start < since:
            _admit_where_reserved(tx, name, limit, more, start)
            return
    used = tx.used(name, window.text, since)
    if all(m is None or u + n <= m for m, u, n in zip(limit.limits, used, more, strict=True)):
        return
    resets = window.ends(since)
    if window.kind == "rolling":
        oldest = tx.oldest(name, window.text, since)
        resets = window.ends(now_ns if oldest is None else oldest)
    require_room(name, more, limit=limit.limits, used=used, window=window.text, resets_ns=resets)


def _admit_where_reserved(tx: Transaction, name: str, limit: WindowLimit, more: Units, start_ns: int) -> None:
    """More for a hold counts in the period in which it was reserved, so that it has to fit in every time that
    contains that period: the one of a calendar, and as many as begin before it and end after it, where it rolls."""
    window = limit.window
    if window.kind == "rolling":
        used = tx.most(name, window.text, start_ns, window.seconds * NS)
    else:
        used = NOTHING
        for _, held, posted in tx.period(name, window.text, start_ns, window.ends(start_ns)):
            used = plus(used, plus(held, posted))
    require_room(name, more, limit=limit.limits, used=used, window=window.text)


def admit_within(tx: Transaction, parent: HoldRecord, more: Units) -> None:
    """Raise unless `more` fits inside an open hold, and no account that it weighs on is frozen."""
    if parent.state != "open":
        raise HoldClosed(
            f"hold {parent.id!r} is {parent.state}: nothing can be reserved within it",
            hold_id=parent.id,
            state=parent.state,
        )
    require_room(parent.id, more, limit=parent.amount_units, used=plus(parent.reserved_units, parent.spent_units))
    root = parent
    while root.parent is not None:
        root = required_hold(tx, root.parent)
    for name in root.accounts:
        frozen = required(tx, name).frozen
        if frozen is not None:
            raise AccountFrozen(
                f"account {name!r} is frozen ({frozen or 'no reason given'}): nothing may be reserved within "
                f"{parent.id!r} until it is unfrozen",
                account=name,
            )


def require_room(
    name: str,
    amount: Units,
    *,
    limit: Limits,
    used: Units,
    window: str = "total",
    resets_ns: int | None = None,
) -> None:
    """Raise `BudgetExceeded`, naming what is short and by how much, unless `amount` fits beside what is `used`."""
    for unit, needed, most, taken in zip(("usd", "tokens", "calls"), amount, limit, used, strict=True):
        if most is not None and taken + needed > most:
            resets = None if resets_ns is None else datetime.fromtimestamp(resets_ns / 1e9, UTC)
            within = "" if window == "total" else f" in its window {window}"
            if resets is not None:
                within += f", which frees up to {resets:%Y-%m-%d %H:%M:%S} UTC"
            raise BudgetExceeded(
                f"{name} has {_show(unit, max(0, most - taken))} left of {_show(unit, most)}{within}, and this needs "
                f"{_show(unit, needed)}: raise the limit by at least {_show(unit, taken + needed - most)}",
                account=name,
                unit=unit,
                needed=needed,
                available=max(0, most - taken),
                requested=Amount(*amount),
                window=window,
                resets_at=resets,
            )


def shift(now: Units, change: Units) -> Units:
    """A balance after a change. Raises `InvalidAmount` if it is more than any store can hold."""
    usd, tokens, calls = now[0] + change[0], now[1] + change[1], now[2] + change[2]
    if usd > MAX or tokens > MAX or calls > MAX:
        unit, value = max(zip(("usd_nano", "tokens", "calls"), (usd, tokens, calls), strict=True), key=lambda of: of[1])
        raise InvalidAmount(
            f"a balance of {value} {unit} is more than the ledger can hold ({MAX})", value=value, unit=unit
        )
    return (usd, tokens, calls)


def required(tx: Transaction, name: str) -> Account:
    """The account. Raises `UnknownAccount`."""
    account = tx.account(name)
    if account is None:
        raise UnknownAccount(
            f"no account {name!r}: open it with ledger.account({name!r}), or agentbudget ledger limit {name} --usd …",
            account=name,
        )
    return account


def required_hold(tx: Transaction, hold_id: str) -> HoldRecord:
    """The hold. Raises `UnknownHold`."""
    record = tx.hold(hold_id) if isinstance(hold_id, str) else None
    if record is None:
        raise UnknownHold(f"no hold {hold_id!r}", hold_id=hold_id)
    return record


def _show(unit: str, value: int) -> str:
    return format_usd(value) if unit == "usd" else f"{value:,} {unit if value != 1 else unit.removesuffix('s')}"
