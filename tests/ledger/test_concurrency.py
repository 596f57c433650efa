"""Processes with threads, all at one ledger: nothing overspent, nothing lost, nobody refused who would have fitted."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.ledger.hammer import Size, hammer


@pytest.mark.parametrize("location", ["sqlite", "postgresql"], indirect=True)
def test_eight_processes_of_four_threads_at_one_ledger(location: str, tmp_path: Path) -> None:
    hammer(location, tmp_path, Size())
