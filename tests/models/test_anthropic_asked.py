"""Claude: how a request is written, for each kind of its models, and how much it is counted to be."""

from __future__ import annotations

import json
from base64 import b64encode
from dataclasses import replace
from typing import Any

import pytest

from agentbudget.errors import AuthenticationFailed, InvalidArgument, RequestRejected
from agentbudget.models.anthropic import AnthropicModel
from agentbudget.models.anthropic.asked import Effort, Writer, echo_of
from agentbudget.models.anthropic.bound import picture_tokens
from agentbudget.models.anthropic.families import family_of
from agentbudget.models.base import Image, Message, Meter, Request, Tool, ToolCall
from tests.models.conformance.requests import WEATHER, png
from tests.models.provider_server import ProviderServer, Reply
from tests.models.remote_fixtures import KEY, PRICE, ask

LONG = "Our rules are many, and each is there for a reason. " * 400
"""More than every model's least length to be cached."""


def written(request: Request, model_id: str = "claude-haiku-4-5", *, effort: Effort | None = None) -> dict[str, Any]:
    """The body of a request, as JSON has it."""
    writer = Writer(model_id, f"anthropic:{model_id}", family_of(model_id), effort)
    return json.loads(json.dumps(writer.params(request, None)))


# --- tools


def test_tools_are_sent_with_their_schemas_and_a_choice() -> None:
    body = written(ask(tools=(WEATHER,)))
    assert body["tools"] == [
        {"name": "weather", "description": WEATHER.description, "input_schema": dict(WEATHER.parameters)}
    ]
    assert body["tool_choice"] == {"type": "auto"}
    assert written(ask(tools=(WEATHER,), tool_choice="required"))["tool_choice"] == {"type": "any"}
    assert written(ask(tools=(WEATHER,), tool_choice="none"))["tool_choice"] == {"type": "none"}


@pytest.mark.parametrize("model_id", ["claude-opus-5-5", "claude-sonnet-5-5", "claude-fable-5-2"])
def test_a_model_that_cannot_be_made_to_call_a_tool_is_not_asked_to(model_id: str) -> None:
    with pytest.raises(RequestRejected, match="cannot be made to call a tool") as refused:
        written(ask(tools=(WEATHER,), tool_choice="required"), model_id)
    assert not refused.value.sent


def test_results_of_tools_that_were_called_together_come_back_together() -> None:
    calls = (ToolCall("a", "weather", '{"city": "Lyon"}'), ToolCall("b", "weather", ""))
    turns = (
        Message("user", "And?"),
        Message("assistant", "I look.", calls=calls),
        Message("tool", "Rain.", answers="a"),
        Message("tool", "Sun.", answers="b"),
        Message("user", "Thanks."),
    )
    assert written(Request(turns, 64, tools=(WEATHER,)))["messages"][1:] == [
        {
            "role": "assistant",
            "content": [
                {"type": "text", "text": "I look."},
                {"type": "tool_use", "id": "a", "name": "weather", "input": {"city": "Lyon"}},
                {"type": "tool_use", "id": "b", "name": "weather", "input": {}},
            ],
        },
        {
            "role": "user",
            "content": [
                {"type": "tool_result", "tool_use_id": "a", "content": "Rain."},
                {"type": "tool_result", "tool_use_id": "b", "content": "Sun."},
            ],
        },
        {"role": "user", "content": "Thanks."},
    ]


@pytest.mark.parametrize(
    ("arguments", "sent"),
    [
        ("{oops", {"unreadable": "{oops"}),
        ("[" * 5000, {"unreadable": "[" * 5000}),
        ("[1]", {"value": [1]}),
        ('{"a": 1}', {"a": 1}),
    ],
)
def test_arguments_that_are_no_object_come_back_in_one(arguments: str, sent: dict[str, Any]) -> None:
    turn = Message("assistant", "", calls=(ToolCall("a", "weather", arguments),))
    (call,) = written(Request((Message("user", "And?"), turn, Message("tool", "?", answers="a")), 64))["messages"][1][
        "content"
    ]
    assert call["input"] == sent


