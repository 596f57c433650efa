"""What can be known of a call before it runs that says how long its answer will be: numbers, never the text."""

from __future__ import annotations

import json
from collections.abc import Sequence
from functools import lru_cache
from math import log1p
from typing import Final
from zlib import crc32

from agentbudget.models.base import Message, Request

SAMPLE: Final = 8_000
"""Characters of a prompt that are looked at, its end first: counting them takes some 50 µs."""

NAMES: Final = (
    "chars",
    "words",
    "distinct_words",
    "word_length",
    "sentences",
    "lines",
    "questions",
    "commas",
    "capitals",
    "numbers",
    "numbers_per_word",
    "longest_number",
    "symbols",
    "brackets",
    "backslashes",
    "not_ascii",
    "number_words",
    "comparing_words",
    "asks_for_much",
    "asks_for_little",
    "draft",
    "has_draft",
    "kind",
)
"""The features in their order. Counts are log1p of the count; ``kind`` names the fixed prompt: a skill with a body may
ask in more than one way."""

KINDS: Final = 6
"""Fixed prompts of a skill that are told apart; further ones are taken together."""

SIZE: Final = len(NAMES) - 1 + KINDS
"""The features as numbers to learn from."""

STRANGENESS: Final = (NAMES.index("word_length"), NAMES.index("not_ascii"), NAMES.index("symbols"))
"""Where text shows that it costs more tokens a byte than English does."""


def _words(text: str) -> frozenset[str]:
    return frozenset(text.split())


NUMBER_WORDS: Final = _words(
    "two three four five six seven eight nine ten eleven twelve twenty thirty forty fifty hundred thousand million "
    "half third quarter twice double triple dozen"
)
COMPARING: Final = _words(
    "more less than each every per times remaining left rest total altogether difference ratio average percent "
    "both between compared versus"
)
MUCH: Final = _words(
    "explain why how describe detailed list all write essay report summarize compare discuss steps prove derive code "
    "function implement translate rewrite"
)
LITTLE: Final = _words("yes no which true false one word only brief briefly short label choose classify")

_DIGITS: Final = bytes(code if 48 <= code <= 57 else 32 for code in range(256))
_CAPITALS: Final = bytes(range(65, 91))
_SYMBOLS: Final = b"+-*/=^<>_|~&%$#@"
_BRACKETS: Final = b"(){}[]"


def features(request: Request, drafts: Sequence[int] = ()) -> tuple[float, ...]:
    """The features of a call: of what is asked, of which fixed prompt asks it, and of drafts that were made of it.

    `drafts` are the output tokens of answers that cheaper models gave to the same question.
    """
    fixed, asked = _parts(request)
    draft = sum(drafts) / len(drafts) if drafts else 0.0
    text = _of_text("\n".join(message.text for message in asked))
    return (*(round(value, 3) for value in (*text, log1p(draft))), float(bool(drafts)), _kind(fixed, request))


_ONE_OF: Final = [tuple(float(place == each) for each in range(KINDS)) for place in range(KINDS)]


class Kinds:
    """Which fixed prompts a history has met: each of the first gets a feature of its own."""

    def __init__(self) -> None:
        self._places: dict[float, int] = {}

    def numbers(self, features: Sequence[float]) -> list[float]:
        """The features as numbers, the kind as one of `KINDS` that is 1."""
        *numbers, kind = features
        place = self._places.setdefault(kind, min(len(self._places), KINDS - 1))
        if len(self._places) > 10 * KINDS:  # a fixed prompt that is never the same twice: it is none
            self._places.popitem()
        return [*numbers, *_ONE_OF[place]]


def _parts(request: Request) -> tuple[Sequence[Message], Sequence[Message]]:
    """The messages that are the same in many calls, and those that are not."""
    fixed = request.fixed
    if not fixed and request.messages and request.messages[0].role == "system":
        fixed = 1
    return request.messages[:fixed], request.messages[fixed:]


def _kind(fixed: Sequence[Message], request: Request) -> float:
    told = fixed[0].text if len(fixed) == 1 else "\0".join(message.text for message in fixed)
    if request.schema is not None:
        told += json.dumps(request.schema, sort_keys=True, default=str)
    return _number(told)


@lru_cache(maxsize=256)
def _number(told: str) -> float:
    """A number for a text: a fixed prompt is the same in every call."""
    return float(crc32(told.encode("utf-8", "surrogatepass")))


def _of_text(text: str) -> tuple[float, ...]:
    sample = text[-SAMPLE:]
    raw = sample.encode("ascii", "ignore")
    words = sample.lower().split()
    distinct = {word.strip(".,;:?!()\"'") for word in words}
    numbers = raw.translate(_DIGITS).split()
    count = max(1, len(words))
    return (
        log1p(len(text)),
        log1p(len(words)),
        log1p(len(distinct)),
        len(sample) / count,
        log1p(sample.count(". ") + sample.count("? ") + sample.count("! ")),
        log1p(sample.count("\n")),
        log1p(sample.count("?")),
        log1p(sample.count(",")),
        log1p(_count(raw, _CAPITALS)),
        log1p(len(numbers)),
        len(numbers) / count,
        log1p(max(map(len, numbers), default=0)),
        log1p(_count(raw, _SYMBOLS)),
        log1p(_count(raw, _BRACKETS)),
        log1p(sample.count("\\")),
        1 - len(raw) / max(1, len(sample)),
        log1p(len(distinct & NUMBER_WORDS)),
        log1p(len(distinct & COMPARING)),
        log1p(len(distinct & MUCH)),
        log1p(len(distinct & LITTLE)),
    )


def _count(raw: bytes, wanted: bytes) -> int:
    return len(raw) - len(raw.translate(None, wanted))
