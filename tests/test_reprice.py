"""Past calls under another price sheet: by what they used, and never a guess."""

from __future__ import annotations

from collections.abc import Generator
from pathlib import Path
from typing import Literal

import pytest

from agentbudget.cache import Answers
from agentbudget.errors import OutcomeUnknown, RateLimited
from agentbudget.ledger import Ledger
from agentbudget.models.ladder import Ladder
from agentbudget.money import Amount, Budget
from agentbudget.prices import ComputePrice, PriceSheet, TokenPrice, cost_on
from agentbudget.reprice import RepricedCall, reprice
from agentbudget.skills import skill
from agentbudget.step import Context, Engine, Scope
from agentbudget.testing import ScriptedModel, ScriptedReply
from agentbudget.usage import Usage
from agentbudget.verify import cites

MACHINE = ComputePrice("0.10", 100, 10)  # pyright: ignore[reportArgumentType] # a text is a decimal here


@skill(max_output_tokens=8)
async def triage(ctx: Context, message: str) -> Literal["billing", "bug"]:
    """Say which team should handle this message."""
    ...


@skill(escalate="frontier", max_output_tokens=20, accept=cites)
async def answer(ctx: Context, question: str) -> str:
    """Answer with a citation."""
    ...


@pytest.fixture(params=["memory:", "ledger.db"])
def ledger(request: pytest.FixtureRequest, tmp_path: Path) -> Generator[Ledger]:
    where = request.param if request.param == "memory:" else tmp_path / request.param
    with Ledger.open(where) as opened:
        opened.account("run/r", limit=Budget(usd="1"))
        yield opened


def context(ledger: Ledger, *models: ScriptedModel) -> Context:
    return Context(Engine(ledger, Ladder(models), Answers(), MACHINE), Scope("r"))


def small(*script: str | ScriptedReply) -> ScriptedModel:
    return ScriptedModel(script, name="openai:small@http://localhost:8080/v1")


def large(*script: str | ScriptedReply) -> ScriptedModel:
    price = TokenPrice.custom(input_usd_per_mtok="3", output_usd_per_mtok="15", cached_usd_per_mtok="0.3")
    return ScriptedModel(script, name="anthropic:large", price=price)


def sheet(folder: Path, *models: str, input: str = "2", output: str = "20") -> PriceSheet:
    path = folder / "prices.toml"
    path.write_text("".join(f'["{model}"]\ninput = {input}\noutput = {output}\n' for model in models))
    return PriceSheet.load(path)


async def test_a_call_is_priced_again_by_what_it_used(ledger: Ledger, tmp_path: Path) -> None:
    used = Usage(1000, 100, cached_tokens=400)
    await triage(context(ledger, small(ScriptedReply('"bug"', usage=used))), message="it crashes")
    found = reprice(ledger.holds(prefix="r/"), sheet(tmp_path, "openai:small"))
    (call,) = found.calls
    assert (call.skill, call.model) == ("triage", "openai:small@http://localhost:8080/v1")
    assert call.booked_usd_nano == 1000 * 1000 + 100 * 10_000
    assert call.repriced_usd_nano == 1000 * 2000 + 100 * 20_000
    assert (found.total.booked_usd_nano, found.total.repriced_usd_nano) == (2_000_000, 4_000_000)
    assert (found.total.unknown, found.other_usd_nano) == (0, 0)


def test_calls_inside_a_leased_block_are_priced_again(ledger: Ledger, tmp_path: Path) -> None:
    used = Usage(1000, 100)
    with ledger.lease(["run/r"], block=Amount.of(usd="0.01")) as lease:
        step = lease.reserve("step", Amount.of(usd="0.004"), meta={"skill": "triage"})
        call = lease.reserve("call", Amount.of(usd="0.003"), within="step", meta={"model": "openai:small"})
        call.mark_sent()
        call.settle(Amount.of(usd="0.002"), detail={"usage": used.to_dict()})
        lost = lease.reserve("lost", Amount.of(usd="0.001"), within="step", meta={"model": "openai:small"})
        lost.mark_sent()
        lost.presume()
        step.settle(Amount.of(usd="0.0005"))
    found = reprice(ledger.holds(), sheet(tmp_path, "openai:small"))
    assert [(c.hold_id, c.booked_usd_nano, c.repriced_usd_nano) for c in found.calls] == [
        ("call", 2_000_000, 1000 * 2000 + 100 * 20_000),
        ("lost", 1_000_000, None),
    ]
    assert found.other_usd_nano == 500_000


async def test_the_settlement_keeps_usage_and_the_price_in_force(ledger: Ledger) -> None:
    used = Usage(1000, 100, cached_tokens=400)
    await triage(context(ledger, large(ScriptedReply('"bug"', usage=used))), message="it crashes")
    (call,) = (h for h in ledger.holds(prefix="r/") if h.meta["kind"] == "call")
    assert call.settled is not None
    assert cost_on(call.detail["price"], Usage.from_dict(call.detail["usage"])) == call.settled.usd_nano
    assert call.detail["price"]["usd_per_mtok"][0]["cached"] == "0.3"


