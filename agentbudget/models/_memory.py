"""How much memory this process may still take: the machine's, within its container's limit."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Final

_MEMINFO: Final = Path("/proc/meminfo")
_LIMIT: Final = Path("/sys/fs/cgroup/memory.max")
_CURRENT: Final = Path("/sys/fs/cgroup/memory.current")
_STAT: Final = Path("/sys/fs/cgroup/memory.stat")
_KIB: Final = 1024


def available_bytes() -> int:
    """Memory that can be taken without another process having to give some up."""
    return min(_machine(), _container())


def _machine() -> int:
    if _MEMINFO.is_file():
        for line in _MEMINFO.read_text().splitlines():
            if line.startswith("MemAvailable:"):
                return int(line.split()[1]) * _KIB
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")  # macOS says no more than what there is in all


def _container() -> int:
    """What the container's limit leaves, files' pages that can be dropped not counted."""
    if not _LIMIT.is_file() or (limit := _LIMIT.read_text().strip()) == "max":
        return 1 << 62
    droppable = next(
        (int(line.split()[1]) for line in _STAT.read_text().splitlines() if line.startswith("inactive_file ")), 0
    )
    return max(0, int(limit) - int(_CURRENT.read_text()) + droppable)
