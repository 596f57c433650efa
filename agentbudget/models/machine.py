"""What this machine is and has: its memory, and the name under which its measured speeds are kept."""

from __future__ import annotations

import os
import platform
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final, Literal

from agentbudget.errors import MissingDependency

if TYPE_CHECKING:
    from agentbudget.models.llama.library import Device

Fit = Literal["yes", "not now", "no"]

FITS: Final[tuple[Fit, ...]] = ("yes", "not now", "no")
"""The best first."""

CGROUP: Final = Path("/sys/fs/cgroup")
MEMINFO: Final = Path("/proc/meminfo")
CPUINFO: Final = Path("/proc/cpuinfo")


@dataclass(frozen=True, slots=True)
class Memory:
    """Bytes that processes of this machine (or container) may have, and those that are free now; None: nobody says."""

    total_bytes: int
    available_bytes: int | None

    def fits(self, needed_bytes: int) -> Fit:
        """Whether so much can be had: now, once other programs have ended (``"not now"``), or never."""
        if needed_bytes > self.total_bytes:
            return "no"
        return "yes" if self.available_bytes is None or needed_bytes <= self.available_bytes else "not now"


def memory() -> Memory:
    """What there is: the system's memory, or less where a control group allows less."""
    total = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    available = _meminfo("MemAvailable")
    most, used = _number(CGROUP / "memory.max"), _number(CGROUP / "memory.current")
    if most is not None and most < total:
        free = max(0, most - (used or 0))
        return Memory(most, free if available is None else min(free, available))
    return Memory(total, available)


def gpus() -> tuple[Device, ...]:
    """The GPUs that llama.cpp, as it is installed here, can compute on; none without it."""
    from agentbudget.models.llama.library import devices

    try:
        return devices()
    except MissingDependency:
        return ()


def fits_gpu(gpus: Sequence[Device], needed_bytes: int) -> Fit | None:
    """Whether weights and cache of so many bytes have room on one of the GPUs: where they do, all layers go there."""
    found = {Memory(gpu.total_bytes, gpu.free_bytes).fits(needed_bytes) for gpu in gpus}
    return next((fit for fit in FITS if fit in found), None)


def name() -> str:
    """Processor and cores: ``"x86_64 AMD EPYC 7B13, 2 cores"``. Speeds that were measured belong to it."""
    model = next((line.partition(":")[2].strip() for line in _lines(CPUINFO) if line.startswith("model name")), "")
    return f"{platform.machine()} {model or platform.processor() or platform.system()}, {os.cpu_count()} cores"


def _meminfo(field: str) -> int | None:
    found = next((line for line in _lines(MEMINFO) if line.startswith(f"{field}:")), None)
    return None if found is None else int(found.split()[1]) * 1024


def _number(path: Path) -> int | None:
    """The number that a file of the kernel holds; None where there is no such file, or no limit (``max``)."""
    lines = _lines(path)
    return int(lines[0]) if lines and lines[0].isdigit() else None


def _lines(path: Path) -> list[str]:
    """A file of the kernel, where this system has it."""
    return path.read_text(encoding="utf-8", errors="replace").splitlines() if path.is_file() else []
