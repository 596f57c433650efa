"""What a step takes from the cache and what it leaves there: whose answers, how old, and what when the cache fails."""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import Callable, Generator
from datetime import timedelta
from math import inf
from pathlib import Path
from typing import Any, Literal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agentbudget.cache import Answers, Exact, Kind, Off, Which, answer_key, caching
from agentbudget.errors import OutcomeUnknown, SkillError
from agentbudget.graph import planner_executor
from agentbudget.ledger import HoldRecord, Ledger
from agentbudget.models.base import Completion, Message, Request
from agentbudget.models.ladder import Ladder
from agentbudget.money import ZERO, Budget
from agentbudget.prices import ComputePrice
from agentbudget.skills import Skill, skill
from agentbudget.statement import Statement
from agentbudget.step import Context, Engine, Scope
from agentbudget.testing import ManualClock, ScriptedModel, ScriptedReply
from agentbudget.usage import Usage

Ask = Callable[[Context], Any]


def make(**options: Any) -> Skill[[str], str]:
    @skill(max_output_tokens=8, **options)
    async def say(ctx: Context, what: str) -> str:
        """Say it."""
        ...

    return say


SAY = make()


@pytest.fixture
def ledger() -> Generator[Ledger]:
    with Ledger.open("memory:") as opened:
        opened.account("run/r", limit=Budget(usd="1"))
        yield opened


@pytest.fixture
def model() -> ScriptedModel:
    """Counts its answers."""
    made: ScriptedModel

    def reply(_: Request) -> str:
        return f"answer {len(made.requests)}"

    made = ScriptedModel(reply)
    return made


def context(ledger: Ledger, model: ScriptedModel, *, answers: Answers | None = None) -> Context:
    machine = ComputePrice("0.10", 100, 10)  # pyright: ignore[reportArgumentType] # a text is a decimal here
    return Context(Engine(ledger, Ladder((model,)), answers or Answers(), machine), Scope("r"))


def of(ctx: Context, run: str = "r", **scope: Any) -> Context:
    ctx.engine.ledger.account(f"run/{run}", limit=Budget(usd="1"))
    return Context(ctx.engine, Scope(run, **scope))


def calls(ledger: Ledger) -> list[HoldRecord]:
    return [hold for hold in ledger.holds() if hold.meta.get("kind") == "call"]


# --- a skill's policy


@pytest.mark.parametrize(
    ("said", "meant"),
    [
        ("off", Off()),
        ("exact", Exact()),
        (timedelta(hours=1), Exact(ttl_s=3600)),
        (Exact(across_tenants=True), Exact(across_tenants=True)),
    ],
)
def test_a_skill_may_name_its_policy(said: Any, meant: Exact | Off) -> None:
    assert caching(said) == meant
    assert make(cache=said).caching == meant


@pytest.mark.parametrize("said", ["of", None, 3600, timedelta(0), timedelta(seconds=-1)])
def test_what_is_no_policy_is_refused(said: Any) -> None:
    with pytest.raises(SkillError, match=r"cache|kept"):
        make(cache=said)


async def test_without_a_cache_another_run_buys_its_own_answer(ledger: Ledger, model: ScriptedModel) -> None:
    ctx, say = context(ledger, model), make(cache="off")
    assert [await say(of(ctx, run), "x") for run in ("r", "q", "r")] == ["answer 1", "answer 2", "answer 1"]


async def test_an_answer_that_is_too_old_is_bought_anew_but_its_own_run_keeps_it(
    ledger: Ledger, model: ScriptedModel
) -> None:
    clock = ManualClock()
    ctx = context(ledger, model, answers=Answers(clock_ns=clock))
    say = make(cache=timedelta(hours=1))
    await say(of(ctx, "r"), "x")
    assert await say(of(ctx, "q"), "x") == "answer 1"
    clock.advance(3601)
    assert await say(of(ctx, "p"), "x") == "answer 2"
    assert await say(of(ctx, "r"), "x") == "answer 1"


