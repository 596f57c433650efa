from __future__ import annotations

import logging
from collections.abc import Callable, Generator
from datetime import timedelta
from pathlib import Path

import pytest

from agentbudget.cache import Answers, Which
from agentbudget.cache.semantic import Semantic, SemanticAnswers
from agentbudget.cache.semantic.answers import question_of
from agentbudget.errors import SkillError, UnknownHit
from agentbudget.ledger import HoldRecord, Ledger
from agentbudget.models.base import Image, Message, Request, Tool
from agentbudget.models.ladder import Ladder
from agentbudget.money import Budget
from agentbudget.prices import ComputePrice
from agentbudget.skills import Skill, skill
from agentbudget.statement import Statement
from agentbudget.step import Context, Engine, Scope
from agentbudget.testing import ScriptedModel
from tests.cache.semantic.test_cache import topics
from tests.context.conftest import WordEmbedder

POLICY = Semantic(wrong=0.2, audited=0.01)


@skill(max_output_tokens=8, cache=POLICY)
async def team(ctx: Context, message: str) -> str:
    """Say which team should handle this message."""
    ...


@skill(max_output_tokens=8, cache=POLICY)
async def told(ctx: Context, message: str) -> str:
    """Say which team should handle this message, as it is known."""
    async with ctx.stream(message) as pieces:
        async for _ in pieces:
            pass
    return pieces.reply.text


@skill(max_output_tokens=8, cache=POLICY, temperature=0.7)
async def drawn(ctx: Context, message: str) -> str:
    """Say which team could handle this message."""
    ...


def by_topic(request: Request) -> str:
    """The same answer to a topic, however it is asked for."""
    return f"team {request.messages[-1].text.removeprefix('please ')}"


@pytest.fixture
def ledger() -> Generator[Ledger]:
    with Ledger.open("memory:") as opened:
        yield opened


Contexts = Callable[..., Context]


@pytest.fixture
def contexts(ledger: Ledger) -> Generator[Contexts]:
    """Contexts of runs that share a cache."""
    answers = Answers()
    similar = SemanticAnswers(None, answers, embedder=WordEmbedder(), draw=lambda: 0.5)
    model = ScriptedModel(by_topic, name="scripted:small")
    engine = Engine(ledger, Ladder([model]), answers, ComputePrice("0.10", 100, 10), similar=similar)  # pyright: ignore[reportArgumentType]

    def make(run_id: str = "r", *, tenant: str = "acme", share: bool = True) -> Context:
        ledger.account(f"run/{run_id}", limit=Budget(usd="1"))
        engine.share_answers = share
        return Context(engine, Scope(run_id, tenant=tenant))

    yield make
    similar.close()


async def teach(ctx: Context, asked: Skill[[str], str] = team, count: int = 120) -> None:
    """Ask about each topic in two ways."""
    for topic in topics(count):
        await asked(ctx, topic)
        await asked(ctx, f"please {topic}")


def model_of(ctx: Context) -> ScriptedModel:
    (model,) = ctx.engine.ladder.models
    assert isinstance(model, ScriptedModel)
    return model


def last_call(ledger: Ledger, run_id: str) -> HoldRecord:
    return [hold for hold in ledger.holds(prefix=f"{run_id}/") if hold.meta.get("kind") == "call"][-1]


[NEW] = topics(1, start=200)


async def test_a_similar_question_is_answered_from_the_cache_and_the_statement_says_why(
    ledger: Ledger, contexts: Contexts
) -> None:
    await teach(contexts())
    ctx = contexts("s")
    await team(ctx, NEW)
    bought = len(model_of(ctx).requests)
    assert await team(ctx, f"please {NEW}") == f"team {NEW}"
    assert len(model_of(ctx).requests) == bought
    hit = last_call(ledger, "s")
    assert hit.settled is not None
    assert hit.settled.usd_nano == 0
    assert hit.detail["saved_usd_nano"] > 0
    facts = hit.detail["cache"]
    assert (facts["because"], facts["wrong_allowed"]) == ("semantic", 0.2)
    assert facts["similarity"] > 0.7
    assert facts["probability"] > 0.8
    assert 0 < facts["wrong_expected"] < 0.2
    assert 0 <= facts["risk"] <= 0.025
    assert facts["evidence"] >= 50
    assert str(facts["hit"]) in str(Statement.of(ledger, "s"))


