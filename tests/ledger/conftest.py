from __future__ import annotations

from collections.abc import Generator
from pathlib import Path

import pytest

from agentbudget.ledger import Ledger
from agentbudget.ledger.core import open_store
from agentbudget.testing import ManualClock
from tests.ledger.server import NoServer, Server


@pytest.fixture(scope="session")
def server() -> Generator[Server]:
    """One PostgreSQL server for all tests; they are skipped where it cannot run."""
    try:
        started = Server()
    except NoServer as reason:
        pytest.skip(f"no PostgreSQL here: {reason}")
    yield started
    started.close()


@pytest.fixture
def database(server: Server) -> str:
    """The address of a new, empty database."""
    return server.fresh()


@pytest.fixture(params=["memory", "sqlite", "postgresql"])
def location(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """Where a new ledger is: one conformance suite over every store."""
    if request.param == "postgresql":
        return request.getfixturevalue("database")
    return {"memory": "memory:", "sqlite": str(tmp_path / "ledger.db")}[request.param]


@pytest.fixture
def ledger(location: str) -> Generator[Ledger]:
    with Ledger.open(location) as opened:
        yield opened


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock()


@pytest.fixture
def timed(location: str, clock: ManualClock) -> Generator[Ledger]:
    """A ledger whose time is `clock`'s, of an owner of another host, so that its lease decides. It must verify."""
    with Ledger(open_store(location), clock=clock, owner="elsewhere:1:x") as opened:
        yield opened
        verification = opened.verify()
        assert verification.ok, verification.problems
