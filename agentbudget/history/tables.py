"""JSON as a model needs it: each key once, rows of a table below it. Nothing is lost but quotes and brackets."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, cast

Json = Any
"""What `json.loads` gives."""

DEEPEST: Final = 64
"""Levels of JSON that are read as such: what a tool says may be hostile."""


@dataclass(frozen=True, slots=True)
class Table:
    """Objects of the same keys: a row of cells for each. ``groups`` are rows that go together, often one each."""

    keys: tuple[str, ...]
    groups: tuple[tuple[tuple[str, ...], ...], ...]

    @property
    def rows(self) -> tuple[tuple[str, ...], ...]:
        """The rows of all groups."""
        return tuple(row for group in self.groups for row in group)

    def __str__(self) -> str:
        lines = ("; ".join("|".join(row) for row in group) for group in self.groups)
        return "\n".join(["|".join(self.keys), *lines])


def parsed(text: str) -> Json | None:
    """The JSON object or array that `text` is; None for anything else, and for what is nested beyond sense."""
    if not text.startswith(("{", "[")):
        return None
    try:
        data: Json = json.loads(text)
    except (ValueError, RecursionError):
        return None
    return None if _is_deep(data) else data


def _is_deep(data: Json) -> bool:
    """Whether something is nested deeper than functions that call themselves should follow."""
    level: list[Json] = [data]
    for _ in range(DEEPEST):
        level = [part for value in level for part in _parts(value)]
        if not level:
            return False
    return True


def _parts(value: Json) -> Iterable[Json]:
    if isinstance(value, dict):
        return cast("dict[str, Json]", value).values()
    return cast("list[Json]", value) if isinstance(value, list) else ()


def table_of(data: Json) -> Table | None:
    """`data` as a table if it is a list of at least two objects with the same keys, or a list of lists of such."""
    if not isinstance(data, list) or not data:
        return None
    items = cast("list[Json]", data)
    groups = items if all(isinstance(item, list) for item in items) else [[item] for item in items]
    objects = [row for group in groups for row in group]
    if len(objects) < 2 or not all(isinstance(row, dict) for row in objects):
        return None
    rows = [[cells(row) for row in group] for group in groups]
    keys = tuple(rows[0][0]) if rows[0] else ()
    if any(tuple(row) != keys for group in rows for row in group):
        return None
    return Table(keys, tuple(tuple(tuple(row.values()) for row in group) for group in rows))


def rendered(data: Json) -> str:
    """`data` in few words: an object as lines of ``key: value``, objects of the same keys as a table."""
    table = table_of(data)
    if table is not None:
        return str(table)
    if isinstance(data, Mapping):
        return "\n".join(f"{key}: {inline(value)}" for key, value in cast("Mapping[str, Json]", data).items())
    return inline(data)


def inline(value: Json) -> str:
    """`value` on one line."""
    if isinstance(value, Mapping):
        parts = cast("Mapping[str, Json]", value).items()
        return "(" + ", ".join(f"{key} {inline(part)}" for key, part in parts) + ")"
    if isinstance(value, Sequence) and not isinstance(value, str):
        table = table_of(value)
        if table is not None:
            return str(table).replace("\n", "; ")
        return ", ".join(inline(part) for part in cast("Sequence[Json]", value)) or "none"
    return " ".join(value.split()) if isinstance(value, str) else json.dumps(value)


def cells(row: Mapping[str, Json], prefix: str = "") -> dict[str, str]:
    """A row's cells by key; the keys of objects within it stand behind a point."""
    found: dict[str, str] = {}
    for key, value in row.items():
        if isinstance(value, dict) and value:
            found |= cells(cast("dict[str, Json]", value), f"{prefix}{key}.")
        else:
            found[prefix + key] = inline(value)
    return found
