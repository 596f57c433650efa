"""Claude: the request that is sent, the usage that is read, the answers that end in other ways."""

from __future__ import annotations

from dataclasses import replace

import pytest

from agentbudget.errors import InvalidOutput, OutcomeUnknown, SchemaUnsupported, UnknownModel, UnknownPrice
from agentbudget.models.anthropic import AnthropicModel
from agentbudget.models.base import Completion, Message, Meter, Request, ToolCall
from agentbudget.usage import Usage
from tests.models.conformance.requests import WEATHER
from tests.models.provider_server import ProviderServer, Reply
from tests.models.remote_fixtures import KEY, ask, claude, claude_answer


async def complete(request: Request, reply: Reply, meter: Meter | None = None) -> tuple[Completion, ProviderServer]:
    async with ProviderServer(reply) as server:
        model = claude(server.url)
        try:
            return await model.complete(request, meter or Meter()), server
        finally:
            await model.aclose()


async def test_a_request_is_sent_with_its_cap_and_without_what_claude_refuses() -> None:
    request = Request(
        (Message("system", "Be brief."), Message("user", "hi"), Message("assistant", "yo"), Message("user", "why?")),
        max_output_tokens=8,
        temperature=0.5,
        seed=3,
        stop=("\n\nHuman:",),
    )
    _, server = await complete(request, Reply.json(claude_answer()))
    assert server.body == {
        "model": "claude-haiku-4-5",
        "max_tokens": 8,
        "system": "Be brief.",
        "messages": [
            {"role": "user", "content": "hi"},
            {"role": "assistant", "content": "yo"},
            {"role": "user", "content": "why?"},
        ],
        "stop_sequences": ["\n\nHuman:"],
        "service_tier": "standard_only",
    }
    assert server.received[0].headers["authorization"] == f"Bearer {KEY}"
    assert server.received[0].headers["x-stainless-retry-count"] == "0"


async def test_usage_includes_what_the_cache_read_and_wrote() -> None:
    answer = claude_answer(cache_read_input_tokens=100, cache_creation_input_tokens=30)
    completion, _ = await complete(ask(), Reply.json(answer))
    assert completion.usage == Usage(input_tokens=142, output_tokens=3, cached_tokens=100, cache_write_tokens=30)


async def test_usage_tells_what_the_cache_keeps_for_an_hour_and_what_was_thought() -> None:
    answer = claude_answer(cache_creation_input_tokens=30, output_tokens=50)
    answer["usage"]["cache_creation"] = {"ephemeral_5m_input_tokens": 10, "ephemeral_1h_input_tokens": 20}
    answer["usage"]["output_tokens_details"] = {"thinking_tokens": 40}
    completion, _ = await complete(ask(), Reply.json(answer))
    assert completion.usage == Usage(42, 50, cache_write_tokens=30, cache_write_1h_tokens=20, reasoning_tokens=40)


async def test_tools_that_are_asked_for_come_with_the_thoughts_before_them() -> None:
    thought = {"type": "thinking", "thinking": "", "signature": "c2lnbmVk"}
    sealed = {"type": "redacted_thinking", "data": "c2VhbGVk"}
    call = {"type": "tool_use", "id": "toolu_1", "name": "weather", "input": {"city": "Lyon"}}
    answer = claude_answer(stop_reason="tool_use")
    answer["content"] = [thought, sealed, {"type": "text", "text": "I look."}, call]
    completion, _ = await complete(ask(tools=(WEATHER,)), Reply.json(answer))
    assert (completion.finish, completion.text) == ("tools", "I look.")
    assert completion.calls == (ToolCall("toolu_1", "weather", '{"city": "Lyon"}'),)
    turn = Message("assistant", completion.text, calls=completion.calls, echo=completion.echo)
    after = replace(ask(tools=(WEATHER,)), messages=(*ask().messages, turn, Message("tool", "?", answers="toolu_1")))
    _, server = await complete(after, Reply.json(claude_answer()))
    assert server.body["messages"][1]["content"] == [thought, sealed, {"type": "text", "text": "I look."}, call]


@pytest.mark.parametrize(
    ("reason", "finish"),
    [
        ("end_turn", "stop"),
        ("stop_sequence", "stop"),
        ("max_tokens", "length"),
        ("model_context_window_exceeded", "length"),
        ("refusal", "refused"),
    ],
)
async def test_a_stop_reason_becomes_a_finish(reason: str, finish: str) -> None:
    completion, _ = await complete(ask(), Reply.json(claude_answer(stop_reason=reason)))
    assert completion.finish == finish


