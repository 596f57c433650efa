"""What becomes of a run where the disk of its home is full: what was paid for is not lost with what is kept of it."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from agentbudget import Agent, Budget, Context, skill
from agentbudget.errors import StoreUnavailable
from agentbudget.ledger import Ledger
from agentbudget.testing import ScriptedModel
from tests.conftest import Disk

TENTH = Budget(usd="0.10")


def asking(then: Callable[[], object]) -> tuple[Agent, ScriptedModel]:
    """An agent, in the home of the environment, whose skill asks once and then does something else; and its model."""

    @skill(max_output_tokens=8)
    async def one(ctx: Context, task: str) -> str:
        reply = await ctx.complete(task)
        then()
        return reply.text

    model = ScriptedModel(lambda _: "an answer")
    return Agent([one], models=[model]), model


@pytest.fixture
def home(small_disk: Disk, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A home on a small disk."""
    monkeypatch.setenv("AGENTBUDGET_HOME", str(small_disk.path / "home"))
    return small_disk.path / "home"


@pytest.fixture
def ledger_apart(home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A ledger on another disk than the home."""
    monkeypatch.setenv("AGENTBUDGET_LEDGER", str(tmp_path / "ledger.db"))


@pytest.mark.usefixtures("ledger_apart")
async def test_a_run_goes_on_and_gives_its_answer_where_its_checkpoints_cannot_be_written(small_disk: Disk) -> None:
    agent, model = asking(small_disk.fill)
    async with agent:
        run = await agent.run("hello", budget=TENTH)
        assert run.output == "an answer"
        assert run.statement.status == "done"
        small_disk.make_room()
        again = await agent.resume(run.run_id)
        assert again.output == "an answer"
        assert len(model.requests) == 1, "its answer was kept before the disk was full"
        assert agent.ledger.verify().ok


@pytest.mark.usefixtures("ledger_apart")
async def test_what_broke_a_run_off_is_told_where_its_file_cannot_be_written(home: Path, small_disk: Disk) -> None:
    def fill_and_fail() -> None:
        small_disk.fill()
        raise ZeroDivisionError("of the skill's own")

    agent, _ = asking(fill_and_fail)
    async with agent:
        with pytest.raises(ZeroDivisionError):
            await agent.run("hello", budget=TENTH, run_id="r")
    assert json.loads((home / "runs" / "r.json").read_bytes())["status"] == "running"
    assert not list((home / "runs").glob("*.tmp"))


@pytest.mark.usefixtures("ledger_apart")
async def test_a_run_that_cannot_be_kept_is_not_begun(home: Path, small_disk: Disk) -> None:
    agent, model = asking(lambda: None)
    async with agent:
        assert agent.ledger.location
        small_disk.fill()
        with pytest.raises(StoreUnavailable, match="make room"):
            await agent.run("hello", budget=TENTH)
    assert model.requests == []


@pytest.mark.usefixtures("home")
async def test_a_run_whose_ledger_could_not_be_written_resumes_with_all_that_it_had(small_disk: Disk) -> None:
    first = iter([small_disk.fill])
    agent, model = asking(lambda: next(first, lambda: None)())
    async with agent:
        with pytest.raises(StoreUnavailable, match="cannot write the ledger"):
            await agent.run("hello", budget=Budget(usd="0.003"), run_id="r")
        small_disk.make_room()
        run = await agent.resume("r")
    assert run.output == "an answer"
    assert len(model.requests) == 1


@pytest.mark.usefixtures("home")
async def test_a_disk_that_is_full_to_the_brim_is_named(small_disk: Disk) -> None:
    agent, _ = asking(lambda: None)
    async with agent:
        await agent.run("hello", budget=TENTH)
    small_disk.fill()
    with pytest.raises(StoreUnavailable, match="no room on its disk"):
        Ledger.open(small_disk.path / "home" / "ledger.db")
    with pytest.raises(StoreUnavailable, match="no room on its disk"):
        await agent.run("hello", budget=TENTH)
