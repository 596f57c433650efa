"""A statement in a notebook: one self-contained piece of HTML, legible on light and dark, every text escaped."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape
from typing import TYPE_CHECKING, Final

from agentbudget.history import Breakdown
from agentbudget.money import NANO, format_usd
from agentbudget.statement import words
from agentbudget.statement.fold import Line, SkillCost

if TYPE_CHECKING:
    from agentbudget.statement import Statement

WIDTH: Final = 560
BARS: Final = 24
"""The most steps that are drawn as bars; the dearest are kept."""

_BLUE: Final = "#3b82f6"
_AMBER: Final = "#d97706"
_STYLE: Final = """
.agentbudget{font:13px/1.5 system-ui,sans-serif;max-width:1160px}
.agentbudget h4{margin:0 0 2px;font-size:15px}
.agentbudget .task{font-style:italic;opacity:.8;margin:0 0 8px}
.agentbudget table{border-collapse:collapse;font-variant-numeric:tabular-nums;margin:6px 0 12px;
font-size:13px;color:inherit}
.agentbudget th,.agentbudget td{padding:3px 10px;text-align:left;border:0;background:none;color:inherit}
.agentbudget .n{text-align:right;white-space:nowrap}
.agentbudget thead th,.agentbudget tfoot td{font-weight:600}
.agentbudget thead th{border-bottom:1px solid currentColor}
.agentbudget tfoot td{border-top:1px solid currentColor}
.agentbudget .within{opacity:.65}
.agentbudget .charts{display:flex;flex-wrap:wrap;align-items:flex-start;gap:24px}
.agentbudget svg{width:560px;max-width:100%;height:auto;font:12px system-ui,sans-serif}
.agentbudget .s-failed,.agentbudget .s-unaccepted,.agentbudget .s-cancelled{color:#dc2626;font-weight:600}
.agentbudget .s-overrun,.agentbudget .s-presumed,.agentbudget .s-lapsed,
.agentbudget .s-open{color:#d97706;font-weight:600}
.agentbudget .s-escalated{color:#a855f7}
.agentbudget .s-ok{color:#16a34a}
.agentbudget .s-cached,.agentbudget .s-replayed{color:#0891b2}
"""


def html(statement: Statement) -> str:
    """The statement: heading, table, charts and facts."""
    task = words.task(statement)
    return "".join(
        (
            f'<div class="agentbudget"><style>{_STYLE}</style>',
            f"<h4>Statement <small>{escape(words.heading(statement))}</small></h4>",
            "" if task is None else f'<p class="task">“{escape(task)}”</p>',
            _table(statement),
            f'<div class="charts">{burn_chart(statement)}{step_chart(statement)}</div>',
            _facts(statement),
            _skills(statement.by_skill),
            _parts(statement.made_of),
            "</div>",
        )
    )


def _table(statement: Statement) -> str:
    places = words.decimals(statement)
    head = "".join(_cell("th", column.title, number=column.number) for column in words.COLUMNS)
    foot = "".join(
        _cell("td", column.total(statement.totals, places), number=column.number) for column in words.COLUMNS
    )
    rows = "".join(_row(line, places) for line in statement.lines)
    return f"<table><thead><tr>{head}</tr></thead><tbody>{rows}</tbody><tfoot><tr>{foot}</tr></tfoot></table>"


def _row(line: Line, places: int) -> str:
    cells = "".join(
        _cell(
            "td",
            column.cell(line, places),
            number=column.number,
            style=f"s-{words.status(line)}" if column.title == "Status" else "",
        )
        for column in words.COLUMNS
    )
    return f'<tr class="within">{cells}</tr>' if line.depth else f"<tr>{cells}</tr>"


def _cell(tag: str, text: str, *, number: bool, style: str = "") -> str:
    names = " ".join(name for name in ("n" if number else "", style) if name)
    return f'<{tag} class="{names}">{escape(text)}</{tag}>' if names else f"<{tag}>{escape(text)}</{tag}>"


def _facts(statement: Statement) -> str:
    rows = "".join(
        f'<tr><th scope="row">{escape(name)}</th><td>{escape(value)}</td></tr>'
        for name, value in words.facts(statement)
    )
    return f"<table><tbody>{rows}</tbody></table>"


def _skills(costs: Sequence[SkillCost]) -> str:
    if len(costs) < 2:
        return ""
    rows = "".join(
        f'<tr><th scope="row">{escape(words.plain(cost.skill))}</th>'
        f'<td class="n">{escape(format_usd(cost.cost.usd_nano))}</td><td class="n">{100 * cost.share:.0f} %</td>'
        f'<td class="n">{words.plural(cost.steps, "step")}</td></tr>'
        for cost in costs
    )
    head = '<tr><th colspan="4">Cost per skill</th></tr>'
    return f"<table><thead>{head}</thead><tbody>{rows}</tbody></table>"


def _parts(made_of: Breakdown) -> str:
    if len(made_of.parts) < 2:
        return ""
    rows = "".join(
        f'<tr><th scope="row">{part.name}</th><td class="n">{words.plural(part.tokens, "token")}</td>'
        f'<td class="n">{escape(format_usd(part.usd_nano))}</td></tr>'
        for part in made_of.parts
    )
    head = f'<tr><th colspan="3">{escape(words.made_of_title(made_of))}</th></tr>'
    return f"<table><thead>{head}</thead><tbody>{rows}</tbody></table>"


# --- charts


def burn_chart(statement: Statement) -> str:
    """What was booked over time, against the budget, as SVG."""
    points = statement.curve
    spent = points[-1].booked.usd_nano
    if not spent:
        return ""
    wall = max(statement.totals.wall_ns, 1)
    budget = statement.budget.usd_nano
    near = budget is not None and budget <= 4 * spent
    top = max(spent, budget if near and budget is not None else 0) * 1.15
    left, right, upper, lower = 8, WIDTH - 8, 44, 196

    def x(at_ns: int) -> float:
        return left + (right - left) * at_ns / wall

    def y(nano: int) -> float:
        return lower - (lower - upper) * nano / top

    path = f"M{x(0):.1f} {lower}"
    for point in points:
        path += f"H{x(point.at_ns):.1f}V{y(point.booked.usd_nano):.1f}"
    path += f"H{right}"
    parts = [
        _label(left, 16, "Spent over time", weight=600),
        _label(right, 16, _against(spent, budget), anchor="end"),
        f'<path d="{path}V{lower}Z" fill="{_BLUE}" fill-opacity=".18"/>',
        f'<path d="{path}" fill="none" stroke="{_BLUE}" stroke-width="2"/>',
        _rule(left, right, lower, "currentColor", opacity=0.5),
        _label(left, lower + 16, "0 s"),
        _label(right, lower + 16, f"{wall / NANO:,.1f} s", anchor="end"),
        _label(right, y(spent) - 6, format_usd(spent), anchor="end", weight=600),
    ]
    if near and budget is not None:
        parts.append(_rule(left, right, y(budget), _AMBER, dashes="5 4"))
        parts.append(_label(left, y(budget) - 5, f"budget {format_usd(budget)}"))
    return _svg(lower + 24, "Spent over time", parts)


def _against(spent: int, budget: int | None) -> str:
    if budget is None:
        return "no budget in dollars"
    return f"{words.percent(spent, budget)} of {format_usd(budget)}" if budget else "budget $0.00"


def step_chart(statement: Statement) -> str:
    """What each step was estimated at, held and settled, as SVG."""
    top = [line for line in statement.lines if line.depth == 0]
    dearest = {line.id for line in sorted(top, key=_weight, reverse=True)[:BARS]}
    lines = [line for line in top if line.id in dearest]
    most = max((_weight(line) for line in lines), default=0)
    if not most:
        return ""
    title = "Per step: estimated, held, settled"
    left, right, row = 130, WIDTH - 84, 22

    def x(nano: int) -> float:
        return left + (right - left) * nano / most

    parts = [
        _label(8, 16, title if len(lines) == len(top) else f"{title} (the {BARS} dearest)", weight=600),
        *_legend(),
    ]
    for i, line in enumerate(lines):
        y = 52 + i * row
        booked = line.settled.usd_nano if line.settled is not None else None
        parts.append(_label(left - 8, y + 11, words.cut(words.plain(line.skill), 18), anchor="end"))
        parts.append(_bar(left, y, x(line.held.usd_nano) - left, 14, _BLUE, opacity=0.35))
        if booked:
            parts.append(_bar(left, y + 3, max(x(booked) - left, 1.5), 8, _BLUE))
        if line.estimated.usd_nano is not None:
            parts.append(_bar(x(line.estimated.usd_nano) - 1, y - 2, 2, 18, _AMBER))
        parts.append(_label(WIDTH - 8, y + 11, words.UNKNOWN if booked is None else format_usd(booked), anchor="end"))
    return _svg(60 + len(lines) * row, title, parts)


def _weight(line: Line) -> int:
    booked = line.settled.usd_nano if line.settled is not None else 0
    return max(line.held.usd_nano, booked, line.estimated.usd_nano or 0)


def _legend() -> list[str]:
    return [
        _bar(8, 28, 2, 12, _AMBER),
        _label(16, 38, "estimated"),
        _bar(88, 28, 14, 12, _BLUE, opacity=0.35),
        _label(108, 38, "held"),
        _bar(148, 30, 14, 8, _BLUE),
        _label(168, 38, "settled"),
    ]


def _svg(height: float, title: str, parts: Sequence[str]) -> str:
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height:.0f}" role="img" '
        f'aria-label="{escape(title)}">{"".join(parts)}</svg>'
    )


def _label(x: float, y: float, text: str, *, anchor: str = "start", weight: int = 400) -> str:
    return (
        f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}" font-weight="{weight}" '
        f'fill="currentColor">{escape(text)}</text>'
    )


def _bar(x: float, y: float, width: float, height: float, color: str, *, opacity: float = 1) -> str:
    return (
        f'<rect x="{x:.1f}" y="{y:.1f}" width="{max(width, 0):.1f}" height="{height}" rx="1.5" '
        f'fill="{color}" fill-opacity="{opacity}"/>'
    )


def _rule(left: float, right: float, y: float, color: str, *, dashes: str = "none", opacity: float = 1) -> str:
    return (
        f'<line x1="{left}" x2="{right}" y1="{y:.1f}" y2="{y:.1f}" stroke="{color}" stroke-dasharray="{dashes}" '
        f'stroke-opacity="{opacity}" stroke-width="1.5"/>'
    )
