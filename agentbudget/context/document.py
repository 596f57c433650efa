"""What a document is, once read: its text, and blocks of it that belong together."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

Kind = Literal["prose", "lines"]
"""How a block that is too long may be cut: ``prose`` between sentences, ``lines`` (tables, code) between lines."""


class Unreadable(Exception):
    """A file cannot be read; the message is the reason. Inside `context` only: callers see `Skipped`."""


@dataclass(frozen=True, slots=True)
class Block:
    """A paragraph, list, table, code fence or definition: characters ``start`` to ``end`` of the document's text.

    ``heading_path`` leads to it from the outermost heading. ``head`` is what each part must repeat if the block is
    cut: the header of a table. Only neighbours of one heading path share a chunk.
    """

    start: int
    end: int
    heading_path: tuple[str, ...] = ()
    kind: Kind = "prose"
    head: str = ""


@dataclass(frozen=True, slots=True)
class Document:
    """One file. ``source`` is its path relative to the folder, with forward slashes.

    ``text`` has ``\\n`` line ends. For markdown, reStructuredText, Python and plain text it is the file; for HTML and
    PDF it is what was taken out of it. Blocks are in order and do not overlap. ``metadata`` is what the file states of
    itself (the front matter of Markdown), and later what its index says of it.
    """

    source: str
    text: str
    blocks: tuple[Block, ...]
    metadata: Mapping[str, str] = field(default_factory=dict[str, str], hash=False)
