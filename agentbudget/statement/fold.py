"""From the holds of one run to the lines of its statement. Pure: holds in, values out."""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal
from typing import Final, Literal, cast

from agentbudget.ledger import Detail, HoldRecord
from agentbudget.money import ZERO, Amount, nano_to_usd
from agentbudget.privacy.classes import METADATA_KEY, claimed, strictest

LineStatus = Literal[
    "ok",
    "unaccepted",
    "failed",
    "cancelled",
    "cached",
    "replayed",
    "overrun",
    "presumed",
    "lapsed",
    "open",
    "voided",
    "unknown",
]
"""How a step ended. ``unaccepted``: no answer passed its checks, be it new or paid for before; ``cached`` and
``replayed``: accepted, and every answer was paid for before; ``overrun``: it ended, above a hold; ``presumed``: booked
at what it held; ``lapsed``: left in the middle by its owner, and what was sent presumed spent; ``unknown``: the ledger
does not say."""

NS_PER_S: Final = 10**9
NS_PER_MINUTE: Final = 60 * NS_PER_S


@dataclass(frozen=True, slots=True)
class Estimate:
    """What a step was expected to use; None where nobody said."""

    usd_nano: int | None = None
    tokens: int | None = None


@dataclass(frozen=True, slots=True)
class Rejection:
    """An answer that was not accepted: the model that gave it (None if nobody said), and what was against it."""

    model: str | None
    reason: str


@dataclass(frozen=True, slots=True)
class Refusal:
    """A model (or another destination) that must not see what a step carried: why is the class and its sources."""

    destination: str | None
    reason: str


@dataclass(frozen=True, slots=True)
class Line:
    """One step (or a retrieval or index update that stands alone), with all that happened within it.

    ``about`` is what it was for, such as a question, where a graph says so. ``depth`` is 0 for a step of the run, 1 for
    a step within it. Amounts and tokens include the steps within; ``own`` and ``own_hits`` leave them out.
    ``input_tokens`` and ``output_tokens`` are those of calls that asked a model, None if the ledger does not say;
    ``cached_tokens`` is the part of the input that a provider read from its prompt cache. ``cache_hits`` are what our
    own cache gave, ``replayed`` those that a resumed run had paid for already. ``presumed`` and ``overrun`` are
    parts of what was booked. ``rejected`` are the answers that did not pass, in order. ``data_class`` is the class of
    what the step carried, None where the ledger does not say; ``refused`` are the models that were kept from it, and
    ``found`` counts what its prompts held of secrets and personal data on their way off the machine, by kind.
    ``cut`` counts the answers that reached their cap: no cache gives them to another run.
    """

    id: str
    kind: str
    depth: int
    skill: str
    about: str | None
    tier: str | None
    model: str | None
    models: tuple[str, ...]
    status: LineStatus
    escalated: bool
    rejected: tuple[Rejection, ...]
    estimated: Estimate
    held: Amount
    settled: Amount | None
    own: Amount
    calls: int
    input_tokens: int | None
    output_tokens: int | None
    cached_tokens: int
    cache_hits: int
    replayed: int
    saved_usd_nano: int
    seconds: float | None
    presumed: Amount
    overrun: Amount
    error: str | None
    data_class: str | None = None
    refused: tuple[Refusal, ...] = ()
    found: tuple[tuple[str, int], ...] = ()
    cut: int = 0
    own_hits: int = 0


@dataclass(frozen=True, slots=True)
class SkillCost:
    """What one skill cost in this run, the steps of other skills within it left out. ``share`` is of the dollars."""

    skill: str
    steps: int
    cost: Amount
    share: Decimal
    escalated: int
    cache_hits: int


@dataclass(frozen=True, slots=True)
class TierModel:
    """A model of the ladder: its place (``local``, ``frontier``, ``rung 2``) and its price, where a call said one."""

    tier: str
    model: str
    price: str | None


@dataclass(frozen=True, slots=True)
class Point:
    """What had been booked when so much of the run had passed."""

    at_ns: int
    booked: Amount


