"""An exception at any line of an operation, as Ctrl-C may bring one, leaves the books whole and the ledger usable."""

from __future__ import annotations

import gc
import random
import shutil
import signal
import sys
import threading
from collections.abc import Callable, Generator, Iterator, Mapping
from contextlib import contextmanager, suppress
from itertools import count, islice
from pathlib import Path
from types import FrameType
from typing import Any

import pytest

import agentbudget.ledger
from agentbudget.errors import Mistake, StoreBusy
from agentbudget.ledger import Ledger
from agentbudget.ledger.core import open_store
from agentbudget.ledger.memory import MemoryStore
from agentbudget.ledger.sqlite import SqliteStore
from agentbudget.money import Amount, Budget
from agentbudget.testing import ManualClock

OURS = str(Path(agentbudget.ledger.__file__).parent)


class Interrupt(BaseException):
    """What Ctrl-C is, under a name of its own."""


@contextmanager
def interrupted_at(line: int) -> Generator[None]:
    """Raise `Interrupt` before the so-manieth line of the ledger's own code that is run within."""
    numbers = count(1)

    def trace(frame: FrameType, event: str, _: Any) -> Any:
        if not frame.f_code.co_filename.startswith(OURS):
            return None
        if event == "line" and next(numbers) == line:
            raise Interrupt
        return trace

    before = sys.gettrace()
    sys.settrace(trace)
    try:
        yield
    finally:
        sys.settrace(before)


def call(ledger: Ledger) -> None:
    ledger.settle("call", Amount(90, 9, 1), detail={"seconds": 1})


OPERATIONS: dict[str, Callable[[Ledger], object]] = {
    "account": lambda ledger: ledger.account("new", parent="org", limit=Budget(tokens=5), windows={"day": Budget()}),
    "window": lambda ledger: ledger.set_limit("org", Budget(tokens=7), window="hour"),
    "no window": lambda ledger: ledger.set_limit("org", Budget(), window="day"),
    "top up": lambda ledger: ledger.top_up("org", Budget(tokens=5), topup_id="t", window="day"),
    "freeze": lambda ledger: ledger.freeze("org"),
    "reserve": lambda ledger: ledger.reserve("x", Amount(5, 5), accounts=["a"], meta={"skill": "s"}),
    "reserve within": lambda ledger: ledger.reserve("x", Amount(5, 1), within="step"),
    "extend": lambda ledger: ledger.extend("step", Amount(70, 7, 3)),
    "mark sent": lambda ledger: ledger.mark_sent("step"),
    "settle over": call,
    "settle all": lambda ledger: ledger.settle("step"),
    "correct": lambda ledger: ledger.settle("presumed", Amount(3)),
    "presume": lambda ledger: ledger.presume("step"),
    "void": lambda ledger: ledger.void("unsent"),
    "adopt": lambda ledger: ledger.adopt("theirs"),
    "sweep": lambda ledger: ledger.sweep(),
}


def opened(location: str | Path, clock: ManualClock) -> Ledger:
    """A ledger with something in every state. Its owners are of other hosts, the other's lease ran out."""
    store = open_store(location)
    ledger = Ledger(store, clock=clock, owner="elsewhere:1:x")
    ledger.account("org", limit=Budget(usd="1", tokens=90), windows={"day": Budget(tokens=90), "60s": Budget(calls=9)})
    ledger.account("a", parent="org")
    other = Ledger(store, clock=clock, owner="elsewhere:2:y")
    other.reserve("theirs", Amount(7), accounts=["a"])
    other.reserve("of theirs", Amount(7), within="theirs").mark_sent()
    clock.advance(61)
    ledger.reserve("done", Amount(9), accounts=["a"])
    ledger.reserve("presumed", Amount(5), within="done").mark_sent()
    ledger.settle("done")
    ledger.reserve("step", Amount(60, 6, 2), accounts=["a"])
    ledger.reserve("call", Amount(50, 5, 1), within="step").mark_sent()
    ledger.reserve("unsent", Amount(1), accounts=["a"])
    return ledger


def lines_of(ledger: Ledger) -> int:
    return len(ledger.entries())


@pytest.mark.parametrize("operation", OPERATIONS)
def test_an_interrupt_at_any_line_leaves_all_or_nothing_in_memory(operation: str) -> None:
    line = 1
    while interrupted(opened("memory:", ManualClock()), OPERATIONS[operation], line):
        line += 1
    assert line > 20


@pytest.mark.parametrize("operation", OPERATIONS)
def test_an_interrupt_at_any_line_leaves_all_or_nothing_in_a_file(operation: str, tmp_path: Path) -> None:
    run, clock = OPERATIONS[operation], ManualClock()
    opened(tmp_path / "whole.db", clock).close()
    for line in count(1 + len(operation), 19):  # not every one: a file takes longer
        path = tmp_path / f"{line}.db"
        shutil.copy(tmp_path / "whole.db", path)
        with Ledger(SqliteStore(path, busy_timeout_s=0.2), clock=clock, owner="elsewhere:1:x") as ledger:
            if not interrupted(ledger, run, line):
                break
            with Ledger(SqliteStore(path, busy_timeout_s=0.2)) as other:  # its turn is not kept from others
                other.account("other")
                assert other.verify().ok


def test_an_interrupt_at_any_line_leaves_all_or_nothing_in_postgresql(database: str) -> None:
    with Ledger.open(database) as ledger, Ledger.open(database) as other:
        ledger.account("a")
        line = 1
        while True:
            name = f"call-{line}"
            reserved = interrupted(
                ledger, lambda ledger, name=name: ledger.reserve(name, Amount(9), accounts=["a"]), line
            )
            settled = interrupted(ledger, lambda ledger, name=name: ledger.settle(name, Amount(8)), line)
            other.account(name)  # whoever was interrupted keeps nobody out
            if not reserved and not settled:
                break
            line += 5  # not every one: a server takes longer


