"""What an eval found: for a terminal, a README, a program and the eye."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from agentbudget.errors import ExportError
from agentbudget.evals.economics import Economics, Outcome, Trade, economics, sweep, wilson
from agentbudget.evals.tasks import DatasetName, Split
from agentbudget.money import format_usd

if TYPE_CHECKING:
    from rich.table import Table

COLUMNS: Final = (
    "policy",
    "accuracy",
    "95 % interval",
    "cost",
    "per item",
    "per success",
    "saved",
    "calls",
    "unanswered",
)


@dataclass(frozen=True)
class EvalReport:
    """Outcomes of an eval, and what to know to read them.

    ``prices`` gives each model of the ladder, cheapest first, the source of its price. ``paid_usd_nano`` is what the
    ledger settled for this eval: less than its policies cost together where answers were reused. ``seconds`` is how
    long it took, ``logs`` are Inspect's, one a policy (``inspect view`` opens them).
    """

    name: str
    dataset: DatasetName
    split: Split
    seed: int
    threshold: float
    prices: Mapping[str, str]
    outcomes: tuple[Outcome, ...]
    paid_usd_nano: int
    seconds: float
    logs: tuple[Path, ...] = ()

    @cached_property
    def economics(self) -> tuple[Economics, ...]:
        """A line per policy."""
        return economics(self.outcomes)

    @cached_property
    def trades(self) -> tuple[Trade, ...]:
        """What other thresholds would have given, if the policies all-cheap and all-strong were run."""
        return sweep(self.outcomes)

    @property
    def baseline(self) -> tuple[int, int] | None:
        """(correct, items) of the answers without a model, if the dataset has any."""
        known = {o.item: o.baseline_correct for o in self.outcomes if o.baseline_correct is not None}
        return (sum(known.values()), len(known)) if known else None

    @property
    def notes(self) -> tuple[str, ...]:
        """What a reader of the table must know."""
        items = self.economics[0].items
        notes = [
            f"{items} items (split {self.split}, seed {self.seed}); the cascade keeps a cheap answer from "
            f"confidence {self.threshold:g} on.",
            "Ladder: " + ", then ".join(f"{model} ({price})" for model, price in self.prices.items()) + ".",
            f"Each answer was bought once and counts for every policy that uses it; this eval itself paid "
            f"{format_usd(self.paid_usd_nano)}.",
        ]
        if self.baseline is not None:
            low, high = wilson(*self.baseline)
            notes.append(
                f"Without a model, the most similar example's label is right for {self.baseline[0]} of "
                f"{self.baseline[1]} ({low:.1%} to {high:.1%})."
            )
        return tuple(notes)

    def table(self) -> Table:
        """A rich table, its notes as the caption. Figures stay whole: where there is little room, calls wrap."""
        from rich import box
        from rich.table import Table
        from rich.text import Text

        table = Table(
            title=f"{self.dataset}: cost against accuracy",
            box=box.SIMPLE_HEAD,
            show_edge=False,
            padding=0,
            caption=Text("\n".join(self.notes)),
            caption_justify="left",
        )
        for column in COLUMNS:
            table.add_column(
                column,
                justify="left" if column in ("policy", "calls") else "right",
                no_wrap=column not in ("95 % interval", "calls"),
                overflow="fold",
            )
        for line in self.economics:
            table.add_row(*map(Text, _cells(line)))
        return table

    def markdown(self) -> str:
        """The same table for a README."""
        rows = [COLUMNS, tuple("---" if c in ("policy", "calls") else "--:" for c in COLUMNS)]
        rows += [_cells(line) for line in self.economics]
        return "\n".join(f"| {' | '.join(row)} |" for row in rows) + "\n\n" + "\n".join(f"- {n}" for n in self.notes)

    def to_dict(self) -> dict[str, Any]:
        """The report as JSON-ready data; amounts in nano-dollars."""
        return {
            "name": self.name,
            "dataset": self.dataset,
            "split": self.split,
            "seed": self.seed,
            "threshold": self.threshold,
            "prices": dict(self.prices),
            "paid_usd_nano": self.paid_usd_nano,
            "seconds": round(self.seconds, 3),
            "baseline": None if self.baseline is None else dict(zip(("correct", "items"), self.baseline, strict=True)),
            "policies": [_figures(line) for line in self.economics],
            "outcomes": [asdict(outcome) for outcome in self.outcomes],
            "logs": [str(log) for log in self.logs],
        }

    def plot(self, path: str | Path) -> Path:
        """Draw cost against accuracy into `path`; its ending (.svg, .png, .pdf) says how. Returns the path."""
        from agentbudget.evals.plot import draw

        return draw(self, Path(path))

    def write(self, folder: str | Path) -> tuple[Path, ...]:
        """Write ``<dataset>.json``, ``<dataset>.md`` and ``<dataset>.svg`` into `folder`; returns their paths.

        Raises `ExportError`.
        """
        folder = Path(folder)
        data, text = folder / f"{self.dataset}.json", folder / f"{self.dataset}.md"
        try:
            folder.mkdir(parents=True, exist_ok=True)
            data.write_text(json.dumps(self.to_dict(), indent=1), encoding="utf-8")
            text.write_text(self.markdown() + "\n", encoding="utf-8")
            return data, text, self.plot(folder / f"{self.dataset}.svg")
        except OSError as error:
            raise ExportError(
                f"the report cannot be written to {folder} ({error.strerror or error}); run the same eval again with "
                "--out to another folder: answers that were paid for are not bought again",
                path=str(folder),
            ) from error


def _cells(line: Economics) -> tuple[str, ...]:
    low, high = line.interval
    success = line.cost_per_success_usd_nano
    return (
        line.policy,
        f"{line.accuracy:.1%}",
        f"{low:.1%} to {high:.1%}",
        format_usd(line.cost_usd_nano),
        format_usd(line.cost_per_item_usd_nano),
        "none" if success is None else format_usd(success),
        "" if line.saved is None else f"{line.saved:.0%}",
        ", ".join(f"{count} × {model.rpartition(':')[2]}" for model, count in line.calls.items()),
        str(line.unanswered),
    )


def _figures(line: Economics) -> dict[str, Any]:
    low, high = line.interval
    return {
        **asdict(line),
        "accuracy": line.accuracy,
        "interval": [low, high],
        "cost_per_item_usd_nano": line.cost_per_item_usd_nano,
        "cost_per_success_usd_nano": line.cost_per_success_usd_nano,
    }
