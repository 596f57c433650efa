"""Who holds: a process, named so that another can tell whether it still runs."""

from __future__ import annotations

import os
import socket
import uuid
from contextlib import suppress
from functools import cache
from pathlib import Path
from typing import Final, Literal

from agentbudget.forks import watch
from agentbudget.ledger.store import check_text

Life = Literal["alive", "dead", "unknown"]

_living: Final[set[str]] = set()
"""Owners in this process that have not closed their ledger."""


def new_owner() -> str:
    """A name for an owner in this process: host, process id, when the process began, and something of its own."""
    pid = os.getpid()
    owner = f"{_host()}:{pid}:{_started(pid)}:{uuid.uuid4().hex[:8]}"
    _living.add(owner)
    return owner


class Owner:
    """Under whose name a ledger holds. A forked process gets a name of its own, since either may outlive the other,
    unless the caller gave it one. ``lease_due`` is when its lease is to be renewed, in ns."""

    def __init__(self, name: str | None) -> None:
        if name is not None:
            check_text("an owner", name)
        self._given = name is not None
        self.name = name or new_owner()
        self.lease_due = 0
        watch(self)

    def retire(self) -> None:
        """The ledger was closed: from now on the lease decides, though the process goes on."""
        _living.discard(self.name)

    def before_fork(self) -> None:
        """Nothing to do."""

    def after_fork(self, *, child: bool) -> None:
        if child and not self._given:
            self.name, self.lease_due = new_owner(), 0


def life(owner: str) -> Life:
    """Whether the owner's process still runs. Of other hosts, and of names that say nothing, nothing is known."""
    host, _, rest = owner.partition(":")
    pid, _, rest = rest.partition(":")
    started = rest.partition(":")[0]
    if host != _host() or not pid.isdigit():
        return "unknown"
    if int(pid) == os.getpid() and started == _started(os.getpid()):
        return "alive" if owner in _living else "unknown"
    try:
        os.kill(int(pid), 0)
    except (ProcessLookupError, OverflowError):
        return "dead"
    except PermissionError:
        pass
    now = _started(int(pid))
    if not started or not now:
        return "unknown"  # the id may be another process's by now: its lease decides
    return "alive" if now == started else "dead"


@cache
def _host() -> str:
    """This host as process ids see it: after a restart, or in another container, the same id is another process."""
    parts = [socket.gethostname()]
    with suppress(OSError):
        parts.append(Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii")[:8])
    with suppress(OSError):
        parts.append(str(Path("/proc/self/ns/pid").stat().st_ino))
    return "/".join(part.replace(":", "_") for part in parts)


def _started(pid: int) -> str:
    """When a process began, in ticks since the boot; empty where the system does not say, "ended" once it ended,
    even if nobody has asked yet how."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""
    fields = stat.rpartition(")")[2].split()
    return "ended" if fields[0] in "ZX" else fields[19]
