"""Budgets that history proposes: what so large a share of runs, of steps of a skill, and of its days came to."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from math import ceil
from operator import itemgetter
from typing import Any, Final, Literal, NamedTuple, assert_never

from agentbudget.errors import InvalidArgument
from agentbudget.estimate.conformal import conformal_upper, rank_of
from agentbudget.ledger import HoldRecord, Ledger
from agentbudget.ledger.records import NOTHING, Units, minus, plus
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

    ``name`` is the skill, empty for runs. ``count`` is how many were looked at; ``median`` and ``largest`` are of what
    they cost. ``proposed`` has room for the level of them that was asked for in all its units at once, or for the one
    that needed most and a quarter if they are ``few`` for that: what is to begin is held first, so that each needed
    what it had settled and held at most at once. ``covered`` is the share of later ones that had room in what had been
    proposed from those before them: None if none was left to tell by.
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
    holds = ledger.holds(state="settled")
    found: list[Suggestion] = []
    for scope in dict.fromkeys(scopes):
        for name, seen in sorted(_seen(ledger, scope, holds).items()):
            found.append(_suggestion(scope, name, seen[-LOOK_BACK:], level))
    return found


class _Seen(NamedTuple):
    """What a run, a step or a day cost, and what it needed room for."""

    cost: Units
    need: Units


def _seen(ledger: Ledger, scope: Scope, holds: Sequence[HoldRecord]) -> Mapping[str, list[_Seen]]:
    """What is known of each, by name, the oldest first."""
    settled = [hold for hold in holds if not hold.presumed and hold.settled_units is not None]
    match scope:
        case "run":
            return _runs(ledger, holds, settled)
        case "step":
            return _steps(holds, settled)
        case "day":
            return _days(settled)
        case _:
            assert_never(scope)


def _runs(ledger: Ledger, holds: Sequence[HoldRecord], settled: Sequence[HoldRecord]) -> dict[str, list[_Seen]]:
    """What runs cost that are over, in the order in which they began: those on whose account nothing is held, and whose
    last step did not break off."""
    accounts = {account.name: account for account in ledger.accounts(prefix="run/")}
    last = {name: hold for hold in settled for name in hold.accounts if name in accounts}
    weighs: dict[str, list[HoldRecord]] = {}
    for hold in holds:
        for name in accounts.keys() & hold.accounts:
            weighs.setdefault(name, []).append(hold)
    over = [
        _Seen(posted := accounts[name].posted_units, _needed(weighs[name], posted))
        for name, hold in last.items()
        if accounts[name].held_units == NOTHING and not _broke_off(hold)
    ]
    return {"": over} if over else {}


def _steps(holds: Sequence[HoldRecord], settled: Sequence[HoldRecord]) -> dict[str, list[_Seen]]:
    """What steps cost, and needed for what was held within them. Those that needed nothing, as all that they asked had
    been paid for before, tell nothing of those that have to pay."""
    within: dict[str, list[HoldRecord]] = {}
    for hold in holds:
        if hold.parent is not None:
            within.setdefault(hold.parent, []).append(hold)
    found: dict[str, list[_Seen]] = {}
    for hold in settled:
        if _kind(hold) == "step" and not _broke_off(hold):
            cost = hold.settled_units or NOTHING
            seen = _Seen(cost, _needed(within.get(hold.id, ()), cost))
            if seen.need != NOTHING:
                found.setdefault(str(hold.meta["skill"]), []).append(seen)
    return found


def _days(settled: Sequence[HoldRecord]) -> dict[str, list[_Seen]]:
    """What the steps of each skill cost on each day (UTC) that had any; the last day may go on, and is left out."""
    steps: dict[str, dict[int, list[HoldRecord]]] = {}
    last = max((hold.created_ns // NS_PER_DAY for hold in settled), default=0)
    for hold in settled:
        day = hold.created_ns // NS_PER_DAY
        if _kind(hold) == "step" and hold.parent is None and day < last:
            steps.setdefault(str(hold.meta["skill"]), {}).setdefault(day, []).append(hold)
    return {name: [_day(days[day]) for day in sorted(days)] for name, days in steps.items()}


def _day(steps: Sequence[HoldRecord]) -> _Seen:
    cost = NOTHING
    for step in steps:
        cost = plus(cost, step.settled_units or NOTHING)
    return _Seen(cost, _needed(steps, cost))


def _needed(holds: Iterable[HoldRecord], cost: Units) -> Units:
    """What `holds` had settled and held at most at once, unit by unit, and at least what they cost.

    With less room one of them would have been refused. In the order of the journal: clocks may be put back.
    """
    opened = [(hold.number, hold.amount_units) for hold in holds]
    closed = [
        (hold.closed or hold.number, plus(hold.settled_units or NOTHING, minus(hold.amount_units))) for hold in holds
    ]
    taken = needed = NOTHING
    for _, change in sorted(opened + closed, key=itemgetter(0)):
        taken = plus(taken, change)
        needed = _larger(needed, taken)
    return _larger(needed, cost)


def _larger(a: Units, b: Units) -> Units:
    """The larger in each unit."""
    return max(a[0], b[0]), max(a[1], b[1]), max(a[2], b[2])


def _broke_off(hold: HoldRecord) -> bool:
    """Whether a step was refused, failed or cancelled: what it came to says too little of what a whole one needs."""
    return hold.detail.get("status") in ("failed", "cancelled")


def _kind(hold: HoldRecord) -> Any:
    return hold.meta.get("kind") if "skill" in hold.meta else None


def _suggestion(scope: Scope, name: str, seen: Sequence[_Seen], level: float) -> Suggestion:
    costs, needs = [one.cost for one in seen], [one.need for one in seen]
    middle = (len(seen) - 1) // 2
    return Suggestion(
        scope=scope,
        name=name,
        count=len(seen),
        median=Amount(*_mapped(lambda unit: sorted(cost[unit] for cost in costs)[middle])),
        largest=Amount(*_mapped(lambda unit: max(cost[unit] for cost in costs))),
        proposed=Amount(*_covering(needs, level)),
        few=rank_of(level, len(seen)) > len(seen),
        covered=_in_hindsight(needs, level),
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
