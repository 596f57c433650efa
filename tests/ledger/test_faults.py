"""What becomes of the ledger when the machine fails it: full disks, locks, stopped and forked processes."""

from __future__ import annotations

import multiprocessing
import os
import shutil
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Generator
from contextlib import contextmanager
from pathlib import Path

import pytest

from agentbudget.errors import BudgetExceeded, StoreBusy, StoreUnavailable
from agentbudget.ledger import Ledger
from agentbudget.ledger.core import open_store
from agentbudget.ledger.sqlite import SqliteStore
from agentbudget.money import Amount, Budget
from agentbudget.testing import ManualClock

ONE = Amount(calls=1)
needs_fork = pytest.mark.skipif(not hasattr(os, "fork"), reason="this system does not fork")
needs_stops = pytest.mark.skipif(not hasattr(signal, "SIGSTOP"), reason="this system cannot stop a process")


@contextmanager
def child(code: str, *arguments: object) -> Generator[subprocess.Popen[str]]:
    """A process that runs `code`; killed at the end if it still runs."""
    command = [sys.executable, "-c", code, *map(str, arguments)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        try:
            yield process
        finally:
            process.kill()


def told(process: subprocess.Popen[str]) -> str:
    """The next line that it prints."""
    assert process.stdout is not None
    return process.stdout.readline().strip()


# --- a full disk

FULL = """
import resource, signal, sys
from agentbudget.errors import StoreUnavailable
from agentbudget.ledger import Ledger
from agentbudget.money import Amount, Budget

path, most = sys.argv[1], int(sys.argv[2])
_, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
ledger = Ledger.open(path)
ledger.account("a", limit=Budget(calls=10**6), windows={"60s": Budget(calls=10**6)})
resource.setrlimit(resource.RLIMIT_FSIZE, (most, hard))
billed, failed = 0, None
for n in range(10**6):
    settled = False
    try:
        hold = ledger.reserve(f"h{n}", Amount(calls=1), accounts=["a"], meta={"text": "x" * (n % 700)})
        failed = lambda: hold.settle(Amount(calls=1))
        failed()
        billed += 1
    except StoreUnavailable as error:
        assert "nothing was admitted" in str(error)
        break
# Nothing of what failed is there, and what is there can be read.
record = ledger.hold(f"h{n}")
assert record is None or record.state == "open"
balance = ledger.balance("a")
assert (balance.posted.calls, balance.held.calls) == (billed, 0 if record is None else 1)
for _ in range(3):
    try:
        ledger.reserve("more", Amount(calls=1), accounts=["a"], meta={"text": "x" * most})
        raise SystemExit("it was admitted")
    except StoreUnavailable:
        pass
resource.setrlimit(resource.RLIMIT_FSIZE, (hard, hard))
if record is not None:
    ledger.settle(record.id, Amount(calls=1))
    billed += 1
ledger.reserve("after", Amount(calls=1), accounts=["a"])
assert ledger.verify().ok
print(billed, record is not None)
"""


def test_where_the_disk_is_full_nothing_is_admitted_and_a_settlement_can_be_repeated(tmp_path: Path) -> None:
    pytest.importorskip("resource", reason="this system limits no file's size")
    for number in range(8):
        path = tmp_path / f"{number}.db"
        with child(FULL, path, 140_000 + 7_919 * number) as process:
            answer = told(process).split()
            assert process.wait() == 0
        with Ledger.open(path) as ledger:
            assert ledger.balance("a").posted.calls == int(answer[0])
            assert ledger.verify().ok


def test_a_disk_of_one_megabyte_that_is_full_fails_closed(tmp_path: Path) -> None:
    disk = tmp_path / "disk"
    disk.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(disk)], capture_output=True, check=False
    )
    if mounted.returncode:
        pytest.skip("this user cannot mount a small disk")
    try:
        with Ledger.open(disk / "ledger.db") as ledger:
            ledger.account("a")
            billed = 0

            def fill() -> None:
                nonlocal billed
                while True:
                    ledger.reserve(f"h{billed}", ONE, accounts=["a"]).settle(ONE)
                    billed += 1

            with pytest.raises(StoreUnavailable, match="nothing was admitted"):
                fill()
            last = ledger.hold(f"h{billed}")
            assert ledger.balance("a").posted.calls == billed
            assert ledger.balance("a").held.calls == (last is not None)
            subprocess.run(["mount", "-o", "remount,size=8m", str(disk)], check=True)
            ledger.reserve(f"h{billed}", ONE, accounts=["a"]).settle(ONE)
            assert ledger.balance("a").posted.calls == billed + 1
            assert ledger.verify().ok
    finally:
        subprocess.run(["umount", str(disk)], check=True)


