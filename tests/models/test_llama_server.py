"""A real llama-server on loopback: what it counts is what it charges, and what is left it stops."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import aclosing
from dataclasses import replace
from typing import Final

import pytest

from agentbudget.errors import RequestRejected
from agentbudget.models import make_model
from agentbudget.models.base import Message, Meter, Request, Tool
from agentbudget.models.openai import Api, OpenAIModel
from agentbudget.models.servers import LLAMA_SERVER
from agentbudget.settings import Settings
from tests.models.conformance.suite import streamed
from tests.models.llama_server import NAME, WINDOW, LlamaServer
from tests.models.remote_fixtures import PRICE, ask

LONG: Final = "Write a very long story about a fox, a hen and the sea."
SCHEMA: Final = {"enum": ["red", "green"], "type": "string"}
TOOL: Final = Tool("weather", "Says the weather.", {"type": "object", "properties": {"city": {"type": "string"}}})


@pytest.fixture(params=["chat", "responses"])
async def model(llama_server: LlamaServer, request: pytest.FixtureRequest) -> AsyncIterator[OpenAIModel]:
    api: Api = request.param
    made = OpenAIModel(NAME, api=api, base_url=f"{llama_server.url}/v1", profile=LLAMA_SERVER, price=PRICE)
    yield made
    await made.aclose()


async def test_it_says_that_it_is_up_and_how_large_its_window_is(model: OpenAIModel) -> None:
    assert await model.ready()
    await model.count_input(ask())
    assert model.context_window == WINDOW


@pytest.mark.parametrize(
    "request_",
    [
        ask("hi", cap=1),
        ask("hi", cap=12, schema=SCHEMA),
        replace(ask("hi", cap=1), tools=(TOOL,)),
        Request((Message("user", "a"), Message("assistant", "b"), Message("user", "日本 🌊")), 1),
    ],
    ids=["plain", "schema", "tools", "turns"],
)
async def test_what_it_counts_beforehand_is_what_it_counts_after(model: OpenAIModel, request_: Request) -> None:
    counted = await model.count_input(request_)
    answer = await model.complete(request_, Meter())
    assert counted.exact
    assert answer.usage.input_tokens == counted.tokens


async def test_what_follows_a_stream_is_answered(model: OpenAIModel) -> None:
    for _ in range(10):
        await streamed(model, ask("hi", cap=16), Meter())
        assert (await model.complete(ask("hi", cap=1), Meter())).usage.output_tokens == 1


async def test_a_stream_that_is_left_stops_the_server(llama_server: LlamaServer, model: OpenAIModel) -> None:
    request, meter = ask(LONG, cap=1000), Meter()
    counted = await model.count_input(request)
    await asyncio.to_thread(llama_server.wait_until_idle)
    before = llama_server.predicted()
    async with aclosing(model.stream(request, meter)) as stream:
        for _ in range(3):
            await anext(stream)
    await asyncio.to_thread(llama_server.wait_until_idle)
    made = llama_server.predicted() - before
    assert meter.presumed is not None
    assert made < 500  # it was far from its cap of 1000
    assert made <= meter.presumed.output_tokens
    assert meter.presumed.input_tokens == counted.tokens


async def test_a_stream_that_is_refused_more_stops_the_server(llama_server: LlamaServer, model: OpenAIModel) -> None:
    meter = Meter(gate=lambda so_far: so_far.output_tokens < 40)
    await asyncio.to_thread(llama_server.wait_until_idle)
    before = llama_server.predicted()
    text, answer = "", None
    async with aclosing(model.stream(ask(LONG, cap=1000), meter)) as stream:
        async for delta in stream:
            text, answer = text + delta.text, delta.completion
    await asyncio.to_thread(llama_server.wait_until_idle)
    assert answer is not None
    assert (answer.finish, answer.text) == ("cut", text)
    assert 0 < llama_server.predicted() - before <= answer.usage.output_tokens


async def test_a_context_that_is_too_long_is_refused_for_nothing(model: OpenAIModel) -> None:
    meter = Meter()
    with pytest.raises(RequestRejected, match="exceeds the available context size"):
        await model.complete(ask("one more word " * WINDOW), meter)
    assert meter.usage is not None
    assert meter.usage.total_tokens == 0


async def test_on_this_machine_it_is_paid_for_by_its_own_clock(llama_server: LlamaServer) -> None:
    model = make_model(f"llama-server:{NAME}@{llama_server.url}/v1", Settings.from_env())
    meter = Meter()
    answer = await model.complete(ask(cap=8), meter)
    assert meter.usage == answer.usage
    assert answer.usage.compute_ns > 0
    assert model.price.cost(answer.usage) > 0
    cut = await model.complete(replace(ask(LONG, cap=1000), max_compute_s=0.5), meter)
    assert cut.finish == "budget"
    assert cut.usage.compute_ns >= 0.4e9
    await model.aclose()
