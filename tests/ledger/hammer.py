"""Many processes with many threads at one ledger: `python -m tests.ledger.hammer LOCATION PROCESS ROUNDS REPORT`.

Each thread writes what it believes it billed to the report of its process. What must come of it:

- ``hot``: everybody asks for one call at a time, more often than there is room for. Exactly as many are admitted.
- ``exact``: there is room for exactly what is asked for in all. Nobody is refused.
- ``once``: everybody reserves and settles under the same ids. Each is booked once.
- ``org`` with teams, users and windows: steps with calls within, that cost less or more, are extended, voided,
  presumed and corrected. What is posted is what was billed.
"""

from __future__ import annotations

import json
import subprocess
import sys
import threading
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from random import Random

from agentbudget.errors import BudgetExceeded
from agentbudget.ledger import Ledger
from agentbudget.money import Amount, Budget

ROOT = Path(__file__).parent.parent.parent
SHARED = Amount(5, 5, 1)
ROOMY = Budget(usd="1000000", tokens=10**12, calls=10**9)


@dataclass(frozen=True)
class Size:
    """How much is asked of the ledger."""

    processes: int = 8
    threads: int = 4
    rounds: int = 6

    @property
    def workers(self) -> int:
        return self.processes * self.threads


class Report:
    """What a process says that it billed and was refused."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self.billed: Counter[str] = Counter()
        self.seen: Counter[str] = Counter()
        self.errors: list[str] = []

    def bill(self, account: str, cost: Amount) -> None:
        with self._lock:
            for unit in ("usd_nano", "tokens", "calls"):
                self.billed[f"{account}:{unit}"] += getattr(cost, unit)

    def see(self, what: str) -> None:
        with self._lock:
            self.seen[what] += 1

    def write(self, path: Path) -> None:
        path.write_text(json.dumps({"billed": self.billed, "seen": self.seen, "errors": self.errors}))


def asked(process: int, thread: int, number: int) -> Amount:
    """What a worker asks for of ``exact``: everybody can work out the sum."""
    random = Random(process * 1_000_003 + thread * 1009 + number)
    return Amount(random.randint(0, 900), random.randint(0, 900), random.randint(0, 2))


def prepare(ledger: Ledger, size: Size) -> None:
    """Open the accounts."""
    total = Amount()
    for process in range(size.processes):
        for thread in range(size.threads):
            for number in range(size.rounds):
                total += asked(process, thread, number)
    ledger.account("hot", limit=Budget(calls=size.workers * size.rounds // 2))
    windows = {"month": Budget(total.usd, total.tokens, total.calls), "3000d": Budget(tokens=total.tokens)}
    ledger.account("exact", limit=Budget(usd=total.usd, tokens=total.tokens, calls=total.calls), windows=windows)
    ledger.account("once", limit=Budget(calls=size.rounds))
    ledger.account("org", limit=ROOMY, windows={"day@Europe/Berlin": ROOMY, "90s": ROOMY})
    for team in range(3):
        ledger.account(f"team/{team}", parent="org", windows={"hour": ROOMY})
        for user in range(3):
            ledger.account(f"user/{team}-{user}", parent=f"team/{team}")


def work(ledger: Ledger, report: Report, process: int, thread: int, rounds: int) -> None:
    random, name = Random(process * 100 + thread), f"{process}-{thread}"
    for number in range(rounds):
        jobs: list[Callable[[], None]] = [
            partial(_hot, ledger, report, f"hot-{name}-{number}"),
            partial(_exact, ledger, report, f"exact-{name}-{number}", asked(process, thread, number)),
            partial(_once, ledger, report, f"once-{number}"),
            partial(_step, ledger, report, f"step-{name}-{number}", random),
        ]
        random.shuffle(jobs)
        for job in jobs:
            job()
        if random.randrange(5) == 0:
            ledger.heartbeat()
            assert ledger.sweep() == [], "somebody who lives was swept"


def _hot(ledger: Ledger, report: Report, hold_id: str) -> None:
    one = Amount(calls=1)
    try:
        hold = ledger.reserve(hold_id, one, accounts=["hot"])
    except BudgetExceeded:
        report.see("hot: refused")
        return
    hold.mark_sent()
    hold.settle(one)
    report.see("hot: admitted")
    report.bill("hot", one)


def _exact(ledger: Ledger, report: Report, hold_id: str, amount: Amount) -> None:
    hold = ledger.reserve(hold_id, Amount(), accounts=["exact"])
    hold.extend(amount)
    hold.settle(amount)
    report.bill("exact", amount)


def _once(ledger: Ledger, report: Report, hold_id: str) -> None:
    hold = ledger.reserve(hold_id, SHARED, accounts=["once"])
    if not hold.replayed:
        report.see("once: made")
        report.bill("once", SHARED)
    hold.settle(SHARED)


def _step(ledger: Ledger, report: Report, hold_id: str, random: Random) -> None:
    users = random.sample([f"user/{team}-{user}" for team in range(3) for user in range(3)], 2)
    step = ledger.reserve(hold_id, Amount(120, 120, 3), accounts=users)
    billed = Amount()
    for number in range(random.randint(1, 3)):
        call = ledger.reserve(f"{hold_id}/{number}", Amount(30, 30, 1), within=hold_id)
        end = random.randrange(5)
        cost = Amount(random.randint(0, 45), random.randint(0, 45), 1)
        if end == 0:
            call.void()
            continue
        call.mark_sent()
        if end == 1:
            step.extend(Amount(140, 140, 4))
        if end == 2:
            call.presume()
        if number == 2 and end == 2:
            step.settle()
        call.settle(cost)
        billed += cost
    if step.refresh().state == "open":
        step.settle()
    for user in users:
        report.bill(user, billed)
    report.bill("org", billed)


def run(location: str, process: int, rounds: int, threads: int, path: Path) -> None:
    """One process of the many."""
    report = Report()
    with Ledger.open(location) as ledger:

        def guarded(thread: int) -> None:
            try:
                work(ledger, report, process, thread, rounds)
            except Exception as error:  # noqa: BLE001 # the parent asks what went wrong
                report.errors.append(f"{type(error).__name__}: {error}")

        workers = [threading.Thread(target=guarded, args=(thread,)) for thread in range(threads)]
        for worker in workers:
            worker.start()
        for worker in workers:
            worker.join()
    report.write(path)


def hammer(location: str, folder: Path, size: Size) -> Counter[str]:
    """Let all of them at a new ledger, check what came of it, and return what they saw."""
    with Ledger.open(location) as ledger:
        prepare(ledger, size)
        reports = [folder / f"report-{process}.json" for process in range(size.processes)]
        started = [
            subprocess.Popen(
                [sys.executable, "-m", __name__, location, *map(str, (number, size.rounds, size.threads, path))],
                cwd=ROOT,
            )
            for number, path in enumerate(reports)
        ]
        assert [process.wait() for process in started] == [0] * size.processes
        billed: Counter[str] = Counter()
        seen: Counter[str] = Counter()
        for path in reports:
            said = json.loads(path.read_text())
            assert not said["errors"], said["errors"]
            billed.update(said["billed"])
            seen.update(said["seen"])
        _check(ledger, size, billed, seen)
        return seen


def _check(ledger: Ledger, size: Size, billed: Counter[str], seen: Counter[str]) -> None:
    room = size.workers * size.rounds // 2
    assert (seen["hot: admitted"], seen["hot: refused"]) == (room, size.workers * size.rounds - room)
    assert seen["once: made"] == size.rounds
    for account in ledger.accounts():
        assert not account.held, account
        if not account.name.startswith("team/"):
            for unit in ("usd_nano", "tokens", "calls"):
                assert getattr(account.posted, unit) == billed[f"{account.name}:{unit}"], (account.name, unit)
    exact = ledger.balance("exact")
    assert exact.available == Budget(usd=0, tokens=0, calls=0)
    assert ledger.balance("org").posted.calls * 2 == sum(
        account.posted.calls for account in ledger.accounts(prefix="user/")
    )
    assert ledger.holds(state="open") == []
    verification = ledger.verify()
    assert verification.ok, verification.problems


if __name__ == "__main__":
    run(sys.argv[1], int(sys.argv[2]), int(sys.argv[3]), int(sys.argv[4]), Path(sys.argv[5]))
