"""What OpenAI's APIs are sent besides text: tools and their results, pictures, tiers, efforts; and what is counted."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any, Final

import pytest

from agentbudget.errors import InvalidArgument, InvalidOutput, Mistake, OutcomeUnknown
from agentbudget.models.base import Completion, Image, Message, Meter, Request, Tool, ToolCall
from agentbudget.models.openai import Api, OpenAIModel
from agentbudget.models.servers import OLLAMA, VLLM
from agentbudget.prices import TokenPrice, price_of
from agentbudget.usage import Usage
from tests.models.conformance.requests import png
from tests.models.played.responses import events
from tests.models.played.talker import Said
from tests.models.provider_server import Json, ProviderServer, Reply
from tests.models.remote_fixtures import KEY, PRICE, ask, chat, chat_answer, response_answer, responses

WEATHER: Final = Tool("weather", "Says the weather.", {"type": "object", "properties": {"city": {"type": "string"}}})
CALL: Final = ToolCall("call_1", "weather", '{"city": "Lyon"}')
TURNS: Final = (
    Message("user", "Weather in Lyon?"),
    Message("assistant", "I ask.", calls=(CALL,)),
    Message("tool", "It rains.", answers="call_1"),
)
PICTURE: Final = png(2, 2)
DATA_URL: Final = "data:image/png;base64,iVBORw0KGgo"


def official(api: Api, model_id: str = "gpt-4.1-mini", **more: Any) -> Callable[[str], OpenAIModel]:
    """A model that believes to speak to OpenAI itself, though its requests go to the test's server."""

    def make(url: str) -> OpenAIModel:
        model = OpenAIModel(model_id, api=api, api_key=KEY, **more)
        model._base_url = f"{url}/v1"  # pyright: ignore[reportPrivateUsage] - the test's only way to stay on loopback
        return model

    return make


async def answered(
    make: Callable[[str], OpenAIModel], request: Request, body: object, meter: Meter | None = None
) -> tuple[Completion, Json]:
    async with ProviderServer(Reply.json(body)) as server:
        model = make(server.url)
        try:
            return await model.complete(request, meter or Meter()), server.body
        finally:
            await model.aclose()


async def test_tools_and_their_results_are_items_of_the_responses_api() -> None:
    request = Request(TURNS, 64, tools=(WEATHER,), tool_choice="required")
    _, body = await answered(official("responses"), request, response_answer())
    assert body["input"] == [
        {"role": "user", "content": "Weather in Lyon?"},
        {"type": "message", "role": "assistant", "content": "I ask."},
        {"type": "function_call", "call_id": "call_1", "name": "weather", "arguments": CALL.arguments},
        {"type": "function_call_output", "call_id": "call_1", "output": "It rains."},
    ]
    assert body["tools"] == [
        {
            "type": "function",
            "name": "weather",
            "description": "Says the weather.",
            "parameters": WEATHER.parameters,
            "strict": False,
        }
    ]
    assert body["tool_choice"] == "required"


async def test_tools_and_their_results_are_turns_of_the_chat_api() -> None:
    request = Request(TURNS, 64, tools=(WEATHER,), tool_choice="none")
    _, body = await answered(chat, request, chat_answer())
    function = {"name": "weather", "arguments": CALL.arguments}
    assert body["messages"][1:] == [
        {
            "role": "assistant",
            "content": "I ask.",
            "tool_calls": [{"id": "call_1", "type": "function", "function": function}],
        },
        {"role": "tool", "tool_call_id": "call_1", "content": "It rains."},
    ]
    described = {"name": "weather", "description": "Says the weather.", "parameters": WEATHER.parameters}
    assert body["tools"] == [{"type": "function", "function": described}]
    assert body["tool_choice"] == "none"


async def test_a_call_is_read_from_each_api_with_a_schema_beside_it() -> None:
    schema = {"type": "object", "properties": {"n": {"type": "integer"}}, "required": ["n"]}
    request = replace(ask(schema=schema), tools=(WEATHER,))
    item = {"type": "function_call", "id": "fc_1", "call_id": "call_1", "name": "weather", "arguments": CALL.arguments}
    answer, body = await answered(official("responses"), request, response_answer(output=[item]))
    assert (answer.finish, answer.calls, answer.text) == ("tools", (CALL,), "")
    assert body["text"]["format"]["type"] == "json_schema"
    said = chat_answer(None, finish_reason="tool_calls")
    function = {"name": "weather", "arguments": CALL.arguments}
    said["choices"][0]["message"]["tool_calls"] = [{"id": "call_1", "type": "function", "function": function}]
    answer, body = await answered(chat, request, said)
    assert (answer.finish, answer.calls, answer.text) == ("tools", (CALL,), "")
    assert body["response_format"]["type"] == "json_schema"


