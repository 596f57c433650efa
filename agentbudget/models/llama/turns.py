"""Waiting for one's turn: for the machine, which computes one thing at a time, and for a place in a model's batch."""

from __future__ import annotations

import asyncio
import threading
from collections import deque
from collections.abc import AsyncGenerator, Generator
from contextlib import asynccontextmanager, contextmanager
from typing import Final


class MachineTurn:
    """One computation at a time among the threads of this process, first come first served.

    Two models that compute at once on the same processors would each take, and be charged for, far more than twice the
    time.
    """

    def __init__(self) -> None:
        self.forked()

    def forked(self) -> None:
        """In a child: who computed or waited were its parent's threads."""
        self._mutex = threading.Lock()
        self._busy = False
        self._waiting: deque[threading.Lock] = deque()

    @contextmanager
    def taken(self) -> Generator[None]:
        """Wait for the machine, and pass it on at the end."""
        with self._mutex:
            mine = threading.Lock() if self._busy else None
            if mine is not None:
                mine.acquire()
                self._waiting.append(mine)
            self._busy = True
        if mine is not None:
            mine.acquire()
        try:
            yield
        finally:
            with self._mutex:
                if self._waiting:
                    self._waiting.popleft().release()
                else:
                    self._busy = False


MACHINE: Final = MachineTurn()


class Places:
    """So many at a time, first come first served, whichever event loop or thread it is asked from."""

    def __init__(self, count: int) -> None:
        self._mutex = threading.Lock()
        self._free = count
        self._waiting: deque[tuple[asyncio.AbstractEventLoop, asyncio.Future[None]]] = deque()

    @asynccontextmanager
    async def taken(self) -> AsyncGenerator[None]:
        """Wait for a place, and pass it on at the end."""
        await self._take()
        try:
            yield
        finally:
            self._pass_on()

    async def _take(self) -> None:
        loop = asyncio.get_running_loop()
        with self._mutex:
            if self._free:
                self._free -= 1
                return
            mine = (loop, loop.create_future())
            self._waiting.append(mine)
        try:
            await mine[1]
        except asyncio.CancelledError:
            with self._mutex:
                still_waiting = mine in self._waiting
                if still_waiting:
                    self._waiting.remove(mine)
            if not still_waiting:  # the place was on its way here
                self._pass_on()
            raise

    def _pass_on(self) -> None:
        with self._mutex:
            while self._waiting:
                loop, waiter = self._waiting.popleft()
                try:
                    loop.call_soon_threadsafe(_give, waiter)
                except RuntimeError:  # that loop was closed, and with it whoever waited there
                    continue
                return
            self._free += 1


def _give(waiter: asyncio.Future[None]) -> None:
    if not waiter.done():
        waiter.set_result(None)
