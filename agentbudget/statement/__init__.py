"""What a run cost, and where it went: text for a terminal, HTML for a notebook, JSON and a DataFrame.

A line is a step, and its amounts are those of its hold in the ledger: a step within a step (``↳``) is part of the line
above it. Totals count the run's own lines; the cost of a skill leaves out the steps of other skills within it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from decimal import Decimal
from typing import TYPE_CHECKING, Any, Self, cast

from agentbudget.errors import MissingDependency, UnknownAccount, UnknownRun
from agentbudget.history import Breakdown, total
from agentbudget.ledger import Ledger
from agentbudget.money import Amount, Budget, nano_to_usd
from agentbudget.statement import page, terminal
from agentbudget.statement.fold import (
    NS_PER_S,
    Estimate,
    Holds,
    Line,
    LineStatus,
    Point,
    Refusal,
    Rejection,
    SkillCost,
    TierModel,
    Totals,
    cost_by_skill,
)
from agentbudget.statement.prompts import prompts_of
from agentbudget.statement.reuse import Reuse, reuses

if TYPE_CHECKING:
    from pandas import DataFrame
    from rich.console import RenderableType

__all__ = [
    "Estimate",
    "Line",
    "LineStatus",
    "Point",
    "Refusal",
    "Rejection",
    "Reuse",
    "SkillCost",
    "Statement",
    "TierModel",
    "Totals",
]


@dataclass(frozen=True, slots=True)
class Statement:
    """What one run cost. ``remaining`` is what its account may still take; None in a budget means no limit.

    ``prompts`` says for each line, by its id, what its calls were made of; ``made_of`` for the run.
    """

    run_id: str
    lines: tuple[Line, ...]
    totals: Totals
    by_skill: tuple[SkillCost, ...]
    ladder: tuple[TierModel, ...]
    budget: Budget
    remaining: Budget
    curve: tuple[Point, ...]
    reused: tuple[Reuse, ...] = ()
    prompts: Mapping[str, Breakdown] = field(default_factory=dict[str, Breakdown])
    task: str | None = None
    user: str | None = None
    status: str | None = None

    @classmethod
    def of(
        cls,
        ledger: Ledger,
        run_id: str,
        *,
        task: str | None = None,
        user: str | None = None,
        ladder: tuple[str, ...] = (),
        status: str | None = None,
    ) -> Self:
        """The statement of a run as the ledger has it now, finished or not. `ladder` names models, cheapest first.

        Raises `UnknownRun` if the ledger has neither the run's account nor a hold of it.
        """
        holds = Holds(ledger.holds(prefix=f"{run_id}/"))
        try:
            account = ledger.balance(f"run/{run_id}")
            budget, remaining = account.limit, account.available
        except UnknownAccount:
            if not holds.records:
                raise UnknownRun(f"the ledger at {ledger.location} has no run {run_id!r}; check the id") from None
            budget = remaining = Budget()
        lines = holds.lines()
        return cls(
            run_id=run_id,
            lines=lines,
            totals=holds.totals(lines),
            by_skill=cost_by_skill(lines),
            ladder=holds.ladder(ladder),
            budget=budget,
            remaining=remaining,
            curve=holds.curve(),
            reused=reuses(holds.records),
            prompts=prompts_of(holds.records),
            task=task,
            user=user,
            status=status,
        )

    @property
    def seconds(self) -> float:
        """Wall time from the run's first hold to the last that the ledger knows of it."""
        return self.totals.wall_ns / NS_PER_S

    @property
    def made_of(self) -> Breakdown:
        """What all calls of the run were made of: tokens and dollars of system, history, retrieved, task, output …"""
        return total(self.prompts.values())

    def render(self) -> RenderableType:
        """The statement for ``rich.console.Console().print``; it fits itself to the console's width."""
        return terminal.Terminal(self)

    def text(self, width: int = 100) -> str:
        """The statement as plain text, at most `width` columns wide."""
        return terminal.plain_text(self, width)

    def __str__(self) -> str:
        return self.text()

    def to_svg(self, width: int = 100) -> str:
        """The statement as a terminal shows it, as an SVG picture."""
        return terminal.svg(self, width)

    def _repr_html_(self) -> str:
        return page.html(self)

    def to_dict(self) -> dict[str, Any]:
        """The statement for JSON: exact nano-dollars as integers, dollars as decimal strings; unknown is null."""
        return {
            "run_id": self.run_id,
            "task": self.task,
            "user": self.user,
            "status": self.status,
            "seconds": round(self.seconds, 3),
            "budget": _budget(self.budget),
            "remaining": _budget(self.remaining),
            "burn_rate": {
                "usd_per_minute": _decimal(self.totals.usd_per_minute),
                "tokens_per_minute": self.totals.tokens_per_minute,
            },
            "totals": _fields(self.totals),
            "lines": [_fields(line) for line in self.lines],
            "by_skill": [_fields(cost) for cost in self.by_skill],
            "ladder": [_fields(model) for model in self.ladder],
            "reused": [_fields(hit) for hit in self.reused],
            "made_of": self.made_of.to_dict(),
            "prompts": {line: made_of.to_dict() for line, made_of in self.prompts.items()},
        }

    def to_frame(self) -> DataFrame:
        """A row a line, for analysis. Raises `MissingDependency` without the extra ``notebook``."""
        try:
            import pandas as pd
        except ImportError as error:
            raise MissingDependency(
                "to_frame needs pandas: pip install 'agentbudget-runtime[notebook]'; to_dict needs nothing"
            ) from error
        return pd.DataFrame([_row(line) for line in self.lines], columns=list(_COLUMNS))


