"""Follow the ``[n]`` marks of an answer back to the documents."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

from agentbudget.context.passages import Passage
from agentbudget.context.retrieve import Retrieved
from agentbudget.context.sentences import Span

_MARK: Final = re.compile(r"\[\^?(\d{1,4}(?:\s*[,;–-]\s*\d{1,4})*)\]")
_CODE: Final = re.compile(r"```.*?(?:```|\Z)|`[^`\n]*`", re.DOTALL)
_LONGEST_RANGE: Final = 50


@dataclass(frozen=True, slots=True)
class Citation:
    """A passage that an answer names: characters ``start`` to ``end`` of the text of ``source``.

    ``spans`` are the characters that the model was shown, within those.
    """

    number: int
    source: str
    heading_path: tuple[str, ...]
    start: int
    end: int
    chunk_id: str
    spans: tuple[Span, ...] = ()


@dataclass(frozen=True, slots=True)
class Cited:
    """The passages that an answer cites, in order of first mention, and the marks that lead to none."""

    citations: tuple[Citation, ...]
    invalid: tuple[int, ...]

    @property
    def valid(self) -> bool:
        """Whether the answer cites something, and nothing that was not given."""
        return bool(self.citations) and not self.invalid


def cite(answer: str, retrieved: Retrieved) -> Cited:
    """The passages that the marks of `answer` mean: ``[1]``, ``[1, 3]`` and ``[1-3]``, but not in code."""
    passages = {passage.number: passage for passage in retrieved.passages}
    numbers = list(dict.fromkeys(_numbers(_CODE.sub(" ", answer))))
    citations = tuple(_citation(passages[number]) for number in numbers if number in passages)
    return Cited(citations, tuple(number for number in numbers if number not in passages))


def _citation(passage: Passage) -> Citation:
    chunk, spans = passage.chunk, passage.spans or ((passage.chunk.start, passage.chunk.end),)
    return Citation(
        number=passage.number,
        source=chunk.source,
        heading_path=chunk.heading_path,
        start=spans[0][0],
        end=spans[-1][1],
        chunk_id=chunk.id,
        spans=spans,
    )


def _numbers(text: str) -> Iterator[int]:
    for mark in _MARK.finditer(text):
        for part in re.split(r"\s*[,;]\s*", mark[1]):
            first, *rest = (int(number) for number in re.split(r"\s*[–-]\s*", part))
            last = rest[-1] if rest else first
            if first <= last <= first + _LONGEST_RANGE:
                yield from range(first, last + 1)
            else:
                yield from (first, *rest)
