"""Tables and records: CSV as rows under a header, JSON lines as fields with their names."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterator
from itertools import chain
from typing import Final, cast

from agentbudget.context.document import Block, Unreadable
from agentbudget.context.formats import Parsed, decode

_DELIMITERS: Final = ",;\t|"
_SAMPLE: Final = 10_000
"""Characters by which the delimiter is judged."""

_LONGEST_FIELD: Final = 1_000_000
"""Characters of one field of a table: more is an unclosed quotation mark."""

_DEEPEST: Final = 100


def table(data: bytes) -> Parsed:
    """One block: its rows as ``| a | b |``, under the first one, which names the columns."""
    text = decode(data)
    csv.field_size_limit(_LONGEST_FIELD)
    try:
        rows = [
            _row(cells)
            for cells in csv.reader(io.StringIO(text, newline=""), _dialect(text), strict=True)
            if any(cells)
        ]
    except csv.Error as error:
        raise Unreadable(f"not a table of separated values: {error}") from error
    if not rows:
        return Parsed("", ())
    joined = "\n".join(rows)
    return Parsed(joined, (Block(0, len(joined), (), "lines", f"{rows[0]}\n" if len(rows) > 1 else ""),))


def _dialect(text: str) -> type[csv.Dialect]:
    try:
        return csv.Sniffer().sniff(text[:_SAMPLE], _DELIMITERS)
    except csv.Error:  # one column, or rows of different lengths
        return csv.excel


def _row(cells: list[str]) -> str:
    return f"| {' | '.join(' '.join(cell.split()) for cell in cells)} |"


def json_lines(data: bytes) -> Parsed:
    """A block for each record: a line ``name: value`` for each field, those inside others as ``outer.inner: value``."""
    parts: list[str] = []
    blocks: list[Block] = []
    length = 0
    for number, line in enumerate(decode(data).split("\n"), 1):
        if not line.strip():
            continue
        record = "\n".join(_fields(_loaded(line, number), number))
        if record:
            blocks.append(Block(length, length + len(record), (), "lines"))
            parts.append(record)
            length += len(record) + 2
    return Parsed("\n\n".join(parts), tuple(blocks))


def _loaded(line: str, number: int) -> object:
    try:
        return json.loads(line)
    except json.JSONDecodeError as error:  # which counts lines, too, and knows of no other
        raise Unreadable(f"line {number} is not JSON: {error.msg}, at character {error.colno}") from error
    except (ValueError, RecursionError) as error:
        raise Unreadable(f"line {number} is not JSON: {error}") from error


def _fields(value: object, number: int, name: str = "", depth: int = 0) -> Iterator[str]:
    """The fields of a record, which stands in the line of this number."""
    if depth > _DEEPEST:
        raise Unreadable(f"line {number} is a record nested more than {_DEEPEST} deep")
    if isinstance(value, dict):
        for key, inner in cast("dict[str, object]", value).items():
            yield from _fields(inner, number, f"{name}.{key}" if name else key, depth + 1)
    elif isinstance(value, list):
        items = cast("list[object]", value)
        if any(isinstance(item, dict | list) for item in items):
            yield from chain.from_iterable(_fields(item, number, name, depth + 1) for item in items)
        elif items:
            yield _field(name, ", ".join(_scalar(item) for item in items))
    elif value is not None and value != "":
        yield _field(name, _scalar(value))


def _field(name: str, text: str) -> str:
    # Half a character, which JSON can spell, cannot be stored.
    return (f"{name}: {text}" if name else text).encode(errors="replace").decode().replace("\0", "")


def _scalar(value: object) -> str:
    return value if isinstance(value, str) else json.dumps(value)