def test_where_the_disk_is_full_no_ledger_is_made(tmp_path: Path) -> None:
    resource = pytest.importorskip("resource", reason="this system limits no file's size")
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    path = tmp_path / "ledger.db"
    try:
        resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, hard))
        with pytest.raises(StoreUnavailable, match="cannot open"):
            Ledger.open(path)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    with Ledger.open(path) as ledger:
        assert ledger.verify().ok


# --- locks

HELD = """
import os, signal, sys
from pathlib import Path
from agentbudget.ledger import Ledger
from agentbudget.ledger.sqlite import SqliteStore
from agentbudget.money import Amount

store = SqliteStore(Path(sys.argv[1]))
ledger = Ledger(store)
ledger.account("a")
with store.write() as tx:
    print("inside", flush=True)
    os.kill(os.getpid(), getattr(signal, sys.argv[2]))
ledger.reserve("theirs", Amount(calls=1), accounts=["a"]).settle(Amount(calls=1))
print("done", flush=True)
"""


@needs_stops
def test_a_writer_that_was_stopped_in_its_turn_makes_others_fail_closed_until_it_goes_on(tmp_path: Path) -> None:
    path = tmp_path / "ledger.db"
    with child(HELD, path, "SIGSTOP") as process:
        assert told(process) == "inside"
        os.waitid(os.P_PID, process.pid, os.WSTOPPED | os.WNOWAIT)
        ledger = Ledger(SqliteStore(path, busy_timeout_s=0.1))
        refused: list[BaseException] = []

        def rival(number: int) -> None:
            try:
                ledger.reserve(f"h{number}", ONE, accounts=["a"])
            except StoreBusy as error:
                refused.append(error)

        threads = [threading.Thread(target=rival, args=(number,)) for number in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert len(refused) == 8
        assert ledger.holds() == []
        assert [account.name for account in ledger.accounts()] == ["a"]
        process.send_signal(signal.SIGCONT)
        assert told(process) == "done"
        ledger.reserve("h0", ONE, accounts=["a"])
        assert ledger.balance("a").posted == ONE
        assert ledger.verify().ok
        ledger.close()


@needs_stops
def test_a_writer_that_was_killed_in_its_turn_leaves_it_to_others(tmp_path: Path) -> None:
    path = tmp_path / "ledger.db"
    with child(HELD, path, "SIGKILL") as process:
        assert process.wait() == -signal.SIGKILL
    with Ledger.open(path) as ledger:
        ledger.reserve("x", ONE, accounts=["a"])
        assert ledger.verify().ok


# --- closed


@pytest.mark.parametrize("threads", [1, 4])
def test_a_ledger_that_was_closed_says_so_also_to_whoever_is_at_work(tmp_path: Path, threads: int) -> None:
    ledger = Ledger.open(tmp_path / "ledger.db")
    ledger.account("a")
    started, errors, done = threading.Semaphore(0), list[BaseException](), list[str]()

    def work(thread: int) -> None:
        started.release()
        try:
            for number in range(10**6):
                name = f"{thread}-{number}"
                ledger.reserve(name, ONE, accounts=["a"]).settle(ONE)
                done.append(name)
        except Exception as error:  # noqa: BLE001 # what it is, is the question
            errors.append(error)

    workers = [threading.Thread(target=work, args=(number,)) for number in range(threads)]
    for worker in workers:
        worker.start()
    for _ in workers:
        assert started.acquire(timeout=60)
    ledger.close()
    ledger.close()
    for worker in workers:
        worker.join()
    assert {type(error) for error in errors} == {StoreUnavailable}
    assert all("was closed; open it again" in str(error) for error in errors)
    operations: list[Callable[[], object]] = [ledger.verify, ledger.sweep, lambda: ledger.account("b"), ledger.holds]
    for operation in operations:
        with pytest.raises(StoreUnavailable, match="was closed"):
            operation()
    with Ledger.open(tmp_path / "ledger.db") as again:
        assert again.balance("a").posted.calls >= len(done)
        assert again.verify().ok


# --- another file of the same name


@pytest.mark.skipif(sys.platform == "win32", reason="this system keeps files that are open")
@pytest.mark.parametrize("replaced", [False, True])
def test_a_file_that_lost_its_name_is_written_to_no_more(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, replaced: bool
) -> None:
    monkeypatch.setattr("agentbudget.ledger.sqlite.LOOK_S", 0.0)
    path = tmp_path / "ledger.db"
    with Ledger.open(path) as older:
        older.account("a", limit=Budget(calls=1))
    backup = shutil.copy(path, tmp_path / "backup.db")
    with Ledger.open(path) as ledger:
        hold = ledger.reserve("x", ONE, accounts=["a"])
        for suffix in ("", "-wal", "-shm"):
            path.with_name(path.name + suffix).unlink(missing_ok=True)
        if replaced:
            shutil.move(backup, path)
        for ask in (hold.settle, hold.refresh, lambda: ledger.reserve("y", ONE, accounts=["a"]), ledger.verify):
            with pytest.raises(StoreUnavailable, match="replaced while it was open"):
                ask()
    with Ledger.open(path) as found:
        found.account("a", limit=Budget(calls=1))
        assert found.reserve("y", ONE, accounts=["a"]).record.state == "open"
        assert found.verify().ok


# --- forks


def forked(run: Callable[[], object]) -> int:
    """Run it in a forked child and return the child's status: 0 if it did not raise."""
    pid = os.fork()
    if pid == 0:
        status = 1
        try:
            run()
            status = 0
        finally:
            os._exit(status)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


@needs_fork
def test_a_forked_process_that_goes_to_another_folder_goes_on_with_the_same_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "root").mkdir()
    monkeypatch.chdir(tmp_path)
    with Ledger.open("ledger.db") as ledger:
        ledger.account("a")

        def daemon() -> None:
            os.chdir("root")
            ledger.reserve("x", ONE, accounts=["a"])

        assert forked(daemon) == 0
        assert ledger.balance("a").held == ONE
    assert list((tmp_path / "root").iterdir()) == []


