"""Threads give way to other work on the machine."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from agentbudget.models import _processors
from agentbudget.models._processors import FreeProcessors, others_running, processors


def counts_who_runs() -> bool:
    """Whether the system says how many are running: whoever looks is one of them. Some sandboxes always say none."""
    load = Path("/proc/loadavg")
    return load.is_file() and not load.read_text().split()[3].startswith("0/")


pytestmark = pytest.mark.skipif(not counts_who_runs(), reason="needs Linux's /proc, with a count of who runs")


@pytest.fixture
def busy() -> Iterator[int]:
    """As many busy processes as the machine has processors."""
    count = os.cpu_count() or 1
    children = [subprocess.Popen([sys.executable, "-c", "while True: pass"]) for _ in range(count)]
    yield count
    for child in children:
        child.kill()
        child.wait()


def test_busy_processes_are_counted(busy: int) -> None:
    deadline = time.monotonic() + 60
    while others_running(own=1) < busy:
        assert time.monotonic() < deadline, "the busy processes were never all seen"
        time.sleep(0.05)


def test_on_a_busy_machine_one_thread_is_left(busy: int) -> None:
    free = FreeProcessors()
    assert free.threads == processors()
    deadline = time.monotonic() + 60
    while free.look() > 1:
        assert time.monotonic() < deadline, f"still {free.threads} threads beside {busy} busy processes"
        time.sleep(0.05)


def test_what_falls_asleep_while_one_looks_counts_for_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    seen = iter([3, 1])  # two helpers of a computation that has just ended, and whoever looks
    monkeypatch.setattr(_processors, "_running", lambda: next(seen))
    assert others_running(own=2) == 0


@pytest.mark.parametrize(("seen", "threads"), [([0, 1, 0, 0], [2, 2, 2, 2]), ([0, 1, 1, 1], [2, 2, 1, 1])])
def test_who_is_seen_once_costs_no_thread_and_who_stays_does(
    monkeypatch: pytest.MonkeyPatch, seen: list[int], threads: list[int]
) -> None:
    looks = iter(seen)
    monkeypatch.setattr(_processors, "processors", lambda: 2)
    monkeypatch.setattr(os, "cpu_count", lambda: 2)
    monkeypatch.setattr(_processors, "_LOOK_EVERY_S", 0.0)

    def others(*, own: int) -> int:
        assert own in (1, 2)
        return next(looks)

    monkeypatch.setattr(_processors, "others_running", others)
    free = FreeProcessors()
    assert [free.look() for _ in seen] == threads


def test_there_is_at_least_one_processor_and_never_more_than_the_machine_has() -> None:
    assert 1 <= processors() <= (os.cpu_count() or 1)
    assert 1 <= FreeProcessors().look() <= processors()