async def test_an_answer_that_is_too_old_to_be_given_is_no_hit_of_the_cache(
    ledger: Ledger, model: ScriptedModel
) -> None:
    clock = ManualClock()
    ctx = context(ledger, model, answers=Answers(clock_ns=clock))
    await SAY(ctx, "x")
    clock.advance(3601)
    assert await make(cache=timedelta(hours=1))(of(ctx, "q"), "x") == "answer 2"
    assert [kept.hits for kept in ctx.engine.answers.store.kept()] == [0]


@pytest.mark.parametrize("cache", [timedelta.max, Exact(ttl_s=inf)])
async def test_an_answer_may_be_reused_for_longer_than_a_file_can_say(
    cache: timedelta | Exact, ledger: Ledger, model: ScriptedModel
) -> None:
    ctx = context(ledger, model)
    skill = make(cache=cache)
    assert [await skill(of(ctx, run), "x") for run in ("r", "q")] == ["answer 1", "answer 1"]


async def test_a_skill_that_wants_fresher_answers_than_the_one_that_kept_them_gets_them(
    ledger: Ledger, model: ScriptedModel
) -> None:
    ctx = context(ledger, model)
    await SAY(of(ctx, "r"), "x")
    await asyncio.sleep(0.01)
    assert await make(cache=Exact(ttl_s=0.005))(of(ctx, "q"), "x") == "answer 2"


async def test_samples_of_one_request_are_told_apart_where_chance_plays_a_part(
    ledger: Ledger, model: ScriptedModel
) -> None:
    ctx = context(ledger, model)
    warm, cold = make(temperature=0.7), make()
    for run in ("r", "q"):
        drawn = [await of(ctx, run).call(warm, {"what": "x"}, key=key) for key in "ab"]
        assert drawn == ["answer 1", "answer 2"]
    assert [await ctx.call(cold, {"what": "x"}, key=key) for key in "ab"] == ["answer 3", "answer 3"]


# --- what is kept


@pytest.mark.parametrize("finish", ["refused", "length", "budget", "cut"])
async def test_what_is_not_whole_is_nobody_elses_answer(
    ledger: Ledger, finish: Literal["refused", "length", "budget", "cut"]
) -> None:
    model = ScriptedModel(lambda _: ScriptedReply("half an", finish=finish, usage=Usage(5, 8)))
    ctx = context(ledger, model)
    for run in ("r", "q"):
        await SAY(of(ctx, run), "x")
    assert len(model.requests) >= 2
    assert len(calls(ledger)) == len(model.requests)


async def test_an_error_is_never_kept(ledger: Ledger) -> None:
    replies = [ScriptedReply(error=OutcomeUnknown("lost", model="m"))] * 3
    model = ScriptedModel([*replies, "at last"])
    ctx = context(ledger, model)
    with pytest.raises(OutcomeUnknown):
        await SAY(ctx, "x")
    assert await SAY(of(ctx, "q"), "x") == "at last"


async def test_what_is_not_of_its_type_is_not_kept(ledger: Ledger) -> None:
    @skill(max_output_tokens=8)
    async def judge(ctx: Context, what: str) -> bool:
        """Judge it."""
        ...

    ctx = context(ledger, ScriptedModel(["perhaps", "true", "false"]))
    assert await judge(ctx, what="x") is True  # asked once more, and that question's answer stands under this one
    assert await judge(of(ctx, "q"), what="x") is True


async def _stream(ctx: Context, what: str) -> str:
    async with ctx.stream(what) as pieces:
        return "|".join([piece async for piece in pieces])


@skill(max_output_tokens=8)
async def tell(ctx: Context, what: str) -> str:
    """Tell it."""
    return await _stream(ctx, what)


async def test_a_stream_is_kept_and_given_again_as_a_stream(ledger: Ledger) -> None:
    model = ScriptedModel(["once upon a time"])
    ctx = context(ledger, model)
    first = await tell(ctx, "x")
    assert first == await tell(of(ctx, "q"), "x") == "once |upon |a |time"
    assert [hit.kind for hit in Statement.of(ledger, "q").reused] == ["answer"]