async def test_a_model_that_the_sheet_does_not_list_is_unknown_and_not_free(ledger: Ledger, tmp_path: Path) -> None:
    await answer(context(ledger, small("no citation"), large("sure [1]")), question="why?")
    holds = ledger.holds(prefix="r/")
    found = reprice(holds, sheet(tmp_path, "anthropic:large"))
    (unknown,) = found.unknown
    assert unknown.model.startswith("openai:small")
    assert unknown.repriced_usd_nano is None
    assert "does not list openai:small" in unknown.why
    assert (found.total.calls, found.total.unknown) == (2, 1)
    assert found.total.unknown_usd_nano == unknown.booked_usd_nano > 0
    posted = ledger.balance("run/r").posted.usd_nano
    assert found.total.booked_usd_nano + found.total.unknown_usd_nano + found.other_usd_nano == posted

    kept = reprice(holds, sheet(tmp_path, "anthropic:large"), keep_others=True)
    assert kept.unknown == ()
    assert kept.total.booked_usd_nano == posted
    (other,) = (call for call in kept.calls if call.why == "as it was booked")
    assert other.repriced_usd_nano == other.booked_usd_nano == unknown.booked_usd_nano


async def test_sums_are_per_model_and_per_skill_the_dearest_first(ledger: Ledger, tmp_path: Path) -> None:
    dear = ScriptedReply("sure [1]", usage=Usage(1000, 10))
    ctx = context(ledger, small("no citation", '"bug"'), large(dear))
    await answer(ctx, question="why?")
    await triage(ctx, message="it crashes")
    found = reprice(ledger.holds(), sheet(tmp_path, "openai:small", "anthropic:large"))
    assert [(line.name, line.calls) for line in found.per_model] == [
        ("anthropic:large", 1),
        ("openai:small@http://localhost:8080/v1", 2),
    ]
    assert {line.name: line.calls for line in found.per_skill} == {"answer": 2, "triage": 1}
    for lines in (found.per_model, found.per_skill):
        assert sum(line.repriced_usd_nano for line in lines) == found.total.repriced_usd_nano
    told = found.to_dict()
    assert told["total"]["repriced_usd_nano"] == sum(call["repriced_usd_nano"] for call in told["calls"])


async def test_a_timeout_stays_unknown_until_its_usage_is_known(ledger: Ledger, tmp_path: Path) -> None:
    lost = OutcomeUnknown("timeout", model="anthropic:large")
    lost.retryable = False
    with pytest.raises(OutcomeUnknown):
        await triage(context(ledger, large(ScriptedReply(error=lost))), message="it crashes")
    prices = sheet(tmp_path, "anthropic:large")
    (call,) = reprice(ledger.holds(), prices).calls
    assert call.repriced_usd_nano is None
    assert "presumed spent" in call.why
    assert call.booked_usd_nano > 0

    known = Usage(10, 1)
    cost = Amount(45_000, known.total_tokens, 1)
    ledger.settle(call.hold_id, cost, detail={"usage": known.to_dict()})
    (call,) = reprice(ledger.holds(), prices).calls
    assert (call.booked_usd_nano, call.repriced_usd_nano) == (45_000, 40_000)


async def test_usage_that_came_with_an_error_is_priced(ledger: Ledger, tmp_path: Path) -> None:
    failed = ScriptedReply(error=ValueError("bad"), usage=Usage(10, 1))
    with pytest.raises(ValueError, match="bad"):
        await triage(context(ledger, large(failed)), message="it crashes")
    (call,) = reprice(ledger.holds(), sheet(tmp_path, "anthropic:large")).calls
    assert (call.booked_usd_nano, call.repriced_usd_nano) == (45_000, 40_000)


async def test_what_cost_nothing_costs_nothing_still(
    ledger: Ledger, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("agentbudget.step.calls.BACKOFF_S", 0.0)
    refused = ScriptedReply(error=RateLimited("later", model="anthropic:large", usage=Usage()), usage=None)
    ctx = context(ledger, large(refused, '"bug"'))
    await triage(ctx, message="it crashes")
    await triage(ctx, message="it crashes")  # from the cache
    found = reprice(ledger.holds(), sheet(tmp_path, "anthropic:large"))
    assert [call.booked_usd_nano > 0 for call in found.calls] == [False, True, False]
    assert [call.repriced_usd_nano == 0 for call in found.calls] == [True, False, True]
    assert found.calls[2].why == "paid for before"
    assert found.unknown == ()


def test_the_ledger_alone_is_enough(ledger: Ledger, tmp_path: Path) -> None:
    """Anyone who keeps ``model`` and ``usage`` with a hold can price it again."""
    meta = {"model": "openai:small"}
    ledger.reserve("mine", Amount(500, 20, 1), accounts=["run/r"], meta=meta).settle(
        Amount(300), detail={"usage": {"input_tokens": 10, "output_tokens": 1}}
    )
    ledger.reserve("strange", Amount(500), accounts=["run/r"], meta=meta).settle(
        Amount(7), detail={"usage": {"tokens": "many"}}
    )
    ledger.reserve("nothing said", Amount(500), accounts=["run/r"], meta=meta).settle(Amount(8))
    ledger.reserve("unsent", Amount(500), accounts=["run/r"], meta=meta).void()
    ledger.reserve("search", Amount(500), accounts=["run/r"], meta={"kind": "retrieval"}).settle(Amount(11))
    ledger.reserve("open", Amount(500), accounts=["run/r"], meta=meta)
    found = reprice(ledger.holds(), sheet(tmp_path, "openai:small"), keep_others=True)
    assert found.calls == (
        RepricedCall("mine", "–", "openai:small", 300, 40_000),
        RepricedCall("strange", "–", "openai:small", 7, None, "the ledger has no usage of it"),
        RepricedCall("nothing said", "–", "openai:small", 8, None, "the ledger has no usage of it"),
    )
    assert found.other_usd_nano == 11
    assert found.total.booked_usd_nano + found.total.unknown_usd_nano + 11 == ledger.balance("run/r").posted.usd_nano

    unlisted = reprice(ledger.holds(), PriceSheet(), keep_others=True)
    assert unlisted.calls[0].why == "the ledger has no price of it"
