"""What was learned of a user, and where that comes from."""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Final
from uuid import UUID

from agentbudget.errors import IndexFault, Mistake
from agentbudget.privacy import DataClass
from agentbudget.privacy.classes import claimed, strictest

SOURCES_KEPT: Final = 8
"""Sources that a memory names: the first, and the latest."""


@dataclass(frozen=True, slots=True)
class Owner:
    """Whose memories: a user of a tenant. Others never see them."""

    tenant: str
    user: str

    def __post_init__(self) -> None:
        if not self.tenant or not self.user:
            raise Mistake("memories belong to a user of a tenant: name both (agent.run(…, user=…))")

    @property
    def key(self) -> str:
        """A hash that no other pair of names has: names may be anything, and must not run into each other."""
        told = json.dumps([self.tenant, self.user]).encode()
        return hashlib.sha256(told).hexdigest()[:32]


@dataclass(frozen=True, slots=True)
class Source:
    """Where something was learned: run, step and time (Unix, nanoseconds), and the words that said it."""

    run: str | None
    step: str | None
    at_ns: int
    text: str = ""

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready data."""
        return {"run": self.run, "step": self.step, "at_ns": self.at_ns, "text": self.text}


@dataclass(frozen=True, slots=True)
class Memory:
    """One thing that was learned. ``sources`` are in order; it was said ``times`` times, by now perhaps in other words.

    ``expires_ns`` is the Unix time from which it is not recalled any more; None: never. ``data_class`` is the class of
    what the runs that learned it carried: those that recall it carry it, too.
    """

    id: str
    text: str
    sources: tuple[Source, ...]
    times: int = 1
    expires_ns: int | None = None
    data_class: DataClass = "internal"

    @property
    def learned_ns(self) -> int:
        """When it was last said."""
        return self.sources[-1].at_ns

    @property
    def learned_on(self) -> str:
        """The day on which it was last said (UTC), as in ``2026-11-27``."""
        return datetime.fromtimestamp(self.learned_ns / 1e9, UTC).date().isoformat()

    def is_expired(self, now_ns: int) -> bool:
        """Whether it is not to be recalled any more."""
        return self.expires_ns is not None and self.expires_ns <= now_ns

    def said_again(self, again: Memory) -> Memory:
        """The same, said once more, in the words of `again`: kept as long as either asked, in the narrower class."""
        sources = (*self.sources, *again.sources)
        if len(sources) > SOURCES_KEPT:
            sources = (sources[0], *sources[-SOURCES_KEPT + 1 :])
        ends = (self.expires_ns, again.expires_ns)
        both = None if None in ends else max(end for end in ends if end is not None)
        narrower = strictest((self.data_class, again.data_class))
        return Memory(self.id, again.text, sources, self.times + 1, both, narrower)

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready data: what an export has, and what is stored."""
        return {
            "id": self.id,
            "text": self.text,
            "sources": [source.to_dict() for source in self.sources],
            "times": self.times,
            "expires_ns": self.expires_ns,
            "data_class": self.data_class,
        }

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Memory:
        """The inverse of `to_dict`. Raises `IndexFault` for what is none."""
        try:
            sources = tuple(Source(**source) for source in data["sources"])
            data_class = claimed(data["data_class"])
            return cls(data["id"], data["text"], sources, data["times"], data["expires_ns"], data_class)
        except (KeyError, TypeError) as error:
            raise IndexFault(f"a stored memory cannot be read ({error}); forget it by its id") from error


def memory_id(owner: Owner, text: str) -> str:
    """The id of what is said: the same words of the same user have the same, whatever case and spaces."""
    told = f"{owner.key}\0{' '.join(text.casefold().split())}"
    return str(UUID(bytes=hashlib.sha256(told.encode("utf-8", "surrogatepass")).digest()[:16]))


def now_ns() -> int:
    """The time, in Unix nanoseconds."""
    return time.time_ns()