def test_thoughts_come_back_with_a_tools_result_to_the_model_that_had_them() -> None:
    thought = {"type": "thinking", "thinking": "", "signature": "c2lnbmVk"}
    turn = Message("assistant", "", calls=(ToolCall("a", "weather", "{}"),), echo=echo_of("claude-opus-5-5", [thought]))
    request = Request((Message("user", "And?"), turn, Message("tool", "Rain.", answers="a")), 64, tools=(WEATHER,))
    assert written(request, "claude-opus-5-5")["messages"][1]["content"][0] == thought
    assert [block["type"] for block in written(request, "claude-opus-5")["messages"][1]["content"]] == ["tool_use"]


# --- pictures


def test_a_picture_is_sent_before_the_text_about_it() -> None:
    picture = png(3, 3)
    body = written(Request((Message("user", "What is it?", images=(picture,)),), 64))
    assert body["messages"][0]["content"] == [
        {
            "type": "image",
            "source": {"type": "base64", "media_type": "image/png", "data": b64encode(picture.data).decode()},
        },
        {"type": "text", "text": "What is it?"},
    ]


@pytest.mark.parametrize(
    ("width", "height", "haiku", "opus"),
    [(256, 256, 100, 100), (1024, 1024, 1369, 1369), (1920, 1080, 1560, 2691), (4032, 3024, 1596, 3928)],
)
def test_a_picture_is_bounded_by_what_was_measured(width: int, height: int, haiku: int, opus: int) -> None:
    """By https://huggingface.co/datasets/JOHNISKING/image-token-cost, less the 65 and 77 tokens of its prompt."""
    head = png(1, 1).data
    picture = Image(head[:16] + width.to_bytes(4) + height.to_bytes(4) + head[24:], "image/png")
    for model_id, measured in (("claude-haiku-4-5", haiku), ("claude-opus-5-5", opus)):
        bound = picture_tokens(family_of(model_id), picture)
        assert measured <= bound <= 1.3 * measured + 64


async def test_what_is_no_picture_is_refused_before_anything_is_sent() -> None:
    model = AnthropicModel("claude-haiku-4-5", api_key=KEY)
    request = Request((Message("user", "?", images=(Image(b"GIF89", "image/png"),)),), 8)
    with pytest.raises(InvalidArgument, match="image/png"):
        await model.count_input(request)


# --- thinking


@pytest.mark.parametrize(
    ("model_id", "most", "cap", "sent"),
    [
        ("claude-haiku-4-5", 2_000, 4_000, {"type": "enabled", "budget_tokens": 2_000}),
        ("claude-haiku-4-5", 9_000, 4_000, {"type": "enabled", "budget_tokens": 3_999}),
        ("claude-haiku-4-5", 1_000, 4_000, None),
        ("claude-haiku-4-5", 0, 4_000, None),
        ("claude-haiku-4-5", None, 4_000, None),
        ("qwen3-8b", 2_000, 4_000, {"type": "enabled", "budget_tokens": 2_000}),
        ("claude-opus-4-7", 2_000, 4_000, {"type": "adaptive"}),
        ("claude-opus-4-7", 0, 4_000, None),
        ("claude-opus-5", 0, 4_000, {"type": "disabled"}),
        ("claude-haiku-5-5", 0, 4_000, {"type": "disabled"}),
        ("claude-haiku-5-5", None, 8, {"type": "disabled"}),
        ("claude-haiku-5-5", None, 4_000, None),
        ("claude-sonnet-5-5", 0, 4_000, {"type": "between_tools"}),
        ("claude-sonnet-5-5", 4_000, 8_000, {"type": "adaptive"}),
        ("claude-opus-5-5", 0, 4_000, None),
        ("claude-opus-5-5", 4_000, 8_000, {"type": "adaptive"}),
    ],
)
def test_reasoning_is_asked_for_in_each_models_way(
    model_id: str, most: int | None, cap: int, sent: dict[str, Any] | None
) -> None:
    body = written(ask(cap=cap, reasoning_tokens=most), model_id)
    assert body.get("thinking") == sent


