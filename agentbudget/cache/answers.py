"""Answers already paid for: the same question to the same model, asked again, costs nothing."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal, Protocol, Self

from agentbudget.cache.codec import decode_completion, encode_completion
from agentbudget.cache.flight import Flights
from agentbudget.cache.label import Label
from agentbudget.cache.policy import Caching, Exact
from agentbudget.cache.store import NS_PER_S, Limits, Store
from agentbudget.models.base import Completion, Model, Request

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Trust:
    """Why a kept answer may stand for a new one. ``facts`` are what the statement keeps of it.

    ``"exact"``: everything that changes an answer is the same. ``"semantic"``: the question is taken to mean the same.
    """

    because: Literal["exact", "semantic"] = "exact"
    facts: Mapping[str, str | int | float] = field(default_factory=dict[str, str | int | float])


EXACT = Trust()


@dataclass(frozen=True, slots=True)
class CachedAnswer:
    """An answer that was paid for: what it cost then, in nano-dollars, the key that it stood under, when it was bought
    (nanoseconds since 1970; 0 if nobody knows), and why it may be given again. ``entry`` is the number that the `Store`
    has for it, None for one that is not there."""

    completion: Completion
    cost_usd_nano: int
    key: str = ""
    created_ns: int = 0
    trust: Trust = EXACT
    entry: int | None = None


@dataclass(frozen=True, slots=True)
class Asked:
    """What is asked of a model, and where its answer may stand.

    Under ``own`` as that of this run, should it be resumed, and under ``shared`` for whoever asks the same, if the
    skill's ``caching`` lets it. ``apart`` keeps classes of data apart within a skill, ``sample`` several draws of one
    request.
    """

    request: Request
    model: Model
    caching: Caching
    label: Label
    own: str
    shared: str | None = None
    apart: str = ""
    sample: str | None = None

    @property
    def keys(self) -> tuple[str, ...]:
        """Where to look, in this order."""
        return (self.own,) if self.shared is None else (self.own, self.shared)

    @property
    def ttl_s(self) -> float | None:
        """How old a shared answer may be, in seconds; None: any age."""
        return self.caching.ttl_s if isinstance(self.caching, Exact) else None


class AnswerCache(Protocol):
    """Finds an answer where nothing stands under a request's own keys, and says why it is to be trusted."""

    async def find(self, asked: Asked) -> CachedAnswer | None:
        """An answer that may be given to this request, too; None: it has to be bought."""
        ...

    async def bought(self, asked: Asked, completion: Completion) -> None:
        """Learn that this answer was bought for it."""
        ...

    def found_wrong(self, hit: int) -> None:
        """The answer that was given as this hit was wrong. Raises `UnknownHit`."""
        ...

    def close(self) -> None:
        """Close its file."""
        ...


class Answers:
    """Answers in one SQLite file (or in memory), shared by the threads and processes that open it."""

    def __init__(
        self, path: Path | None = None, *, limits: Limits | None = None, clock_ns: Callable[[], int] = time.time_ns
    ) -> None:
        self.store = Store(path, limits=limits, clock_ns=clock_ns)
        self.flights = Flights.at(path)

    def get(self, key: str, *, max_output_tokens: int) -> CachedAnswer | None:
        """The answer under `key`, if the model would give the same under this cap.

        An answer that ended by itself fits any cap that is not below its length; one that a cap cut, only that cap.
        Looking is no hit yet: see `reused`.
        """
        return self.first((key,), max_output_tokens=max_output_tokens)

    def first(self, keys: Sequence[str], *, max_output_tokens: int) -> CachedAnswer | None:
        """The answer under the first of `keys` that has one which fits; see `get`. An unreadable one is dropped."""
        for row in self.store.find(keys):
            try:
                completion = decode_completion(row.value)
            except (ValueError, KeyError, TypeError, AttributeError) as error:
                _log.warning(
                    "an answer in the cache %s cannot be read, and is bought anew: %s", self.store.location, error
                )
                self.store.drop((row.key,))
                continue
            if _is_same(completion, max_output_tokens):
                return CachedAnswer(completion, row.cost_usd_nano, row.key, row.created_ns, entry=row.entry)
        return None

    def is_fresh(self, found: CachedAnswer, ttl_s: float | None) -> bool:
        """Whether an answer is no older than so many seconds; None: any age will do."""
        return ttl_s is None or self.store.clock_ns() - found.created_ns <= ttl_s * NS_PER_S

    def reused(self, found: CachedAnswer) -> None:
        """Note that an answer was given again: it is worth more, and saved what it cost."""
        if found.entry is not None:
            self.store.touch(found.entry)

    def put(self, key: str, completion: Completion, *, cost_usd_nano: int) -> None:
        """Keep an answer, in place of what stood under its key."""
        self.put_under({key: None}, completion, cost_usd_nano=cost_usd_nano)

    def put_under(
        self,
        keys: Mapping[str, float | None],
        completion: Completion,
        *,
        cost_usd_nano: int,
        label: Label | None = None,
    ) -> None:
        """Keep an answer under several keys at once, under each for so many seconds (None: without end)."""
        self.store.put(keys, encode_completion(completion), label or Label(), cost_usd_nano=cost_usd_nano)

    def close(self) -> None:
        """Close the file."""
        self.store.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def _is_same(completion: Completion, max_output_tokens: int) -> bool:
    """Whether the model would give this answer under such a cap."""
    tokens, whole = completion.usage.output_tokens, completion.finish in ("stop", "tools")
    return tokens <= max_output_tokens if whole else tokens == max_output_tokens
