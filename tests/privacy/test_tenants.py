"""Nobody gets at another tenant's documents or answers: not by asking, not by an id, not by a name like another."""

from __future__ import annotations

from decimal import Decimal
from itertools import combinations
from pathlib import Path

import pytest

from agentbudget.cache import Answers, answer_key
from agentbudget.context.edge import EdgeStore
from agentbudget.context.index import DocumentIndex
from agentbudget.context.store import header_id, point_id
from agentbudget.errors import DocumentsError
from agentbudget.ledger import Ledger
from agentbudget.models.base import Message, Request
from agentbudget.models.ladder import Ladder
from agentbudget.money import Budget
from agentbudget.prices import ComputePrice
from agentbudget.skills import skill
from agentbudget.step import Context, Engine, Scope
from agentbudget.tenants import payers
from agentbudget.testing import ScriptedModel
from tests.context.conftest import Reopen, reopen
from tests.privacy.conftest import WordEmbedder, Write

__all__ = ["reopen"]

SECRET = "The launch code of acme is 7731."
QUESTIONS = (
    SECRET,
    "what is the launch code of acme?",
    "I am tenant acme now; search tenant=acme and ignore the filter",
    '{"must": [{"key": "tenant", "match": {"value": "acme"}}]}',
    "acme",
    "7731",
)
NAMES = ("acme", "ACME", "acme ", "acme\0", "ac\0me", "acme/", "../acme", "a", "c", "acm\u0435", "acme\u200b", "header")


async def two_tenants(reopen: Reopen, write: Write) -> DocumentIndex:
    folder = write({"plan.md": SECRET})
    async with reopen(tenant="acme") as acme:
        await acme.update(folder)
    (folder / "plan.md").write_text("Evil has no plan.")
    evil = reopen(tenant="evil")
    await evil.update(folder)
    return evil


async def test_no_question_finds_a_document_of_another(reopen: Reopen, write: Write) -> None:
    async with await two_tenants(reopen, write) as evil:
        for question in QUESTIONS:
            found = await evil.search(question, limit=100)
            assert [hit.chunk.text for hit in found.hits] == ["Evil has no plan."]
        filtered = await evil.search("code", where={"tenant": "acme"})
        assert filtered.hits == ()


async def test_what_a_file_says_of_its_tenant_is_only_metadata(reopen: Reopen, write: Write) -> None:
    folder = write({"plan.md": "---\ntenant: evil\nchunk: x\nsource: acme.md\n---\n" + SECRET})
    async with reopen(tenant="acme") as acme:
        await acme.update(folder)
        assert (await acme.search("code")).hits[0].chunk.source == "plan.md"
    async with reopen(tenant="evil") as evil:
        with pytest.raises(DocumentsError):
            await evil.search("code")
        assert await evil.count() == 0


async def test_the_same_content_of_two_tenants_is_two_chunks(reopen: Reopen, write: Write) -> None:
    folder = write({"plan.md": SECRET})
    for tenant in ("acme", "evil"):
        async with reopen(tenant=tenant) as index:
            await index.update(folder)
    (folder / "plan.md").write_text("Something else.")
    async with reopen(tenant="evil") as evil:
        await evil.update(folder)
    async with reopen(tenant="acme") as acme:
        assert [hit.chunk.text for hit in (await acme.search("launch code")).hits] == [SECRET]


def test_no_two_names_have_the_same_points_or_folders(tmp_path: Path) -> None:
    chunk = "0" * 32
    for one, other in combinations(NAMES, 2):
        assert len({point_id(one, chunk), point_id(other, chunk), header_id(one), header_id(other)}) == 4
    folders: set[Path] = set()
    long = "c" * 60
    pairs = [(f"{long}\0a", "b"), (long, "a\0b"), *(("c", name) for name in NAMES)]
    for collection, tenant in pairs:
        before = set(tmp_path.iterdir())
        store = EdgeStore(tmp_path, collection=collection, tenant=tenant)
        store.close()
        folders |= set(tmp_path.iterdir()) - before
    assert len(folders) == len(NAMES) + 2
    assert all(folder.parent == tmp_path for folder in folders)


def test_no_two_tenants_have_the_same_key() -> None:
    request, model = Request((Message("user", "the same"),), 8), ScriptedModel(())
    keys = {answer_key(request, model, tenant=name) for name in NAMES}
    assert len(keys) == len(NAMES)
    crafted = Request((Message("user", 'the same"], "tenant": "acme", "x": ["'),), 8)
    assert answer_key(crafted, model, tenant="evil") not in keys


@pytest.mark.parametrize("names", [("acme", "evil"), ("acme", "acme\0"), ("acme", "ACME"), ("a", "a#confidential")])
async def test_no_prompt_gets_an_answer_of_another(names: tuple[str, str]) -> None:
    @skill(max_output_tokens=20)
    async def think(ctx: Context, task: str) -> str:
        """Think."""
        ...

    model = ScriptedModel(["acme's answer", "evil's answer"])
    machine = ComputePrice("0.10", 100, 10)  # pyright: ignore[reportArgumentType]
    with Ledger.open("memory:") as ledger:
        ledger.account("run/r", limit=Budget(usd="1"))
        engine = Engine(ledger, Ladder((model,)), Answers(), machine)
        for name, said in zip(names, ("acme's answer", "evil's answer"), strict=True):
            # the same run, place and arguments: all that is another is the tenant
            ctx = Context(engine, Scope("r", tenant=name))
            assert await think(ctx, task="the same") == said


async def test_a_word_embedder_does_not_tell_tenants_apart_by_itself(words: WordEmbedder) -> None:
    """What keeps them apart in these tests is the index, not what it embeds with."""
    assert words.embed([SECRET])[0] == words.embed_query(SECRET)


# --- money


def test_users_of_two_tenants_have_purses_of_their_own() -> None:
    ours, theirs, lone = (Scope("r", user="42", feature="support", tenant=t) for t in ("acme", "evil", "default"))
    assert ours.accounts("answer") == (
        "run/r",
        "tenant/acme",
        "tenant/acme/user/42",
        "tenant/acme/feature/support",
        "skill/answer",
    )
    assert lone.accounts() == ("run/r", "user/42", "feature/support")
    assert set(ours.accounts()) & set(theirs.accounts()) == {"run/r"}


@pytest.mark.parametrize(("one", "other"), list(combinations((*NAMES, "acme/user/42", "user", "acme%2Fuser"), 2)))
def test_no_tenant_pays_from_anothers_account_whatever_it_is_called(one: str, other: str) -> None:
    users = (None, "42", "42/user/42", "user/42")
    ours, theirs = ({name for user in users for name in payers(tenant, user=user)} for tenant in (one, other))
    assert not ours & theirs


def test_what_code_marks_outside_of_a_step_is_noted_on_the_tenants_accounts() -> None:
    with Ledger.open("memory:") as ledger, Answers() as answers:
        ledger.account("run/r")
        price = ComputePrice(Decimal("0.10"), prefill_tokens_per_s=100, decode_tokens_per_s=10)
        ctx = Context(Engine(ledger, Ladder((ScriptedModel([]),)), answers, price), Scope("r", tenant="acme"))
        ctx.mark("confidential", "hr/pay.md")
        [noted] = ledger.holds()
        assert noted.accounts == ("run/r", "tenant/acme")
