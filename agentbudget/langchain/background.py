"""Async models for code that is not async: one event loop in a thread of its own, started when first needed."""

from __future__ import annotations

import asyncio
import atexit
import os
import sys
import threading
from collections.abc import AsyncGenerator, Coroutine, Iterator
from contextlib import suppress
from functools import cache
from typing import Any, Final, TypeVar
from weakref import WeakSet

T = TypeVar("T")

_open: Final[WeakSet[AsyncGenerator[Any, None]]] = WeakSet()
"""What somebody has begun to read, and neither ended nor left."""


def run(work: Coroutine[Any, Any, T]) -> T:
    """Carry out `work` in the background loop, and wait for it. Whoever interrupts the wait cancels the work."""
    running = asyncio.run_coroutine_threadsafe(work, _loop())
    try:
        return running.result()
    finally:
        running.cancel()


def iterate(pieces: AsyncGenerator[T, None]) -> Iterator[T]:
    """The pieces of an async generator, one by one; leaving early closes it."""

    async def following() -> tuple[T, ...]:
        async for piece in pieces:
            return (piece,)
        return ()

    _open.add(pieces)
    try:
        while found := run(following()):
            yield found[0]
    finally:
        _open.discard(pieces)
        if not sys.is_finalizing():  # then the loop's thread is gone, and `pieces` was closed before
            run(pieces.aclose())


@cache
def _loop() -> asyncio.AbstractEventLoop:
    loop = asyncio.new_event_loop()
    threading.Thread(target=loop.run_forever, name="agentbudget-langchain", daemon=True).start()
    return loop


@atexit.register
def _close() -> None:
    """Close what is left open when the process ends: its reader is told so only when nothing runs any more."""
    for pieces in list(_open):
        with suppress(RuntimeError):  # a thread that nobody waits for is in the middle of reading it
            run(pieces.aclose())


def _forked() -> None:
    """In a child: the loop's thread stays with the parent, and what is open there, too."""
    _loop.cache_clear()
    _open.clear()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forked)
