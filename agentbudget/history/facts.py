"""What later steps may need of a text word for word: ids, dates, names, amounts. Found by their form, by no model."""

from __future__ import annotations

import re
from collections.abc import Iterator, Set
from typing import Final, Literal, cast

from agentbudget.models.base import Message

Kind = Literal["id", "date", "amount", "name"]

_MONTH: Final = r"(?:Jan|Feb|Mar|Apr|May|Jun|Jul|Aug|Sep|Oct|Nov|Dec)[a-z]*\.?"
_FORMS: Final = re.compile(
    "|".join(
        (
            rf"(?P<date>\b\d{{4}}-\d\d-\d\d|\b{_MONTH} \d{{1,2}}(?:st|nd|rd|th)?\b(?:,? \d{{4}}\b)?"
            r"|\b\d{1,2}[/.]\d{1,2}[/.]\d{2,4}\b)",
            r"(?P<time>(?:\b|(?<=\d)T)\d{1,2}:\d\d(?::\d\d)?(?:\+\d)?\b)",
            r"(?P<address>\b[\w.+-]+@[\w-]+(?:\.[\w-]+)+|\bhttps?://[^\s)>\]\"']+)",
            # Letters and digits (HAT110, order-1182), words joined by _ (one_way), codes in capitals (JFK), #tags
            r"(?P<id>\b(?=[\w-]*\d)(?=[\w-]*[A-Za-z])[A-Za-z0-9][\w-]{2,}\b|\b[A-Za-z0-9]+(?:_[A-Za-z0-9]+)+\b"
            r"|#\w+|\b[A-Z]{3,}\b)",
            r"(?P<name>\b[A-Z][a-z'’]+(?:[ -][A-Z][a-z'’]+)+\b)",
            r"(?P<amount>-?[$€£]?\d+(?:,\d{3})*(?:\.\d+)?%?)",
        )
    )
)
_KINDS: Final[dict[str, Kind]] = {"date": "date", "address": "id", "id": "id", "name": "name", "amount": "amount"}

_COMMA: Final = re.compile(r"(?<=\d),(?=\d{3})")
_WORD: Final = re.compile(r"[\w@]+(?:[.-][\w@]+)*")
_CLOCK: Final = re.compile(r"(\d{4}-\d\d-\d\d)T")


def facts(text: str) -> Iterator[tuple[Kind, str]]:
    """The ids, dates, names and amounts of `text` as they stand in it, in order, repeated ones too.

    The date of a time stamp counts; times of day do not: they are many, and later steps seldom need them.
    """
    for found in _FORMS.finditer(text):
        kind = _KINDS.get(cast(str, found.lastgroup))
        if kind is not None:
            yield kind, found.group()


def words(text: str) -> frozenset[str]:
    """The words of `text` as facts are compared: without the signs around them, thousands' commas and letter case."""
    return frozenset(_WORD.findall(_CLOCK.sub(r"\1 ", _COMMA.sub("", text)).lower()))


def stands_in(fact: str, known: Set[str]) -> bool:
    """Whether all words of `fact` are among the `known` ones, as `words` gives them."""
    return words(fact) <= known


def told(message: Message) -> str:
    """All that a message says in words: its text, and the tools that it asks for with their arguments."""
    return " ".join([message.text, *(f"{call.name} {call.arguments}" for call in message.calls)])
