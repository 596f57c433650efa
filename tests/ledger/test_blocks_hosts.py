"""Workers on several hosts, with a PostgreSQL server on another: what a network does to them costs nothing."""

from __future__ import annotations

import time
from collections.abc import Generator
from contextlib import suppress
from pathlib import Path
from subprocess import Popen

import pytest

from agentbudget.errors import StoreBusy
from agentbudget.ledger import HoldRecord, Ledger
from agentbudget.money import Amount, Budget
from tests.ledger.blocks_worker import COST, HELD, work
from tests.ledger.hosts import Hosts, TcpServer
from tests.ledger.server import NoServer

LEASE_S = 3


@pytest.fixture(scope="module")
def hosts() -> Generator[Hosts]:
    try:
        laid = Hosts(3)
    except NoServer as reason:
        pytest.skip(f"no hosts here: {reason}")
    yield laid
    laid.close()


@pytest.fixture(scope="module")
def shared(hosts: Hosts) -> Generator[TcpServer]:
    try:
        started = TcpServer(*(hosts.gateway(number) for number in (1, 2, 3)))
    except NoServer as reason:
        pytest.skip(f"no PostgreSQL here: {reason}")
    yield started
    started.close()


class Team:
    """Workers on hosts, on one account of a new ledger with room for so many calls."""

    def __init__(self, hosts: Hosts, server: TcpServer, folder: Path, calls: int) -> None:
        self._hosts, self._folder = hosts, folder
        self.local = server.fresh()
        self._database = self.local.partition("@/")[2].partition("?")[0]
        self.ledger = Ledger.open(self.local)
        self.ledger.account("hot", limit=Budget(usd=Amount(COST.usd_nano * calls).usd))

    def start(self, number: int, calls: int, *, journal: bool = True, pause_s: float = 0.0) -> Popen[bytes]:
        """A worker on a host, or the same again."""
        # A cable that was pulled is noticed within a second, not when the system gives up.
        url = f"postgresql://postgres@{self._hosts.gateway(number)}/{self._database}?tcp_user_timeout=1000"
        folder = str(self._folder / f"journal-{number}") if journal else "-"
        log, name = str(self.log(number)), f"worker-{number}"
        given = [f"{url}&connect_timeout=2", name, folder, log, str(calls), str(pause_s), str(LEASE_S)]
        return self._hosts.run(number, "-m", "tests.ledger.blocks_worker", *given)

    def log(self, number: int) -> Path:
        return self._folder / f"worker-{number}.log"

    def billed(self, *numbers: int) -> int:
        """Calls that providers billed to workers."""
        logs = [self.log(number) for number in numbers]
        return sum(log.read_text().count("\n") for log in logs if log.exists())

    def wait_for(self, number: int, calls: int, worker: Popen[bytes]) -> None:
        while self.billed(number) < calls and worker.poll() is None:
            time.sleep(0.01)


def test_workers_on_three_hosts_spend_a_limit_to_the_end(hosts: Hosts, shared: TcpServer, tmp_path: Path) -> None:
    team = Team(hosts, shared, tmp_path, 3000)
    with team.ledger as ledger:
        workers = [team.start(number, 1500) for number in (1, 2, 3)]
        assert [worker.wait(timeout=120) for worker in workers] == [0, 0, 0]
        work(team.local, "last", None, team.log(4), 3000)  # what the refused left
        balance, paid = ledger.balance("hot"), team.billed(1, 2, 3, 4)
        assert balance.posted == Amount(3 * paid, calls=paid)
        assert balance.held == Amount()
        assert 9000 - HELD.usd_nano < 3 * paid <= 9000
        assert ledger.verify().ok
        owners = {record.owner.partition("/")[0] for record in ledger.holds(prefix="block/")}
        assert owners >= {"host1", "host2", "host3"}


def test_a_host_that_dies_comes_back_with_its_journal(hosts: Hosts, shared: TcpServer, tmp_path: Path) -> None:
    team = Team(hosts, shared, tmp_path, 10_000)
    with team.ledger as ledger:
        dies = team.start(1, 400, pause_s=0.002)
        others = [team.start(number, 400) for number in (2, 3)]
        team.wait_for(1, 100, dies)
        dies.kill()
        dies.wait()
        again = team.start(1, 400)  # another host, to all appearances: nobody can see whether the first one lives
        assert [worker.wait(timeout=120) for worker in (*others, again)] == [0, 0, 0]
        paid = team.billed(1, 2, 3)
        posted = ledger.balance("hot").posted.usd_nano
        assert 3 * paid <= posted <= 3 * paid + HELD.usd_nano  # the call in flight is presumed
        assert len(set(team.log(1).read_text().split())) == team.billed(1)
        assert ledger.balance("hot").held == Amount()
        assert ledger.verify().ok


def swept(ledger: Ledger, worker: Popen[bytes]) -> list[HoldRecord]:
    """What a worker that was cut off had held, once it has lapsed; nothing, if it does not within two minutes."""
    deadline = time.monotonic() + 120
    while worker.poll() is None and time.monotonic() < deadline:
        # Cut off amid a write it keeps the lock until the server ends its session, which may take as long as we wait.
        with suppress(StoreBusy):
            if lapsed := ledger.sweep():
                return lapsed
        time.sleep(0.2)
    return []


def test_a_host_that_is_cut_off_spends_what_it_leased_and_settles_when_it_is_back(
    hosts: Hosts, shared: TcpServer, tmp_path: Path
) -> None:
    team = Team(hosts, shared, tmp_path, 10_000)
    with team.ledger as ledger:
        alone = team.start(1, 1000, journal=False, pause_s=0.001)
        team.wait_for(1, 50, alone)
        hosts.cut(1)
        try:
            lapsed = swept(ledger, alone)
            assert lapsed
            assert all(record.presumed for record in lapsed)
            assert ledger.balance("hot").posted.usd_nano >= 3 * team.billed(1)
        finally:
            hosts.mend(1)
        assert alone.wait(timeout=120) == 0
        assert ledger.balance("hot").posted == Amount(3 * 1000, calls=1000)
        assert ledger.balance("hot").held == Amount()
        assert ledger.verify().ok
