"""One answer in the making: what it was asked, how far it is, and whether it may go on."""

from __future__ import annotations

import codecs
import math
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from agentbudget.models.base import Finish, Request
from agentbudget.models.llama.vocabulary import Prompt
from agentbudget.usage import Usage

if TYPE_CHECKING:
    from agentbudget.models.llama.sampler import Sampler
    from agentbudget.models.llama.sequences import Slot


class OutputText:
    """Output as it grows: whole characters only, and nothing from a stop string on.

    ``shown`` is how much of it is certain to be part of the answer: not the beginning of a stop string, and nothing
    from `hidden` on, with which something begins that is not for the reader.
    """

    def __init__(self, stops: Sequence[str], hidden: str | None = None) -> None:
        self.value = ""
        self.shown = 0
        self.stopped = False
        self._stops = [stop for stop in stops if stop]
        self._hidden = hidden
        self._decoder = codecs.getincrementaldecoder("utf-8")("replace")

    def add(self, data: bytes) -> None:
        """The bytes of the next token."""
        seen = len(self.value)
        self.value += self._decoder.decode(data)
        found = [at for stop in self._stops if (at := self.value.find(stop, max(0, seen - len(stop) + 1))) >= 0]
        if found:
            self.value = self.value[: min(found)]
            self.stopped = True
        self.shown = self._certain()

    def _certain(self) -> int:
        if self._hidden and (at := self.value.find(self._hidden)) >= 0:
            return at
        marks = [*([] if self.stopped else self._stops), *([self._hidden] if self._hidden else [])]
        longest = max((_begun(self.value, mark) for mark in marks), default=0)
        return len(self.value) - longest


def _begun(text: str, mark: str) -> int:
    """How many of the last characters of `text` are the first ones of `mark`."""
    return next((n for n in range(min(len(mark) - 1, len(text)), 0, -1) if text.endswith(mark[:n])), 0)


@dataclass(slots=True, eq=False)
class Job:
    """One answer in the making. Whoever waits for it sets ``stop`` to end it, and reads how far it got.

    A reader is told of each piece of text by ``on_text``, in the engine's thread, with the usage so far; no more than
    ``granted_tokens`` are put out until that is raised. ``done`` has no result; it has the error if one was raised.
    """

    prompt: Prompt
    request: Request
    gbnf: str | None = None
    on_text: Callable[[str, Usage], None] | None = None
    granted_tokens: int | None = None
    hidden: str | None = None
    stop: threading.Event = field(default_factory=threading.Event)
    finish: Finish = "stop"
    cached_tokens: int = 0
    evaluated_tokens: int = 0
    output_tokens: int = 0
    log_probability: float = 0.0
    compute_ns: int = 0
    done: Future[None] = field(default_factory=Future[None])
    todo: list[int] = field(default_factory=list[int])
    sampler: Sampler | None = None
    slot: Slot | None = None
    cuts: list[int] = field(default_factory=list[int])
    unfinished: bool = False
    finish_found: bool = False
    told: int = 0
    output: OutputText = field(init=False)

    def __post_init__(self) -> None:
        self.output = OutputText(self.request.stop, self.hidden)

    @property
    def text(self) -> str:
        """What was put out so far."""
        return self.output.value

    @property
    def usage(self) -> Usage:
        """What was computed: prompt tokens evaluated or found in the cache, tokens put out, and the time it took."""
        return Usage(
            input_tokens=self.cached_tokens + self.evaluated_tokens,
            output_tokens=self.output_tokens,
            cached_tokens=self.cached_tokens,
            compute_ns=self.compute_ns,
        )

    @property
    def confidence(self) -> float | None:
        """The geometric mean of the output tokens' probabilities, None without output.

        Within a grammar, a token's probability is its share among those that the grammar allowed: what the grammar left
        no choice about says nothing about the model.
        """
        return math.exp(self.log_probability / self.output_tokens) if self.output_tokens else None

    @property
    def room(self) -> int:
        """Tokens that may still be put out now."""
        cap = self.request.max_output_tokens
        most = cap if self.granted_tokens is None else min(cap, self.granted_tokens)
        return most - self.output_tokens

    @property
    def waits_for_reader(self) -> bool:
        """Whether its reader has to catch up first."""
        return self.granted_tokens is not None and self.output_tokens >= self.granted_tokens

    def may_compute(self, expected_s: float) -> bool:
        """Whether a piece of work that takes `expected_s` may start: nobody said stop, and it fits the compute cap."""
        cap = self.request.max_compute_s
        if self.stop.is_set():
            return False
        return cap is None or self.compute_ns / 1e9 + expected_s <= cap

    def put_out(self, data: bytes, log_probability: float = 0.0) -> None:
        """One more token."""
        self.output_tokens += 1
        self.log_probability += log_probability
        self.output.add(data)

    def tell(self) -> None:
        """Hand the reader, if there is one, what has become certain since it was last told."""
        if self.on_text is not None:
            new = self.output.value[self.told : self.output.shown]
            self.told = max(self.told, self.output.shown)
            self.on_text(new, self.usage)
