"""Whose turn it is to write to a file, among processes."""

from __future__ import annotations

import sqlite3
import time
from pathlib import Path

try:
    import fcntl
except ImportError:  # no advisory locks on this system: SQLite's own lock is right too, only less even
    fcntl = None


class Turn:
    """Whose turn it is to write, among processes: an advisory lock beside the file.

    SQLite's busy handler sleeps and tries again, so that under many writers some wait for seconds; whoever waits for
    this lock asks again within a millisecond. SQLite's own lock still guards the file.
    """

    def __init__(self, path: Path) -> None:
        self._file = None if fcntl is None else path.with_name(f"{path.name}-turn").open("ab", buffering=0)

    def take(self, deadline: float) -> None:
        """Wait for it until `deadline` on the monotonic clock. Raises ``sqlite3.OperationalError``."""
        if fcntl is None or self._file is None:
            return
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            self._wait(deadline)

    def _wait(self, deadline: float) -> None:
        assert fcntl is not None
        assert self._file is not None
        # Asked again and again: to wait in the kernel would be to wait without end for a writer that was stopped.
        pause = 50e-6
        while True:
            try:
                fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                return
            except BlockingIOError:
                if time.monotonic() > deadline:
                    raise sqlite3.OperationalError("database is locked") from None
                time.sleep(pause)
                pause = min(pause * 1.2, 1e-3)

    def give(self) -> None:
        if fcntl is not None and self._file is not None:
            fcntl.flock(self._file, fcntl.LOCK_UN)

    def close(self) -> None:
        if self._file is not None:
            self._file.close()
