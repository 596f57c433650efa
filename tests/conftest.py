from __future__ import annotations

import contextlib
import faulthandler
import os
import subprocess
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

from agentbudget.settings import weights_dir

# The same examples each time, however slow the machine is: a test that passed does not fail somebody else's change.
# `tests/soak.py` and `--hypothesis-profile=default` look for new ones.
settings.register_profile("suite", deadline=None, derandomize=True, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("suite")

ENDING_S = 120
"""How long the process may take to end once the last test did."""


@pytest.fixture(autouse=True)
def _apart(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:  # pyright: ignore[reportUnusedFunction]
    """Each test has its own home; the weights are shared, and no key or exporter of the machine is seen."""
    monkeypatch.setenv("AGENTBUDGET_WEIGHTS", str(_WEIGHTS))
    monkeypatch.setenv("AGENTBUDGET_HOME", str(tmp_path / "home"))
    for name in (
        "ANTHROPIC_API_KEY",
        "OPENAI_API_KEY",
        "OTEL_EXPORTER_OTLP_ENDPOINT",
        "AGENTBUDGET_MODELS",
        "AGENTBUDGET_LEDGER",
    ):
        monkeypatch.delenv(name, raising=False)


_WEIGHTS = weights_dir()


@dataclass(frozen=True)
class Disk:
    """A disk of a few megabytes, at ``path``."""

    path: Path

    def fill(self) -> None:
        """Leave room for nothing."""
        with (self.path / "ballast").open("ab", buffering=0) as ballast, contextlib.suppress(OSError):
            while True:
                ballast.write(b"x" * 512)

    def make_room(self) -> None:
        """Take away what `fill` wrote."""
        (self.path / "ballast").unlink()

    def forbid_writing(self) -> None:
        """Let it only be read from now on."""
        subprocess.run(["mount", "-o", "remount,ro", str(self.path)], check=True)


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Disk]:
    """See `Disk`."""
    path = tmp_path / "disk"
    path.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=4m", "tmpfs", str(path)]
    try:
        subprocess.run(mount, capture_output=True, check=True)
    except (OSError, subprocess.CalledProcessError):
        pytest.skip("this user cannot mount a small disk")
    yield Disk(path)
    subprocess.run(["umount", "--lazy", str(path)], check=True)


Forked = Callable[[Callable[[], object]], int]
"""Does something in a forked child, which lives on until the test ends; gives 0, or 1 if it raised."""


@pytest.fixture
def forked() -> Iterator[Forked]:
    """See `Forked`."""
    if not hasattr(os, "fork"):
        pytest.skip("this system does not fork")
    waits, ends = os.pipe()
    children: list[int] = []

    def run(act: Callable[[], object]) -> int:
        told, tells = os.pipe()
        if (child := os.fork()) == 0:
            status = 1
            try:
                act()
                status = 0
            finally:
                os.write(tells, bytes([status]))
                os.close(ends)
                os.read(waits, 1)
                os._exit(0)
        children.append(child)
        os.close(tells)
        with os.fdopen(told, "rb") as said:
            return said.read(1)[0]

    yield run
    os.close(ends)
    for child in children:
        os.waitpid(child, 0)
    os.close(waits)


def pytest_unconfigure() -> None:
    """A thread that a test left behind keeps nobody waiting: after a while the process is ended, saying where it is."""
    faulthandler.dump_traceback_later(ENDING_S, exit=True, file=2)
