"""Who pays for a call: accounts by name, with parts that each call's config fills in."""

from __future__ import annotations

import string
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final

from langchain_core.runnables import RunnableConfig

from agentbudget.errors import Mistake, UnknownAccount
from agentbudget.ledger import Ledger
from agentbudget.money import Budget

Accounts = Sequence[str] | Mapping[str, Budget | None]
"""Names of accounts, or names with the limit that each gets when it is opened.

``"user/{user_id}"`` is filled in from the ``configurable`` part, else the ``metadata``, of a call's config.
"""

_FORMATTER: Final = string.Formatter()


def checked(accounts: Accounts) -> dict[str, Budget | None]:
    """The accounts with their limits. Raises `Mistake` if there are none: what nobody pays for is not held."""
    named = (
        accounts
        if isinstance(accounts, Mapping)
        else dict.fromkeys([accounts] if isinstance(accounts, str) else accounts)
    )
    if not named:
        raise Mistake(
            "name the accounts that pay, as in accounts=['user/42'] or accounts={'run/{thread_id}': Budget(…)}"
        )
    return dict(named)


def filled(accounts: Iterable[str], config: RunnableConfig) -> dict[str, str]:
    """Each name with its parts filled in, by the name as it was given.

    Raises `Mistake` if the config lacks one: a call that nobody would pay for is not made.
    """
    known: dict[str, Any] = {**(config.get("metadata") or {}), **(config.get("configurable") or {})}
    return {name: _fill(name, known) for name in accounts}


def _fill(name: str, known: Mapping[str, Any]) -> str:
    parts = [part for _, part, _, _ in _FORMATTER.parse(name) if part is not None]
    missing = [part for part in parts if known.get(part) in (None, "")]
    if missing:
        raise Mistake(
            f"the account {name!r} needs {' and '.join(missing)}: pass config={{'configurable': {{{missing[0]!r}: …}}}}"
        )
    return name.format_map({part: str(known[part]) for part in parts})


def opened(ledger: Ledger, accounts: Mapping[str, Budget | None], config: RunnableConfig) -> tuple[str, ...]:
    """The accounts that pay for a call, each opened if it is new.

    A new account gets its limit; one that exists keeps its own, so that a top-up lasts. A plain name without a limit
    must exist: a slip of the pen is no account. Raises `UnknownAccount`, `Mistake`.
    """
    names = filled(accounts, config)
    for given, name in names.items():
        limit = accounts[given]
        if limit is not None or given != name:
            _open(ledger, name, limit)
    return tuple(names.values())


def _open(ledger: Ledger, name: str, limit: Budget | None) -> None:
    try:
        ledger.balance(name)
    except UnknownAccount:
        ledger.account(name, limit=limit)


def run_of(accounts: Sequence[str]) -> str:
    """What begins the ids of holds on these accounts: the run that pays along, so that its statement shows them."""
    return next((name.removeprefix("run/") for name in accounts if name.startswith("run/")), "langchain")
