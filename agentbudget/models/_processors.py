"""How many threads a computation should use: as many as there are processors, less those that others are using.

llama.cpp's threads wait for one another hundreds of times a token. One that shares its processor holds all of them up:
on two processors with other work on both, two threads were measured at 1 token a second and one thread at 38.
"""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import Final

_LOOK_EVERY_S: Final = 0.05
_WEIGHT: Final = 0.3
"""Of the newest look in the average, which thus follows the load within a few looks."""
_TOLERANCE: Final = 0.35
"""Others that are running for less than this share of the time do not cost a thread. It is more than the weight of one
look: what was running once, as something always does now and then, costs none."""
_LOAD: Final = Path("/proc/loadavg")
_TASKS: Final = Path("/proc/self/task")
_QUOTA: Final = Path("/sys/fs/cgroup/cpu.max")


def processors() -> int:
    """Processors that this process may use: those it may run on, within its container's quota."""
    available = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    if _QUOTA.is_file():
        share, _, period = _QUOTA.read_text().strip().partition(" ")
        if share != "max":
            available = min(available, max(1, int(share) // int(period)))
    return available


class FreeProcessors:
    """Processors that are free for this computation, followed while it runs."""

    def __init__(self) -> None:
        self._most = processors()
        self._machine = os.cpu_count() or 1
        self._can_look = self._most > 1 and _LOAD.is_file()
        self._others: float | None = None
        self._looked = 0.0
        self.threads = self._most

    def look(self) -> int:
        """The number of threads to use now; looks at the machine at most twenty times a second."""
        now = time.monotonic()
        if self._can_look and now - self._looked >= _LOOK_EVERY_S:
            self._looked = now
            others = others_running(own=self.threads)
            self._others = others if self._others is None else self._others + (others - self._others) * _WEIGHT
            self.threads = max(1, min(self._most, int(self._machine - self._others + _TOLERANCE)))
        return self.threads


def others_running(*, own: int) -> int:
    """Threads of this machine that are running or would like to, without up to `own` of this process (Linux).

    The machine's are counted before and after our own, and the fewer count: whoever looks has just computed, and its
    helpers fall asleep between one look and the next.
    """
    before = _running()
    if before <= 1:  # whoever looks
        return 0
    ours = sum(map(_is_running, _TASKS.iterdir()))
    return max(0, min(before, _running()) - min(own, ours))


def _running() -> int:
    return int(_read(_LOAD).split()[3].partition(b"/")[0])


def _is_running(task: Path) -> bool:
    try:
        return _read(task / "stat").rpartition(b")")[2].split()[0] == b"R"
    except (FileNotFoundError, ProcessLookupError):  # the thread has ended since it was listed
        return False


def _read(path: Path) -> bytes:
    """A short file that the kernel makes as it is read; without buffer and decoder, since a token waits for it."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        return os.read(descriptor, 1024)
    finally:
        os.close(descriptor)
