"""Tables for the terminal, as Markdown."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from statistics import median


def table(title: str, head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A titled table; the first column is text, the others are numbers."""
    lines = [f"## {title}", "", f"| {' | '.join(head)} |", "|---" + "|--:" * (len(head) - 1) + "|"]
    return "\n".join([*lines, *(f"| {' | '.join(row)} |" for row in rows)])


def ms(seconds: Sequence[float]) -> str:
    """The median, in milliseconds."""
    return f"{median(seconds) * 1e3:,.1f}"


def times(numerator: Sequence[float], denominator: Sequence[float]) -> str:
    """How many times the one median is the other."""
    return f"{median(numerator) / median(denominator):.2f}"
