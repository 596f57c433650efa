"""A chunk as it is read for a question: its sentences and their words, cut to stems."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from typing import Final

from agentbudget.context import sentences
from agentbudget.context.chunk import Chunk
from agentbudget.context.sentences import Span
from agentbudget.context.unspaced import spaced

_WORD: Final = re.compile(r"\w+")
_STEM: Final = 6
"""Letters of a word that count: enough to meet a plural or a past tense."""

_LONG: Final = 400
"""Characters from which on a sentence of several lines (code, a list without bullets) is read line by line."""

_ROW: Final = re.compile(r"\s*\|")
_RULE: Final = re.compile(r"\s*\|?[\s:|-]*-[\s:|-]*$")

_FUNCTION_WORDS: Final = frozenset(
    (
        "a", "about", "after", "an", "and", "are", "as", "at", "be", "been", "before", "by", "can", "did", "do", "does",
        "during", "for", "from", "had", "has", "have", "how", "i", "if", "in", "into", "is", "it", "its", "many", "me",
        "much", "my", "not", "of", "on", "or", "s", "that", "the", "their", "there", "they", "this", "to", "was", "we",
        "were", "what", "when", "where", "which", "who", "whom", "whose", "why", "will", "with", "you", "your",
    )
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Sentence:
    """Characters ``start`` to ``end`` of a chunk's text, and the stems of their words, in order and as a set.

    ``head`` is the number of the sentence without which this one says little: the header of a table's row.
    """

    start: int
    end: int
    words: str
    stems: tuple[str, ...]
    distinct: frozenset[str]
    head: int | None = None


@dataclass(frozen=True, slots=True)
class Reading:
    """The sentences of a chunk, the stems of its headings, and those of headings and text together."""

    sentences: tuple[Sentence, ...]
    title_stems: frozenset[str]
    stems: frozenset[str]


def read(chunk: Chunk) -> Reading:
    """The chunk's sentences; rows of a table and items of a list are sentences too."""
    spans = _with_rules(chunk.text, list(_spans(chunk.text)))
    parts: list[Sentence] = []
    head: int | None = None
    for number, (start, end) in enumerate(spans):
        words = chunk.text[start:end]
        rows = words.split("\n")
        if len(rows) > 1 and _RULE.match(rows[-1]):
            head = number
        elif head is not None and not _ROW.match(words):
            head = None
        found = tuple(stems(words))
        parts.append(Sentence(start, end, words, found, frozenset(found), None if head == number else head))
    title = frozenset(stems(" ".join(chunk.heading_path)))
    return Reading(tuple(parts), title, title.union(*(part.distinct for part in parts)))


def says_all(text: str, other: str) -> bool:
    """Whether all words of `other` stand in `text`, too, in their order: then nothing is lost without `other`."""
    left = iter(_WORD.findall(plain(text)))
    return all(word in left for word in _WORD.findall(plain(other)))


def plain(text: str) -> str:
    """`text` as it is compared: in one case, its letters composed (a mark may stand behind its letter)."""
    return unicodedata.normalize("NFC", text.casefold())


def stems(text: str) -> Iterator[str]:
    """Words cut short, in lower case; function words are dropped."""
    return filter(None, map(_content, _WORD.findall(spaced(text.lower()))))


@lru_cache(maxsize=1 << 14)
def _content(word: str) -> str:
    """The stem of a word in lower case; empty for a function word. Kept, for a question meets thousands of words."""
    return "" if word in _FUNCTION_WORDS else stem(word)


def stem(word: str) -> str:
    """A word in lower case, cut short; a number or an identifier is left whole."""
    return (word[:_STEM] if word.isalpha() else word).lower()


def _spans(text: str) -> Iterator[Span]:
    for start, end in sentences.sentences(text):
        if end - start > _LONG and "\n" in text[start:end]:
            yield from ((start + first, start + last) for first, last in sentences.lines(text[start:end]))
        else:
            yield start, end


def _with_rules(text: str, spans: list[Span]) -> list[Span]:
    """The line under a table's header made one with it."""
    if "|" not in text:
        return spans
    joined: list[Span] = []
    for start, end in spans:
        if joined and _RULE.fullmatch(text[start:end]) and _ROW.match(text[joined[-1][0] : joined[-1][1]]):
            joined[-1] = (joined[-1][0], end)
        else:
            joined.append((start, end))
    return joined
