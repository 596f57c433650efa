"""Single flight: of equal calls at once one pays, in a loop, across threads and processes, whoever fails or dies."""

from __future__ import annotations

import asyncio
import multiprocessing
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Generator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from agentbudget.cache import Answers, Exact, Flights, Off
from agentbudget.errors import ModelUnavailable, RequestRejected
from agentbudget.ledger import HoldRecord, Ledger
from agentbudget.models.base import Completion, Meter, Request
from agentbudget.models.ladder import Ladder
from agentbudget.money import ZERO, Budget
from agentbudget.prices import ComputePrice
from agentbudget.skills import skill
from agentbudget.step import Context, Engine, Scope
from agentbudget.testing import ScriptedModel, ScriptedReply
from agentbudget.usage import Usage


@skill(max_output_tokens=8)
async def say(ctx: Context, what: str) -> str:
    """Say it."""
    ...


@skill(max_output_tokens=8, cache=Off())
async def say_anew(ctx: Context, what: str) -> str:
    """Say it."""
    ...


@pytest.fixture
def ledger() -> Generator[Ledger]:
    with Ledger.open("memory:") as opened:
        yield opened


def context(ledger: Ledger, model: ScriptedModel, *, answers: Answers | None = None, run: str = "r") -> Context:
    ledger.account(f"run/{run}", limit=Budget(usd="1"))
    machine = ComputePrice("0.10", 100, 10)  # pyright: ignore[reportArgumentType] # a text is a decimal here
    return Context(Engine(ledger, Ladder((model,)), answers or Answers(), machine), Scope(run))


def calls(ledger: Ledger) -> list[HoldRecord]:
    return [hold for hold in ledger.holds() if hold.meta.get("kind") == "call"]


def paid(ledger: Ledger) -> list[HoldRecord]:
    return [hold for hold in calls(ledger) if not hold.detail.get("cached")]


class Slow:
    """Answers when it is told to, and says when it was asked."""

    def __init__(self, *fails: BaseException) -> None:
        self.asked = asyncio.Event()
        self.may_answer = asyncio.Event()
        self.fails = list(fails)
        self.model = _Waiting([], told=self)


class _Waiting(ScriptedModel):
    def __init__(self, script: list[str], *, told: Slow) -> None:
        super().__init__(script)
        self.told = told

    async def complete(self, request: Request, meter: Meter) -> Completion:
        self.requests.append(request)
        meter.leaving()
        self.told.asked.set()
        await self.told.may_answer.wait()
        if self.told.fails:
            raise self.told.fails.pop(0)
        meter.used(Usage(10, 2))
        return Completion("said it", "stop", Usage(10, 2), self.name)


async def test_ten_equal_calls_at_once_pay_once_and_each_other_says_what_it_saved(ledger: Ledger) -> None:
    slow = Slow()
    ctx = context(ledger, slow.model)
    tasks = [asyncio.create_task(say(ctx, what="x")) for _ in range(10)]
    await slow.asked.wait()
    slow.may_answer.set()
    assert await asyncio.gather(*tasks) == ["said it"] * 10
    (bought,) = paid(ledger)
    assert bought.settled is not None
    hits = [call for call in calls(ledger) if call.detail.get("cached")]
    assert [hit.detail["saved_usd_nano"] for hit in hits] == [bought.settled.usd_nano] * 9
    assert [hit.detail["replayed"] for hit in hits] == [False] * 9
    assert ledger.balance("run/r").posted == bought.settled


async def test_who_waits_holds_nothing_for_its_call(ledger: Ledger) -> None:
    slow = Slow()
    ctx = context(ledger, slow.model)
    tasks = [asyncio.create_task(say(ctx, what="x")) for _ in range(3)]
    await slow.asked.wait()
    await asyncio.sleep(0.02)
    assert len(calls(ledger)) == 1
    slow.may_answer.set()
    await asyncio.gather(*tasks)


async def test_a_payer_that_fails_hands_over_to_one_who_waits(ledger: Ledger) -> None:
    slow = Slow(RequestRejected("no", model="m"))
    ctx = context(ledger, slow.model)
    tasks = [asyncio.create_task(say(ctx, what="x")) for _ in range(5)]
    await slow.asked.wait()
    slow.may_answer.set()
    got = await asyncio.gather(*tasks, return_exceptions=True)
    assert sum(isinstance(one, RequestRejected) for one in got) == 1
    assert sum(one == "said it" for one in got) == 4
    assert len(slow.model.requests) == 2