@needs_fork
def test_a_forked_process_goes_on_with_a_ledger_of_its_own(tmp_path: Path) -> None:
    with Ledger.open(tmp_path / "ledger.db") as ledger:
        ledger.account("a", limit=Budget(calls=4))
        mine = ledger.reserve("mine", ONE, accounts=["a"])
        owner = ledger.owner

        def work() -> None:
            assert ledger.owner != owner
            ledger.reserve("theirs", ONE, accounts=["a"]).settle(ONE)
            ledger.reserve("left", ONE, accounts=["a"])
            assert ledger.balance("a").held.calls == 2
            assert ledger.sweep() == [], "the parent lives"
            assert ledger.verify().ok

        assert forked(work) == 0
        assert [hold.id for hold in ledger.sweep()] == ["left"], "the child does not"
        mine.settle(ONE)
        assert ledger.balance("a").posted.calls == 2
        assert forked(lambda: forked(lambda: ledger.reserve("grandchild", ONE, accounts=["a"]))) == 0
        assert [hold.id for hold in ledger.sweep()] == ["grandchild"]
        assert ledger.verify().ok


ORPHAN = """
import os, sys, time
from pathlib import Path
from agentbudget.ledger import Ledger
from agentbudget.money import Amount

ledger = Ledger.open(sys.argv[1])
ledger.account("a")
for n in range(20):
    ledger.reserve(f"parent-{n}", Amount(calls=1), accounts=["a"]).settle(Amount(calls=1))
parent = os.getpid()
if os.fork():
    ledger.close()
    sys.exit()
if sys.argv[2] == "late":
    while os.getppid() == parent:
        time.sleep(0.001)
ledger.reserve("child-0", Amount(calls=1), accounts=["a"]).settle(Amount(calls=1))
while os.getppid() == parent:
    time.sleep(0.001)
with Ledger.open(sys.argv[1]) as third:  # comes, goes, and would take the log along if nobody else seemed to use it
    third.reserve("third", Amount(calls=1), accounts=["a"]).settle(Amount(calls=1))
for n in range(1, 20):
    ledger.reserve(f"child-{n}", Amount(calls=1), accounts=["a"]).settle(Amount(calls=1))
print("done", flush=True)
"""


