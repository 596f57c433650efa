"""On which rung steps of a skill begin that leave it to us: the one from which they have cost least."""

from __future__ import annotations

from collections import defaultdict, deque
from collections.abc import Sequence
from dataclasses import dataclass, field
from statistics import fmean
from typing import Final

from agentbudget.estimate import tag
from agentbudget.ledger import Ledger

ENOUGH: Final = 20
"""Steps that begin on the lowest rung before another is thought of."""

TRIED: Final = 5
"""Steps that began on a rung, or calls of its model, from which their mean cost is believed."""

LOOK_AGAIN: Final = 20
"""After so many steps that began elsewhere, one begins on the lowest rung again: models, prompts and prices change."""

RECENT: Final = 20
"""Steps and calls by which a rung is judged."""

LOOK_BACK: Final = 500
"""Steps of a skill that are read of the ledger: where one in `LOOK_AGAIN` begins on the lowest rung, `ENOUGH` of these
did, though some have no answer."""

ANSWERED: Final = ("ok", "unaccepted")
"""How a step ends that has an answer."""

BEGAN: Final = "began"
"""Where a step's settlement says with which model it began, and what its answers cost when they were bought."""


def step_tag(skill: str) -> str:
    """The ledger's tag of the steps of a skill."""
    return f"step|{skill}"


def _costs() -> defaultdict[str, deque[int]]:
    return defaultdict(lambda: deque(maxlen=RECENT))


@dataclass(slots=True)
class _Known:
    """What steps of a skill cost that began with a model, and what its calls of a model cost, in nano-dollars.

    An answer that was paid for before counts at what it cost then.
    ``elsewhere`` counts the steps since the last that began with ``lowest``, the weakest model that may be asked.
    """

    steps: defaultdict[str, deque[int]] = field(default_factory=_costs)
    calls: defaultdict[str, deque[int]] = field(default_factory=_costs)
    lowest: str = ""
    elsewhere: int = 0

    def ended(self, began: str, usd_nano: int) -> None:
        """A step that began with a model has an answer, which cost so much."""
        self.steps[began].append(usd_nano)
        self.elsewhere = 0 if began == self.lowest else self.elsewhere + 1

    def cost(self, model: str) -> float | None:
        """What a step that begins with a model should cost; None if too little is known.

        Where no steps have tried it: what a call of it costs, which is the least.
        """
        costs = next((costs for costs in (self.steps[model], self.calls[model]) if len(costs) >= TRIED), None)
        return None if costs is None else fmean(costs)


class Starts:
    """Learns from the steps of one engine, and from those that the ledger has settled before."""

    def __init__(self, ledger: Ledger) -> None:
        self._ledger = ledger
        self._known: dict[str, _Known] = {}

    def first(self, skill: str, models: Sequence[str]) -> int:
        """The place among `models`, weakest first, of the one that a step of `skill` should begin with."""
        known = self._known_of(skill, models)
        known.lowest = models[0]
        lowest = known.steps[known.lowest]
        if len(lowest) < ENOUGH or known.elsewhere >= LOOK_AGAIN:
            return 0
        least, found = fmean(lowest), 0
        for place, model in enumerate(models[1:], start=1):
            cost = known.cost(model)
            if cost is not None and cost < least:
                least, found = cost, place
        return found

    def called(self, skill: str, model: str, usd_nano: int) -> None:
        """An answer of a model was paid for, now or before."""
        if skill in self._known:
            self._known[skill].calls[model].append(usd_nano)

    def ended(self, skill: str, began: str, usd_nano: int) -> None:
        """A step that began with a model has an answer, which cost so much."""
        known = self._known.get(skill)
        if known is not None:
            known.ended(began, usd_nano)

    def _known_of(self, skill: str, models: Sequence[str]) -> _Known:
        known = self._known.get(skill)
        if known is None:
            known = self._known[skill] = _Known(lowest=models[0])
            for record in reversed(self._ledger.history(step_tag(skill), LOOK_BACK)):
                began = record.detail.get(BEGAN)
                if began is not None and record.detail["status"] in ANSWERED:
                    known.ended(began["model"], began["usd_nano"])
            for model in models:
                calls = reversed(self._ledger.history(tag(skill, model), RECENT))
                known.calls[model].extend(record.settled_units[0] for record in calls if record.settled_units)
        return known