async def test_pictures_are_sent_inside_each_apis_turns() -> None:
    request = Request((Message("user", "What is this?", images=(replace(PICTURE, detail="low"),)),), 64)
    _, body = await answered(official("responses"), request, response_answer())
    text, picture = body["input"][0]["content"]
    assert text == {"type": "input_text", "text": "What is this?"}
    assert picture["image_url"].startswith(DATA_URL)
    assert (picture["type"], picture["detail"]) == ("input_image", "low")
    _, body = await answered(chat, request, chat_answer())
    text, picture = body["messages"][0]["content"]
    assert text == {"type": "text", "text": "What is this?"}
    assert picture["image_url"]["url"].startswith(DATA_URL)
    assert (picture["type"], picture["image_url"]["detail"]) == ("image_url", "low")


async def test_a_tools_picture_goes_through_the_responses_api() -> None:
    request = Request((*TURNS[:2], replace(TURNS[2], images=(PICTURE,))), 64, tools=(WEATHER,))
    _, body = await answered(official("responses"), request, response_answer())
    text, picture = body["input"][-1]["output"]
    assert (text["text"], picture["type"]) == ("It rains.", "input_image")
    seen = await OpenAIModel("gpt-4.1-mini").count_input(request)
    blind = await OpenAIModel("gpt-4.1-mini").count_input(Request(TURNS, 64, tools=(WEATHER,)))
    assert seen.tokens > blind.tokens
    async with ProviderServer(Reply.events(*events(Said("It rains.")))) as server:
        model = official("responses")(server.url)
        assert [delta.text async for delta in model.stream(request, Meter())]
        await model.aclose()


@pytest.mark.parametrize(
    ("make", "request_", "says"),
    [
        (chat, Request((Message("system", "x", images=(PICTURE,)),), 64), "user's turn"),
        (chat, Request((Message("tool", "x", images=(PICTURE,), answers="1"),), 64), "no pictures from tools"),
        (chat, Request((Message("tool", "x"),), 64), "Message.answers"),
    ],
)
async def test_what_cannot_be_said_is_refused_before_it_is_sent(
    make: Callable[[str], OpenAIModel], request_: Request, says: str
) -> None:
    meter = Meter()
    with pytest.raises(InvalidArgument, match=says):
        await make("http://127.0.0.1:9").complete(request_, meter)
    assert not meter.sent


async def test_a_model_that_cannot_see_says_so() -> None:
    model = OpenAIModel("m", base_url="http://127.0.0.1:9/v1", price=PRICE, context_window=99, images=False)
    with pytest.raises(InvalidArgument, match="cannot see"):
        await model.count_input(Request((Message("user", "x", images=(PICTURE,)),), 64))


# --- how much it thinks, and in which tier


@pytest.mark.parametrize(
    ("model_id", "tokens", "effort"),
    [
        ("gpt-5", 0, "minimal"),
        ("gpt-5.4", 0, "none"),
        ("o4-mini", 0, "low"),
        ("gpt-5", 1024, "low"),
        ("gpt-5", 8000, "medium"),
        ("gpt-5", 20_000, "high"),
        ("gpt-5", None, None),
        ("gpt-4.1", 1024, None),
    ],
)
async def test_reasoning_tokens_become_an_effort(model_id: str, tokens: int | None, effort: str | None) -> None:
    request = replace(ask(), reasoning_tokens=tokens)
    make = official("responses", model_id, price=PRICE, context_window=4096)
    _, body = await answered(make, request, response_answer())
    assert body.get("reasoning") == (None if effort is None else {"effort": effort})


@pytest.mark.parametrize(("tier", "sent"), [("standard", "default"), ("flex", "flex"), ("priority", "priority")])
async def test_a_tier_is_asked_for_and_priced(tier: Any, sent: str) -> None:
    make = official("responses", "gpt-5", tier=tier)
    answer, body = await answered(make, ask(), response_answer(service_tier=sent))
    assert body["service_tier"] == sent
    assert answer.price is None
    assert OpenAIModel("gpt-5", tier=tier).price == price_of("openai", "gpt-5", tier=tier)


@pytest.mark.parametrize(("api", "said"), [("responses", response_answer), ("chat", chat_answer)])
async def test_what_was_served_at_another_tier_has_that_tiers_price(api: Api, said: Callable[..., Json]) -> None:
    make = official(api, "gpt-5", tier="priority")
    answer, _ = await answered(make, ask(), said(service_tier="default"))
    assert answer.price is not None
    assert answer.price == TokenPrice.known("openai", "gpt-5")
    assert answer.price.cost(answer.usage) < OpenAIModel("gpt-5", tier="priority").price.cost(answer.usage)
    answer, _ = await answered(make, ask(), said(service_tier="ultrafast"))
    assert answer.price is None  # nobody prices it: booked at what was held


def test_a_tier_or_an_effort_that_a_server_lacks_is_a_mistake() -> None:
    with pytest.raises(Mistake, match="service tiers"):
        OpenAIModel("m", base_url="http://127.0.0.1:9/v1", price=PRICE, context_window=99, tier="flex")
    with pytest.raises(Mistake, match="knows no effort 'xhigh'"):
        OpenAIModel("m", profile=OLLAMA, price=PRICE, effort="xhigh")


