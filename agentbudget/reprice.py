"""What past calls would have cost under another price sheet: what they used is in the ledger, so nothing is guessed."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from itertools import chain
from typing import Any, cast

from agentbudget.errors import UnknownPrice
from agentbudget.ledger import Detail, HoldRecord
from agentbudget.ledger.books import paid_inside
from agentbudget.money import NANO
from agentbudget.prices import PriceSheet, cost_on, service_of
from agentbudget.usage import Usage


@dataclass(frozen=True, slots=True)
class RepricedCall:
    """One call of a model: what was booked, and what it would have cost; None where nobody can say, and ``why``."""

    hold_id: str
    skill: str
    model: str
    booked_usd_nano: int
    repriced_usd_nano: int | None
    why: str = ""


@dataclass(frozen=True, slots=True)
class Comparison:
    """Calls in sum. ``booked`` and ``repriced`` are of the same calls: those that could be priced again.

    The others are counted in ``unknown``, and what was booked for them in ``unknown_usd_nano``.
    """

    name: str
    calls: int = 0
    booked_usd_nano: int = 0
    repriced_usd_nano: int = 0
    unknown: int = 0
    unknown_usd_nano: int = 0


@dataclass(frozen=True, slots=True)
class Repriced:
    """Past calls under another price sheet.

    ``other_usd_nano`` was booked for what is no model call (retrieval, indexing): no sheet changes it.
    """

    calls: tuple[RepricedCall, ...]
    other_usd_nano: int = 0

    @property
    def unknown(self) -> tuple[RepricedCall, ...]:
        """The calls that nobody can price again."""
        return tuple(call for call in self.calls if call.repriced_usd_nano is None)

    @property
    def total(self) -> Comparison:
        """All calls."""
        return _sum("total", self.calls)

    @property
    def per_model(self) -> tuple[Comparison, ...]:
        """The same for each model, the dearest first."""
        return _grouped(self.calls, lambda call: call.model)

    @property
    def per_skill(self) -> tuple[Comparison, ...]:
        """The same for each skill, the dearest first."""
        return _grouped(self.calls, lambda call: call.skill)

    def to_dict(self) -> dict[str, Any]:
        """Everything as JSON-ready data."""
        return {
            "total": asdict(self.total),
            "other_usd_nano": self.other_usd_nano,
            "models": [asdict(line) for line in self.per_model],
            "skills": [asdict(line) for line in self.per_skill],
            "unknown": [asdict(call) for call in self.unknown],
            "calls": [asdict(call) for call in self.calls],
        }


def reprice(holds: Iterable[HoldRecord], sheet: PriceSheet, *, keep_others: bool = False) -> Repriced:
    """Price the model calls among `holds` again, by `sheet`. A call that is still open is left out.

    The sheet knows a model by the name that the ledger has for it, with or without the ``@address`` of its server; a
    call is priced by what is in force when it was made, at the service tier at which it was served.
    One that it does not list is unknown, unless ``keep_others``: then it keeps the terms on which it was settled.
    A call whose usage nobody knows (presumed spent) stays unknown; one that cost nothing because the answer was paid
    for before, or because it was refused, costs nothing still. Calls inside a leased block are priced as of the moment
    at which it was leased.
    """
    calls: list[RepricedCall] = []
    other = 0
    for hold in chain.from_iterable(map(_calls_of, holds)):
        if hold.settled_units is None:
            continue
        own = hold.settled_units[0] - hold.spent_units[0]
        model = hold.meta.get("model")
        if not isinstance(model, str):
            other += own
        elif hold.state != "voided":
            calls.append(_call(hold, model, own, sheet, keep_others))
    return Repriced(tuple(calls), other)


def _calls_of(hold: HoldRecord) -> list[HoldRecord]:
    """The hold, or those on its bill if it is a leased block."""
    return paid_inside(hold) or [hold]


def _call(hold: HoldRecord, model: str, booked: int, sheet: PriceSheet, keep_others: bool) -> RepricedCall:
    cost, why = _cost(hold, model, booked, sheet, keep_others)
    return RepricedCall(hold.id, str(hold.meta.get("skill") or "–"), model, booked, cost, why)


def _cost(hold: HoldRecord, model: str, booked: int, sheet: PriceSheet, keep_others: bool) -> tuple[int | None, str]:
    if hold.detail.get("cached") is True and booked == 0:
        return 0, "paid for before"
    usage = _usage(hold.detail)
    if usage is None:
        if booked == 0 and not hold.presumed:
            return 0, "not billed"
        return None, "presumed spent: nobody knows what it used" if hold.presumed else "the ledger has no usage of it"
    terms = hold.detail.get("price")
    tier, at = service_of(terms), datetime.fromtimestamp(hold.created_ns // NANO, UTC)
    price = sheet.price(model, tier=tier, at=at) or sheet.price(model.partition("@")[0], tier=tier, at=at)
    if price is not None:
        return price.cost(usage), ""
    if not keep_others:
        how = "" if tier == "standard" else f" at the service tier {tier!r}"
        return None, f"the sheet does not list {model}{how} at the time of the call"
    if not isinstance(terms, Mapping):
        return None, "the ledger has no price of it"
    try:
        return cost_on(cast("Mapping[str, Any]", terms), usage), "as it was booked"
    except UnknownPrice as error:
        return None, str(error)


def _usage(detail: Detail) -> Usage | None:
    try:
        return Usage.from_dict(dict(detail["usage"]))
    except (KeyError, TypeError, ValueError):
        return None


def _grouped(calls: Iterable[RepricedCall], name_of: Callable[[RepricedCall], str]) -> tuple[Comparison, ...]:
    groups: dict[str, list[RepricedCall]] = {}
    for call in calls:
        groups.setdefault(name_of(call), []).append(call)
    sums = (_sum(name, group) for name, group in groups.items())
    return tuple(sorted(sums, key=lambda line: (-line.booked_usd_nano - line.unknown_usd_nano, line.name)))


def _sum(name: str, calls: Iterable[RepricedCall]) -> Comparison:
    known: list[tuple[int, int]] = []
    unknown: list[int] = []
    for call in calls:
        if call.repriced_usd_nano is None:
            unknown.append(call.booked_usd_nano)
        else:
            known.append((call.booked_usd_nano, call.repriced_usd_nano))
    return Comparison(
        name,
        calls=len(known) + len(unknown),
        booked_usd_nano=sum(booked for booked, _ in known),
        repriced_usd_nano=sum(repriced for _, repriced in known),
        unknown=len(unknown),
        unknown_usd_nano=sum(unknown),
    )