@needs_fork
@pytest.mark.parametrize("when", ["early", "late"])
def test_what_a_forked_process_books_outlives_its_parent(tmp_path: Path, when: str) -> None:
    path = tmp_path / "ledger.db"
    with child(ORPHAN, path, when) as process:
        assert told(process) == "done"
    with Ledger.open(path) as ledger:
        assert ledger.balance("a").posted.calls == 41
        assert ledger.verify().ok


@needs_fork
def test_forks_amid_other_threads_transactions_share_one_budget(tmp_path: Path) -> None:
    with Ledger.open(tmp_path / "ledger.db") as ledger:
        ledger.account("a", limit=Budget(calls=60))
        stop = threading.Event()

        def heartbeats() -> None:
            while not stop.is_set():
                ledger.heartbeat()

        threads = [threading.Thread(target=heartbeats) for _ in range(3)]
        for thread in threads:
            thread.start()
        context = multiprocessing.get_context("fork")
        won = context.Value("i", 0)

        def work(worker: int) -> None:
            for number in range(20):
                try:
                    ledger.reserve(f"{worker}-{number}", ONE, accounts=["a"]).settle(ONE)
                except BudgetExceeded:
                    continue
                with won.get_lock():
                    won.value += 1

        workers = [context.Process(target=work, args=(number,), daemon=True) for number in range(4)]
        try:
            for worker in workers:
                worker.start()
            for worker in workers:
                worker.join(120)
        finally:
            stop.set()
            for thread in threads:
                thread.join()
        assert [worker.exitcode for worker in workers] == [0] * 4
        assert won.value == 60
        assert ledger.balance("a").posted.calls == 60
        assert ledger.verify().ok


@needs_fork
def test_a_fork_from_within_a_transaction_takes_nothing_of_it_along(tmp_path: Path) -> None:
    store = SqliteStore(tmp_path / "ledger.db", busy_timeout_s=0.1)
    ledger = Ledger(store)
    ledger.account("a")

    def work() -> None:
        with pytest.raises(StoreUnavailable, match="in the middle of a transaction"):
            ledger.account("b")

    held, free = threading.Event(), threading.Event()

    def hold() -> None:
        with store.write():
            held.set()
            free.wait(120)

    thread = threading.Thread(target=hold)
    thread.start()
    assert held.wait(60)
    try:
        status = forked(work)
    finally:
        free.set()
    thread.join()
    assert status == 0
    ledger.account("c")
    assert [account.name for account in ledger.accounts()] == ["a", "c"]
    ledger.close()


@needs_fork
def test_a_ledger_in_memory_ends_where_its_process_forks() -> None:
    ledger = Ledger.open("memory:")
    ledger.account("a", limit=Budget(calls=1))

    def work() -> None:
        with pytest.raises(StoreUnavailable, match="keep it in a file"):
            ledger.reserve("x", ONE, accounts=["a"])

    assert forked(work) == 0
    ledger.reserve("x", ONE, accounts=["a"])


# --- clocks


@pytest.mark.parametrize("jump_s", [86_400, -86_400, 3_600, -3_600, 10**8])
def test_no_jump_of_the_clock_sweeps_a_live_owner_of_this_host(location: str, jump_s: int) -> None:
    clock = ManualClock()
    store = open_store(location)
    mine, other = Ledger(store, clock=clock), Ledger(store, clock=clock)
    mine.account("a", limit=Budget(calls=2))
    mine.reserve("x", ONE, accounts=["a"]).mark_sent()
    clock.advance(jump_s)
    assert other.sweep() == mine.sweep() == []
    other.reserve("y", ONE, accounts=["a"])
    clock.advance(-2 * jump_s)
    assert other.sweep() == mine.sweep() == []
    with pytest.raises(BudgetExceeded):
        mine.reserve("z", ONE, accounts=["a"])
    assert mine.settle("x", ONE).state == "settled"
    assert mine.verify().ok
    mine.close()
