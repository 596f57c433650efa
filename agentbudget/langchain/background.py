"""Async models for code that is not async: one event loop in a thread of its own, started when first needed."""

from __future__ import annotations

import asyncio
import os
import threading
from collections.abc import AsyncGenerator, Coroutine, Iterator
from functools import cache
from typing import Any, TypeVar

T = TypeVar("T")


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

    try:
        while found := run(following()):
            yield found[0]
    finally:
        run(pieces.aclose())


if hasattr(os, "register_at_fork"):
    # The loop's thread stays with the parent: a child would wait for it for ever.
    os.register_at_fork(after_in_child=lambda: _loop.cache_clear())


@cache
def _loop() -> asyncio.AbstractEventLoop:
    loop = asyncio.new_event_loop()
    threading.Thread(target=loop.run_forever, name="agentbudget-langchain", daemon=True).start()
    return loop