@pytest.mark.parametrize(
    ("model_id", "most", "effort"),
    [
        ("claude-opus-5-5", 0, "low"),
        ("claude-opus-5-5", 1_000, "low"),
        ("claude-opus-5-5", 4_000, "medium"),
        ("claude-opus-5-5", 20_000, "high"),
        ("claude-opus-5-5", None, None),
        ("claude-haiku-4-5", 4_000, None),
    ],
)
def test_a_model_that_takes_no_budget_gets_effort(model_id: str, most: int | None, effort: str | None) -> None:
    body = written(ask(cap=32_000, reasoning_tokens=most), model_id)
    assert body.get("output_config", {}).get("effort") == effort


def test_the_effort_that_a_model_was_made_with_goes_first() -> None:
    body = written(ask(cap=32_000, reasoning_tokens=1_000), "claude-opus-5-5", effort="max")
    assert body["output_config"] == {"effort": "max"}
    assert "thinking" not in written(ask(cap=8), "claude-opus-5", effort="max")  # with which it cannot be turned off


def test_a_model_with_a_budget_does_not_think_where_it_may_not() -> None:
    asked = ask(cap=4_000, reasoning_tokens=2_000, tools=(WEATHER,))
    assert "thinking" in written(asked)
    assert "thinking" not in written(replace(asked, tool_choice="required"))
    turn = Message("assistant", "", calls=(ToolCall("a", "weather", "{}"),))
    forgotten = replace(asked, messages=(*asked.messages, turn, Message("tool", "Rain.", answers="a")))
    assert "thinking" not in written(forgotten)


# --- cached prompts


def test_what_many_requests_share_is_kept_after_its_last_system_message() -> None:
    messages = (Message("system", LONG), Message("system", "Be brief."), Message("user", "hi"))
    body = written(Request(messages, 64, fixed=1, cache_time="1h", tools=(WEATHER,)))
    assert body["system"] == [
        {"type": "text", "text": LONG, "cache_control": {"type": "ephemeral", "ttl": "1h"}},
        {"type": "text", "text": "Be brief."},
    ]
    assert body["messages"] == [{"role": "user", "content": "hi"}]


def test_shared_turns_are_kept_after_the_last_of_them() -> None:
    messages = (
        Message("system", "Be brief."),
        Message("user", LONG),
        Message("assistant", "Yes."),
        Message("user", "?"),
    )
    body = written(Request(messages, 64, fixed=3))
    assert body["system"] == "Be brief."
    assert [isinstance(turn["content"], list) for turn in body["messages"]] == [False, True, False]
    assert body["messages"][1]["content"] == [
        {"type": "text", "text": "Yes.", "cache_control": {"type": "ephemeral", "ttl": "5m"}}
    ]


def test_turns_after_a_system_message_of_ones_own_are_not_kept() -> None:
    messages = (Message("system", LONG), Message("user", LONG), Message("system", "Today."), Message("user", "?"))
    body = written(Request(messages, 64, fixed=2))
    assert [("cache_control" in block) for block in body["system"]] == [True, False]
    assert [turn["content"] for turn in body["messages"]] == [LONG, "?"]


@pytest.mark.parametrize(("model_id", "kept"), [("claude-opus-5-5", True), ("claude-haiku-4-5", False)])
def test_what_is_surely_too_short_is_not_kept(model_id: str, kept: bool) -> None:
    messages = (Message("system", "word " * 200), Message("user", "hi"))
    body = written(Request(messages, 64, fixed=1), model_id)
    assert isinstance(body["system"], list) is kept


def test_nothing_is_kept_that_nobody_shares() -> None:
    assert "cache_control" not in json.dumps(written(Request((Message("system", LONG), Message("user", LONG)), 64)))


# --- counting