async def test_a_stop_reason_that_is_no_answer_is_settled_and_named() -> None:
    meter = Meter()
    with pytest.raises(InvalidOutput, match="pause_turn") as raised:
        await complete(ask(), Reply.json(claude_answer(stop_reason="pause_turn")), meter)
    assert raised.value.usage == meter.usage == Usage(12, 3)


async def test_a_message_without_a_stop_reason_broke_off() -> None:
    meter = Meter()
    with pytest.raises(OutcomeUnknown, match="broke off"):
        await complete(ask(), Reply.json(claude_answer(stop_reason=None)), meter)
    assert meter.usage is None


async def test_structured_output_is_asked_for_and_unwrapped() -> None:
    schema = {"type": "array", "items": {"type": "integer", "minimum": 1}, "title": "Numbers"}
    completion, server = await complete(ask(schema=schema), Reply.json(claude_answer('{"result": [1, 2]}')))
    assert completion.text == "[1, 2]"
    sent = server.body["output_config"]["format"]
    assert sent["type"] == "json_schema"
    assert sent["schema"]["required"] == ["result"]
    assert sent["schema"]["additionalProperties"] is False
    assert sent["schema"]["properties"]["result"]["items"] == {"type": "integer", "description": "{minimum: 1}"}


async def test_an_answer_that_ignores_the_schema_is_invalid_but_settled() -> None:
    meter = Meter()
    with pytest.raises(InvalidOutput, match="did not keep to the schema") as raised:
        await complete(ask(schema={"type": "integer"}), Reply.json(claude_answer("seven")), meter)
    assert raised.value.usage == meter.usage == Usage(12, 3)


async def test_an_answer_cut_by_its_cap_keeps_the_text_so_far() -> None:
    answer = claude_answer('{"result": [1, 2', stop_reason="max_tokens")
    completion, _ = await complete(ask(schema={"type": "array", "items": {"type": "integer"}}), Reply.json(answer))
    assert (completion.finish, completion.text) == ("length", '{"result": [1, 2')


async def test_a_schema_that_cannot_be_enforced_is_refused_before_anything_is_sent() -> None:
    meter = Meter()
    with pytest.raises(SchemaUnsupported, match="free keys"):
        await claude("http://127.0.0.1:9").complete(ask(schema={"type": "object"}), meter)
    assert not meter.sent


async def test_effort_is_sent_beside_the_format() -> None:
    async with ProviderServer(Reply.json(claude_answer("1"))) as server:
        model = AnthropicModel("claude-opus-5-5", base_url=server.url, api_key=KEY, effort="low")
        await model.complete(ask(), Meter())
        await model.aclose()
    assert server.body["output_config"] == {"effort": "low"}
    assert "effort=low" in model.fingerprint


async def test_thinking_is_left_out_of_the_text() -> None:
    answer = claude_answer()
    answer["content"] = [{"type": "thinking", "thinking": "hm", "signature": "x"}, {"type": "text", "text": "yes"}]
    completion, _ = await complete(ask(), Reply.json(answer))
    assert completion.text == "yes"


async def test_the_input_bound_counts_messages_schema_and_their_frame() -> None:
    model = claude("http://127.0.0.1:9")
    plain = await model.count_input(ask("word " * 100))
    assert not plain.exact
    assert plain.tokens >= 650
    with_schema = await model.count_input(ask("word " * 100, schema={"type": "string"}))
    assert with_schema.tokens > plain.tokens + 400
    assert model.count_text("word") == 6


def test_price_and_window_come_from_the_public_list() -> None:
    model = AnthropicModel("claude-haiku-4-5")
    assert (model.name, model.provider, model.place) == ("anthropic:claude-haiku-4-5", "anthropic", "remote")
    assert model.price.source.startswith("genai-prices")
    assert model.context_window == 200_000


def test_a_model_that_nobody_prices_or_knows_is_refused() -> None:
    with pytest.raises(UnknownPrice, match="anthropic:claude-nine"):
        AnthropicModel("claude-nine")
    with pytest.raises(UnknownModel, match="context_window"):
        AnthropicModel("claude-nine", price=claude("http://127.0.0.1:9").price)
