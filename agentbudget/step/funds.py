"""The hold of a step: reserved at once, raised while the step runs where its budget allows."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, Final

from agentbudget import telemetry
from agentbudget.errors import BudgetExceeded, HoldConflict
from agentbudget.ledger import Hold, Ledger, limits, require_room, units
from agentbudget.money import Amount
from agentbudget.privacy import Label
from agentbudget.step.identity import unused_id
from agentbudget.step.starts import step_tag

if TYPE_CHECKING:
    from agentbudget.skills import Skill
    from agentbudget.step.context import Context

_log = logging.getLogger(__name__)

_growing: Final = threading.RLock()
"""Held while a hold is raised with those above it: between a look at the room and its use, nobody else may take it."""


class Funds:
    """A step's hold, and how it grows with those of the steps that called it."""

    def __init__(self, ledger: Ledger, hold: Hold, skill: Skill[Any, Any], above: Funds | None) -> None:
        self.hold = hold
        self._ledger = ledger
        self._skill = skill
        self._above = above

    @property
    def id(self) -> str:
        """The hold's id."""
        return self.hold.id

    def reserve(self, hold_id: str, amount: Amount, hold_tag: str, meta: Mapping[str, Any]) -> Hold:
        """Reserve inside this step, raising the step's own hold where it falls short and its budget allows."""
        kind = str(meta["kind"])
        with telemetry.reservation(hold_id, kind=kind), _growing:
            return _unshared(self._within(hold_id, amount, hold_tag, meta))

    def reserve_step(self, base: str, amount: Amount, hold_tag: str, meta: Mapping[str, Any]) -> Hold:
        """Reserve for a step inside this one, under the first name from `base` on that no earlier try has taken."""

        def within(hold_id: str) -> Hold:
            return self._within(hold_id, amount, hold_tag, meta)

        with telemetry.reservation(base), _growing:
            return _first_unused(self._ledger, base, within)

    def _within(self, hold_id: str, amount: Amount, hold_tag: str, meta: Mapping[str, Any]) -> Hold:
        try:
            return self._ledger.reserve(hold_id, amount, within=self.id, tag=hold_tag, meta=meta)
        except BudgetExceeded:  # most often there is room: it is not looked for first
            self._make_room(amount)
            return self._ledger.reserve(hold_id, amount, within=self.id, tag=hold_tag, meta=meta)

    def grow(self, hold: Hold, to: Amount) -> None:
        """Raise a hold within this step to `to`, and the step's own where it falls short. Raises `BudgetExceeded`."""
        with _growing:
            self._make_room(to.minus(hold.amount))
            hold.extend(to)

    def make_good(self, lost: Amount) -> bool:
        """Hold anew what a failed attempt took, so that the room for the escalation stays, here and in the steps above.

        False where that does not fit: the next attempt is made from what is left.
        """
        if not lost:
            return True
        if self._above is not None:
            self._above.make_good(lost)
        try:
            with _growing:
                self._extend(self.hold.refresh().amount + lost)
        except BudgetExceeded as refused:
            _log.warning("step %s may not afford its escalation: an attempt failed, and %s", self.id, refused)
            return False
        return True

    def _make_room(self, amount: Amount) -> None:
        """Raise this hold until so much fits inside it. Raises `BudgetExceeded`."""
        deficit = amount.minus(self.hold.refresh().room)
        if deficit:
            self._extend(self.hold.amount + deficit)

    def _extend(self, to: Amount) -> None:
        if self._skill.budget is not None:
            require_room(
                f"the budget of skill {self._skill.name!r}", units(to), limit=limits(self._skill.budget), used=(0, 0, 0)
            )
        if self._above is not None:
            self._above._make_room(to.minus(self.hold.amount))
        self.hold.extend(to)


def reserve_step(
    ctx: Context, skill: Skill[Any, Any], base: str, amount: Amount, *, expected: Amount, landing: bool = False
) -> Hold:
    """Hold a step's amount on its run, user, feature and skill at once, or inside the step that calls it."""
    ledger = ctx.engine.ledger
    meta: dict[str, Any] = {
        "kind": "step",
        "skill": skill.name,
        "tier": skill.tier,
        "estimated": {"usd_nano": expected.usd_nano, "tokens": expected.tokens},
    }
    label = ctx.carries if skill.data_class is None else ctx.carries.joined(Label(skill.data_class))
    meta["data_class"] = label.data_class
    if ctx.subject is not None:
        meta["about"] = ctx.subject
    if landing:
        meta["landing"] = True
    hold_tag = step_tag(skill.name)
    if ctx.step is not None:
        return ctx.step.funds.reserve_step(base, amount, hold_tag, meta)
    accounts = ctx.scope.accounts(skill.name)
    ctx.engine.open_accounts(accounts)

    def on_accounts(hold_id: str) -> Hold:
        return ledger.reserve(hold_id, amount, accounts=accounts, tag=hold_tag, meta=meta)

    with telemetry.reservation(base):
        return _first_unused(ledger, base, on_accounts)


def base_of(ctx: Context) -> str:
    """What the ids of holds in this context begin with: its step's hold, or outside of one its place in the graph."""
    return ctx.engine.place(ctx.run_id) if ctx.step is None else ctx.step.hold.id


def reserve_within(ctx: Context, hold_id: str, amount: Amount, hold_tag: str, meta: Mapping[str, Any]) -> Hold:
    """Reserve for what is no step of its own: inside the step that does it, or outside of one on the run's accounts."""
    if ctx.step is not None:
        return ctx.step.funds.reserve(hold_id, amount, hold_tag, meta)
    accounts = ctx.scope.accounts()
    ctx.engine.open_accounts(accounts)
    with telemetry.reservation(hold_id, kind=str(meta["kind"])):
        return ctx.engine.ledger.reserve(hold_id, amount, accounts=accounts, tag=hold_tag, meta=meta)


def reserve_embedding(ctx: Context, beside: Hold, amount: Amount, meta: Mapping[str, Any]) -> Hold:
    """Reserve for an API that embeds, beside the hold for the seconds of this machine."""
    hold_id = unused_id(ctx.engine.ledger, f"{beside.id}/embed")
    return reserve_within(ctx, hold_id, amount, "embedding", meta)


def _first_unused(ledger: Ledger, base: str, reserve: Callable[[str], Hold]) -> Hold:
    """Reserve under `base`, or the next of its names where earlier tries have taken it. Raises `HoldConflict`.

    That it is taken is rare, and the reservation says so: to look first would cost every step a read.
    """
    try:
        hold = reserve(base)
        if not hold.replayed:
            return hold
    except HoldConflict:
        pass
    return _unshared(reserve(unused_id(ledger, base)))


def _unshared(hold: Hold) -> Hold:
    if hold.replayed:
        raise HoldConflict(
            f"hold {hold.id!r} is taken by another call: two steps must not share a hold",
            hold_id=hold.id,
            known=hold.amount,
            asked=hold.amount,
        )
    return hold