async def test_requests_with_one_beginning_share_a_key_for_the_cache() -> None:
    keys: list[str | None] = []
    for system, text in (("Be brief.", "one"), ("Be brief.", "two"), ("Be long.", "one")):
        request = Request((Message("system", system), Message("user", text)), 64, fixed=1)
        _, body = await answered(official("responses"), request, response_answer())
        keys.append(body["prompt_cache_key"])
    assert keys[0] == keys[1] != keys[2]
    _, body = await answered(official("responses"), ask(), response_answer())
    assert "prompt_cache_key" not in body
    _, body = await answered(chat, Request((Message("user", "x"),), 64, fixed=1), chat_answer())
    assert "prompt_cache_key" not in body  # other servers may refuse what they do not know


# --- what is counted


def count_of(server: ProviderServer) -> list[str]:
    return [received.path for received in server.received]


async def test_openai_is_asked_for_its_count_once_a_request_and_only_if_wanted() -> None:
    request = replace(ask(schema={"type": "integer"}), tools=(WEATHER,))
    async with ProviderServer(Reply.json({"object": "response.input_tokens", "input_tokens": 321})) as server:
        counting = official("responses", counted=True)(server.url)
        counting.address = f"{server.url}/v1"
        first = await counting.count_input(request)
        again = await counting.count_input(replace(request, max_output_tokens=99))
        await counting.aclose()
    assert (first.tokens, first.exact, again) == (321, True, first)
    assert count_of(server) == ["/v1/responses/input_tokens"]
    assert server.body.keys() == {"model", "input", "text", "tools", "tool_choice"}
    bounded = await OpenAIModel("gpt-4.1-mini").count_input(request)
    assert not bounded.exact


@pytest.mark.parametrize("reply", [Reply.json({}, 404), Reply.json({"tokens": []}), Reply(b"no", 500)])
async def test_a_server_that_does_not_count_leaves_the_bound(reply: Reply) -> None:
    async with ProviderServer(reply) as server:
        model = OpenAIModel(
            "m", base_url=f"{server.url}/v1", api_key=KEY, profile=VLLM, price=PRICE, context_window=4096
        )
        counted = await model.count_input(ask())
        await model.aclose()
    assert count_of(server) == ["/tokenize"]
    assert not counted.exact
    assert counted.tokens > 20


async def test_tools_calls_and_pictures_are_in_the_bound() -> None:
    for model in (
        OpenAIModel("gpt-4.1"),
        OpenAIModel("m", base_url="http://127.0.0.1:9/v1", price=PRICE, context_window=9),
    ):
        plain = (await model.count_input(ask())).tokens
        assert (await model.count_input(replace(ask(), tools=(WEATHER,)))).tokens > plain + 30
        with_calls = replace(ask(), messages=(*ask().messages, *TURNS[1:]))
        assert (await model.count_input(with_calls)).tokens > plain + 20
        seen = replace(ask(), messages=(*ask().messages, Message("user", "", images=(PICTURE,))))
        assert (await model.count_input(seen)).tokens >= plain + 85
        broken = replace(ask(), messages=(Message("user", "", images=(Image(b"no", "image/png"),)),))
        with pytest.raises(InvalidArgument, match="whole file"):
            await model.count_input(broken)


# --- answers that are none


async def test_an_answer_without_choices_is_settled_by_its_usage() -> None:
    meter = Meter()
    with pytest.raises(InvalidOutput, match="did not end with an answer") as raised:
        await answered(chat, ask(), chat_answer(choices=[]), meter)
    assert raised.value.usage == meter.usage == Usage(12, 3)
    meter = Meter()
    with pytest.raises(OutcomeUnknown, match="does not say what the answer used"):
        await answered(chat, ask(), chat_answer(choices=[], usage=None), meter)
    assert meter.usage is None


async def test_a_cap_that_a_server_does_not_report_is_seen_by_the_count() -> None:
    usage = {"prompt_tokens": 12, "completion_tokens": 64, "total_tokens": 76}
    answer, _ = await answered(chat, ask(), chat_answer(usage=usage))
    assert answer.finish == "length"
    answer, _ = await answered(official("chat"), ask(), chat_answer(usage=usage))
    assert answer.finish == "stop"  # OpenAI says what it means


async def test_arguments_that_come_as_an_object_are_json_again() -> None:
    said = chat_answer(None, finish_reason="stop")
    function = {"name": "weather", "arguments": {"city": "Lyon"}}
    said["choices"][0]["message"]["tool_calls"] = [{"id": 0, "type": "function", "function": function}]
    answer, _ = await answered(chat, replace(ask(), tools=(WEATHER,)), said)
    assert (answer.finish, answer.calls) == ("tools", (ToolCall("0", "weather", '{"city": "Lyon"}'),))
    assert responses("http://127.0.0.1:9").api == "responses"