async def test_until_enough_is_known_every_answer_is_bought(ledger: Ledger, contexts: Contexts) -> None:
    ctx = contexts()
    await teach(ctx, count=20)
    assert len(model_of(ctx).requests) == 40
    assert all(hold.settled and hold.settled.usd_nano for hold in ledger.holds(prefix="r/"))


async def test_an_answer_that_is_only_compared_is_no_hit_of_the_cache(contexts: Contexts) -> None:
    ctx = contexts()
    await teach(ctx, count=20)
    (kept,) = ctx.engine.answers.store.kept()
    assert (kept.hits, kept.saved_usd_nano) == (0, 0)


async def test_an_answer_that_is_reused_is_one_hit_of_the_cache(contexts: Contexts) -> None:
    await teach(contexts())
    ctx = contexts("s")
    await team(ctx, NEW)
    (before,) = ctx.engine.answers.store.kept()
    await team(ctx, f"please {NEW}")
    (after,) = ctx.engine.answers.store.kept()
    assert after.hits == before.hits + 1


async def test_samples_of_one_question_are_each_bought(contexts: Contexts) -> None:
    await teach(contexts(), drawn)
    ctx = contexts("s")
    bought = len(model_of(ctx).requests)
    for key in "ab":
        await ctx.call(drawn, {"message": NEW}, key=key)
    assert len(model_of(ctx).requests) == bought + 2
    await drawn(ctx, NEW)
    await drawn(ctx, f"please {NEW}")
    assert len(model_of(ctx).requests) == bought + 3, "what is no sample has similar ones as before"


async def test_another_tenant_pays_for_itself(contexts: Contexts) -> None:
    await teach(contexts())
    ctx = contexts("s", tenant="other")
    bought = len(model_of(ctx).requests)
    await team(ctx, f"please {topics(1)[0]}")
    assert len(model_of(ctx).requests) == bought + 1


async def test_tenants_share_where_the_skill_says_so(contexts: Contexts) -> None:
    @skill(max_output_tokens=8, cache=Semantic(wrong=0.2, audited=0.01, across_tenants=True))
    async def common(ctx: Context, message: str) -> str:
        """Say what everybody may know."""
        ...

    await teach(contexts(), common)
    ctx = contexts("s", tenant="other")
    bought = len(model_of(ctx).requests)
    await common(ctx, f"oh please {topics(1)[0]}")
    assert len(model_of(ctx).requests) == bought


async def test_a_near_miss_is_bought(contexts: Contexts) -> None:
    ctx = contexts()
    await team(ctx, f"{NEW} in 2019")
    await teach(ctx)
    assert await team(ctx, f"{NEW} in 2020") == f"team {NEW} in 2020"


async def test_a_run_without_shared_answers_buys_its_own(contexts: Contexts) -> None:
    await teach(contexts())
    ctx = contexts("s", share=False)
    bought = len(model_of(ctx).requests)
    await team(ctx, f"please {topics(1)[0]}")
    assert len(model_of(ctx).requests) == bought + 1


async def test_a_hit_stays_what_it_was_when_its_run_is_carried_out_again(contexts: Contexts) -> None:
    await teach(contexts())
    ctx = contexts("s")
    await team(ctx, NEW)
    first = await team(ctx, f"please {NEW}")
    similar = ctx.engine.similar
    assert isinstance(similar, SemanticAnswers)
    similar.cache.store.forget()
    bought = len(model_of(ctx).requests)
    assert await team(ctx, f"please {NEW}") == first
    assert len(model_of(ctx).requests) == bought


