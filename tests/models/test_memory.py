"""How much memory there is."""

from __future__ import annotations

from pathlib import Path

import pytest

from agentbudget.models import _memory

KIB = 1024


@pytest.fixture
def machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A machine with 1 MiB to take, in a container without a limit."""
    for name, file, text in (
        ("_MEMINFO", "meminfo", "MemTotal: 4096 kB\nMemAvailable: 1024 kB\n"),
        ("_LIMIT", "max", "max\n"),
        ("_CURRENT", "current", "500000\n"),
        ("_STAT", "stat", "active_file 7\ninactive_file 100000\n"),
    ):
        (tmp_path / file).write_text(text)
        monkeypatch.setattr(_memory, name, tmp_path / file)
    return tmp_path


def test_it_is_what_the_machine_can_give(machine: Path) -> None:
    assert _memory.available_bytes() == 1024 * KIB


def test_a_containers_limit_counts_and_pages_that_can_be_dropped_do_not(machine: Path) -> None:
    (machine / "max").write_text("900000\n")
    assert _memory.available_bytes() == 900_000 - 500_000 + 100_000


def test_a_container_that_is_full_leaves_nothing(machine: Path) -> None:
    (machine / "max").write_text("100000\n")
    assert _memory.available_bytes() == 0
