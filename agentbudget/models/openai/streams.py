"""A stream of either API as `Caller.send_stream` reads it: pieces, what they have used, and the answer at their end."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, replace
from typing import Protocol

from agentbudget.models.base import Completion
from agentbudget.models.openai.answers import Answer, Piece
from agentbudget.models.openai.progress import NS_PER_S, Clock, Progress
from agentbudget.models.remote import Caller, Events
from agentbudget.usage import Usage


class Reader(Protocol):
    """Reads the events of one API."""

    model: str

    def read(self, event: object) -> Piece:
        """What an event brings. Raises `ValueError` if it makes no sense."""
        ...

    def end(self) -> Answer | None:
        """The whole answer, if what was read is one."""
        ...


@dataclass
class Hearing:
    """What one stream has brought so far. Implements `agentbudget.models.remote.Heard`.

    ``whole`` turns an answer and what it used into a completion; ``shown`` says whether the pieces may be shown as they
    come (an answer inside a wrapping is shown when it is whole); ``seconds`` is how much computing was paid for, None
    where tokens are.
    """

    reader: Reader
    progress: Progress
    clock: Clock
    caller: Caller
    whole: Callable[[Answer, Usage], Completion]
    shown: bool = True
    seconds: float | None = None
    by_time: bool = False
    answer: Answer | None = None
    out_of_time: bool = False
    final: Usage | None = None

    def take(self, event: object) -> str:
        """The text that an event brings. Raises `ValueError`, or the `ModelError` that the event reports."""
        piece = self.reader.read(event)
        self.clock.state(piece.compute_ns)
        self.progress.add(piece)
        if piece.answer is not None:
            self.answer = piece.answer
            if piece.answer.failure is not None and piece.answer.usage is None:
                raise self.caller.failed(piece.answer.failure.kind, piece.answer.failure.detail, None)
        return piece.text if self.shown else ""

    @property
    def usage(self) -> Usage | None:
        """What the answer used, once it is whole; or when the time that was paid for is over."""
        if self.final is None and (used := self._used()) is not None:
            self.final = self._timed(used)  # once: its time goes on
        return self.final

    def so_far(self) -> Usage | None:
        """See `Progress.so_far`."""
        return self._timed(self.progress.so_far())

    def presumed(self) -> Usage | None:
        """See `Progress.at_most`."""
        return self._timed(self.progress.at_most())

    def completion(self, usage: Usage, *, cut: bool) -> Completion:
        """The answer, or what there is of it. Raises `InvalidOutput`, or the error that stands in its place."""
        if cut or self.out_of_time:
            finish = "budget" if self.out_of_time else "cut"
            return Completion(self.progress.text, finish, usage, served_by=self.reader.model)
        ended = self.answer or self.reader.end()
        assert ended is not None  # its usage is known
        return self.whole(ended, usage)

    async def in_time(self, request: Callable[[], Awaitable[Events[object]]]) -> Events[object]:
        """The same stream, left when what was paid for has been computed."""
        return _InTime(self, request) if self.seconds is not None else await request()

    def seconds_left(self) -> float:
        """How much more may be computed."""
        assert self.seconds is not None
        return self.seconds - self.clock.computed_ns() / NS_PER_S

    def _used(self) -> Usage | None:
        if self.out_of_time:
            return self.progress.so_far()
        ended = self.answer or self.reader.end()
        return ended.usage if ended else None

    def _timed(self, usage: Usage) -> Usage:
        return replace(usage, compute_ns=self.clock.computed_ns()) if self.by_time else usage


class _InTime:
    """Events until the time of a `Hearing` is over. The request leaves when the first is wanted: a server may think
    before it answers at all."""

    def __init__(self, hearing: Hearing, request: Callable[[], Awaitable[Events[object]]]) -> None:
        self._hearing = hearing
        self._request = request
        self._events: Events[object] | None = None

    async def __aiter__(self) -> AsyncIterator[object]:
        end = object()
        try:
            async with asyncio.timeout(self._hearing.seconds_left()):
                self._events = await self._request()
            events = aiter(self._events)
            while True:
                async with asyncio.timeout(self._hearing.seconds_left()):
                    event = await anext(events, end)
                if event is end:
                    return
                yield event
        except TimeoutError:
            self._hearing.out_of_time = True

    async def close(self) -> None:
        """Hang up."""
        if self._events is not None:
            await self._events.close()