async def test_streams_get_and_teach_similar_answers(contexts: Contexts) -> None:
    await teach(contexts(), told)
    ctx = contexts("s")
    await told(ctx, NEW)
    bought = len(model_of(ctx).requests)
    assert await told(ctx, f"please {NEW}") == f"team {NEW}"
    assert len(model_of(ctx).requests) == bought


async def test_what_is_invalid_in_the_exact_cache_is_so_here(contexts: Contexts) -> None:
    ctx = contexts()
    await teach(ctx)
    await team(ctx, NEW)
    ctx.engine.answers.store.invalidate(Which(skill="team"))
    bought = len(model_of(ctx).requests)
    await team(ctx, f"please {NEW}")
    assert len(model_of(ctx).requests) == bought + 1


async def test_an_answer_found_wrong_is_not_given_again(ledger: Ledger, contexts: Contexts) -> None:
    await teach(contexts())
    ctx = contexts("s")
    await team(ctx, f"oh please {topics(1)[0]}")
    similar = ctx.engine.similar
    assert isinstance(similar, SemanticAnswers)
    similar.found_wrong(last_call(ledger, "s").detail["cache"]["hit"])
    bought = len(model_of(ctx).requests)
    await team(contexts("t"), f"oh oh please {topics(1)[0]}")
    assert len(model_of(ctx).requests) == bought + 1


def test_what_was_no_hit_cannot_be_found_wrong() -> None:
    with Answers() as answers:
        similar = SemanticAnswers(None, answers, embedder=WordEmbedder())
        with pytest.raises(UnknownHit, match="statement"):
            similar.found_wrong(7)


async def test_a_damaged_file_costs_a_saving_not_the_answer(
    tmp_path: Path, ledger: Ledger, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "s.db").write_bytes(b"no database" * 1000)
    answers = Answers()
    similar = SemanticAnswers(tmp_path / "s.db", answers, embedder=WordEmbedder())
    model = ScriptedModel(by_topic)
    engine = Engine(ledger, Ladder([model]), answers, ComputePrice("0.10", 100, 10), similar=similar)  # pyright: ignore[reportArgumentType]
    ledger.account("run/r", limit=Budget(usd="1"))
    with caplog.at_level(logging.WARNING):
        assert await team(Context(engine, Scope("r")), NEW) == f"team {NEW}"
    assert "move the file away" in caplog.text


def request(*messages: Message, tools: tuple[Tool, ...] = ()) -> Request:
    return Request(messages, 8, tools=tools)


def test_only_a_lone_question_in_words_has_similar_ones() -> None:
    asked = Message("user", "what?")
    picture = Message("user", "what?", images=(Image(b"1", "image/png"),))
    assert question_of(request(Message("system", "Answer."), asked)) == "what?"
    assert question_of(request(asked, Message("assistant", "that"), asked)) is None
    assert question_of(request(asked, Message("assistant", "that"))) is None
    assert question_of(request(picture)) is None
    assert question_of(request(asked, tools=(Tool("t", "does", {}),))) is None
    assert question_of(request(Message("user", " "))) is None


@pytest.mark.parametrize("wrong", [0, 1, -0.1, 1.5, True, "0.02", None])
def test_a_bound_that_is_no_share_is_refused(wrong: object) -> None:
    with pytest.raises(SkillError, match="wrong must be a number between 0 and 1"):
        Semantic(wrong=wrong)  # pyright: ignore[reportArgumentType]


def test_what_cannot_be_audited_or_compared_is_refused() -> None:
    with pytest.raises(SkillError, match="audited"):
        Semantic(wrong=0.1, audited=0)
    with pytest.raises(SkillError, match="same must be a function"):
        Semantic(wrong=0.1, same="equal")  # pyright: ignore[reportArgumentType]
    with pytest.raises(SkillError, match="more than 0 seconds"):
        Semantic(wrong=0.1, ttl_s=-timedelta(1).total_seconds())
    with pytest.raises(SkillError, match=r"write ttl_s=span\.total_seconds\(\)"):
        Semantic(wrong=0.1, ttl_s=timedelta(1))  # pyright: ignore[reportArgumentType]
