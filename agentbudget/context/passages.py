"""Passages: what is kept of each chunk, how it is laid out for a reader, and where it stands in its document."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from agentbudget.context.chunk import SEPARATOR, Chunk
from agentbudget.context.sentences import Span
from agentbudget.privacy.fence import harmless

BETWEEN: Final = "\n\n"
"""Stands between two passages."""

_CODE: Final = (".py", ".js", ".ts", ".c", ".h", ".cpp", ".cs", ".go", ".java", ".rs", ".rb", ".sh", ".sql")
"""Files in which ``x[1]`` is a subscript."""

_GAP: Final = " … "
_GAP_OF_LINES: Final = "\n…\n"


@dataclass(frozen=True, slots=True)
class Passage:
    """What is kept of a chunk: all of it, or its best sentences with ``…`` where some left.

    ``score`` is the search's. ``title`` stands over it, as short as tells it apart; empty if the passage before has the
    same. ``spans`` are the characters of the document's text that ``text`` shows, one span for each run of sentences;
    the header that a part of a long table repeats belongs to none. ``chance`` is the estimated probability that this
    passage holds what was asked for, ``tokens`` what it adds to the text: header, gap and all.

    ``str()`` is how a model reads it: what in it looks like a mark, a turn or a call is taken apart, as it is data.
    """

    number: int
    chunk: Chunk
    text: str
    score: float
    title: str = ""
    spans: tuple[Span, ...] = ()
    chance: float = 0.0
    tokens: int = 0

    @property
    def whole(self) -> bool:
        """Whether nothing of the chunk was left out."""
        return self.text == self.chunk.text

    @property
    def stale(self) -> bool:
        """Whether its file has changed since it was read."""
        return self.chunk.stale

    def __str__(self) -> str:
        title = harmless(self.title).replace("\n", " ")
        return f"[{self.number}] {title}\n{self.told}" if title else f"[{self.number}]\n{self.told}"

    @property
    def told(self) -> str:
        """The text as a model reads it."""
        return harmless(self.text, code=self.chunk.source.endswith(_CODE))


@dataclass(frozen=True, slots=True)
class Kept:
    """A chunk and the spans of its text that are kept: sentences, in order, not overlapping."""

    chunk: Chunk
    score: float
    sentences: tuple[Span, ...]
    chance: float = 0.0


def lay_out(kept: Sequence[Kept]) -> tuple[Passage, ...]:
    """Number the passages and give each its title. What follows on the passage before is not titled again."""
    names = [_name(keep.chunk.heading_path) for keep in kept]
    sources = Counter(name for name, _ in {(name, keep.chunk.source) for name, keep in zip(names, kept, strict=True)})
    passages: list[Passage] = []
    before: tuple[str, str] | None = None
    for number, (name, keep) in enumerate(zip(names, kept, strict=True), 1):
        source = keep.chunk.source
        title = SEPARATOR.join(part for part in (source if sources[name] > 1 or not name else "", name) if part)
        runs = _runs(keep)
        passages.append(
            Passage(
                number,
                keep.chunk,
                _joined(keep.chunk.text, runs),
                keep.score,
                title="" if (source, name) == before else title,
                spans=_in_document(keep.chunk, runs),
                chance=keep.chance,
            )
        )
        before = (source, name)
    return tuple(passages)


def shown(passages: Sequence[Passage]) -> str:
    """The text that a model reads."""
    return BETWEEN.join(map(str, passages))


def _name(heading_path: tuple[str, ...]) -> str:
    """The outermost and the innermost heading: each one between costs tokens, and says the least."""
    return SEPARATOR.join(heading_path if len(heading_path) <= 2 else (heading_path[0], heading_path[-1]))


def _runs(keep: Kept) -> tuple[Span, ...]:
    """Sentences between which there is only white space, put together."""
    text = keep.chunk.text
    runs: list[Span] = []
    for start, end in keep.sentences:
        if runs and not text[runs[-1][1] : start].strip():
            runs[-1] = (runs[-1][0], end)
        else:
            runs.append((start, end))
    return tuple(runs)


def _joined(text: str, runs: Sequence[Span]) -> str:
    parts: list[str] = []
    for number, (start, end) in enumerate(runs):
        if number:
            parts.append(_GAP_OF_LINES if "\n" in text[runs[number - 1][1] : start] else _GAP)
        parts.append(text[start:end])
    return "".join(parts)


def _in_document(chunk: Chunk, runs: Sequence[Span]) -> tuple[Span, ...]:
    repeated = len(chunk.text) - (chunk.end - chunk.start)  # the header of a table's later parts
    moved = ((max(start - repeated, 0), end - repeated) for start, end in runs)
    return tuple((chunk.start + start, chunk.start + end) for start, end in moved if end > start)
