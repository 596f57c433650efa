"""Single flight: of equal calls at once one pays, and the others wait for what it brings.

Within a process they know of each other by a table; among processes by a lock on one byte of a file beside the cache,
whose place follows from the key. The system takes that lock from a process that dies, so that nobody waits for the
dead. What goes wrong here costs a saving, and nothing else.
"""

from __future__ import annotations

import asyncio
import hashlib
import logging
import os
import threading
import time
from collections.abc import Awaitable, Callable, Collection
from contextlib import suppress
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import Final, Generic, Self, TypeVar
from weakref import WeakValueDictionary

try:
    import fcntl
except ImportError:  # no advisory locks on this system: each process pays for itself
    fcntl = None

_log = logging.getLogger(__name__)

FIRST_LOOK_S: Final = 0.004
SLOWEST_LOOK_S: Final = 0.05
"""How often one who waits for another process looks: the longer it took, the more seldom."""

MOST_WAITS: Final = 2
"""For so many payers in turn one waits whose payment brings nothing: then it pays beside others that do."""

PLACES: Final = 1 << 62


class Flight:
    """The right to pay for a key, until the block ends. ``owner`` is who is paying."""

    def __init__(self, owner: object, *, on_landing: Callable[[Flight], None]) -> None:
        self.owner = owner
        self._on_landing = on_landing
        self._lock = threading.Lock()
        self._waiting: list[tuple[asyncio.AbstractEventLoop, asyncio.Future[None]]] = []
        self._landed = False

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.land()

    def land(self) -> None:
        """It has ended: whoever waits may look, and one of them pays if there is nothing. Twice does no harm."""
        with self._lock:
            if self._landed:
                return
            self._landed = True
        self._on_landing(self)
        for loop, waiter in self._waiting:
            with suppress(RuntimeError):  # a loop that was closed has nobody who waits
                loop.call_soon_threadsafe(_wake, waiter)

    async def ended(self, timeout_s: float) -> None:
        """Return when it has ended, or after so many seconds."""
        loop = asyncio.get_running_loop()
        with self._lock:
            if self._landed:
                return
            waiter = loop.create_future()
            self._waiting.append((loop, waiter))
        with suppress(TimeoutError):
            await asyncio.wait_for(waiter, timeout_s)


class Flights:
    """Who is paying for what. There is one for each file: `at` finds it."""

    def __init__(self, path: Path | None = None) -> None:
        self._lock = threading.Lock()
        self._flying: dict[str, Flight] = {}
        self._file = None if path is None else _LockFile(path)

    @classmethod
    def at(cls, path: Path | None) -> Flights:
        """Those of the cache at `path`, the same for everybody in this process; None: of a cache in memory."""
        if path is None:
            return cls()
        whole = path.resolve()
        with _registry_lock:
            known = _registry.get(whole)
            if known is None:
                known = _registry[whole] = cls(whole.with_name(f"{whole.name}-flights"))
            return known

    def claim(self, key: str, *, owner: object = None) -> Flight | None:
        """The right to pay for `key`; None while somebody else has it."""
        with self._lock:
            if key in self._flying or not (self._file is None or self._file.take(key)):
                return None
            flight = self._flying[key] = Flight(owner, on_landing=partial(self._land, key))
            return flight

    async def ended(self, key: str, *, timeout_s: float, look_s: float = FIRST_LOOK_S) -> bool:
        """Return when who pays for `key` may have ended: True at once if it is known, else False after a while."""
        with self._lock:
            flight = self._flying.get(key)
        if flight is None:
            await asyncio.sleep(min(look_s, timeout_s))
        else:
            await flight.ended(timeout_s)
        return flight is not None

    def is_among(self, owners: Collection[object], key: str) -> bool:
        """Whether one of `owners` pays for `key`: to wait for oneself would take for ever."""
        with self._lock:
            flight = self._flying.get(key)
        return flight is not None and flight.owner is not None and any(flight.owner is one for one in owners)

    def _land(self, key: str, flight: Flight) -> None:
        with self._lock:
            if self._flying.get(key) is flight:  # else it is a parent's, from which this process was forked
                del self._flying[key]
                if self._file is not None:
                    self._file.give(key)

    def forked(self) -> None:
        """In a child: what its parent pays for is not the child's affair, and the file has to be opened anew."""
        self._lock = threading.Lock()
        self._flying.clear()
        if self._file is not None:
            self._file.forget()