async def test_a_stream_that_was_left_or_broke_off_is_not_kept(ledger: Ledger) -> None:
    @skill(max_output_tokens=8)
    async def glance(ctx: Context, what: str) -> str:
        """Tell it."""
        async with ctx.stream(what) as pieces:
            async for piece in pieces:
                return piece
        return ""

    broken = ScriptedReply("once upon", error=OutcomeUnknown("lost", model="m"))
    ctx = context(ledger, ScriptedModel(["once upon a time", broken, "whole"]))
    await glance(ctx, "x")
    with pytest.raises(OutcomeUnknown):
        await tell(of(ctx, "q"), "x")
    assert await tell(of(ctx, "p"), "x") == "whole"


async def test_a_plan_is_a_hit_of_its_own_kind(ledger: Ledger) -> None:
    @skill(max_output_tokens=8)
    async def shout(ctx: Context, what: str) -> str:
        """Shout it."""
        ...

    planned = '[{"skill": "say", "arguments": {"what": "x"}}]'
    ctx = context(ledger, ScriptedModel([planned, "said"]))
    graph = planner_executor([SAY, shout]).compile()
    for run in ("r", "q"):
        await graph.ainvoke({"task": "say x"}, context=of(ctx, run))
    kinds: list[Kind] = ["plan", "answer"]
    assert [hit.kind for hit in Statement.of(ledger, "q").reused] == kinds


async def test_the_entry_of_a_hit_says_what_it_saved_and_why(ledger: Ledger, model: ScriptedModel) -> None:
    ctx = context(ledger, model)
    await SAY(ctx, "x")
    await SAY(of(ctx, "q"), "x")
    bought, hit = calls(ledger)
    assert bought.settled is not None
    assert (hit.settled, hit.detail["saved_usd_nano"]) == (ZERO, bought.settled.usd_nano)
    assert hit.detail["cache"] == {"kind": "answer", "because": "exact"}


async def test_a_hit_saves_the_tries_that_led_to_no_answer_too_but_nothing_that_is_only_presumed(
    ledger: Ledger,
) -> None:
    @skill(max_output_tokens=8)
    async def count(ctx: Context, what: str) -> int:
        """Count it."""
        ...

    lost = ScriptedReply(error=OutcomeUnknown("no answer came", model="m"))
    ctx = context(ledger, ScriptedModel([lost, "many", "3"]))
    assert [await count(of(ctx, run), "x") for run in ("r", "q")] == [3, 3]
    presumed, unreadable, answered, hit = calls(ledger)
    assert presumed.presumed
    assert unreadable.settled is not None
    assert answered.settled is not None
    assert hit.detail["saved_usd_nano"] == unreadable.settled.usd_nano + answered.settled.usd_nano


async def test_a_new_version_of_a_skill_is_asked_anew_and_the_old_one_can_be_forgotten(
    ledger: Ledger, model: ScriptedModel
) -> None:
    @skill(max_output_tokens=8)
    async def say(ctx: Context, what: str) -> str:
        """Say it aloud."""
        ...

    ctx = context(ledger, model)
    assert await SAY(ctx, "x") != await say(of(ctx, "q"), "x")
    store = ctx.engine.answers.store
    assert store.invalidate(Which(skill="say", skill_version=SAY.version)) == 1
    assert await say(of(ctx, "p"), "x") == "answer 2"
    assert await SAY(of(ctx, "o"), "x") == "answer 3"


# --- tenants


async def test_tenants_share_where_they_are_told_to_and_nowhere_else(ledger: Ledger, model: ScriptedModel) -> None:
    ctx, common = context(ledger, model), make(cache=Exact(across_tenants=True))
    alone = [await SAY(of(ctx, run, tenant=run), "x") for run in ("acme", "other")]
    together = [await common(of(ctx, run, tenant=run), "y") for run in ("acme", "other")]
    assert alone == ["answer 1", "answer 2"]
    assert together == ["answer 3", "answer 3"]


async def test_no_tenants_name_reaches_what_all_share(ledger: Ledger, model: ScriptedModel) -> None:
    ctx = context(ledger, model)
    await make(cache=Exact(across_tenants=True))(ctx, "x")
    for name in ("", "None", "null", "default"):
        await SAY(of(ctx, f"r{name}", tenant=name), "x")
    assert len(model.requests) == 5


