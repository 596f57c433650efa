"""What a step may send where: the rungs that may see what it carries, and an entry for each that may not."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, NoReturn

from agentbudget import telemetry
from agentbudget.ledger import Hold
from agentbudget.models.base import Message, Model, Request
from agentbudget.money import ZERO
from agentbudget.privacy import Destination, Label
from agentbudget.privacy.classes import narrow
from agentbudget.privacy.policy import kept_from, refusal
from agentbudget.privacy.prompts import Cleared, clear
from agentbudget.step.funds import base_of
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
    leaves: bool = False
    redacted: bool = False

    def tell(self, label: Label) -> None:
        """An event for what leaves the machine though it is confidential, or though something was found in it."""
        if self.leaves and (narrow(label.data_class) or self.found):
            decision = "redacted" if self.redacted else "passed"
            telemetry.data_class(label.data_class, decision=decision, destination=self.model.name, found=self.found)


@dataclass(frozen=True, slots=True)
class Sorted:
    """The ways that are open, weakest first, and those that are shut to a request."""

    open: tuple[Way, ...]
    shut: tuple[Way, ...]


def ways(step: Step, request: Request, *, tier: str | None = None, escalate: bool = True) -> tuple[Way, ...]:
    """The rungs for this request, weakest first: those of the skill that may see it, else the strongest that may.

    Each that may not is booked, once a step. Raises `DataRefused` where no rung of the ladder may.
    """
    found = _known(step, request) if tier is None and escalate else None
    found = found or sort_ways(step, request, tier=tier, escalate=escalate)
    for way in found.shut:
        book_refusal(step, way.model.name, way.found)
    return found.open or _refuse(step, found)


def sort_ways(step: Step, request: Request, *, tier: str | None = None, escalate: bool = True) -> Sorted:
    """Which rungs may see the request, by the class of what the step carries and by what is found in it.

    Not even a count is asked of a model that may not: a server that counts reads what it counts.
    """
    skill, ladder = step.skill, step.engine.ladder
    wanted = ladder.climb(tier or skill.tier, skill.escalate if escalate and tier is None else None)
    sorted_ones = [_looked_at(step, model, request) for model in wanted]
    opened = tuple(way for way, may in sorted_ones if may)
    shut = [way for way, may in sorted_ones if not may]
    if opened:
        passed = begin(step, [way.model.name for way in opened]) if escalate and tier is None else 0
        return Sorted(opened[passed:], tuple(shut))
    for model in reversed(ladder.models):
        if model not in wanted:
            way, may = _looked_at(step, model, request)
            if may:
                return Sorted((way,), tuple(shut))
            shut.append(way)
    return Sorted((), tuple(shut))


def open_ways(step: Step, request: Request) -> tuple[Way, ...]:
    """`ways`, before the step has a hold: what is refused on the way is booked when it is carried out.

    Where nothing is open, that is booked on whoever calls the step, and raised: no money is reserved.
    """
    found = sort_ways(step, request)
    step.known_ways = request, step.context.carries.data_class, found
    if not found.open:
        for way in found.shut:
            refused(step.outer, step.context.carries, way.model.name, way.found, skill=step.skill.name)
    return found.open or _refuse(step, found)


def _known(step: Step, request: Request) -> Sorted | None:
    """What `open_ways` found for the very same request, if the step carries what it carried then."""
    if step.known_ways is None:
        return None
    asked, data_class, found = step.known_ways
    return found if asked is request and data_class == step.context.carries.data_class else None


def _refuse(step: Step, found: Sorted) -> NoReturn:
    counts = {kind: count for way in found.shut for kind, count in way.found.items()}
    names = [way.model.name for way in found.shut]
    raise refusal(names, step.context.carries, what=f"what {step.skill.name!r} asks", found=counts)


def _looked_at(step: Step, model: Model, request: Request) -> tuple[Way, bool]:
    """The way to a model, and whether it is open."""
    privacy, destination = step.engine.privacy, Destination.of_model(model)
    if not privacy.admits(destination, step.context.carries.data_class):
        return Way(model, request), False
    leaves = privacy.leaves(destination)
    if not (privacy.looks and leaves):
        return Way(model, request, leaves=leaves), True
    cleared: Cleared = clear(request, privacy)
    way = Way(model, cleared.request, cleared.found, leaves, cleared.request is not request)
    return way, not cleared.refused


def open_rungs(step: Step) -> Sequence[Model]:
    """The rungs of a step whose prompts are not known before it runs: those that may see what it carries, else all."""
    wanted = step.engine.ladder.climb(step.skill.tier, step.skill.escalate)
    data_class, privacy = step.context.carries.data_class, step.engine.privacy
    opened = [model for model in wanted if privacy.admits(Destination.of_model(model), data_class)] or wanted
    return opened[begin(step, [model.name for model in opened]) :]


def begin(step: Step, models: Sequence[str]) -> int:
    """How many of `models`, weakest first, the step passes over, since its skill lets it begin where that costs least.

    It is found once: a step that has begun, and holds the money for it, goes on so.
    """
    if step.skill.start == "tier" or len(models) == 1:
        return 0
    if step.began is None:
        place = step.engine.starts.first(step.skill.name, models)
        if not step.engine.outages.attempts(models[place]):
            place = 0
        step.began = models[place]
    return models.index(step.began) if step.began in models else 0


def require(ctx: Context, destination: Destination, *, what: str) -> None:
    """Book and raise `DataRefused` if what the run carries may not go there."""
    label, privacy = ctx.carries, ctx.engine.privacy
    if privacy.admits(destination, label.data_class):
        return
    refused(ctx, label, destination.name)
    privacy.require(destination, label, what=what)


def sendable(ctx: Context, destinations: Sequence[Destination], text: str, *, what: str) -> str:
    """`text` as it may go to all of these: without what the rules take out. Books and raises `DataRefused` if it may
    not, for what the run carries or for what is found in it.
    """
    label, privacy = ctx.carries, ctx.engine.privacy
    for destination in destinations:
        require(ctx, destination, what=what)
        if not (privacy.looks and privacy.leaves(destination)):
            continue
        cleared = clear(Request((Message("user", text),), 1), privacy)
        if cleared.refused:
            refused(ctx, label, destination.name, cleared.found)
            raise refusal([destination.name], label, what=what, found=cleared.found)
        text = cleared.request.messages[0].text
    return text


def note(ctx: Context, kind: str, label: Label, **told: Any) -> None:
    """An entry of the journal that moves no money."""
    base = base_of(ctx)
    meta = {"kind": kind, "data_class": label.data_class, "sources": list(label.sources), **told}
    ledger, hold_id = ctx.engine.ledger, unused_id(ctx.engine.ledger, f"{base}/{kind}")
    hold: Hold
    if ctx.step is not None:
        hold = ledger.reserve(hold_id, ZERO, within=base, meta=meta)
    else:
        accounts = ctx.scope.accounts()
        ctx.engine.open_accounts(accounts)
        hold = ledger.reserve(hold_id, ZERO, accounts=accounts, meta=meta)
    hold.void(reason=_said(kind, label, told))


def book_refusal(step: Step, model: str, found: Mapping[str, int]) -> None:
    """Say in the journal, once a step, that a model must not see what the step carries."""
    if model in step.refused:
        return
    step.refused.add(model)
    refused(step.context, step.context.carries, model, found, skill=step.skill.name)


def refused(ctx: Context, label: Label, destination: str, found: Mapping[str, int] | None = None, **told: Any) -> None:
    """Say in the journal and in the trace that a destination must not see a text: for its class, or what is in it."""
    note(ctx, REFUSAL, label, model=destination, found=dict(found or {}), **told)
    telemetry.data_class(label.data_class, decision="refused", destination=destination, found=found)


def _said(kind: str, label: Label, told: Mapping[str, Any]) -> str:
    if kind == REFUSAL:
        return kept_from(told["model"], label, told["found"])
    return f"the run carries {label.told} from here on" if kind == LABEL else label.told
