"""Memories in a run: booked like a search, of the run's user only, and seen and deleted at the command line."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Generator
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from agentbudget.cache import Answers
from agentbudget.errors import BudgetExceeded, DataRefused, Mistake
from agentbudget.ledger import HoldRecord, Ledger
from agentbudget.memory import Memories, open_memories
from agentbudget.models.ladder import Ladder
from agentbudget.money import Budget
from agentbudget.prices import ComputePrice
from agentbudget.privacy import Label
from agentbudget.skills import skill
from agentbudget.statement import Statement
from agentbudget.step import Context, Engine, Scope
from agentbudget.testing import ScriptedModel
from tests.context.conftest import WordEmbedder

pytest.importorskip("qdrant_edge")


@pytest.fixture
def ledger() -> Generator[Ledger]:
    with Ledger.open("memory:") as opened:
        yield opened


@pytest.fixture
def memories(tmp_path: Path) -> Memories:
    return open_memories(tmp_path / "home" / "memories", embedder=WordEmbedder())


def context(
    ledger: Ledger, memories: Memories | None, *, user: str | None = "mia", run: str = "r", budget: str = "1"
) -> Context:
    ledger.account(f"run/{run}", limit=Budget(usd=budget))
    machine = ComputePrice("0.10", 100, 10)  # pyright: ignore[reportArgumentType]
    engine = Engine(ledger, Ladder((ScriptedModel(["ok"]),)), Answers(), machine, memories=memories)
    scope = Scope(run, user)
    engine.open_accounts(scope.accounts())
    return Context(engine, scope)


@skill(max_output_tokens=20)
async def greet(ctx: Context, question: str) -> str:
    """Greet."""
    await ctx.remember("She prefers an aisle seat.", source=question)
    return str(await ctx.recall(question, tokens=50))


def holds(ledger: Ledger, kind: str) -> list[HoldRecord]:
    return [hold for hold in ledger.holds() if hold.meta.get("kind") == kind]


async def test_what_one_run_learned_the_next_one_recalls(ledger: Ledger, memories: Memories) -> None:
    await context(ledger, memories, run="one").remember("She prefers an aisle seat.", source="aisle please")
    found = await context(ledger, memories, run="two").recall("Which seat?", tokens=50)
    (memory,) = found.memories
    assert (memory.sources[0].run, memory.sources[0].text) == ("one", "aisle please")


async def test_a_memory_names_the_step_that_learned_it(ledger: Ledger, memories: Memories) -> None:
    ctx = context(ledger, memories)
    assert "aisle" in await greet(ctx, question="Which seat?")
    (memory,) = (await ctx.recall("seat", tokens=50)).memories
    assert memory.sources[0].step is not None
    assert memory.sources[0].step.startswith("r/greet.")


async def test_remembering_and_recalling_are_booked_by_the_second(ledger: Ledger, memories: Memories) -> None:
    ctx = context(ledger, memories)
    await greet(ctx, question="Which seat?")
    learned, recalled = holds(ledger, "memory")
    assert (learned.meta["source"], recalled.meta["source"]) == ("remember", "recall")
    for hold in (learned, recalled):
        assert hold.settled is not None
        assert 0 < hold.settled.usd_nano <= hold.amount.usd_nano
        assert "aisle" not in json.dumps([dict(hold.meta), dict(hold.detail)])
    assert ledger.verify().ok


async def test_what_stands_alone_is_a_line_of_the_statement(ledger: Ledger, memories: Memories) -> None:
    ctx = context(ledger, memories)
    await ctx.remember("She prefers an aisle seat.")
    await ctx.recall("seat?", tokens=50)
    assert [line.skill for line in Statement.of(ledger, "r").lines] == ["remember", "recall"]


async def test_nothing_is_done_that_cannot_be_paid_for(ledger: Ledger, memories: Memories) -> None:
    with pytest.raises(BudgetExceeded):
        await context(ledger, memories, budget="0.00000001").remember("She prefers an aisle seat.")
    assert await memories.owners() == ()


async def test_a_run_of_nobody_has_no_memories(ledger: Ledger, memories: Memories) -> None:
    with pytest.raises(Mistake, match="user="):
        await context(ledger, memories, user=None).recall("seat?", tokens=50)


async def test_an_engine_without_memories_says_so(ledger: Ledger) -> None:
    with pytest.raises(Mistake, match="open_memories"):
        await context(ledger, None).recall("seat?", tokens=50)


async def test_an_expiry_in_the_past_is_refused(ledger: Ledger, memories: Memories) -> None:
    with pytest.raises(Mistake, match="gone already"):
        await context(ledger, memories).remember("Hello.", expires=timedelta(0))


async def test_an_expiry_that_is_no_time_span_is_refused(ledger: Ledger, memories: Memories) -> None:
    with pytest.raises(Mistake, match=r"timedelta\(days=30\), not 30"):
        await context(ledger, memories).remember("Hello.", expires=30)  # pyright: ignore[reportArgumentType] # the mistake


async def test_an_id_that_no_memory_can_have_is_a_mistake_and_no_damage(ledger: Ledger, memories: Memories) -> None:
    ctx = context(ledger, memories)
    memory = await ctx.remember("She prefers an aisle seat.")
    with pytest.raises(Mistake, match="there is no memory 'ID'"):
        await ctx.forget("ID")
    assert (await ctx.recall("seat?", tokens=50)).memories[0].id == memory.id


async def test_a_run_forgets_what_it_is_asked_to(ledger: Ledger, memories: Memories) -> None:
    ctx = context(ledger, memories)
    memory = await ctx.remember("She prefers an aisle seat.")
    await ctx.forget(memory.id)
    assert (await ctx.recall("seat?", tokens=50)).memories == ()


async def test_who_recalls_something_confidential_carries_it(ledger: Ledger, memories: Memories) -> None:
    told = context(ledger, memories, run="one")
    told.mark("confidential", "a file")
    await told.remember("Her salary is 5,000.")
    reads = context(ledger, memories, run="two")
    assert reads.carries.data_class == "internal"
    (memory,) = (await reads.recall("salary?", tokens=50)).memories
    assert reads.carries == Label("confidential", (f"memory {memory.id}",))


async def test_what_must_not_outlive_its_run_is_not_remembered(ledger: Ledger, memories: Memories) -> None:
    ctx = context(ledger, memories)
    ctx.mark("restricted", "a key")
    with pytest.raises(DataRefused, match="stays in its run"):
        await ctx.remember("The key is X77.")
    assert await memories.owners() == ()


async def test_what_stays_on_this_machine_goes_to_no_server(ledger: Ledger) -> None:
    ctx = context(ledger, open_memories("https://qdrant.example", embedder=WordEmbedder()))
    ctx.mark("confidential", "a file")
    with pytest.raises(DataRefused, match=r"qdrant\.example"):
        await ctx.recall("salary?", tokens=50)


# --- the command line


@pytest.fixture
async def kept(ledger: Ledger, memories: Memories, monkeypatch: pytest.MonkeyPatch) -> str:
    """The id of a memory in the home, with a small embedding model in place of the default."""

    def opened(location: Any) -> Memories:
        return open_memories(location, embedder=WordEmbedder())

    monkeypatch.setattr("agentbudget.memory.open_memories", opened)
    return (await context(ledger, memories).remember("She prefers an aisle seat.", source="aisle please")).id


def command(*arguments: str, wanted: int = 0) -> str:
    from agentbudget.cli import cli

    done = CliRunner().invoke(cli, ["memory", *arguments])
    assert done.exit_code == wanted, done.output
    return done.output


def test_the_command_line_shows_who_has_memories_and_which(kept: str) -> None:
    assert command("list") == "mia  (tenant default)\n"
    assert command("list", "--user", "mia").startswith(f"{kept}  ")
    assert json.loads(command("list", "--user", "mia", "--json"))[0]["text"] == "She prefers an aisle seat."


@pytest.mark.usefixtures("kept")
async def test_what_a_terminal_would_obey_in_a_memory_is_written_out(ledger: Ledger, memories: Memories) -> None:
    await context(ledger, memories).remember("Her order is \x1b[2J late.")
    assert r"Her order is \x1b[2J late." in await asyncio.to_thread(command, "list", "--user", "mia")


def test_an_export_has_everything(kept: str) -> None:
    told = json.loads(command("export", "--user", "mia"))
    (memory,) = told["memories"]
    assert (memory["id"], memory["sources"][0]["text"], memory["sources"][0]["run"]) == (kept, "aisle please", "r")


def test_a_memory_is_forgotten_at_the_command_line(kept: str) -> None:
    assert command("forget", kept, "--user", "mia") == "Forgot 1 memories of 'mia'.\n"
    assert command("list", "--user", "mia") == "Nothing is kept of 'mia'.\n"


def test_another_user_cannot_forget_it(kept: str) -> None:
    command("forget", kept, "--user", "tom", wanted=1)
    assert kept in command("list", "--user", "mia")


def test_everything_of_a_user_is_forgotten_when_confirmed(kept: str) -> None:
    assert "with --yes" in command("forget", "--user", "mia", "--all", wanted=2)  # nobody says yes
    assert kept in command("list", "--user", "mia")
    assert command("forget", "--user", "mia", "--all", "--yes") == "Forgot everything of 'mia'.\n"


def test_what_to_forget_must_be_said(kept: str) -> None:
    assert "name ids" in command("forget", "--user", "mia", wanted=2)
    assert "name the user" in command("forget", kept, wanted=2)
