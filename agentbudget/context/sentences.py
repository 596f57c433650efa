"""Where text may be cut: between paragraphs, lines, sentences, words. Spans leave out the white space between them."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from typing import Final

Span = tuple[int, int]
Split = Callable[[str], Iterator[Span]]

_PARAGRAPH_END: Final = re.compile(r"\n[ \t]*\n\s*")
_LINE_END: Final = re.compile(r"\n+")
_SPACE: Final = re.compile(r"\s+")
_ABBREVIATION: Final = (
    r"(?<!\b[A-Z]\.\s)(?<!\b[DM]r\.\s)(?<!\bMrs\.\s)(?<!\bSt\.\s)(?<!\bNo\.\s)(?<!\bvs\.\s)"
    r"(?<!\be\.g\.\s)(?<!\bi\.e\.\s)"
)
# Every alternative begins with a white space, looking back from there: so the engine skips all other characters.
_AT_SPACE: Final = rf"""\s(?:
        (?:
            (?<=[.!?…]\s){_ABBREVIATION}              # a stop, then a space and no small letter
          | (?<=[.!?…]["'”’)\]]\s)                    # the same with a closing quote or bracket
        )\s*(?=[^\sa-z])
      | (?<=\n)[ \t]*\n\s*                            # a blank line
      | (?<=\n)(?=[ \t]*(?:[|\-*+•]|\d+[.)])\ ?)      # a table row or a list item
    )"""
_SENTENCE_END: Final = re.compile(_AT_SPACE, re.VERBOSE)
_STOP_WITHOUT_SPACE: Final = re.compile("[。！？]")
_SENTENCE_END_WITHOUT_SPACE: Final = re.compile(rf"{_AT_SPACE} | (?<=[。！？])(?=\S)", re.VERBOSE)
"""For texts that have such a stop: it has to look at each character."""


def paragraphs(text: str) -> Iterator[Span]:
    """Spans between blank lines."""
    return _between(text, _PARAGRAPH_END)


def lines(text: str) -> Iterator[Span]:
    """Spans of lines that are not blank."""
    return _between(text, _LINE_END)


def sentences(text: str) -> Iterator[Span]:
    """Spans of sentences; rows of a table and items of a list count as sentences."""
    return _between(text, _SENTENCE_END_WITHOUT_SPACE if _STOP_WITHOUT_SPACE.search(text) else _SENTENCE_END)


def words(text: str) -> Iterator[Span]:
    """Spans between white space."""
    return _between(text, _SPACE)


def halves(text: str) -> Iterator[Span]:
    """Two spans of equal length: the last resort."""
    middle = (len(text) + 1) // 2
    if text:
        yield 0, middle
    if middle < len(text):
        yield middle, len(text)


def _between(text: str, boundary: re.Pattern[str]) -> Iterator[Span]:
    start = 0
    for match in boundary.finditer(text):
        if text[start : match.start()].strip():
            yield start, match.start()
            start = match.end()
    if text[start:].strip():
        yield start, start + len(text[start:].rstrip())