async def test_the_count_includes_tools_turns_and_what_comes_back() -> None:
    model = AnthropicModel("claude-haiku-4-5", api_key=KEY)
    plain = (await model.count_input(ask())).tokens
    assert (await model.count_input(ask(tools=(WEATHER,)))).tokens > plain + 346  # Claude's own words about tools
    echo = echo_of("claude-haiku-4-5", [{"type": "thinking", "thinking": "hm " * 100, "signature": ""}])
    called = Message("assistant", "", calls=(ToolCall("a", "weather", '{"city": "Lyon"}'),), echo=echo)
    request = replace(ask(), messages=(*ask().messages, called))
    assert (await model.count_input(request)).tokens > plain + 300


async def test_a_model_that_counts_asks_once_for_each_request() -> None:
    async with ProviderServer(Reply.json({"input_tokens": 100}), Reply.json({"input_tokens": 5})) as server:
        model = AnthropicModel("claude-haiku-4-5", base_url=server.url, api_key=KEY, price=PRICE, counted=True)
        first = await model.count_input(ask("word " * 100))
        again = await model.count_input(ask("word " * 100, cap=9))  # the cap does not change the input
        other = await model.count_input(ask("word"))
        await model.aclose()
    assert [received.path for received in server.received] == ["/v1/messages/count_tokens"] * 2
    assert not server.received[0].body.keys() & {"max_tokens", "service_tier", "stop_sequences"}
    assert first == again
    assert not first.exact  # the endpoint calls itself an estimate
    assert 100 < first.tokens < 140
    assert other.tokens < first.tokens


async def test_an_input_that_cannot_be_counted_just_now_is_bounded(caplog: pytest.LogCaptureFixture) -> None:
    overloaded = Reply.json({"error": {"type": "overloaded_error", "message": "Overloaded"}}, 529)
    async with ProviderServer(overloaded) as server:
        model = AnthropicModel("claude-haiku-4-5", base_url=server.url, api_key=KEY, price=PRICE, counted=True)
        counted = await model.count_input(ask())
        await model.aclose()
    bounded = await AnthropicModel("claude-haiku-4-5", api_key=KEY).count_input(ask())
    assert counted == bounded
    assert "bounded by its bytes" in caplog.text


async def test_a_count_that_is_refused_is_an_error() -> None:
    refused = Reply.json({"error": {"type": "authentication_error", "message": "invalid x-api-key"}}, 401)
    async with ProviderServer(refused) as server:
        model = AnthropicModel("claude-haiku-4-5", base_url=server.url, api_key=KEY, price=PRICE, counted=True)
        with pytest.raises(AuthenticationFailed):
            await model.count_input(ask())
        await model.aclose()


# --- what is known of models


@pytest.mark.parametrize(
    ("model_id", "thinking", "cached_from", "picture"),
    [
        ("claude-3-7-sonnet-latest", "budget", 512, 4784),
        ("claude-haiku-4-5-20251001", "budget", 4096, 1640),
        ("claude-sonnet-4-5", "budget", 1024, 1640),
        ("claude-opus-4-20250514", "budget", 1024, 1640),
        ("claude-opus-4-6", "asked", 4096, 1640),
        ("claude-opus-4-7", "asked", 2048, 4784),
        ("claude-sonnet-5", "usual", 1024, 4784),
        ("claude-sonnet-5-5", "between", 512, 4784),
        ("claude-fable-5-2", "always", 512, 4784),
        ("claude-opus-9", "always", 512, 4784),
        ("smollm2-135m", "budget", 512, 4784),
    ],
)
def test_a_family_is_known_by_its_models_id(model_id: str, thinking: str, cached_from: int, picture: int) -> None:
    family = family_of(model_id)
    assert (family.thinking, family.cached_from, family.picture) == (thinking, cached_from, picture)


async def test_nothing_leaves_for_what_cannot_be_written() -> None:
    model = AnthropicModel("claude-opus-5-5", base_url="http://127.0.0.1:9", api_key=KEY)
    request = ask(tools=(Tool("t", "d", {"type": "object"}),), tool_choice="required")
    meter = Meter()
    with pytest.raises(RequestRejected):
        await model.complete(request, meter)
    with pytest.raises(RequestRejected):
        await anext(model.stream(request, meter))
    assert not meter.sent
