"""How an account's limits change, inside a transaction: set, topped up once for each id, within windows of time."""

from __future__ import annotations

from typing import Final

from agentbudget.errors import AccountConflict, InvalidArgument
from agentbudget.ledger.admission import required, shift
from agentbudget.ledger.records import NOTHING, UNLIMITED, Account, Detail, Limits, Units, WindowLimit, plus
from agentbudget.ledger.store import Transaction, note
from agentbudget.ledger.windows import Window

_UNITS: Final = ("usd", "tokens", "calls")


def relimit(
    tx: Transaction, account: Account, window: Window | None, triple: Limits, *, at_ns: int, keep_others: bool = False
) -> Account:
    """The account with this limit for all time (``window`` None) or within a window; with ``keep_others``, units that
    it does not name stay limited as they are."""
    known = _limits_of(account, window)
    if keep_others:
        usd, tokens, calls = (k if t is None else t for k, t in zip(known, triple, strict=True))
        triple = (usd, tokens, calls)
    if known == triple:
        return account
    account = _with_limit(tx, account, window, triple)
    text = "total" if window is None else window.text
    note(tx, "limit", account.name, {"window": text, "limit": list(triple)}, at_ns=at_ns)
    return account


def top_up(tx: Transaction, name: str, window: Window | None, more: Limits, *, topup_id: str, at_ns: int) -> Account:
    """The account with a limit that is raised, or was by this id before. Raises as `Ledger.top_up`."""
    account = required(tx, name)
    said = {"id": topup_id, "by": list(more), "window": "total" if window is None else window.text}
    seq = tx.mark(f"topup/{topup_id}")
    if seq is not None:
        _refuse_another(tx, seq, name, said)
        return account
    now = _limits_of(account, window)
    triple = tuple(_raised(name, unit, n, m) for unit, n, m in zip(_UNITS, now, more, strict=True))
    account = _with_limit(tx, account, window, (triple[0], triple[1], triple[2]))
    seq = note(tx, "topup", name, {**said, "limit": list(triple)}, at_ns=at_ns)
    tx.put_mark(f"topup/{topup_id}", seq)
    return account


def _refuse_another(tx: Transaction, seq: int, name: str, said: Detail) -> None:
    """Raise unless entry `seq` is the same top-up."""
    entry = tx.entry(seq)
    if entry is None or entry.subject != name or {**entry.detail, "limit": None} != {**said, "limit": None}:
        known = "nothing" if entry is None else f"{entry.subject} by {entry.detail['by']}"
        raise AccountConflict(
            f"top-up {said['id']!r} was another one; name another id",
            account=name,
            known=known,
            asked=f"{name} by {said['by']}",
        )


def _with_limit(tx: Transaction, account: Account, window: Window | None, triple: Limits) -> Account:
    if window is None:
        account = account._replace(limits=triple)
    else:
        known = any(limit.window == window for limit in account.windows)
        others = [limit for limit in account.windows if limit.window != window]
        if triple == UNLIMITED:
            tx.forget_periods(account.name, window.text)
        elif not known:
            _count_past(tx, account.name, window)
        kept = others if triple == UNLIMITED else [*others, WindowLimit(window, triple)]
        account = account._replace(windows=tuple(sorted(kept, key=lambda limit: limit.window.text)))
    tx.put_account(account)
    return account


def _count_past(tx: Transaction, name: str, window: Window) -> None:
    """A new window counts what was reserved before there was one."""
    began: dict[str, int] = {}
    periods: dict[int, tuple[Units, Units]] = {}
    for entry in tx.entries():
        if name in entry.targets:
            start = window.start(began.setdefault(entry.subject, entry.at_ns))
            held, posted = periods.get(start, (NOTHING, NOTHING))
            periods[start] = plus(held, entry.held), plus(posted, entry.posted)
    for start, (held, posted) in periods.items():  # once for each: a database takes a while for every one
        tx.shift(name, window.text, start, held, posted)


def _limits_of(account: Account, window: Window | None) -> Limits:
    if window is None:
        return account.limits
    return next((triple for known, triple in account.windows if known == window), UNLIMITED)


def _raised(name: str, unit: str, limit: int | None, more: int | None) -> int | None:
    if not more:
        return limit
    if limit is None:
        raise InvalidArgument(
            f"account {name!r} has no limit of {unit} to top up; set one with ledger.set_limit",
            argument="by",
            value=more,
        )
    return shift((limit, 0, 0), (more, 0, 0))[0]
