"""What SQLite leaves to us: waiting for a file that others are opening or closing, and saying what is wrong with it."""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Callable
from typing import Final, TypeVar

LOOK_S: Final = 0.002
"""How often one asks again."""

FAULTS: Final = (sqlite3.Error, UnicodeDecodeError)
"""What is raised of a file. What SQLite says of a damaged one may quote bytes that are no text: then Python raises."""

T = TypeVar("T")


def told(error: Exception) -> str:
    """What is wrong with a file, where SQLite does not say it: its words of a damaged one may be no text, and a disk
    without room for the index of its log is an I/O error to it."""
    if isinstance(error, UnicodeDecodeError):
        return f"it is damaged ({error})"
    full = getattr(error, "sqlite_errorname", "") == "SQLITE_IOERR_SHMSIZE"
    return f"there is no room on its disk ({error})" if full else str(error)


def is_busy(error: BaseException) -> bool:
    """Whether SQLite says that somebody else is using the file."""
    return getattr(error, "sqlite_errorcode", 0) & 0xFF in (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED)


def patiently(ask: Callable[[], T], *, timeout_s: float) -> T:
    """What `ask` gives once the file is free for it; after `timeout_s` what SQLite said is raised.

    SQLite's own patience (``busy_timeout``) does not help whoever switches a new file to write-ahead logging, which
    needs it alone for a moment: it says at once that it is locked (https://sqlite.org/c3ref/busy_handler.html).
    """
    deadline = time.monotonic() + timeout_s
    while True:
        try:
            return ask()
        except sqlite3.OperationalError as error:
            if not is_busy(error) or time.monotonic() > deadline:
                raise
        time.sleep(LOOK_S)


def use_wal(db: sqlite3.Connection, *, timeout_s: float) -> None:
    """Let readers and one writer of a file go on beside each other."""
    patiently(lambda: db.execute("PRAGMA journal_mode = WAL"), timeout_s=timeout_s)
