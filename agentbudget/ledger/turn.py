"""Whose turn it is to write to a file, among processes: first come, first served.

A lock beside the file says who writes; the system takes it from a process that dies. Who waits for it stands in a
table in the same file, mapped into every process, with the moment since when. SQLite's own lock still guards the
ledger: what goes wrong here costs time, and nothing else.
"""

from __future__ import annotations

import mmap
import os
import random
import sqlite3
import time
from collections.abc import Callable
from pathlib import Path
from typing import Final

try:
    import fcntl
except ImportError:  # no advisory locks on this system: SQLite's own lock is right too, only less even
    fcntl = None

SLOTS: Final = 128
"""More who wait than this is possible: some then share a place, and one of them is passed over for a while."""
_WORDS: Final = 2 * SLOTS
_SIZE: Final = 8 * (_WORDS + 1)
_UNTIL: Final = _WORDS
"""The word after the table: until when (ns) whoever wrote last may go on, and the others let it."""

SLICE_NS: Final = 180_000
"""How long a turn lasts where others wait: some transactions, so that what others wrote is learned once for all of
them. Eight who never pause wait some 3 ms for each other."""
GONE_NS: Final = 30_000_000
"""Who has not asked for so long was stopped or killed, and is passed over until it asks again."""
HANDED_NS: Final = 60_000
"""About how long it takes to wake up."""
LONGEST_NS: Final = 3_000_000


def _nothing() -> None:
    pass


class Turn:
    """One writer's way to take turns. Not for two threads at once."""

    def __init__(self, path: Path) -> None:
        self._slot = 2 * random.randrange(SLOTS)
        self._until = 0
        self._file: int | None = None
        if fcntl is None:
            return
        self._file = os.open(path.with_name(f"{path.name}-turn"), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
        try:
            if os.fstat(self._file).st_size < _SIZE:
                os.ftruncate(self._file, _SIZE)
            self._map = mmap.mmap(self._file, _SIZE)
        except BaseException:
            os.close(self._file)
            raise
        self._waiting = memoryview(self._map).cast("q")
        """In pairs: since when (ns of the monotonic clock) somebody waits, and when it last asked; 0 for nobody."""

    def take(self, deadline: float, ahead: Callable[[], None] = _nothing) -> bool:
        """Wait for it until `deadline` on the monotonic clock; True if others may have had it since.

        ``ahead`` is done at most once, while this one waits as the next. Raises ``sqlite3.OperationalError``.
        """
        if self._file is None:
            return True
        since = time.monotonic_ns()
        if since < self._until and self._try():
            return False
        slot, prepared = self._slot, False
        try:
            while True:
                now = time.monotonic_ns()
                self._waiting[slot], self._waiting[slot + 1] = since, now
                pause = self._pause(since, now)
                if pause <= 0:
                    if self._try():
                        self._waiting[_UNTIL] = self._until = now + SLICE_NS
                        return True
                    pause = HANDED_NS
                elif pause <= SLICE_NS and not prepared:
                    prepared = True
                    ahead()
                    continue
                if now > deadline * 1e9:
                    raise sqlite3.OperationalError("database is locked")
                time.sleep(min(pause, LONGEST_NS) / 1e9)
        finally:
            self._waiting[slot] = self._waiting[slot + 1] = 0

    def _pause(self, since: int, now: int) -> int:
        """How long (ns) it will take until it is this one's turn."""
        words = self._waiting
        left = words[_UNTIL] - now
        pause = left if 0 < left <= SLICE_NS else 0
        # Whoever waits asks several times for each turn: only places that are taken are looked at one by one.
        begun: list[int] = words[:_UNTIL:2].tolist()
        for moment in filter(None, begun):
            if moment < since and now - words[2 * begun.index(moment) + 1] < GONE_NS:
                pause += SLICE_NS
        return pause

    def _try(self) -> bool:
        assert fcntl is not None
        assert self._file is not None
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        return True

    def give(self) -> None:
        """Let the next one have it."""
        if fcntl is not None and self._file is not None:
            fcntl.flock(self._file, fcntl.LOCK_UN)

    def close(self) -> None:
        """Let go of the file. A child that was forked may do so: its parent's turn stays its own."""
        if self._file is not None:
            self._waiting.release()
            self._map.close()
            os.close(self._file)
            self._file = None
