"""Agents of several hosts: a home each, and one ledger, which may go away."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from agentbudget import Agent, Budget, Context, Ledger, skill
from agentbudget.agent import heartbeats
from agentbudget.errors import HoldConflict, StoreUnavailable
from agentbudget.models.base import Completion, Meter, Request
from agentbudget.settings import Settings
from agentbudget.testing import ScriptedModel


@skill(max_output_tokens=8)
async def twice(ctx: Context, message: str) -> str:
    """Say it twice."""
    first = await ctx.complete(f"{message}, first")
    second = await ctx.complete(f"{message}, second")
    return f"{first.text} {second.text}"


class Waits(ScriptedModel):
    """Answers when it is told to."""

    go: asyncio.Event

    async def complete(self, request: Request, meter: Meter) -> Completion:
        answer = await super().complete(request, meter)
        await asyncio.wait_for(self.go.wait(), 60)
        return answer


def host(home: Path, model: ScriptedModel) -> Agent:
    settings = Settings.from_env().at(home).with_ledger(str(home.parent / "ledger.db"))
    return Agent([twice], models=[model], settings=settings)


@pytest.mark.parametrize("task", ["ours", "theirs"])
async def test_a_run_of_the_same_id_on_another_host_ends_none_of_its_steps(tmp_path: Path, task: str) -> None:
    waits = Waits(lambda _: "so")
    waits.go = asyncio.Event()
    async with host(tmp_path / "a", waits) as ours, host(tmp_path / "b", ScriptedModel(lambda _: "yes")) as theirs:
        going = asyncio.create_task(ours.run("ours", budget=Budget(usd="0.01"), run_id="one"))
        while not waits.requests:
            await asyncio.sleep(0.01)
        if task == "ours":
            with pytest.raises(HoldConflict, match="is being carried out by"):
                await theirs.run(task, budget=Budget(usd="0.01"), run_id="one")
        else:
            await theirs.run(task, budget=Budget(usd="0.01"), run_id="one")
        waits.go.set()
        run = await going
        assert run.output == "so so"
        assert {line.status for line in run.statement.lines} == {"ok"}
        assert ours.ledger.verify().ok


async def test_a_run_whose_ledger_went_away_is_not_left_as_running(tmp_path: Path) -> None:
    waits = Waits(lambda _: "so")
    waits.go = asyncio.Event()
    async with host(tmp_path / "a", waits) as agent:
        going = asyncio.create_task(agent.run("ours", budget=Budget(usd="0.01"), run_id="one"))
        while not waits.requests:
            await asyncio.sleep(0.01)
        agent.ledger.close()
        waits.go.set()
        with pytest.raises(StoreUnavailable):
            await going
        record = agent.runs.load("one")
        assert (record.status, record.ended_ns is None) == ("failed", False)
        assert record.error is not None
        assert record.error.startswith("StoreUnavailable")


async def test_whoever_keeps_leases_alive_goes_on_after_a_store_that_was_away(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    ledger = Ledger.open(tmp_path / "ledger.db")
    ledger.close()
    beat = asyncio.create_task(heartbeats(ledger, every_s=0.001))
    while caplog.text.count("could not be renewed") < 2:
        await asyncio.sleep(0.01)
        assert not beat.done()
    beat.cancel()
