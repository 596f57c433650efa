"""Cost against accuracy, drawn; and the only place in the package that imports matplotlib."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Final

from agentbudget.errors import MissingDependency, Mistake
from agentbudget.evals.economics import Trade
from agentbudget.evals.policies import PolicyName
from agentbudget.money import nano_to_usd

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from agentbudget.evals.report import EvalReport

COLOURS: Final[dict[PolicyName, str]] = {
    "all-cheap": "#2a9d8f",
    "all-strong": "#e76f51",
    "cascade": "#264653",
    "learned": "#8a5a9e",
}
FORMATS: Final = (".svg", ".png", ".pdf")


def draw(report: EvalReport, path: Path) -> Path:
    """Draw `report`: a point and an interval for each policy, and the curve of what other thresholds would give."""
    if path.suffix not in FORMATS:
        raise Mistake(f"cannot draw into {str(path)!r}: end its name with one of {', '.join(FORMATS)}")
    try:
        from matplotlib import rc_context  # pyright: ignore[reportUnknownVariableType] # a partly typed default
        from matplotlib.figure import Figure
    except ImportError as error:
        raise MissingDependency(f"plots need matplotlib ({error}): pip install 'agentbudget-runtime[evals]'") from error
    # A fixed salt and no date: the same outcomes give the same file.
    with rc_context({"svg.hashsalt": "agentbudget", "svg.fonttype": "none", "font.size": 9}):
        figure = Figure(figsize=(6, 4.2), layout="constrained")
        axes = figure.add_subplot()
        _curve(axes, report.trades)
        _points(axes, report)
        _baseline(axes, report)
        items = report.economics[0].items
        axes.set_title(f"{report.dataset}, {items} items: cost against accuracy")
        axes.set_xlabel("cost of an item, US cents")
        axes.set_ylabel("accuracy, %")
        axes.set_xlim(left=0)
        axes.grid(alpha=0.25)
        figure.legend(loc="outside lower center", ncols=3, frameon=False)
        figure.savefig(path, metadata={"Date": None} if path.suffix == ".svg" else None)
    return path


def _curve(axes: Axes, trades: tuple[Trade, ...]) -> None:
    if trades:
        axes.plot(
            [_cents(trade.cost_usd_nano / trade.items) for trade in trades],
            [100 * trade.accuracy for trade in trades],
            color="#999999",
            linewidth=1,
            label="cascade at any threshold",
        )


def _points(axes: Axes, report: EvalReport) -> None:
    for line in report.economics:
        low, high = line.interval
        axes.errorbar(
            [_cents(line.cost_usd_nano / line.items)],
            [100 * line.accuracy],
            yerr=[[100 * (line.accuracy - low)], [100 * (high - line.accuracy)]],
            fmt="o",
            capsize=4,
            color=COLOURS[line.policy],
            label=line.policy,
        )


def _baseline(axes: Axes, report: EvalReport) -> None:
    if report.baseline is not None:
        correct, items = report.baseline
        axes.axhline(100 * correct / items, color="#bbbbbb", linestyle=":", label="no model: the most similar example")


def _cents(usd_nano: float) -> float:
    return float(nano_to_usd(round(usd_nano))) * 100
