"""What a step may send where: the rungs that may see what it carries, and an entry for each that may not."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from agentbudget import telemetry
from agentbudget.ledger import Hold
from agentbudget.models.base import Model, Request
from agentbudget.money import ZERO
from agentbudget.privacy import Destination, Label
from agentbudget.privacy.policy import refusal
from agentbudget.privacy.prompts import Cleared, clear
from agentbudget.step.identity import unused_id

if TYPE_CHECKING:
    from collections.abc import Mapping

    from agentbudget.step.context import Context
    from agentbudget.step.transaction import Step

REFUSAL = "refusal"
LABEL = "label"
CLEARED = "cleared"
"""Kinds of holds that hold nothing: they are there for the journal."""


@dataclass(frozen=True, slots=True)
class Way:
    """A model that may be asked, and what it may be asked: the request, without what must not leave the machine."""

    model: Model
    request: Request
    found: Mapping[str, int] = field(default_factory=dict[str, int])


def ways(step: Step, request: Request, *, escalate: bool = True) -> tuple[Way, ...]:
    """The rungs for this request, weakest first: those of the skill that may see it, else the strongest that may.

    Each of the skill's rungs that may not is booked, once a step. Raises `DataRefused` where no rung of the ladder may.
    """
    label, ladder = step.context.carries, step.engine.ladder
    wanted = ladder.climb(step.skill.tier, step.skill.escalate if escalate else None)
    open_to, refused = _sorted_out(step, wanted, request, label)
    if not open_to:
        others = [model for model in reversed(ladder.models) if model not in wanted]
        for model in others:
            found, shut = _sorted_out(step, [model], request, label)
            refused += shut
            if found:
                open_to = found
                break
    for shut in refused:
        book_refusal(step, shut.model.name, label, shut.found)
    if not open_to:
        found = {kind: count for shut in refused for kind, count in shut.found.items()}
        raise refusal([shut.model.name for shut in refused], label, what=f"what {step.skill.name!r} asks", found=found)
    return tuple(open_to)


def open_rungs(step: Step) -> Sequence[Model]:
    """The rungs that the step may climb by what is known of it before it runs; all of them if that leaves none."""
    wanted = step.engine.ladder.climb(step.skill.tier, step.skill.escalate)
    label = step.context.carries
    privacy = step.engine.privacy
    return [m for m in wanted if privacy.admits(Destination.of_model(m), label.data_class)] or wanted


def require(ctx: Context, destination: Destination, *, what: str) -> None:
    """Book and raise `DataRefused` if what the run carries may not go there."""
    label, privacy = ctx.carries, ctx.engine.privacy
    if privacy.admits(destination, label.data_class):
        return
    note(ctx, REFUSAL, label, model=destination.name)
    telemetry.data_class(label.data_class, decision="refused", destination=destination.name)
    privacy.require(destination, label, what=what)


def note(ctx: Context, kind: str, label: Label, **told: Any) -> None:
    """An entry of the journal that moves no money."""
    base = ctx.step.hold.id if ctx.step else f"{ctx.run_id}/{ctx.engine.position()}".rstrip("/")
    meta = {"kind": kind, "data_class": label.data_class, "sources": list(label.sources), **told}
    ledger, hold_id = ctx.engine.ledger, unused_id(ctx.engine.ledger, f"{base}/{kind}")
    hold: Hold
    if ctx.step is not None:
        hold = ledger.reserve(hold_id, ZERO, within=base, meta=meta)
    else:
        hold = ledger.reserve(hold_id, ZERO, accounts=ctx.scope.accounts(), meta=meta)
    hold.void(reason=_said(kind, label, told.get("model")))


def book_refusal(step: Step, model: str, label: Label, found: Mapping[str, int]) -> None:
    """Say in the journal, once a step, that a model must not see what the step carries."""
    if model in step.refused:
        return
    step.refused.add(model)
    note(step.context, REFUSAL, label, model=model, skill=step.skill.name, found=dict(found))
    telemetry.data_class(label.data_class, decision="refused", destination=model, found=found)


def _sorted_out(step: Step, models: Sequence[Model], request: Request, label: Label) -> tuple[list[Way], list[Way]]:
    """The ways that are open, and those that are shut."""
    privacy = step.engine.privacy
    open_to: list[Way] = []
    shut: list[Way] = []
    for model in models:
        destination = Destination.of_model(model)
        if not privacy.admits(destination, label.data_class):
            shut.append(Way(model, request))
        elif privacy.looks and privacy.leaves(destination):
            cleared: Cleared = clear(request, privacy)
            way = Way(model, cleared.request, cleared.found)
            (shut if cleared.refused else open_to).append(way)
        else:
            open_to.append(Way(model, request))
    return open_to, shut


def _said(kind: str, label: Label, model: object) -> str:
    if kind == REFUSAL:
        return f"{label.told} may not go to {model}"
    return f"the run carries {label.told} from here on" if kind == LABEL else label.told