def interrupted(ledger: Ledger, run: Callable[[Ledger], object], line: int) -> bool:
    """Interrupt the operation, check, and run it again; False if it ended before that line."""
    before = lines_of(ledger)
    try:
        with interrupted_at(line):
            run(ledger)
        return False
    except Interrupt:
        pass
    between = lines_of(ledger)
    check(ledger)
    with suppress(Mistake):  # if it was committed, what it ended may not be ended again
        run(ledger)
    after = lines_of(ledger)
    check(ledger)
    assert before == between or between == after, "half of it was done"
    assert before < after
    return True


def check(ledger: Ledger) -> None:
    verification = ledger.verify()
    assert verification.ok, verification.problems


@pytest.mark.skipif(not hasattr(signal, "setitimer"), reason="this system has no timers that signal")
@pytest.mark.parametrize(
    ("store", "times", "most_s"), [("memory", 400, 4e-4), ("sqlite", 150, 3e-3), ("postgresql", 60, 3e-2)]
)
def test_signals_at_any_instruction_leave_the_books_whole(
    store: str, times: int, most_s: float, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    locations = {"memory": "memory:", "sqlite": str(tmp_path / "ledger.db")}
    ledger = Ledger.open(request.getfixturevalue("database") if store == "postgresql" else locations[store])
    ledger.account("org", windows={"60s": Budget(tokens=10**9)})
    ledger.account("a", parent="org")
    numbers, moments = count(), random.Random(1)

    def interrupt(*_: object) -> None:
        raise Interrupt

    before = signal.signal(signal.SIGALRM, interrupt)
    gc.disable()  # who listens to it would be interrupted too
    try:
        for _ in range(times):
            with suppress(Interrupt):
                signal.setitimer(signal.ITIMER_REAL, moments.uniform(1e-6, most_s))
                for number in islice(numbers, 2_000):  # a signal that strikes in a destructor is lost
                    step = ledger.reserve(f"step-{number}", Amount(1), accounts=["a"])
                    with ledger.reserve(f"call-{number}", Amount(1), within=step.id) as hold:
                        hold.mark_sent()
                        hold.settle(Amount(2))
                    step.settle()
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        gc.enable()
        signal.signal(signal.SIGALRM, before)
    check(ledger)
    # Whoever comes next, also another thread, is let in.
    other = threading.Thread(target=ledger.account, args=("other",))
    ledger.account("mine")
    other.start()
    other.join()
    ledger.close()


def test_a_transaction_inside_another_is_refused_and_the_outer_one_goes_on(tmp_path: Path) -> None:
    for location in ("memory:", tmp_path / "ledger.db"):
        seen: list[Ledger] = []

        def clock(seen: list[Ledger] = seen) -> int:
            if seen:
                with pytest.raises(Mistake, match="inside another"):
                    seen.pop().account("inner")
            return 10**18

        ledger = Ledger(open_store(location), clock=clock)
        ledger.account("a")
        seen.append(ledger)
        ledger.reserve("x", Amount(1), accounts=["a"])
        assert not seen
        assert [account.name for account in ledger.accounts()] == ["a"]
        assert ledger.balance("a").held == Amount(1)
        check(ledger)
        ledger.close()


def test_a_clock_that_fails_undoes_the_operation(location: str) -> None:
    times: list[int] = [10**18] * 2

    def clock() -> int:
        return times.pop()

    with Ledger(open_store(location), clock=clock, owner="elsewhere:1:x") as ledger:
        ledger.account("a")
        ledger.reserve("x", Amount(1), accounts=["a"])
        for operation in (
            lambda: ledger.reserve("y", Amount(1), accounts=["a"]),
            lambda: ledger.account("b"),
            lambda: ledger.mark_sent("x"),
            lambda: ledger.extend("x", Amount(2)),
            lambda: ledger.settle("x", Amount(1)),
            lambda: ledger.freeze("a"),
        ):
            with pytest.raises(IndexError):
                operation()
        times.extend([10**18] * 3)
        assert len(ledger.entries()) == 2
        check(ledger)


def test_meta_that_fails_while_it_is_read_undoes_the_operation(location: str) -> None:
    class Broken(Mapping[str, object]):
        def __getitem__(self, key: str) -> object:
            raise Interrupt

        def __iter__(self) -> Iterator[str]:
            raise Interrupt

        def __len__(self) -> int:
            return 1

    with Ledger.open(location) as ledger:
        ledger.account("a")
        with pytest.raises(Interrupt):
            ledger.reserve("x", Amount(1), accounts=["a"], meta=Broken())
        assert ledger.hold("x") is None
        assert not ledger.balance("a").held
        check(ledger)


def test_a_thread_that_waits_while_another_is_inside_changes_nothing_of_it(tmp_path: Path) -> None:
    store = SqliteStore(tmp_path / "ledger.db", busy_timeout_s=0.05)
    ledger = Ledger(store)
    found: list[BaseException] = []

    def rival() -> None:
        try:
            ledger.account("b")
        except StoreBusy as error:
            found.append(error)

    with store.write() as tx:
        thread = threading.Thread(target=rival)
        thread.start()
        thread.join()
        tx.put_mark("m", 1)
    with store.read() as tx:
        assert tx.mark("m") == 1
    assert len(found) == 1
    ledger.account("b")
    ledger.close()


def test_memory_lets_a_rival_in_once_the_other_is_done() -> None:
    store = MemoryStore()
    ledger = Ledger(store)
    with store.write():
        thread = threading.Thread(target=ledger.account, args=("a",))
        thread.start()
    thread.join()
    assert ledger.balance("a").name == "a"