def _decimal(usd: Decimal | None) -> str | None:
    return None if usd is None else f"{usd:f}"


def _usd(nano: int | None) -> str | None:
    return None if nano is None else _decimal(nano_to_usd(nano))


def _budget(budget: Budget) -> dict[str, Any]:
    return {
        "usd": _usd(budget.usd_nano),
        "usd_nano": budget.usd_nano,
        "tokens": budget.tokens,
        "calls": budget.calls,
    }


def _fields(value: Line | Totals | SkillCost | TierModel | Reuse) -> dict[str, Any]:
    return {name: _json(getattr(value, name)) for name in value.__slots__}


def _json(value: object) -> object:
    if isinstance(value, Amount | Estimate):
        return {"usd": _usd(value.usd_nano)} | asdict(value)
    if isinstance(value, Rejection | Refusal):
        return asdict(value)
    if isinstance(value, tuple):
        return [_json(item) for item in cast("tuple[object, ...]", value)]
    return _decimal(value) if isinstance(value, Decimal) else value


_COLUMNS = (
    "skill",
    "tier",
    "model",
    "status",
    "escalated",
    "estimated_usd",
    "held_usd",
    "settled_usd",
    "own_usd",
    "held_tokens",
    "settled_tokens",
    "input_tokens",
    "output_tokens",
    "cached_tokens",
    "cache_hits",
    "saved_usd",
    "seconds",
    "depth",
    "data_class",
    "about",
    "id",
)


def _row(line: Line) -> tuple[object, ...]:
    """The values of `_COLUMNS`; dollars are floats here, for plots and sums by eye. The books are the ledger's."""

    def usd(nano: int | None) -> float | None:
        return None if nano is None else float(nano_to_usd(nano))

    return (
        line.skill,
        line.tier,
        line.model,
        line.status,
        line.escalated,
        usd(line.estimated.usd_nano),
        usd(line.held.usd_nano),
        usd(line.settled.usd_nano if line.settled is not None else None),
        usd(line.own.usd_nano),
        line.held.tokens,
        line.settled.tokens if line.settled is not None else None,
        line.input_tokens,
        line.output_tokens,
        line.cached_tokens,
        line.cache_hits,
        usd(line.saved_usd_nano),
        line.seconds,
        line.depth,
        line.data_class,
        line.about,
        line.id,
    )
