"""How a statement puts things, in a terminal and on a page alike: its columns, its facts, its numbers."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from decimal import ROUND_HALF_UP, Decimal
from typing import TYPE_CHECKING, Final

from agentbudget.history import Breakdown
from agentbudget.money import NANO, Amount, Budget, format_usd, nano_to_usd
from agentbudget.privacy import CLASSES
from agentbudget.statement.fold import Line, Refusal, Rejection, TierModel, Totals, unique
from agentbudget.statement.reuse import Reuse, by_kind

if TYPE_CHECKING:
    from agentbudget.statement import Statement

UNKNOWN: Final = "–"
WITHIN: Final = "↳ "
PRESUMED: Final = "≈"
ERROR_LENGTH: Final = 160
TASK_LENGTH: Final = 400
FEW: Final = 6
"""Facts of one kind that are shown one by one."""


@dataclass(frozen=True, slots=True)
class Column:
    """One column: how it shows a line, and what stands below it. The least `weight` goes first where room is short."""

    title: str
    cell: Callable[[Line, int], str]
    total: Callable[[Totals, int], str]
    number: bool = True
    weight: int = 9


def _nothing(_totals: Totals, _places: int) -> str:
    return ""


COLUMNS: Final = (
    Column("Skill", lambda line, _: WITHIN * line.depth + plain(line.skill), lambda _, __: "Total, USD", number=False),
    Column("Tier, model", lambda line, _: place(line), _nothing, number=False, weight=8),
    Column(
        "Estimated",
        lambda line, places: usd(line.estimated.usd_nano, places),
        lambda totals, places: usd(totals.estimated.usd_nano, places),
        weight=4,
    ),
    Column(
        "Held",
        lambda line, places: usd(line.held.usd_nano, places),
        lambda totals, places: usd(totals.held.usd_nano, places),
        weight=5,
    ),
    Column(
        "Settled",
        lambda line, places: settled(line, places),
        lambda totals, places: usd(totals.settled.usd_nano, places),
    ),
    Column("In", lambda line, _: count(line.input_tokens), lambda totals, _: count(totals.input_tokens), weight=7),
    Column("Out", lambda line, _: count(line.output_tokens), lambda totals, _: count(totals.output_tokens), weight=7),
    Column("Cached", lambda line, _: cached(line), lambda totals, _: cached(totals), weight=3),
    Column(
        "Seconds", lambda line, _: seconds(line.seconds), lambda totals, _: seconds(totals.wall_ns / NANO), weight=6
    ),
    Column("Status", lambda line, _: status(line), _nothing, number=False, weight=8),
)


def decimals(statement: Statement) -> int:
    """Decimals for every dollar of the table, so that they stand one above the other."""
    return 6 if statement.totals.held.usd_nano < NANO else 4


def facts(statement: Statement) -> list[tuple[str, str]]:
    """What is worth saying below the table, as names and values."""
    totals = statement.totals
    known = (
        ("Budget", limits(statement.budget)),
        ("Spent", _spent(statement)),
        ("Held open", _some(totals.open) if totals.open else None),
        ("Remaining", limits(statement.remaining)),
        ("Burn rate", _burn_rate(totals)),
        ("Cache", _cache(totals, statement.reused)),
        *_few("Trusted", [_trust(hit) for hit in statement.reused if hit.because != "exact"]),
        ("Escalated", f"{totals.escalated} of {plural(totals.steps, 'step')}" if totals.escalated else None),
        ("Presumed", f"{_some(totals.presumed)}: sent, outcome unknown, booked as held" if totals.presumed else None),
        ("Overrun", f"{_some(totals.overrun)} above what was held, booked in full" if totals.overrun else None),
        *_few("Cut", [_cut_short(line) for line in statement.lines if line.cut]),
        *_few("Asked", [_about(line) for line in statement.lines if line.about and line.kind == "step"]),
        *_few("Rejected", [_against(rejection, line) for line in statement.lines for rejection in line.rejected]),
        ("Data", _data_classes(statement.lines)),
        *_few("Kept here", unique(_kept_here(line, one) for line in statement.lines for one in line.refused)),
        *_few("Found", [_found(line) for line in statement.lines if line.found]),
        *(("Failed", f"{line.skill}: {cut(line.error, ERROR_LENGTH)}") for line in statement.lines if line.error),
        *((model.tier.capitalize(), _priced(model)) for model in statement.ladder),
    )
    return [(name, plain(value)) for name, value in known if value is not None]


def heading(statement: Statement) -> str:
    """The run, whose it was, and how it ended."""
    user = f"user {statement.user}" if statement.user else None
    return plain(" · ".join(part for part in (f"run {statement.run_id}", user, statement.status) if part))


def task(statement: Statement) -> str | None:
    """The task on one line."""
    return None if statement.task is None else cut(plain(statement.task), TASK_LENGTH)


# --- cells


def usd(nano: int | None, places: int) -> str:
    """Dollars without their sign, for a column."""
    if nano is None:
        return UNKNOWN
    unit = Decimal(1).scaleb(-places)
    shown = nano_to_usd(nano).quantize(unit, ROUND_HALF_UP)
    return f"<{unit:f}" if nano and not shown else f"{shown:,f}" if nano else "0"


def settled(line: Line, places: int) -> str:
    """What was booked; ``≈`` where some of it is presumed."""
    if line.settled is None:
        return UNKNOWN
    return f"{PRESUMED if line.presumed else ''}{usd(line.settled.usd_nano, places)}"


def count(number: int | None) -> str:
    """A number of tokens."""
    return UNKNOWN if number is None else f"{number:,}"


def cached(line: Line | Totals) -> str:
    """Answers from the cache, or else input tokens that a provider had cached."""
    if line.cache_hits or not line.cached_tokens:
        return plural(line.cache_hits, "hit") if line.cache_hits else "0"
    tokens = line.cached_tokens
    return f"{tokens} tok" if tokens < 1000 else f"{tokens / 1000:.0f}k tok"


def seconds(value: float | None) -> str:
    """Seconds, to the hundredth below ten."""
    return UNKNOWN if value is None else f"{value:.2f}" if value < 10 else f"{value:,.1f}"


def place(line: Line) -> str:
    """The tier and the model; after an escalation the models, weakest first."""
    if line.model is None or len(line.models) > 1:
        return plain(line.model or line.tier or UNKNOWN)
    return plain(f"{line.tier} {line.model}" if line.tier else line.model)


def status(line: Line) -> str:
    """How the step ended, in a word."""
    if line.status == "unknown":
        return UNKNOWN
    return "escalated" if line.escalated and line.status == "ok" else line.status


# --- facts


def limits(budget: Budget) -> str:
    """A budget, or what remains of one."""
    parts = (
        None if budget.usd_nano is None else format_usd(budget.usd_nano),
        None if budget.tokens is None else plural(budget.tokens, "token"),
        None if budget.calls is None else plural(budget.calls, "call"),
    )
    return " · ".join(part for part in parts if part) or "no limit"


def _spent(statement: Statement) -> str:
    booked, budget = statement.totals.settled, statement.budget
    shares = [
        f"{percent(part, whole)} of the {name}"
        for name, part, whole in (
            ("dollars", booked.usd_nano, budget.usd_nano),
            ("tokens", booked.tokens, budget.tokens),
        )
        if whole
    ]
    text = f"{format_usd(booked.usd_nano)} · {plural(booked.tokens, 'token')} · {plural(booked.calls, 'call')}"
    embedded = _embedded_here(statement.lines)
    beside = f" · {plural(embedded, 'token')} embedded here" if embedded else ""
    return f"{text}{beside}  ({', '.join(shares)})" if shares else f"{text}{beside}"


def _embedded_here(lines: Sequence[Line]) -> int:
    """Tokens that this machine embedded for an index: paid for by the second, and so on no account of tokens."""
    if any(line.kind == "embedding" and line.own.tokens for line in lines):
        return 0  # a hosted model's are booked, and counted among the others
    return sum(line.input_tokens or 0 for line in lines if line.kind == "index")


def _burn_rate(totals: Totals) -> str | None:
    per_minute, tokens = totals.usd_per_minute, totals.tokens_per_minute
    if per_minute is None or tokens is None:
        return None
    return f"{format_usd(int(per_minute * NANO))}/min · {tokens:,} tokens/min over {totals.wall_ns / NANO:,.1f} s"


def _cache(totals: Totals, reused: Sequence[Reuse]) -> str | None:
    kinds = by_kind(reused)
    which = ", ".join(plural(number, kind) for kind, number in kinds.items())
    told = f" ({which})" if kinds.keys() - {"answer"} else ""
    parts = (
        f"{plural(totals.cache_hits, 'hit')} saved {format_usd(totals.saved_usd_nano)}{told}"
        if totals.cache_hits
        else None,
        f"{plural(totals.replayed, 'call')} replayed, not paid twice" if totals.replayed else None,
        f"{totals.cached_tokens:,} input tokens from prompt caches" if totals.cached_tokens else None,
    )
    return " · ".join(part for part in parts if part) or None


def _trust(hit: Reuse) -> str:
    """Why an answer to another wording was given."""
    facts = ", ".join(
        f"{name.replace('_', ' ')} {value:.3g}" if isinstance(value, float) else f"{name.replace('_', ' ')} {value}"
        for name, value in hit.facts.items()
    )
    return f"{hit.what}: {hit.because}{f', {facts}' if facts else ''}"


def _some(amount: Amount) -> str:
    parts = (
        format_usd(amount.usd_nano) if amount.usd_nano else None,
        plural(amount.tokens, "token") if amount.tokens else None,
    )
    return " · ".join(part for part in parts if part) or plural(amount.calls, "call")


def _few(name: str, values: Sequence[str]) -> list[tuple[str, str]]:
    """The first of many facts of one kind, and how many there are beside."""
    shown = [(name, value) for value in values[:FEW]]
    return shown if len(values) <= FEW else [*shown, (name, f"{len(values) - FEW:,} more")]


def _cut_short(line: Line) -> str:
    return (
        f"{line.skill}: {plural(line.cut, 'answer')} stopped at the cap. No cache gives such an answer: whoever asks "
        "again pays again; raise max_output_tokens, or ask for less"
    )


def _about(line: Line) -> str:
    return f"{line.skill}: {cut(line.about, ERROR_LENGTH)}"


def _against(rejection: Rejection, line: Line) -> str:
    """Whose answer was not accepted, and why."""
    whose = line.skill if rejection.model is None else f"{line.skill} of {rejection.model}"
    return f"{whose}: {cut(rejection.reason, ERROR_LENGTH)}"


def _data_classes(lines: Sequence[Line]) -> str | None:
    """How many steps carried what; not worth a line where all of it is internal."""
    counts = Counter(line.data_class for line in lines if line.data_class is not None)
    if not any(name in ("confidential", "restricted") for name in counts):
        return None
    return " · ".join(f"{name}: {plural(counts[name], 'step')}" for name in CLASSES if counts[name])


def _kept_here(line: Line, refusal: Refusal) -> str:
    return f"{line.skill}: {cut(refusal.reason, ERROR_LENGTH)}"


def _found(line: Line) -> str:
    return f"{line.skill}: " + ", ".join(f"{count} {kind}" for kind, count in line.found)


def _priced(model: TierModel) -> str:
    return f"{model.model} · {model.price}" if model.price else model.model


# --- words


def plural(number: int, noun: str) -> str:
    """``1 step``, ``2 steps``."""
    return f"{number:,} {noun}{'' if number == 1 else 's'}"


def percent(part: int, whole: int) -> str:
    """A share as a person says it."""
    share = 100 * part / whole if whole else 0.0
    return "<1 %" if 0 < share < 1 else f"{share:.0f} %"


def plain(text: str) -> str:
    """The text on one line, without characters that steer a terminal or hide."""
    return "".join(char if char.isprintable() else " " for char in text)


def cut(text: str | None, length: int) -> str:
    """The text, or its beginning."""
    text = text or ""
    return text if len(text) <= length else f"{text[: length - 1]}…"


def made_of_title(made_of: Breakdown) -> str:
    """The heading of what prompts were made of."""
    return "What the calls were made of" + ("" if made_of.exact else " (the input divided by bytes)")
