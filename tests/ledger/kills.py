"""kill -9 at any moment: `python -m tests.ledger.kills work LOCATION FOLDER KILLS SEED`.

Children work at a ledger one after the other, and each is killed. Before it sends and after it was billed a child
writes so to a log of its own, and waits until the disk has it. The next one sweeps (`Ledger.open` does), and goes on
as whoever restarts an agent would: it asks again, under the same ids, for what the log does not say was answered.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
import traceback
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from itertools import count
from pathlib import Path
from random import Random

from agentbudget.errors import AccountFrozen
from agentbudget.ledger import HoldRecord, Ledger
from agentbudget.money import Amount, Budget

ROOT = Path(__file__).parent.parent.parent
START = 10**6
"""The limit of tokens before anything is topped up."""


class Log:
    """Lines that a crash does not take back."""

    def __init__(self, path: Path) -> None:
        self._file = os.open(path, os.O_CREAT | os.O_APPEND | os.O_WRONLY)

    def __call__(self, what: str, name: str, value: int = 0) -> None:
        os.write(self._file, (json.dumps([what, name, value]) + "\n").encode())
        os.fsync(self._file)


@dataclass
class Said:
    """What the log says."""

    path: Path
    lines: list[tuple[str, str, int]] = field(default_factory=list[tuple[str, str, int]])

    def __post_init__(self) -> None:
        text = self.path.read_text() if self.path.exists() else ""
        self.lines = [tuple(json.loads(line)) for line in text.splitlines(keepends=True) if line.endswith("\n")]

    def of(self, what: str) -> dict[str, int]:
        return {name: value for kind, name, value in self.lines if kind == what}

    def count(self, what: str) -> Counter[str]:
        return Counter(name for kind, name, _ in self.lines if kind == what)


def prepare(location: str) -> None:
    """Open the accounts."""
    with Ledger.open(location) as ledger:
        ledger.account("org", limit=Budget(tokens=START))
        ledger.account("a", parent="org", windows={"day": Budget(tokens=10**12), "90s": Budget(tokens=10**12)})


def work(location: str, path: Path, seed: int, ready: Callable[[], None]) -> None:
    """What a child does until it is killed."""
    random, log = Random(seed), Log(path)
    with Ledger.open(location) as ledger:
        ready()
        go_on(ledger, path)
        for task in count():
            kind = random.choice((_call, _call, _step, _step, _top_up, _freeze, _void, _presume))
            kind(ledger, log, f"{seed}-{task}", random)


def go_on(ledger: Ledger, path: Path) -> None:
    """Ask again for what was not answered."""
    said, log = Said(path), Log(path)
    settled, topped, reserved = said.of("settled"), said.of("topped"), said.of("reserved")
    ledger.unfreeze("a")
    for name, cost in said.of("billed").items():
        if name not in settled:
            ledger.settle(name, Amount(tokens=cost))
            log("settled", name, cost)
    for name, amount in said.of("topping").items():
        if name not in topped:
            ledger.top_up("org", Budget(tokens=amount), topup_id=name)
            log("topped", name, amount)
    for name, amount in said.of("reserving").items():
        if name not in reserved:
            hold = ledger.reserve(name, Amount(tokens=amount), accounts=["a"])
            log("reserved", name, amount)
            if hold.record.state == "open":
                hold.void()


def _send(ledger: Ledger, log: Log, name: str, most: int, random: Random) -> None:
    """A call within what is reserved: mark, send, be billed, settle."""
    ledger.mark_sent(name)
    log("sending", name, most)
    cost = random.randint(0, most + 20)
    log("billed", name, cost)
    ledger.settle(name, Amount(tokens=cost), detail={"model": "m"})
    log("settled", name, cost)


def _call(ledger: Ledger, log: Log, name: str, random: Random) -> None:
    log("reserving", name, 50)
    ledger.reserve(name, Amount(tokens=50), accounts=["a"])
    log("reserved", name, 50)
    _send(ledger, log, name, 50, random)


def _step(ledger: Ledger, log: Log, name: str, random: Random) -> None:
    ledger.reserve(name, Amount(tokens=300), accounts=["a"])
    for number in range(random.randint(1, 2)):
        inner = f"{name}/{number}"
        ledger.reserve(inner, Amount(tokens=60), within=name)
        if random.randrange(2):
            ledger.extend(inner, Amount(tokens=80))
            ledger.extend(name, Amount(tokens=310 + number))
        _send(ledger, log, inner, 60, random)
    ledger.reserve(f"{name}/unsent", Amount(tokens=9), within=name)
    ledger.settle(name)
    log("closed", name)


def _top_up(ledger: Ledger, log: Log, name: str, random: Random) -> None:
    amount = random.randint(1, 99)
    log("topping", name, amount)
    ledger.top_up("org", Budget(tokens=amount), topup_id=name)
    log("topped", name, amount)


def _freeze(ledger: Ledger, log: Log, name: str, random: Random) -> None:
    log("freezing", name)
    ledger.freeze("a", reason=name)
    try:
        ledger.reserve(f"{name}/no", Amount(tokens=1), accounts=["a"])
    except AccountFrozen:
        pass
    else:
        log("wrong", name)
    ledger.unfreeze("a")
    log("unfrozen", name)


def _void(ledger: Ledger, log: Log, name: str, random: Random) -> None:
    with ledger.reserve(name, Amount(tokens=40), accounts=["a"]):
        pass
    log("voided", name)


def _presume(ledger: Ledger, log: Log, name: str, random: Random) -> None:
    with ledger.reserve(name, Amount(tokens=30), accounts=["a"]) as hold:
        hold.mark_sent()
        log("sending", name, 30)
    log("presumed", name, 30)


# --- what must have come of it


def check(ledger: Ledger, path: Path) -> Counter[str]:
    """Compare the ledger, after a sweep, with the log; returns how the holds ended."""
    said, holds = Said(path), {hold.id: hold for hold in ledger.holds()}
    ends: Counter[str] = Counter()
    assert not said.of("wrong"), "something was reserved on a frozen account"
    for name, times in said.count("sending").items():
        assert times == 1, f"{name} was sent {times} times"
    for what in ("reserved", "sending", "billed", "settled", "closed", "voided", "presumed"):
        for name in said.of(what):
            assert name in holds, f"{name} was {what}, and is lost"
    for hold in holds.values():
        ends[_ended(hold, said)] += 1
    for account in ledger.accounts():
        assert not account.held, account
        total = sum(hold.settled.tokens for hold in holds.values() if hold.accounts and hold.settled is not None)
        assert account.posted.tokens == total, account
    topped, topping = said.of("topped"), said.of("topping")
    limit = ledger.balance("org").limit.tokens
    assert limit is not None
    unsure = [amount for name, amount in topping.items() if name not in topped]
    assert limit - START - sum(topped.values()) in (0, sum(unsure)), "a top-up was lost, or counted twice"
    verification = ledger.verify()
    assert verification.ok, verification.problems
    return ends


def _ended(hold: HoldRecord, said: Said) -> str:
    """How it ended, having checked that this is how it had to."""
    name, settled = hold.id, hold.settled
    assert hold.state != "open", f"{name} was left open"
    assert settled is not None
    costs, billed, sending = said.of("settled"), said.of("billed"), said.of("sending")
    if name in costs:
        assert (hold.state, hold.presumed, settled.tokens) == ("settled", False, costs[name])
        return "settled"
    if name in billed:
        if hold.presumed:
            assert settled.tokens == hold.amount.tokens
            return "billed, presumed until the log is read"
        assert (hold.state, settled.tokens) == ("settled", billed[name])
        return "billed, settled, not acknowledged"
    if hold.sent:
        assert hold.presumed
        assert settled.tokens == hold.amount.tokens
        return "sent, presumed"
    assert name not in sending, f"{name} was sent, and the ledger does not know"
    if settled:
        assert settled == hold.spent, f"{name} was never sent"
        return "a step that spent"
    return f"unsent, {hold.state}"


# --- killing


def run(location: str, folder: Path, kills: int, seed: int) -> None:
    """Let children work and kill them."""
    random, path = Random(seed), folder / "log"
    prepare(location)
    for number in range(kills):
        _kill_one(lambda ready, n=number: work(location, path, seed * 10**6 + n, ready), random)
        if number % 10 == 9 or number == kills - 1:
            with Ledger.open(location) as ledger:
                ends = check(ledger, path)
                if number == kills - 1:
                    go_on(ledger, path)
                    ends = check(ledger, path)
                    assert not any("presumed until" in end for end in ends)
            print(f"{number + 1} kills: {sum(ends.values())} holds, {dict(sorted(ends.items()))}", flush=True)


def births(folder: Path, kills: int, seed: int) -> None:
    """Kill children while they make a new ledger; then many make one at once."""
    random = Random(seed)
    for number in range(kills):
        location = str(folder / f"new-{number}.db")

        def make(ready: Callable[[], None], location: str = location) -> None:
            ready()
            with Ledger.open(location) as ledger:
                ledger.account("a")
            signal.pause()

        _kill_one(make, random)
        with Ledger.open(location) as ledger:
            ledger.account("a")
            ledger.reserve("x", Amount(1), accounts=["a"])
            assert ledger.verify().ok
    location = str(folder / "together.db")
    children = [_fork(lambda n=number: _join(location, n)) for number in range(20)]
    ended = [os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) for child in children]
    assert ended == [0] * 20, ended
    with Ledger.open(location) as ledger:
        assert ledger.balance("a").posted.calls == 20
        assert ledger.verify().ok
    print(f"{kills} births broken off, 20 at once", flush=True)


def _join(location: str, number: int) -> None:
    with Ledger.open(location) as ledger:
        ledger.account("a", limit=Budget(calls=20))
        ledger.reserve(f"h{number}", Amount(calls=1), accounts=["a"]).settle(Amount(calls=1))


def _fork(do: Callable[[], None]) -> int:
    child = os.fork()
    if child == 0:
        status = 3
        try:
            do()
            status = 0
        except BaseException:  # noqa: BLE001 # nothing of the child may go on as its parent
            traceback.print_exc()
        finally:
            os._exit(status)
    return child


def _kill_one(do: Callable[[Callable[[], None]], None], random: Random) -> None:
    reader, writer = os.pipe()
    child = _fork(lambda: do(lambda: os.close(writer)))
    os.close(writer)
    if random.randrange(4):
        os.read(reader, 1)  # it is ready; else it may be killed before
    os.close(reader)
    time.sleep(random.choice((10 ** random.uniform(-5, -2), random.uniform(0, 0.1))))
    os.kill(child, signal.SIGKILL)
    _, ended = os.waitpid(child, 0)
    assert os.waitstatus_to_exitcode(ended) == -signal.SIGKILL, "the child failed before it was killed"


def kill(what: str, location: str, folder: Path, kills: int, seed: int) -> str:
    """Do it in a process of its own, which has no threads to fork amid; returns what it said."""
    command = [sys.executable, "-m", __name__, what, location, str(folder), str(kills), str(seed)]
    done = subprocess.run(command, cwd=ROOT, stdout=subprocess.PIPE, text=True, check=False)
    assert done.returncode == 0, done.stdout
    return done.stdout


if __name__ == "__main__":
    if sys.argv[1] == "births":
        births(Path(sys.argv[3]), int(sys.argv[4]), int(sys.argv[5]))
    else:
        run(sys.argv[2], Path(sys.argv[3]), int(sys.argv[4]), int(sys.argv[5]))
