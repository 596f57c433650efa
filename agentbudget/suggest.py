"""Budgets proposed from what was spent: for a call, a step and a run, with how much of the past each would cover."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any, Final, Literal

from agentbudget.errors import InvalidArgument
from agentbudget.estimate import conformal_upper
from agentbudget.ledger import HoldRecord, Ledger
from agentbudget.money import Amount, Budget, nano_to_usd

Kind = Literal["run", "step", "call"]

KINDS: Final[tuple[Kind, ...]] = ("run", "step", "call")

LEVEL: Final = 0.95
LAST: Final = 1000
DIGITS: Final = 2
"""A proposal is rounded up to so many digits: nobody sets a budget to the nano-dollar."""


@dataclass(frozen=True, slots=True)
class Suggestion:
    """A budget for one kind of spending.

    ``name`` is the skill of a step, the skill and model of a call, ``"any"`` for runs. ``samples`` is how many were
    looked at, ``presumed`` how many of them are known only as a bound. ``typical`` is the median of each unit, ``most``
    the largest. ``covered`` is the share of them that would have fitted `budget` in every unit at once; ``promised``
    what a next one will, if it is like them: no more than n of n + 1, however large the level.
    """

    kind: Kind
    name: str
    samples: int
    presumed: int
    typical: Amount
    most: Amount
    budget: Budget
    covered: float
    promised: float

    def to_dict(self) -> dict[str, Any]:
        """The suggestion as JSON-ready data."""
        amounts = {"typical": self.typical, "most": self.most, "budget": self.budget}
        return {
            "kind": self.kind,
            "name": self.name,
            "samples": self.samples,
            "presumed": self.presumed,
            **{k: {"usd_nano": a.usd_nano, "tokens": a.tokens, "calls": a.calls} for k, a in amounts.items()},
            "covered": round(self.covered, 4),
            "promised": round(self.promised, 4),
        }


def suggest(ledger: Ledger, *, level: float = LEVEL, last: int = LAST) -> list[Suggestion]:
    """A budget for each kind of spending that the ledger knows, from the `last` of each: runs, then steps, then calls.

    Each unit covers a share of `level` (split-conformal, see `conformal_upper`). Raises `InvalidArgument`.
    """
    if not 0 < level < 1:
        raise InvalidArgument(
            f"a level is a share between 0 and 1, such as {LEVEL}, not {level!r}", argument="level", value=level
        )
    groups: dict[tuple[Kind, str], list[tuple[Amount, bool]]] = defaultdict(list)
    runs: dict[str, list[tuple[Amount, bool]]] = defaultdict(list)
    for record in ledger.holds():
        if record.settled is None or record.state == "voided":
            continue
        for key in _keys(record):
            groups[key].append((record.settled, record.presumed))
        run = next((name for name in record.accounts if name.startswith("run/")), None)
        if run is not None:
            runs[run].append((record.settled, record.presumed))
    for spent in runs.values():
        groups["run", "any"].append((_sum(amount for amount, _ in spent), any(presumed for _, presumed in spent)))
    order = sorted(groups.items(), key=lambda item: (KINDS.index(item[0][0]), item[0][1]))
    return [_suggestion(kind, name, spent[-last:], level) for (kind, name), spent in order]


def _keys(record: HoldRecord) -> Iterator[tuple[Kind, str]]:
    skill, kind = record.meta.get("skill"), record.meta.get("kind")
    if kind == "step":
        yield "step", str(skill)
    elif kind == "call" and not record.detail.get("cached"):
        yield "call", f"{skill} on {record.meta.get('model')}"


def _suggestion(kind: Kind, name: str, spent: list[tuple[Amount, bool]], level: float) -> Suggestion:
    amounts = [amount for amount, _ in spent]
    upper, typical = _each(amounts, level), _each(amounts, 0.5)
    usd_nano = _round_up(upper.usd_nano)
    budget = Budget(
        usd=None if usd_nano is None else nano_to_usd(usd_nano),
        tokens=_round_up(upper.tokens),
        calls=upper.calls or None,
    )
    return Suggestion(
        kind=kind,
        name=name,
        samples=len(spent),
        presumed=sum(presumed for _, presumed in spent),
        typical=typical,
        most=_each(amounts, 1.0),
        budget=budget,
        covered=sum(_fits(amount, budget) for amount in amounts) / len(amounts),
        promised=min(level, len(amounts) / (len(amounts) + 1)),
    )


def _each(amounts: list[Amount], level: float) -> Amount:
    """The upper bound of each unit by itself."""

    def of(values: list[int]) -> int:
        return round(conformal_upper(values, level))

    return Amount(
        of([amount.usd_nano for amount in amounts]),
        of([amount.tokens for amount in amounts]),
        of([amount.calls for amount in amounts]),
    )


def _fits(amount: Amount, budget: Budget) -> bool:
    pairs = ((amount.usd_nano, budget.usd_nano), (amount.tokens, budget.tokens), (amount.calls, budget.calls))
    return all(limit is None or value <= limit for value, limit in pairs)


def _round_up(value: int) -> int | None:
    """`value` to `DIGITS` digits, never less; None for 0, which would forbid what costs nothing."""
    if not value:
        return None
    step = 10 ** max(0, math.floor(math.log10(value)) + 1 - DIGITS)
    return -(-value // step) * step


def _sum(amounts: Iterable[Amount]) -> Amount:
    return sum(amounts, Amount())
