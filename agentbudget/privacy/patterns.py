"""What is found in a text: credentials by MongoDB's Kingfisher, personal data by DataFog's core and by check digits.

Both run in this process and ask nobody. A finding has no text: only where it stands and what kind it is.
"""

from __future__ import annotations

import re
from bisect import bisect_right
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache, cached_property
from itertools import accumulate
from typing import TYPE_CHECKING, Final, Literal, Protocol

from agentbudget.errors import MissingDependency

if TYPE_CHECKING:
    from kingfisher_sdk import Scanner

Group = Literal["secret", "personal"]


class Range(Protocol):
    """Characters of a text, the last one left out."""

    @property
    def start(self) -> int: ...

    @property
    def end(self) -> int: ...


class Entity(Protocol):
    """What DataFog's core says of a place in a text."""

    @property
    def entity_type(self) -> str: ...

    @property
    def codepoint_range(self) -> Range: ...


Scan = Callable[[str], Sequence[Entity]]
Valid = Callable[[str], bool]

PERSONAL: Final = {"EMAIL": "email", "PHONE": "phone", "SSN": "ssn", "CREDIT_CARD": "card"}
"""DataFog's kinds that are looked for, and ours. Its dates, addresses of the network and postal codes are left out:
most of those in documents are nobody's."""

_IBAN: Final = re.compile(r"\b[A-Z]{2}\d{2}(?:[ \u00a0-]?[A-Z0-9]{2,4}){3,8}\b")
_LONGEST_IBAN: Final = 34


@dataclass(frozen=True, slots=True, order=True)
class Finding:
    """Characters ``start`` to ``end`` are of this kind: ``"email"``, ``"github-pat"``."""

    start: int
    end: int
    kind: str
    group: Group


class Finder:
    """Finds secrets, personal data or both. Rules are compiled when the first text is searched, once a process."""

    def __init__(self, groups: frozenset[Group]) -> None:
        self.groups = groups

    @classmethod
    @cache
    def of(cls, groups: frozenset[Group]) -> Finder:
        """The finder for these groups. Raises `MissingDependency` if the extra ``privacy`` is not installed."""
        if "secret" in groups:
            _scanner()
        if "personal" in groups:
            _personal()
        return cls(groups)

    def find(self, text: str) -> tuple[Finding, ...]:
        """What is in `text`, in order, none over another."""
        found: list[Finding] = []
        if "secret" in self.groups:
            found += _secrets(text)
        if "personal" in self.groups:
            found += _personal_data(text)
        return tuple(_apart(found))


def _secrets(text: str) -> Iterator[Finding]:
    # Half a character, as a model may write it, is one question mark here and one character there.
    data = text.encode("utf-8", "replace")
    at = _Characters(text, data)
    for finding in _scanner().scan(data):
        if finding.visible:
            place = finding.location
            start, end = _whole(text, at.of(place["start_offset"]), at.of(place["end_offset"]))
            yield Finding(start, end, finding.rule_id.rpartition(".")[2], "secret")


def _whole(text: str, start: int, end: int) -> tuple[int, int]:
    """To where the word begins and ends that a rule matched: the rest of a key would be left where it stands."""
    while start > 0 and _of_a_key(text[start - 1]):
        start -= 1
    while end < len(text) and _of_a_key(text[end]):
        end += 1
    return start, end


def _of_a_key(character: str) -> bool:
    return character.isalnum() or character in "_-+/"


def _personal_data(text: str) -> Iterator[Finding]:
    scan, is_iban = _personal()
    for finding in scan(text.encode("utf-8", "replace").decode()):
        kind = PERSONAL.get(finding.entity_type)
        if kind is not None:
            place = finding.codepoint_range
            yield Finding(place.start, place.end, kind, "personal")
    for candidate in _IBAN.finditer(text):
        end = _end_of_iban(candidate, is_iban)
        if end is not None:
            yield Finding(candidate.start(), end, "iban", "personal")


def _end_of_iban(candidate: re.Match[str], is_iban: Valid) -> int | None:
    """Where the number ends: what follows it may look like one more group of it."""
    text, start = candidate[0], candidate.start()
    for cut in sorted({len(text), *(gap.start() for gap in re.finditer(r"[ \u00a0-]", text))}, reverse=True):
        if cut <= _LONGEST_IBAN + 8 and is_iban(text[:cut].replace("\u00a0", " ")):
            return start + cut
    return None


def _apart(found: Iterable[Finding]) -> Iterator[Finding]:
    """Without those that lie within or across another: a secret before personal data, then the longer one."""
    taken: list[Finding] = []
    for finding in sorted(found, key=lambda f: (f.group != "secret", f.start - f.end, f.start)):
        at = bisect_right(taken, finding)
        neighbours = taken[max(0, at - 1) : at + 1]
        if all(finding.end <= other.start or other.end <= finding.start for other in neighbours):
            taken.insert(at, finding)
    yield from taken


class _Characters:
    """From bytes of UTF-8 to characters."""

    def __init__(self, text: str, data: bytes) -> None:
        self._text = text
        self._same = len(text) == len(data)

    def of(self, offset: int) -> int:
        return offset if self._same else bisect_right(self._ends, offset)

    @cached_property
    def _ends(self) -> tuple[int, ...]:
        # Takes longer than the search itself, and most texts hold nothing.
        return tuple(accumulate(len(c.encode("utf-8", "replace")) for c in self._text))


# --- the libraries, loaded when they are first needed


@cache
def _scanner() -> Scanner:
    with _needs("secrets"):
        from kingfisher_sdk import Rules, Scanner
    return Scanner(Rules(confidence="medium"))


@cache
def _personal() -> tuple[Scan, Valid]:
    with _needs("personal data"):
        from datafog_core import scan
        from stdnum.iban import is_valid
    return scan, is_valid


@contextmanager
def _needs(what: str) -> Generator[None]:
    try:
        yield
    except ImportError as error:
        raise MissingDependency(
            f"looking for {what} needs {error.name or error}; install it with: "
            "pip install 'agentbudget-runtime[privacy]'"
        ) from error