@pytest.mark.parametrize("run", ["r", "q#r", "r#", "r/say.0"])
async def test_a_crafted_run_id_reaches_no_other_tenants_answer(ledger: Ledger, model: ScriptedModel, run: str) -> None:
    ctx = context(ledger, model)
    await SAY(of(ctx, "r", tenant="acme"), "x")
    (shared, own) = sorted((row[0] for row in _keys(ctx)), key=len)
    for crafted in (run, own, shared, own.partition("#")[0]):
        got = await SAY(of(ctx, crafted, tenant="other"), "x")
        assert got != "answer 1"


def _keys(ctx: Context) -> list[tuple[str]]:
    return ctx.engine.answers.store._db.execute("SELECT key FROM keys").fetchall()  # pyright: ignore[reportPrivateUsage] # to try each


texts = st.text(max_size=6)


@given(texts, texts, texts, texts)
def test_no_two_tenants_prompts_and_versions_make_one_key(one: str, two: str, three: str, four: str) -> None:
    def key(tenant: str, version: str, prompt: str) -> str:
        request = Request((Message("user", prompt),), max_output_tokens=9)
        return answer_key(request, ScriptedModel([]), tenant=tenant, skill_version=version)

    known = {key(one, two, three): (one, two, three)}
    for parts in ((one + two, "", three), (one, two + three, four), (two, one, three), (four, two, three)):
        assert known.setdefault(key(*parts), parts) == parts


# --- a cache that fails


async def test_a_cache_that_is_locked_costs_a_saving_and_a_warning(
    ledger: Ledger, model: ScriptedModel, tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: Any
) -> None:
    monkeypatch.setattr("agentbudget.cache.database.BUSY_TIMEOUT_S", 0.01)
    with Answers(tmp_path / "c.db") as answers:
        ctx = context(ledger, model, answers=answers)
        other = sqlite3.connect(tmp_path / "c.db", isolation_level=None)
        other.execute("BEGIN IMMEDIATE")
        assert await SAY(ctx, "x") == "answer 1"
        other.execute("ROLLBACK")
        other.close()
        assert "cannot be kept" in caplog.text
        assert await SAY(ctx, "x") == "answer 2"
    assert ledger.balance("run/r").held == ZERO


async def test_a_file_that_breaks_while_it_is_open_costs_a_saving_and_a_warning(
    ledger: Ledger, model: ScriptedModel, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with Answers(tmp_path / "c.db") as answers:
        ctx = context(ledger, model, answers=answers)
        await SAY(ctx, "x")
        answers.store._db.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()  # pyright: ignore[reportPrivateUsage] # so that all is in the file
        answers.store._db.execute("PRAGMA cache_size = 0")  # pyright: ignore[reportPrivateUsage] # and nothing in memory
        size = (tmp_path / "c.db").stat().st_size
        (tmp_path / "c.db").write_bytes(b"\xff" * size)
        assert await SAY(ctx, "x") == "answer 2"
        assert "cannot be read, so this one is bought" in caplog.text
    assert ledger.verify().ok


async def test_a_crash_between_paying_and_keeping_loses_a_saving_and_no_money(
    ledger: Ledger, model: ScriptedModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    ctx = context(ledger, model)

    def crash(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as crashing:
        crashing.setattr(Answers, "put_under", crash)
        with pytest.raises(KeyboardInterrupt):
            await SAY(ctx, "x")
    (call,) = calls(ledger)
    assert call.settled is not None
    assert call.settled.usd_nano > 0
    assert ledger.balance("run/r").held == ZERO
    assert await SAY(ctx, "x") == "answer 2"
    assert ledger.verify().ok


def test_what_a_provider_sealed_is_part_of_the_question_and_comes_back_with_the_answer(tmp_path: Path) -> None:
    turn = Message("assistant", "")
    keys = {
        answer_key(Request((Message("user", "x"), said), 9), ScriptedModel([]), tenant="t")
        for said in (turn, Message("assistant", "", echo="sealed"))
    }
    assert len(keys) == 2
    with Answers(tmp_path / "c.db") as answers:
        answers.put("k", Completion("", "tools", Usage(1, 1), "m", echo="sealed"), cost_usd_nano=1)
        found = answers.get("k", max_output_tokens=9)
        assert found is not None
        assert found.completion.echo == "sealed"
