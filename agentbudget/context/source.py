"""Source code of languages other than Python, cut along its shape: blank lines, indentation, names of definitions.

No parser: those of `tree-sitter-language-pack` are fetched when they are first used, and one package for each language
would be a dozen. What formatters make of code says as much: a definition begins unindented behind a blank line.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from itertools import pairwise
from typing import Final

from agentbudget.context.document import Block
from agentbudget.context.formats import Parsed, Path, decode, line_starts

SUFFIXES: Final = (
    ".c", ".cc", ".cpp", ".cs", ".go", ".h", ".hpp", ".java", ".js", ".jsx", ".kt", ".lua", ".mjs", ".php", ".proto",
    ".rb", ".rs", ".scala", ".sh", ".sql", ".swift", ".ts", ".tsx",
)  # fmt: skip
"""Names of files that are read as source code."""

_DEEPEST: Final = 8
"""Definitions within each other that are told apart."""

LONG_LINES: Final = 60
"""Lines from which on a definition is cut along the definitions inside it."""

_NAMED: Final = re.compile(
    r"""^[^\S\n]*(?:[\w@\[\]<>,.&*:]+[^\S\n]+)*?                    # export, public static, template<…>
    (?:class|interface|struct|enum|trait|impl|namespace|module|object|protocol|extension|message|service
      |function\*?|func|fn|fun|def|type|create[^\S\n]+(?:table|view|function|procedure))
    [^\S\n]+(?:\([^)\n]*\)[^\S\n]*)?                                 # Go's receiver
    (?P<name>[\w.:$]+)""",
    re.VERBOSE | re.IGNORECASE,
)
_CALLABLE: Final = re.compile(
    r"""^[^\S\n]*(?:[\w<>\[\],.&*:?@]+[^\S\n]+[*&]*+)*?               # its type, and what says who may call it
    (?!(?:if|for|while|switch|catch|return|else|do|new|with)\b)(?P<name>[\w:~$]+)[^\S\n]*\([^;{}]*(?:\{|$)""",
    re.VERBOSE,
)
_ASSIGNED: Final = re.compile(
    r"^\s*(?:export\s+)?(?:const|let|var|val)\s+(?P<name>[\w$]+)[^=\n]*=\s*(?:async\b|function\b|\()"
)
_COMMENT: Final = re.compile(r"\s*(?://|/\*|\*|#(?!include|define|if|endif|pragma)|--|@|\[|template\s*<[^\n]*>\s*$)")
_CLOSING: Final = re.compile(
    r"[)\]}]|end\b|esac\b|fi\b|done\b|else\b|elif\b|elsif\b|case\b|default\b|catch\b|finally\b"
)


def source(data: bytes) -> Parsed:
    """A block for each definition, for each inside a long one, and for what stands between them."""
    text = decode(data)
    lines, starts = text.split("\n"), line_starts(text)
    blocks: list[Block] = []
    for first, last, path in _pieces(lines, 0, len(lines), ()):
        start = starts[first]
        end = start + len(text[start : starts[last]].rstrip())
        if end > start:
            blocks.append(Block(start, end, path, "lines"))
    return Parsed(text, tuple(blocks))


def _pieces(lines: list[str], first: int, last: int, path: Path) -> Iterator[tuple[int, int, Path]]:
    """Line ranges from `first` to `last`, each with the names that lead to it."""
    depth = _depth(lines, first, last)
    bounds = [*_beginnings(lines, first, last, depth), last]
    if first < bounds[0]:
        yield first, bounds[0], path
    for begin, end in pairwise(bounds):
        name = _name(lines, begin, end)
        here = path if name is None else (*path, name)
        body = _body(lines, begin, end)
        if name is None or body is None or end - begin <= LONG_LINES or len(here) >= _DEEPEST:
            yield begin, end, here
            continue
        yield begin, body, here
        yield from _pieces(lines, body, end, here)


def _beginnings(lines: list[str], first: int, last: int, depth: int) -> Iterator[int]:
    """Lines at which a piece begins: as deep as any here, behind a blank line, and closing nothing."""
    for at in range(first, last):
        line = lines[at]
        if not line.strip() or _indent(line) != depth or _CLOSING.match(line.lstrip()):
            continue
        if at == first or not lines[at - 1].strip():
            yield at


def _body(lines: list[str], begin: int, end: int) -> int | None:
    """Where the lines inside a definition begin; None if there are none."""
    depth = _indent(lines[begin])
    return next((at for at in range(begin + 1, end) if lines[at].strip() and _indent(lines[at]) > depth), None)


def _depth(lines: list[str], first: int, last: int) -> int:
    return min((_indent(line) for line in lines[first:last] if line.strip() and not _CLOSING.match(line)), default=0)


def _indent(line: str) -> int:
    return len(line) - len(line.lstrip())


def _name(lines: list[str], begin: int, end: int) -> str | None:
    """The name that a piece defines, on its first line that is no comment and no decoration."""
    for line in lines[begin:end]:
        if not line.strip() or _COMMENT.match(line):
            continue
        short = line[:500]
        found = _NAMED.match(short) or _ASSIGNED.match(short) or _CALLABLE.match(short)
        return None if found is None else found["name"]
    return None