@dataclass(frozen=True, slots=True)
class Totals:
    """The run as a whole. ``settled`` is all that is booked by now; ``open`` is still held for what has not ended."""

    steps: int
    calls: int
    estimated: Estimate
    held: Amount
    settled: Amount
    open: Amount
    input_tokens: int | None
    output_tokens: int | None
    cached_tokens: int
    cache_hits: int
    replayed: int
    saved_usd_nano: int
    escalated: int
    presumed: Amount
    overrun: Amount
    wall_ns: int

    @property
    def usd_per_minute(self) -> Decimal | None:
        """How fast the run spent; None if no time passed."""
        return nano_to_usd(self.settled.usd_nano * NS_PER_MINUTE // self.wall_ns) if self.wall_ns else None

    @property
    def tokens_per_minute(self) -> int | None:
        """How fast the run used tokens; None if no time passed."""
        return self.settled.tokens * NS_PER_MINUTE // self.wall_ns if self.wall_ns else None


class Holds:
    """The holds of one run, as a tree: steps, and what was held within each."""

    def __init__(self, records: Sequence[HoldRecord]) -> None:
        self.records = tuple(records)
        self._ids = {record.id for record in records}
        self._within: dict[str | None, list[HoldRecord]] = defaultdict(list)
        for record in records:
            self._within[record.parent if record.parent in self._ids else None].append(record)
        self._names = short_names(model for record in records if (model := text(record.meta, "model")))

    # --- lines

    def lines(self) -> tuple[Line, ...]:
        """A line a step, in the order in which the steps began, each followed by the steps within it."""
        return tuple(self._lines((one for one in self._within[None] if not is_note(one)), depth=0))

    def _lines(self, heads: Iterable[HoldRecord], *, depth: int) -> Iterable[Line]:
        for head in sorted(heads, key=self._began):
            yield self._line(head, depth)
            yield from self._lines(self._steps_within(head), depth=depth + 1)

    def _began(self, head: HoldRecord) -> int:
        # Landing fuel is held long before it is used: a step began when something was first held within it.
        return min((record.created_ns for record in self._within[head.id]), default=head.created_ns)

    def _steps_within(self, head: HoldRecord) -> list[HoldRecord]:
        """The nearest steps below `head`."""
        found: list[HoldRecord] = []
        for record in self._within[head.id]:
            found += [record] if is_step(record) else self._steps_within(record)
        return found

    def _own(self, head: HoldRecord) -> list[HoldRecord]:
        """`head` and what was held within it, the steps within left out."""
        parts = [head]
        for record in self._within[head.id]:
            parts += [] if is_step(record) else self._own(record)
        return parts

    def _all(self, head: HoldRecord) -> list[HoldRecord]:
        """`head` and everything below it."""
        return [head, *(part for record in self._within[head.id] for part in self._all(record))]

    def _line(self, head: HoldRecord, depth: int) -> Line:
        own, parts = self._own(head), self._all(head)
        calls = [part for part in parts if is_call(part)]
        asked = [call for call in calls if asked_a_model(call)]
        models = unique(text(call.meta, "model") for call in own if is_call(call))
        return Line(
            id=head.id,
            kind=text(head.meta, "kind") or "step",
            depth=depth,
            skill=_title(head),
            about=text(head.meta, "about"),
            tier=text(head.meta, "tier"),
            model=" → ".join(self._names[model] for model in models) or None,
            models=models,
            status=_status(head, [call for call in own if is_call(call)]),
            escalated=_escalated(head, own),
            rejected=_rejected(head),
            estimated=_estimate(head),
            held=head.amount,
            settled=head.settled,
            own=total(booked(part) for part in own),
            calls=len(asked),
            input_tokens=_tokens(head, asked, "input_tokens"),
            output_tokens=_tokens(head, asked, "output_tokens"),
            cached_tokens=sum(_usage(call, "cached_tokens") or 0 for call in asked),
            cache_hits=sum(is_hit(part) for part in parts),
            replayed=sum(flag(call.detail, "replayed") for call in calls),
            saved_usd_nano=sum(whole(part.detail, "saved_usd_nano") or 0 for part in parts if is_hit(part)),
            seconds=number(head.detail, "seconds"),
            presumed=total(booked(part) for part in parts if part.presumed),
            overrun=total(part.overrun for part in parts if part is not head).at_least(head.overrun),
            error=text(head.detail, "error"),
            data_class=_data_class(own),
            refused=tuple(_refusal(part) for part in own if is_refusal(part)),
            found=_found(own),
            cut=_cut([call for call in own if is_call(call) and asked_a_model(call)]),
            own_hits=sum(is_hit(part) for part in own),
        )

    # --- the run

    def totals(self, lines: Sequence[Line]) -> Totals:
        """The sums over the run's own lines; a line within another is in that one's sums already."""
        top, moments = [line for line in lines if line.depth == 0], self._moments
        return Totals(
            steps=sum(line.kind == "step" for line in lines),
            calls=sum(line.calls for line in top),
            estimated=Estimate(
                known_sum(line.estimated.usd_nano for line in top), known_sum(line.estimated.tokens for line in top)
            ),
            held=total(line.held for line in top),
            settled=total(booked(record) for record in self.records),
            open=total(head.amount.minus(head.spent) for head in self._within[None] if head.state == "open"),
            input_tokens=known_sum(line.input_tokens for line in top),
            output_tokens=known_sum(line.output_tokens for line in top),
            cached_tokens=sum(line.cached_tokens for line in top),
            cache_hits=sum(line.cache_hits for line in top),
            replayed=sum(line.replayed for line in top),
            saved_usd_nano=sum(line.saved_usd_nano for line in top),
            escalated=sum(line.escalated for line in lines),
            presumed=total(line.presumed for line in top),
            overrun=total(line.overrun for line in top),
            wall_ns=moments[-1] - moments[0] if moments else 0,
        )

    @property
    def _moments(self) -> list[int]:
        """When holds began and ended, in order: where a clock was put back meanwhile, one ends before it began."""
        return sorted(at for record in self.records for at in (record.created_ns, record.closed_ns) if at is not None)

    def curve(self) -> tuple[Point, ...]:
        """What was booked by when, from the start of the run."""
        points, sofar, moments = [Point(0, ZERO)], ZERO, self._moments
        for record in sorted(self.records, key=lambda record: record.closed_ns or 0):
            if record.closed_ns is not None and booked(record):
                sofar += booked(record)
                points.append(Point(record.closed_ns - moments[0], sofar))
        return tuple(points)

    def ladder(self, names: Sequence[str]) -> tuple[TierModel, ...]:
        """The models by place, cheapest first: those of `names`, or else those that calls name."""
        calls = [record for record in self.records if is_call(record)]
        prices = {text(call.meta, "model"): text(call.meta, "price") for call in calls}
        if not names:
            return tuple(TierModel(tier, model, prices.get(model)) for tier, model in self._seen(calls))
        last = len(names) - 1
        return tuple(
            TierModel("local" if i == 0 else "frontier" if i == last else f"rung {i}", name, prices.get(name))
            for i, name in enumerate(names)
        )

    def _seen(self, calls: Sequence[HoldRecord]) -> list[tuple[str, str]]:
        by_id = {record.id: record for record in self.records}
        found: dict[str, tuple[int, str]] = {}
        for call in calls:
            model, rung = text(call.meta, "model"), whole(call.meta, "rung")
            if model is None:
                continue
            step = by_id.get(call.parent or "")
            # The first model of a step is its tier's; a later one is known by its rung only.
            first = text(step.meta, "tier") if step and text(call.meta, "purpose") == "draft" else None
            place = first or (f"rung {rung}" if rung is not None else "–")
            if model not in found or first:
                found[model] = (rung if rung is not None else len(found), place)
        return [(place, model) for model, (_, place) in sorted(found.items(), key=lambda item: item[1][0])]


def cost_by_skill(lines: Sequence[Line]) -> tuple[SkillCost, ...]:
    """The cost of each skill, dearest first."""
    by_skill: dict[str, list[Line]] = defaultdict(list)
    for line in lines:
        by_skill[line.skill].append(line)
    everything = sum(line.own.usd_nano for line in lines)
    costs = [_skill_cost(skill, found, everything) for skill, found in by_skill.items()]
    return tuple(sorted(costs, key=lambda cost: (-cost.cost.usd_nano, -cost.cost.tokens, cost.skill)))


def _skill_cost(skill: str, lines: Sequence[Line], everything: int) -> SkillCost:
    cost = total(line.own for line in lines)
    return SkillCost(
        skill=skill,
        steps=len(lines),
        cost=cost,
        share=Decimal(cost.usd_nano) / everything if everything else Decimal(0),
        escalated=sum(line.escalated for line in lines),
        cache_hits=sum(line.own_hits for line in lines),
    )


# --- what one hold says


def is_step(record: HoldRecord) -> bool:
    """True for the hold of a skill call."""
    return record.meta.get("kind") == "step"


def is_call(record: HoldRecord) -> bool:
    """True for the hold of a model call."""
    return record.meta.get("kind") == "call"


def is_refusal(record: HoldRecord) -> bool:
    """True for an entry that says who must not see something."""
    return record.meta.get("kind") == "refusal"


def is_note(record: HoldRecord) -> bool:
    """True for what is in the journal for its own sake, and holds nothing."""
    return record.meta.get("kind") in ("refusal", "label", "cleared")


def asked_a_model(call: HoldRecord) -> bool:
    """False for a call that was never sent, or that a cache or an earlier attempt answered."""
    return call.state != "voided" and not flag(call.detail, "cached") and not flag(call.detail, "replayed")


def is_hit(part: HoldRecord) -> bool:
    """True for what the cache gave, other than this run's own earlier answer."""
    return flag(part.detail, "cached") and not flag(part.detail, "replayed")


def booked(record: HoldRecord) -> Amount:
    """What this hold booked itself, without the holds within it."""
    return ZERO if record.settled is None else record.settled.minus(record.spent)


def _title(head: HoldRecord) -> str:
    kind, skill = text(head.meta, "kind"), text(head.meta, "skill")
    if kind in ("retrieval", "index"):
        return f"{kind} {_last_part(text(head.meta, 'source') or '')}".strip()
    if kind == "memory":
        return text(head.meta, "source") or kind
    return skill or kind or head.id


def _last_part(source: str) -> str:
    """The name of an index, without the folder or address where it lies."""
    return source.rstrip("/").rpartition("/")[2]


def _status(head: HoldRecord, calls: Sequence[HoldRecord]) -> LineStatus:
    said, error = text(head.detail, "status"), text(head.detail, "error")
    if head.state == "open" or head.state == "voided" or head.state == "lapsed":
        return head.state
    if said == "failed" or said == "cancelled" or said == "unaccepted":
        return said
    if head.presumed:
        return "presumed"
    if head.overrun or any(call.overrun for call in calls):
        return "overrun"
    if error is not None:  # what is no step says how it ended by its error alone
        return "cancelled" if error == "CancelledError" else "failed"
    if is_hit(head):
        return "cached"
    if calls and not any(asked_a_model(call) for call in calls):
        return "cached" if any(is_hit(call) for call in calls) else "replayed"
    return "ok" if said == "ok" or not is_step(head) else "unknown"


def _escalated(head: HoldRecord, own: Sequence[HoldRecord]) -> bool:
    said = head.detail.get("escalated")
    if isinstance(said, bool):
        return said
    return any(text(call.meta, "purpose") == "escalation" for call in own if is_call(call))


def _refusal(note: HoldRecord) -> Refusal:
    return Refusal(text(note.meta, "model"), text(note.detail, "reason") or text(note.meta, "data_class") or "")


def _data_class(own: Iterable[HoldRecord]) -> str | None:
    """The narrowest class that any part of a step says, be it as it began or as it ended."""
    said = (text(told, METADATA_KEY) for part in own for told in (part.meta, part.detail))
    known = [one for one in said if one is not None]
    return strictest(map(claimed, known)) if known else None


def _found(own: Iterable[HoldRecord]) -> tuple[tuple[str, int], ...]:
    """What was found in prompts on their way out, by kind."""
    counts: Counter[str] = Counter()
    for part in own:
        told = mapping(part.meta, "found")
        counts.update({kind: count for kind in told if (count := whole(told, kind))})
    return tuple(sorted(counts.items()))


def _cut(asked: Sequence[HoldRecord]) -> int:
    """Answers that reached their cap, and after which nobody asked again."""
    after = [*(text(call.meta, "purpose") for call in asked[1:]), None]
    return sum(
        text(call.detail, "finish") == "length" and purpose not in ("retry", "escalation")
        for call, purpose in zip(asked, after, strict=False)
    )


def _rejected(head: HoldRecord) -> tuple[Rejection, ...]:
    told = mappings(head.detail, "rejected")
    return tuple(Rejection(text(one, "model"), reason) for one in told if (reason := text(one, "reason")))


def _estimate(head: HoldRecord) -> Estimate:
    said = mapping(head.meta, "estimated")
    return Estimate(whole(said, "usd_nano"), whole(said, "tokens"))


def _usage(call: HoldRecord, name: str) -> int | None:
    known = whole(mapping(call.detail, "usage"), name)
    # Settled at nothing by whoever knew: the provider refused it and does not bill it.
    return 0 if known is None and call.state == "settled" and not call.presumed and not call.settled else known


def _tokens(head: HoldRecord, asked: Sequence[HoldRecord], name: str) -> int | None:
    if text(head.meta, "kind") == "index":
        return whole(head.detail, "tokens") if name == "input_tokens" else None
    if asked:
        return known_sum(_usage(call, name) for call in asked)
    return 0 if head.state in ("settled", "voided") else None


# --- reading details, which any version of the program may have written


def text(detail: Detail, name: str) -> str | None:
    """The value if it is a text that is not empty."""
    value = detail.get(name)
    return value if isinstance(value, str) and value else None


def whole(detail: Detail, name: str) -> int | None:
    """The value if it is an integer."""
    value = detail.get(name)
    return value if isinstance(value, int) and not isinstance(value, bool) else None


def number(detail: Detail, name: str) -> float | None:
    """The value if it is a number."""
    value = detail.get(name)
    return float(value) if isinstance(value, int | float) and not isinstance(value, bool) else None


def flag(detail: Detail, name: str) -> bool:
    """True if the value is true."""
    return detail.get(name) is True


def mapping(detail: Detail, name: str) -> Detail:
    """The value if it is an object, else an empty one."""
    value = detail.get(name)
    return cast("Mapping[str, object]", value) if isinstance(value, Mapping) else {}


def mappings(detail: Detail, name: str) -> list[Detail]:
    """The objects in the value if it is a list, else none."""
    value = detail.get(name)
    items = cast("list[object]", value) if isinstance(value, list) else []
    return [cast("Mapping[str, object]", item) for item in items if isinstance(item, Mapping)]


# --- sums and names


def total(amounts: Iterable[Amount]) -> Amount:
    """The sum of amounts."""
    return sum(amounts, ZERO)


def known_sum(values: Iterable[int | None]) -> int | None:
    """The sum of what is known; None if nothing is."""
    known = [value for value in values if value is not None]
    return sum(known) if known else None


def unique(values: Iterable[str | None]) -> tuple[str, ...]:
    """The values in order of first appearance, without None."""
    return tuple(dict.fromkeys(value for value in values if value is not None))


_SIZE: Final = re.compile(r"(?:^|[-_./])(\d+(?:\.\d+)?[bm])(?=$|[-_.])", re.IGNORECASE)
_ADDRESS: Final = re.compile(r"@https?://.*$")
_DATE: Final = re.compile(r"-(?:\d{8}|\d{4}-\d{2}-\d{2})$")


def short_names(models: Iterable[str]) -> dict[str, str]:
    """Names short enough for a column, and still apart: ``llamacpp:qwen2.5-coder-0.5b`` → ``0.5b``."""
    names = set(models)
    shortest: Sequence[Callable[[str], str]] = (_short, bare_name, str)
    result: dict[str, str] = {}
    for shorten in shortest:
        shorter = {name: shorten(name) for name in names - result.keys()}
        taken = [*result.values(), *shorter.values()]
        result |= {name: short for name, short in shorter.items() if taken.count(short) == 1}
    return result


def bare_name(model: str) -> str:
    """A model's name alone, without its provider, folder and server: ``vllm:Qwen/Qwen3-8B@http://…`` → ``Qwen3-8B``."""
    return _ADDRESS.sub("", model).partition(":")[2].rpartition("/")[2] or model


def _short(model: str) -> str:
    bare = _DATE.sub("", bare_name(model))
    size = _SIZE.search(bare)
    return size.group(1).lower() if size else bare.removeprefix("claude-")
