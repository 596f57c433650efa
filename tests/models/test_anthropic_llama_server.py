"""Anthropic's protocol as a real llama-server speaks it, through Anthropic's own SDK."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from contextlib import aclosing
from dataclasses import replace

import pytest

from agentbudget.errors import InvalidOutput, ModelError
from agentbudget.models.anthropic import AnthropicModel
from agentbudget.models.base import Message, Meter
from tests.models.conformance.requests import LONG, SHORT, WEATHER, ask, png, with_image, with_tools
from tests.models.conformance.suite import Gate, streamed
from tests.models.llama_server import NAME, WINDOW, LlamaServer
from tests.models.remote_fixtures import PRICE

LEAD = 24
"""What the server's profile says: it looks at the connection before each token that it sends."""


@pytest.fixture
async def model(llama_server: LlamaServer) -> AsyncIterator[AnthropicModel]:
    model = AnthropicModel(
        NAME, base_url=llama_server.url, price=PRICE, context_window=WINDOW, counted=True, stream_lead_tokens=LEAD
    )
    yield model
    await model.aclose()


async def test_the_servers_own_count_bounds_the_input_closely(model: AnthropicModel) -> None:
    for request in (ask(SHORT, cap=4), ask("Où est le Rhône ? 日本語 🌊 " * 3, cap=4)):
        counted = await model.count_input(request)
        meter = Meter()
        answer = await model.complete(request, meter)
        assert answer.usage.input_tokens <= counted.tokens <= 1.02 * answer.usage.input_tokens + 33
        assert meter.usage == answer.usage


async def test_pieces_are_the_answer_and_the_cap_cuts_it(model: AnthropicModel) -> None:
    pieces, answer = await streamed(model, ask(LONG, cap=9), Meter())
    assert ("".join(pieces), answer.finish, answer.usage.output_tokens) == (answer.text, "length", 9)


async def test_a_schema_that_the_server_does_not_read_is_told_with_what_was_used(model: AnthropicModel) -> None:
    meter = Meter()
    # Its first word ends it: what a cap cuts is held to no schema, and how much it says differs between processors.
    request = ask("Say hello.", cap=80, stop=(" ",), schema={"enum": ["billing", "bug"], "type": "string"})
    with pytest.raises(InvalidOutput, match="did not keep to the schema") as raised:
        await model.complete(request, meter)
    assert raised.value.usage == meter.usage
    assert meter.usage is not None


async def test_a_stop_sequence_ends_the_answer(model: AnthropicModel) -> None:
    answer = await model.complete(ask(SHORT, cap=24, stop=(" ",)), Meter())
    assert answer.finish == "stop"
    assert " " not in answer.text


async def test_a_tool_is_called_and_its_result_taken(model: AnthropicModel) -> None:
    request = with_tools(ask("What is the weather in Lyon?", cap=160))
    # It is too small a model to choose a tool by itself: the first word of the call is put into its mouth.
    begun = replace(request, messages=(*request.messages, Message("assistant", "<tool_call>\n")))
    _, asked = await streamed(model, replace(begun, tool_choice="required"), Meter())
    assert asked.finish == "tools"
    (call, *_) = asked.calls
    assert call.name == WEATHER.name
    assert isinstance(json.loads(call.arguments)["city"], str)
    turn = Message("assistant", asked.text, calls=asked.calls)
    results = tuple(Message("tool", "It rains.", answers=call.id) for call in asked.calls)
    answer = await model.complete(replace(request, messages=(*request.messages, turn, *results)), Meter())
    assert answer.usage.input_tokens > asked.usage.input_tokens


async def test_what_follows_a_stream_is_answered(model: AnthropicModel) -> None:
    for _ in range(10):
        await streamed(model, ask("hi", cap=2), Meter())
        assert (await model.complete(ask("hi", cap=1), Meter())).usage.output_tokens == 1


async def test_a_stream_that_is_cut_stops_the_server(model: AnthropicModel, llama_server: LlamaServer) -> None:
    llama_server.wait_until_idle()
    before = llama_server.predicted()
    meter = Meter(gate=Gate(most=LEAD + 8))
    pieces, answer = await streamed(model, ask(LONG, cap=1000), meter)
    llama_server.wait_until_idle()
    made = llama_server.predicted() - before
    assert answer.finish == "cut"
    assert answer.text == "".join(pieces)
    assert meter.presumed == answer.usage
    assert made <= answer.usage.output_tokens < 500


async def test_a_stream_that_is_closed_stops_the_server(model: AnthropicModel, llama_server: LlamaServer) -> None:
    llama_server.wait_until_idle()
    before = llama_server.predicted()
    meter = Meter()
    async with aclosing(model.stream(ask(LONG, cap=1000), meter)) as stream:
        await anext(stream)
    llama_server.wait_until_idle()
    made = llama_server.predicted() - before
    assert meter.presumed is not None
    assert made <= meter.presumed.output_tokens < 500


async def test_a_picture_that_it_cannot_see_is_an_error(model: AnthropicModel) -> None:
    with pytest.raises(ModelError, match="image input is not supported"):
        await model.complete(with_image(ask("What is this?", cap=8), png(8, 8)), Meter())
