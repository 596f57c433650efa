from __future__ import annotations

from collections.abc import Generator
from pathlib import Path

import pytest

from agentbudget.ledger import Ledger


@pytest.fixture(params=["memory", "sqlite"])
def ledger(request: pytest.FixtureRequest, tmp_path: Path) -> Generator[Ledger]:
    """One conformance suite over every store."""
    with Ledger.open("memory:" if request.param == "memory" else tmp_path / "ledger.db") as opened:
        yield opened