T = TypeVar("T")


class Once(Generic[T]):
    """A block that is given what `look` finds, or `further` for whoever would have to pay; else None: it pays, and
    others wait for its block.

    One that pays and fails, or is cancelled, hands over to one that waits. Nobody waits longer than `patience_s`, for
    more than `MOST_WAITS` whose payment brought nothing, or for one of `mine`: to wait for oneself takes for ever.
    """

    def __init__(
        self,
        flights: Flights,
        key: str,
        look: Callable[[], T | None],
        *,
        patience_s: float,
        owner: object = None,
        mine: Collection[object] = (),
        further: Callable[[], Awaitable[T | None]] | None = None,
    ) -> None:
        self._flights = flights
        self._key = key
        self._look = look
        self._patience_s = patience_s
        self._owner = owner
        self._mine = mine
        self._further = further
        self._flight: Flight | None = None

    async def __aenter__(self) -> T | None:
        try:
            found = await self._looked()
            if found is None and self._further is not None:
                found = await self._further()
        except BaseException:
            self._land()
            raise
        if found is not None:
            self._land()
        return found

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._land()

    def _land(self) -> None:
        if self._flight is not None:
            self._flight.land()

    async def _looked(self) -> T | None:
        """What is found, by whoever may pay, or by one that has waited for long enough."""
        flights, key = self._flights, self._key
        deadline, waits, look_s = time.monotonic() + self._patience_s, 0, FIRST_LOOK_S
        while True:
            self._flight = flights.claim(key, owner=self._owner)
            found, left_s = self._look(), deadline - time.monotonic()
            if self._flight is not None or found is not None or waits == MOST_WAITS or left_s <= 0:
                return found
            if flights.is_among(self._mine, key):
                return found
            waits += await flights.ended(key, timeout_s=left_s, look_s=look_s)
            look_s = min(1.5 * look_s, SLOWEST_LOOK_S)


def _wake(waiter: asyncio.Future[None]) -> None:
    if not waiter.done():
        waiter.set_result(None)


_registry_lock = threading.Lock()
_registry: Final[WeakValueDictionary[Path, Flights]] = WeakValueDictionary()


def _after_fork() -> None:
    global _registry_lock
    _registry_lock = threading.Lock()
    for flights in list(_registry.values()):
        flights.forked()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)


class _LockFile:
    """Locks on single bytes of an empty file: a process has those that it took until it gives them back, or dies.

    It is opened once in a process, as POSIX takes all of a process's locks on a file when any opening of it is closed.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._descriptor: int | None = None
        self._broken = fcntl is None

    def take(self, key: str) -> bool:
        """False while another process has it. Where such locks cannot be had, it is granted."""
        descriptor = self._opened()
        if descriptor is None:
            return True
        assert fcntl is not None
        try:
            fcntl.lockf(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB, 1, _place(key))
        except (BlockingIOError, PermissionError):  # POSIX leaves open which of the two says that it is taken
            return False
        except OSError as error:
            self._give_up(error)
        return True

    def _opened(self) -> int | None:
        if self._descriptor is None and not self._broken:
            try:
                self._descriptor = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
            except OSError as error:
                self._give_up(error)
        return None if self._broken else self._descriptor

    def _give_up(self, error: OSError) -> None:
        self._broken = True
        _log.warning("each process pays for itself: %s cannot be locked: %s", self._path, error)

    def give(self, key: str) -> None:
        """Let others have it."""
        if self._descriptor is not None and not self._broken:
            assert fcntl is not None
            fcntl.lockf(self._descriptor, fcntl.LOCK_UN, 1, _place(key))

    def forget(self) -> None:
        """In a child that was forked: the locks are its parent's."""
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None

    def __del__(self) -> None:
        self.forget()


def _place(key: str) -> int:
    return int.from_bytes(hashlib.blake2b(key.encode("utf-8", "surrogatepass"), digest_size=8).digest(), "big") % PLACES
