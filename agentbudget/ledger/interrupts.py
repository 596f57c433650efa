"""Ctrl-C: an exception that may come between any two instructions of the main thread, also of those around a lock.

Python gives a ``with`` no way to shut it out. So whoever comes next finds out, and mends.
"""

from __future__ import annotations

import sys
import threading
from types import FrameType
from typing import Any, cast

from agentbudget.errors import Mistake


def owned(lock: threading.RLock) -> bool:
    """Whether this thread has the lock."""
    return cast(Any, lock)._is_owned()


def refuse_inside(transaction: object) -> None:
    """Raise `Mistake` if a function that this thread is in holds the transaction; else an interrupt cut its end off."""
    frame: FrameType | None = sys._getframe(3)  # pyright: ignore[reportPrivateUsage] # whoever asks to be let in
    while frame is not None:
        if any(value is transaction for value in frame.f_locals.values()):
            raise Mistake("a transaction of the ledger began inside another; end that one first")
        frame = frame.f_back