async def test_a_payer_that_is_cancelled_hands_over_to_one_who_waits(ledger: Ledger) -> None:
    slow = Slow()
    ctx = context(ledger, slow.model)
    first, *others = (asyncio.create_task(say(ctx, what="x")) for _ in range(4))
    await slow.asked.wait()
    first.cancel()
    slow.may_answer.set()
    assert await asyncio.gather(*others) == ["said it"] * 3
    assert len(slow.model.requests) == 2
    assert ledger.balance("run/r").held == ZERO


async def test_a_payer_that_tries_again_keeps_the_others_waiting(ledger: Ledger) -> None:
    slow = Slow(ModelUnavailable("busy", model="m", sent=False))
    ctx = context(ledger, slow.model)
    tasks = [asyncio.create_task(say(ctx, what="x")) for _ in range(5)]
    await slow.asked.wait()
    slow.may_answer.set()
    assert await asyncio.gather(*tasks) == ["said it"] * 5
    assert len(slow.model.requests) == 2


async def test_a_waiter_that_is_cancelled_disturbs_nobody(ledger: Ledger) -> None:
    slow = Slow()
    ctx = context(ledger, slow.model)
    first, second, third = (asyncio.create_task(say(ctx, what="x")) for _ in range(3))
    await slow.asked.wait()
    await asyncio.sleep(0.01)
    second.cancel()
    slow.may_answer.set()
    assert await asyncio.gather(first, third) == ["said it"] * 2
    assert len(slow.model.requests) == 1


async def test_answers_that_are_not_kept_do_not_queue_up_for_ever(ledger: Ledger) -> None:
    model = ScriptedModel(lambda _: ScriptedReply("I would rather not", finish="refused", delay_s=0.01))
    ctx = context(ledger, model)
    await asyncio.gather(*(say(ctx, what="x") for _ in range(8)), return_exceptions=True)
    assert len(model.requests) == 8  # a refusal is nobody else's answer


async def test_a_skill_without_a_cache_shares_no_flight_between_runs(ledger: Ledger) -> None:
    model = ScriptedModel(lambda _: ScriptedReply("said it", delay_s=0.01))
    one = context(ledger, model)
    ledger.account("run/q", limit=Budget(usd="1"))
    two = Context(one.engine, Scope("q"))
    await asyncio.gather(say_anew(one, what="x"), say_anew(two, what="x"))
    assert len(model.requests) == 2


async def test_tenants_share_no_flight(ledger: Ledger) -> None:
    model = ScriptedModel(lambda _: ScriptedReply("said it", delay_s=0.01))
    one = context(ledger, model)
    two = Context(one.engine, Scope("r", tenant="other"))
    await asyncio.gather(say(one, what="x"), say(two, what="x"))
    assert len(model.requests) == 2


async def test_equal_streams_at_once_pay_once_and_both_stream(ledger: Ledger) -> None:
    @skill(max_output_tokens=8)
    async def tell(ctx: Context, what: str) -> str:
        """Tell it."""
        async with ctx.stream(what) as pieces:
            got = [piece async for piece in pieces]
        assert len(got) > 1
        return pieces.reply.text

    model = ScriptedModel(lambda _: ScriptedReply("once upon a time", delay_s=0.01))
    ctx = context(ledger, model)
    assert await asyncio.gather(*(tell(ctx, what="x") for _ in range(5))) == ["once upon a time"] * 5
    assert len(model.requests) == 1


async def test_a_skill_that_asks_the_same_while_it_reads_a_stream_does_not_wait_for_itself(ledger: Ledger) -> None:
    @skill(max_output_tokens=8)
    async def tell(ctx: Context, what: str) -> str:
        """Tell it."""
        async with ctx.stream(what) as pieces:
            async for _ in pieces:
                break
            return (await ctx.complete(what)).text

    model = ScriptedModel(lambda _: "once upon a time")
    ctx = context(ledger, model)
    assert await asyncio.wait_for(tell(ctx, what="x"), 20) == "once upon a time"


async def test_a_stream_that_is_left_hands_over(ledger: Ledger) -> None:
    @skill(max_output_tokens=8)
    async def glance(ctx: Context, what: str) -> str:
        """Tell it."""
        async with ctx.stream(what) as pieces:
            async for piece in pieces:
                await asyncio.sleep(0.02)
                return piece
        return ""

    model = ScriptedModel(lambda _: "once upon a time")
    ctx = context(ledger, model)
    await asyncio.gather(glance(ctx, what="x"), glance(ctx, what="x"))
    assert len(model.requests) == 2  # the first had nothing whole to give
    assert ledger.balance("run/r").held == ZERO


