"""What callers give, checked before anything is touched: what one store would take, no other store may choke on."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final, cast

from agentbudget.errors import InvalidArgument
from agentbudget.ledger.records import units
from agentbudget.ledger.store import check_text
from agentbudget.money import MAX, Amount
from agentbudget.settings import ADDRESS

_LONGEST_LOCATION: Final = 1 << 15
_CENTURY_S: Final = 100 * 366 * 86_400
POSTGRES: Final = ("postgresql://", "postgres://")
"""How the address of a PostgreSQL server begins."""
DEEPEST: Final = 100
"""So deep what goes with a hold may be: a list in a mapping is 2 deep."""
DEEPEST_BILL: Final = DEEPEST + 3
"""So deep what goes with a settlement may be: a block's is a list of what went with the holds inside."""
_NESTED: Final = (dict, list, tuple)
_TEXT: Final = frozenset({str})
_PLAIN: Final = frozenset({str, int, float, bool, type(None)})
"""What holds nothing within it."""


def check_account_name(value: object) -> None:
    """Raise `InvalidArgument` unless `value` can name an account."""
    check_text("account", value)
    if cast(str, value).startswith("hold:"):
        raise InvalidArgument(
            f"{value!r} cannot name an account: what follows hold: is a hold to the journal",
            argument="account",
            value=value,
        )


def check_accounts(value: Any) -> None:
    """Raise `InvalidArgument` unless `value` is a list of texts."""
    if isinstance(value, list | tuple) and all(isinstance(name, str) for name in cast("list[Any]", value)):
        return
    instead = [value] if isinstance(value, str) else "['user/42', 'feature/support']"
    raise InvalidArgument(
        f"accounts is a list of names, not {value!r}: accounts={instead}",
        argument="accounts",
        value=cast(object, value),
    )


def check_detail(argument: str, value: object, *, deepest: int = DEEPEST) -> None:
    """Raise `InvalidArgument` unless `value` is a mapping, its keys are text, and everybody can read it who finds it
    in the journal, however many functions they are in. The store finds what else is no JSON."""
    if not isinstance(value, Mapping):
        raise InvalidArgument(
            f"{argument} must be a mapping such as {{'model': …}}, not {value!r}", argument=argument, value=value
        )
    within: list[Any] = [value]
    for _ in range(deepest):
        within = _held_by(within, argument)
        if not within:
            return
    raise InvalidArgument(
        f"{argument} has lists or mappings within each other more than {deepest} deep: keep it as text",
        argument=argument,
        value=cast(object, value),
    )


def _held_by(holders: Sequence[Any], argument: str) -> list[Any]:
    """The mappings and lists right within these, each once. Raises `InvalidArgument` for a key that is no text: JSON
    would turn it into one, and sort it to another place when it is read back."""
    found: dict[int, Any] = {}
    for holder in holders:
        values = holder
        if isinstance(holder, Mapping):
            keyed = cast("Mapping[Any, Any]", holder)
            if not _TEXT.issuperset(map(type, keyed)):
                for key in keyed:
                    if not isinstance(key, str):
                        message = f"what goes with a hold must be JSON, whose keys are text: {key!r} is none"
                        raise InvalidArgument(message, argument=argument, value=cast(object, holder))
            values = keyed.values()
        if not _PLAIN.issuperset(map(type, values)):  # as most are, and this is seen without a step for each
            found |= {id(inner): inner for inner in values if issubclass(type(inner), _NESTED)}
    return list(found.values())


def check_amount(value: object) -> None:
    """Raise `InvalidAmount` unless `value` is an amount."""
    units(cast(Amount, value))


def check_count(argument: str, value: object) -> None:
    """Raise `InvalidArgument` unless `value` is a whole number, 0 or more, that every store can count to."""
    if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value <= MAX:
        raise InvalidArgument(f"{argument} must be a whole number, not {value!r}", argument=argument, value=value)


def check_seconds(argument: str, value: object) -> None:
    """Raise `InvalidArgument` unless `value` is a time of 0 seconds to a century."""
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value <= _CENTURY_S:
        raise InvalidArgument(f"{argument} must be a number of seconds, not {value!r}", argument=argument, value=value)


def check_location(value: object) -> None:
    """Raise `InvalidArgument` unless `value` can say where a ledger is. An address of another kind would be a path to a
    file of this host, whose budget no other host would share."""
    if not isinstance(value, Path):
        check_text("location", value, most=_LONGEST_LOCATION)
    found = ADDRESS.match(str(value))
    if found is not None and not str(value).startswith(POSTGRES):
        raise InvalidArgument(
            f"{found[0]!r} begins no place of a ledger: write a path, postgresql://user@host:5432/name, or memory:",
            argument="location",
            value=f"{found[0]}…",  # an address may hold a password
        )
