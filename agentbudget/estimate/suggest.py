"""Budgets that history proposes: what so large a share of runs, of steps of a skill, and of its days came to."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from math import ceil
from typing import Any, Final, Literal, assert_never

from agentbudget.errors import InvalidArgument
from agentbudget.estimate.conformal import conformal_upper, rank_of
from agentbudget.ledger import HoldRecord, Ledger
from agentbudget.ledger.records import NOTHING, Units, plus
from agentbudget.money import Amount

Scope = Literal["run", "step", "day"]

SCOPES: Final[tuple[Scope, ...]] = ("run", "step", "day")

NS_PER_DAY: Final = 86_400 * 10**9

FEW: Final = 1.25
"""What the largest is raised by where there are too few for a level."""

HINDSIGHT: Final = 200
"""The newest of them by which proposals are judged."""

CALLS: Final = 2
"""The place of calls in a triple."""

LOOK_BACK: Final = 1_000
"""The newest runs, steps or days of one name that a proposal looks at."""


@dataclass(frozen=True, slots=True)
class Suggestion:
    """A budget for one run, one step of a skill, or one day of a skill.

    ``name`` is the skill, empty for runs. ``count`` is how many were looked at; ``proposed`` covers the level of them
    that was asked for in all its units at once, or is the largest and a quarter if they are ``few`` for that.
    ``covered`` is the share of later ones that stayed within what had been proposed from those before them: None if
    none was left to tell by.
    """

    scope: Scope
    name: str
    count: int
    median: Amount
    largest: Amount
    proposed: Amount
    few: bool
    covered: float | None

    @property
    def account(self) -> str | None:
        """The account that such a budget limits in each day; None where it is given with a run or a skill."""
        return f"skill/{self.name}" if self.scope == "day" else None


def suggest(ledger: Ledger, *, level: float = 0.95, scopes: Iterable[Scope] = SCOPES) -> list[Suggestion]:
    """Propose budgets from what the ledger settled; presumed settlements tell nothing and are left out.

    Raises `InvalidArgument` for a level that is no share between 0 and 1.
    """
    if not 0 < level < 1:
        message = f"a level is a share between 0 and 1, such as 0.95, not {level!r}"
        raise InvalidArgument(message, argument="level", value=level)
    settled = [hold for hold in ledger.holds(state="settled") if not hold.presumed and hold.settled_units is not None]
    found: list[Suggestion] = []
    for scope in dict.fromkeys(scopes):
        for name, amounts in sorted(_amounts(ledger, scope, settled).items()):
            found.append(_suggestion(scope, name, amounts[-LOOK_BACK:], level))
    return found


def _amounts(ledger: Ledger, scope: Scope, settled: Sequence[HoldRecord]) -> Mapping[str, list[Units]]:
    """What each came to, by name, the oldest first."""
    match scope:
        case "run":
            return _runs(ledger, settled)
        case "step":
            return _steps(settled)
        case "day":
            return _days(settled)
        case _:
            assert_never(scope)


def _runs(ledger: Ledger, settled: Sequence[HoldRecord]) -> dict[str, list[Units]]:
    """What runs cost that are over, in the order in which they began: those on whose account nothing is held, and whose
    last step did not break off."""
    accounts = {account.name: account for account in ledger.accounts(prefix="run/")}
    last = {name: hold for hold in settled for name in hold.accounts if name in accounts}
    over = [
        accounts[name].posted_units
        for name, hold in last.items()
        if accounts[name].held_units == NOTHING and not _broke_off(hold)
    ]
    return {"": over} if over else {}


def _steps(settled: Sequence[HoldRecord]) -> dict[str, list[Units]]:
    found: dict[str, list[Units]] = {}
    for hold in settled:
        if _kind(hold) == "step" and hold.settled_units is not None and not _broke_off(hold):
            found.setdefault(str(hold.meta["skill"]), []).append(hold.settled_units)
    return found


def _days(settled: Sequence[HoldRecord]) -> dict[str, list[Units]]:
    """What the steps of each skill cost on each day (UTC) that had any; the last day may go on, and is left out."""
    sums: dict[str, dict[int, Units]] = {}
    last = max((hold.created_ns // NS_PER_DAY for hold in settled), default=0)
    for hold in settled:
        day = hold.created_ns // NS_PER_DAY
        if _kind(hold) == "step" and hold.parent is None and hold.settled_units is not None and day < last:
            days = sums.setdefault(str(hold.meta["skill"]), {})
            before = days.get(day, NOTHING)
            days[day] = plus(before, hold.settled_units)
    return {name: [days[day] for day in sorted(days)] for name, days in sums.items()}


def _broke_off(hold: HoldRecord) -> bool:
    """Whether a step was refused, failed or cancelled: what it came to says too little of what a whole one needs."""
    return hold.detail.get("status") in ("failed", "cancelled")


def _kind(hold: HoldRecord) -> Any:
    return hold.meta.get("kind") if "skill" in hold.meta else None


def _suggestion(scope: Scope, name: str, amounts: Sequence[Units], level: float) -> Suggestion:
    middle = (len(amounts) - 1) // 2
    return Suggestion(
        scope=scope,
        name=name,
        count=len(amounts),
        median=Amount(*_mapped(lambda unit: sorted(amount[unit] for amount in amounts)[middle])),
        largest=Amount(*_mapped(lambda unit: max(amount[unit] for amount in amounts))),
        proposed=Amount(*_covering(amounts, level)),
        few=rank_of(level, len(amounts)) > len(amounts),
        covered=_in_hindsight(amounts, level),
    )


def _covering(amounts: Sequence[Units], level: float) -> Units:
    """What the next one stays within in all units at once, with a probability of `level`.

    Each unit's own bound, raised together by the conformal bound of the unit that stands highest against its own.
    """
    if rank_of(level, len(amounts)) > len(amounts):
        return _mapped(lambda unit: _rounded(FEW * max(amount[unit] for amount in amounts), unit))
    own = _mapped(lambda unit: int(conformal_upper([amount[unit] for amount in amounts], level)))
    together = max(1.0, conformal_upper([_highest(amount, own) for amount in amounts], level))
    return _mapped(lambda unit: _rounded(own[unit] * together, unit))


def _highest(amount: Units, against: Units) -> float:
    """The largest ratio of its units; a unit that the others had none of counts as itself."""
    return max(value / max(1, most) for value, most in zip(amount, against, strict=True))


def _in_hindsight(amounts: Sequence[Units], level: float) -> float | None:
    """The share of the newer half that stayed within what those before them would have proposed, each in its turn."""
    start = max(2, len(amounts) // 2, len(amounts) - HINDSIGHT)
    if len(amounts) <= start:
        return None
    hits = [_within(amounts[n], _covering(amounts[:n], level)) for n in range(start, len(amounts))]
    return sum(hits) / len(hits)


def _within(amount: Units, budget: Units) -> bool:
    return all(value <= most for value, most in zip(amount, budget, strict=True))


def _mapped(of: Callable[[int], int]) -> Units:
    """A triple, unit by unit."""
    return of(0), of(1), of(2)


def _rounded(value: float, unit: int) -> int:
    """Upward, to two digits of dollars and tokens: enough for a limit. Calls are counted."""
    whole = ceil(value)
    step = 10 ** max(0, len(str(whole)) - 2) if unit != CALLS else 1
    return -(-whole // step) * step