def test_equal_calls_in_threads_pay_once(tmp_path: Path) -> None:
    model = ScriptedModel(lambda _: ScriptedReply("said it", delay_s=0.2))
    start = threading.Barrier(4)

    async def ask() -> str:
        with Ledger.open("memory:") as ledger, Answers(tmp_path / "cache.db") as answers:
            ctx = context(ledger, model, answers=answers)
            start.wait(60)
            return await say(ctx, what="x")

    with ThreadPoolExecutor(4) as pool:
        asked = [pool.submit(asyncio.run, ask()) for _ in range(4)]
        assert [one.result() for one in asked] == ["said it"] * 4
    assert len(model.requests) == 1


PROCESS = """
import asyncio, sys, time
from pathlib import Path
from agentbudget.cache import Answers
from agentbudget.ledger import Ledger
from agentbudget.testing import ScriptedModel, ScriptedReply
from tests.cache.test_flight import context, say

folder, name, delay_s = Path(sys.argv[1]), sys.argv[2], float(sys.argv[3])

def reply(_):
    (folder / f"paid-{name}").touch()
    return ScriptedReply("said it", delay_s=delay_s)

async def main():
    with Ledger.open(folder / f"{name}.db") as ledger, Answers(folder / "cache.db") as answers:
        ctx = context(ledger, ScriptedModel(reply), answers=answers, run=name)
        (folder / f"ready-{name}").touch()
        while not (folder / "go").exists():
            time.sleep(0.005)
        print(await say(ctx, what="x"))

asyncio.run(main())
"""


def process(folder: Path, name: str, *, delay_s: float) -> subprocess.Popen[str]:
    root = Path(__file__).parents[2]
    command = [sys.executable, "-c", PROCESS, str(folder), name, str(delay_s)]
    return subprocess.Popen(command, cwd=root, text=True, stdout=subprocess.PIPE, env=os.environ | {"PYTHONPATH": "."})


def until(*paths: Path) -> None:
    deadline = time.monotonic() + 60
    while not all(path.exists() for path in paths):
        assert time.monotonic() < deadline, paths
        time.sleep(0.01)


def test_equal_calls_in_processes_pay_once(tmp_path: Path) -> None:
    started = [process(tmp_path, name, delay_s=1.0) for name in ("a", "b", "c")]
    until(*(tmp_path / f"ready-{name}" for name in "abc"))
    (tmp_path / "go").touch()
    assert [one.communicate(timeout=60)[0] for one in started] == ["said it\n"] * 3
    assert len(list(tmp_path.glob("paid-*"))) == 1


def test_a_payer_that_is_killed_keeps_nobody_waiting(tmp_path: Path) -> None:
    (tmp_path / "go").touch()
    payer = process(tmp_path, "a", delay_s=600)
    until(tmp_path / "paid-a")
    waiter = process(tmp_path, "b", delay_s=0)
    until(tmp_path / "ready-b")
    time.sleep(0.1)
    assert not (tmp_path / "paid-b").exists()
    payer.send_signal(signal.SIGKILL)
    payer.communicate(timeout=60)
    assert waiter.communicate(timeout=60)[0] == "said it\n"
    assert (tmp_path / "paid-b").exists()


def _claim_in_child(path: Path, say: Any) -> None:
    say.send(Flights.at(path).claim("k") is not None)


def test_a_forked_child_has_no_claim_on_what_its_parent_pays_for(tmp_path: Path) -> None:
    if "fork" not in multiprocessing.get_all_start_methods():
        pytest.skip("this system cannot fork")
    flights = Flights.at(tmp_path / "cache.db")
    forked = multiprocessing.get_context("fork")
    here, there = forked.Pipe()

    def ask() -> bool:
        child = forked.Process(target=_claim_in_child, args=(tmp_path / "cache.db", there))
        child.start()
        child.join(30)
        return bool(here.recv())

    flight = flights.claim("k")
    assert flight is not None
    assert ask() is False
    assert flights.claim("k") is None  # the child's end took nothing from its parent
    flight.land()
    assert ask() is True


def test_where_no_lock_can_be_had_each_process_pays_and_it_is_said(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    flights = Flights.at(tmp_path / "no such folder" / "cache.db")
    with flights.claim("k") or pytest.fail("it was not granted"):
        assert flights.claim("k") is None  # in this process one pays, as ever
    assert "cannot be locked" in caplog.text


def test_a_policy_says_who_may_share(ledger: Ledger) -> None:
    assert say.caching == Exact()
    assert say_anew.caching == Off()
