"""OpenAI's APIs: the request that is sent, the usage that is read, the answers that end in other ways."""

from __future__ import annotations

from collections.abc import Callable
from math import exp
from typing import Any, Literal

import pytest

from agentbudget.errors import (
    InvalidOutput,
    ModelError,
    ModelUnavailable,
    OutcomeUnknown,
    RateLimited,
    RequestRejected,
    SchemaUnsupported,
    UnknownModel,
    UnknownPrice,
)
from agentbudget.models.base import Completion, Meter, Request
from agentbudget.models.openai import OpenAIModel
from agentbudget.usage import Usage
from tests.models.provider_server import ProviderServer, Reply
from tests.models.remote_fixtures import KEY, PRICE, ask, chat, chat_answer, response_answer, responses

MapSchema = {"type": "object", "additionalProperties": {"type": "integer"}}


async def complete(
    make: Callable[[str], OpenAIModel], request: Request, reply: Reply, meter: Meter | None = None
) -> tuple[Completion, ProviderServer]:
    async with ProviderServer(reply) as server:
        model = make(server.url)
        try:
            return await model.complete(request, meter or Meter()), server
        finally:
            await model.aclose()


def as_official(api: Literal["responses", "chat"], model_id: str, **more: Any) -> Callable[[str], OpenAIModel]:
    """A model that believes to speak to OpenAI itself, though its requests go to the test's server."""

    def make(url: str) -> OpenAIModel:
        model = OpenAIModel(model_id, api=api, api_key=KEY, **more)
        model._base_url = f"{url}/v1"  # pyright: ignore[reportPrivateUsage] - the test's only way to stay on loopback
        return model

    return make


async def test_a_responses_request_is_capped_private_and_at_the_tier_that_is_priced() -> None:
    make = as_official("responses", "gpt-4.1-mini")
    _, server = await complete(make, ask("hi", temperature=0.2, seed=7), Reply.json(response_answer()))
    assert server.received[0].path == "/v1/responses"
    assert server.body == {
        "model": "gpt-4.1-mini",
        "input": [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "hi"}],
        "max_output_tokens": 64,
        "temperature": 0.2,
        "service_tier": "default",
        "store": False,
    }
    assert server.received[0].headers["authorization"] == f"Bearer {KEY}"


async def test_a_chat_request_to_openai_has_its_words() -> None:
    make = as_official("chat", "gpt-4.1-mini")
    _, server = await complete(make, ask("hi", stop=("END",), seed=7), Reply.json(chat_answer()))
    assert server.body == {
        "model": "gpt-4.1-mini",
        "messages": [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "hi"}],
        "max_completion_tokens": 64,
        "temperature": 0.0,
        "seed": 7,
        "stop": ["END"],
        "service_tier": "default",
    }


async def test_a_chat_request_to_another_server_has_words_that_all_know() -> None:
    _, server = await complete(chat, ask("hi"), Reply.json(chat_answer()))
    assert server.body["max_tokens"] == 64
    assert not server.body.keys() & {"max_completion_tokens", "service_tier", "store"}


@pytest.mark.parametrize("request_", [ask(cap=8), ask(stop=("END",))], ids=["small cap", "stop sequence"])
async def test_what_the_responses_api_lacks_goes_to_the_chat_api(request_: Request) -> None:
    make = as_official("responses", "gpt-4.1-mini")
    completion, server = await complete(make, request_, Reply.json(chat_answer()))
    assert server.received[0].path == "/v1/chat/completions"
    assert completion.text == "hi"


@pytest.mark.parametrize(("api", "answer"), [("responses", response_answer), ("chat", chat_answer)])
async def test_a_reasoning_model_gets_effort_but_no_temperature(
    api: Literal["responses", "chat"], answer: Callable[[], dict[str, Any]]
) -> None:
    make = as_official(api, "gpt-5-mini", effort="low", probabilities=True)
    _, server = await complete(make, ask(), Reply.json(answer()))
    assert not server.body.keys() & {"temperature", "seed", "logprobs", "include"}
    assert server.body.get("reasoning_effort") or server.body["reasoning"]["effort"] == "low"


@pytest.mark.parametrize(
    ("model_id", "reasons"),
    [
        ("gpt-4.1", False),
        ("gpt-4o-mini", False),
        ("gpt-5", True),
        ("gpt-5.6-sol", True),
        ("gpt-5-chat-latest", False),
        ("o4-mini", True),
        ("ft:gpt-4o:acme::1", False),
    ],
)
def test_a_reasoning_model_is_known_by_its_id(model_id: str, reasons: bool) -> None:
    assert OpenAIModel(model_id, price=PRICE, context_window=1000).reasons is reasons


async def test_responses_usage_keeps_cache_and_reasoning_inside_the_totals() -> None:
    usage = {
        "input_tokens": 100,
        "input_tokens_details": {"cached_tokens": 60, "cache_write_tokens": 30},
        "output_tokens": 50,
        "output_tokens_details": {"reasoning_tokens": 40},
        "total_tokens": 150,
    }
    completion, _ = await complete(responses, ask(), Reply.json(response_answer(usage=usage)))
    assert completion.usage == Usage(100, 50, cached_tokens=60, cache_write_tokens=30, reasoning_tokens=40)


@pytest.mark.parametrize(
    ("usage", "expected"),
    [
        ({"prompt_tokens": 9, "completion_tokens": 2}, Usage(9, 2)),
        ({"prompt_tokens": 9, "completion_tokens": 2, "total_tokens": 11}, Usage(9, 2)),
        (
            {"prompt_tokens": 9, "completion_tokens": 2, "total_tokens": 31, "prompt_tokens_details": None,
             "completion_tokens_details": {"reasoning_tokens": 20}},
            Usage(9, 22, reasoning_tokens=20),
        ),
        (
            {"prompt_tokens": 9, "completion_tokens": 2, "total_tokens": None,
             "completion_tokens_details": {"reasoning_tokens": 20}},
            Usage(9, 22, reasoning_tokens=20),
        ),
        (
            {"prompt_tokens": 9, "completion_tokens": 2, "prompt_tokens_details": {"cached_tokens": 10}},
            Usage(19, 2, cached_tokens=10),
        ),
    ],
    ids=["bare", "total", "reasoning outside the output", "the same, no total", "cache outside the input"],
)  # fmt: skip
async def test_chat_usage_is_read_as_different_servers_report_it(usage: dict[str, Any], expected: Usage) -> None:
    completion, _ = await complete(chat, ask(), Reply.json(chat_answer(usage=usage)))
    assert completion.usage == expected


@pytest.mark.parametrize(
    ("make", "answer", "usage"),
    [
        (responses, response_answer, None),
        (responses, response_answer, {"input_tokens": 9, "output_tokens": None}),
        (chat, chat_answer, None),
        (chat, chat_answer, {}),
        (chat, chat_answer, {"prompt_tokens": None, "completion_tokens": 2}),
    ],
)
async def test_an_answer_that_hides_its_usage_is_presumed_spent(
    make: Callable[[str], OpenAIModel], answer: Callable[..., dict[str, Any]], usage: dict[str, Any] | None
) -> None:
    meter = Meter()
    with pytest.raises(OutcomeUnknown, match="does not say what the answer used"):
        await complete(make, ask(), Reply.json(answer(usage=usage)), meter)
    assert (meter.sent, meter.usage) == (True, None)


async def test_usage_that_is_no_count_is_not_believed() -> None:
    usage = {"prompt_tokens": -9, "completion_tokens": 2}
    with pytest.raises(OutcomeUnknown, match="made no sense"):
        await complete(chat, ask(), Reply.json(chat_answer(usage=usage)))


@pytest.mark.parametrize(
    ("changes", "finish"),
    [
        ({}, "stop"),
        ({"status": "incomplete", "incomplete_details": {"reason": "max_output_tokens"}}, "length"),
        ({"status": "incomplete", "incomplete_details": {"reason": "content_filter"}}, "refused"),
        (
            {"output": [{"type": "message", "content": [{"type": "refusal", "refusal": "I can't."}]}]},
            "refused",
        ),
    ],
    ids=["completed", "length", "filtered", "refused"],
)
async def test_a_response_status_becomes_a_finish(changes: dict[str, Any], finish: str) -> None:
    completion, _ = await complete(responses, ask(), Reply.json(response_answer(**changes)))
    assert completion.finish == finish
    assert completion.text in ("hi", "I can't.")


@pytest.mark.parametrize(
    ("reason", "finish"),
    [
        ("stop", "stop"),
        ("length", "length"),
        ("content_filter", "refused"),
        ("eos", "stop"),  # Together
        ("eos_token", "stop"),  # TGI, before 2.3
        ("COMPLETE", "stop"),  # Cohere
        ("MAX_TOKENS", "length"),
    ],
)
async def test_a_finish_reason_becomes_a_finish(reason: str, finish: str) -> None:
    completion, _ = await complete(chat, ask(), Reply.json(chat_answer(finish_reason=reason)))
    assert completion.finish == finish


async def test_a_chat_refusal_is_its_text() -> None:
    answer = chat_answer(None)
    answer["choices"][0]["message"]["refusal"] = "I can't."
    completion, _ = await complete(chat, ask(), Reply.json(answer))
    assert (completion.text, completion.finish) == ("I can't.", "refused")


@pytest.mark.parametrize(
    ("make", "answer"),
    [
        (responses, response_answer(status="in_progress")),
        (chat, chat_answer(finish_reason="tool_calls")),
        (chat, chat_answer(finish_reason="abort")),
    ],
    ids=["responses", "chat", "a word that nobody knows"],
)
async def test_an_end_that_is_no_answer_is_settled_and_invalid(
    make: Callable[[str], OpenAIModel], answer: dict[str, Any]
) -> None:
    meter = Meter()
    with pytest.raises(InvalidOutput, match="did not end with an answer") as raised:
        await complete(make, ask(), Reply.json(answer), meter)
    assert raised.value.usage == meter.usage == Usage(12, 3)


@pytest.mark.parametrize(
    ("code", "kind"),
    [("server_error", ModelUnavailable), ("rate_limit_exceeded", RateLimited), ("invalid_prompt", RequestRejected)],
)
async def test_a_failed_response_says_why_and_settles_what_it_used(code: str, kind: type[ModelError]) -> None:
    meter = Meter()
    answer = response_answer(status="failed", error={"code": code, "message": "went wrong"}, output=[])
    with pytest.raises(kind, match=f"{code}: went wrong") as raised:
        await complete(responses, ask(), Reply.json(answer), meter)
    assert raised.value.usage == meter.usage == Usage(12, 3)


async def test_structured_output_is_asked_for_in_each_api_and_unwrapped() -> None:
    schema = {"enum": ["billing", "bug"], "type": "string", "title": "Team"}
    text = '{"result": "bug"}'
    strict = {
        "type": "object",
        "properties": {"result": {"enum": ["billing", "bug"], "type": "string"}},
        "required": ["result"],
        "additionalProperties": False,
    }
    completion, server = await complete(responses, ask(schema=schema), Reply.json(response_answer(text)))
    assert completion.text == '"bug"'
    sent = {"name": "answer", "schema": strict, "strict": True}
    assert server.body["text"] == {"format": {"type": "json_schema", **sent}}
    completion, server = await complete(chat, ask(schema=schema), Reply.json(chat_answer(text)))
    assert completion.text == '"bug"'
    assert server.body["response_format"] == {"type": "json_schema", "json_schema": sent}


async def test_an_answer_that_ignores_the_schema_is_invalid_but_settled() -> None:
    meter = Meter()
    with pytest.raises(InvalidOutput, match="did not keep to the schema"):
        await complete(chat, ask(schema={"type": "integer"}), Reply.json(chat_answer("7")), meter)
    assert meter.usage == Usage(12, 3)


async def test_a_map_goes_to_servers_with_a_grammar_and_not_to_openai() -> None:
    completion, server = await complete(chat, ask(schema=MapSchema), Reply.json(chat_answer('{"a": 1}')))
    assert completion.text == '{"a": 1}'
    assert server.body["response_format"]["json_schema"]["schema"] == MapSchema
    meter = Meter()
    with pytest.raises(SchemaUnsupported, match="free keys"):
        await as_official("chat", "gpt-4.1")("http://127.0.0.1:9").complete(ask(schema=MapSchema), meter)
    assert not meter.sent


async def test_probabilities_become_a_confidence() -> None:
    logprobs: dict[str, Any] = {"content": [{"token": "h", "logprob": -0.1}, {"token": "i", "logprob": -0.3}]}
    answer = chat_answer()
    answer["choices"][0]["logprobs"] = logprobs

    def make(url: str) -> OpenAIModel:
        return OpenAIModel("m", base_url=f"{url}/v1", price=PRICE, context_window=1000, probabilities=True)

    completion, server = await complete(make, ask(), Reply.json(answer))
    assert server.body["logprobs"] is True
    assert completion.confidence == pytest.approx(exp(-0.2))
    response = response_answer()
    response["output"][1]["content"][0]["logprobs"] = logprobs["content"]
    completion, server = await complete(
        as_official("responses", "gpt-4.1", probabilities=True), ask(), Reply.json(response)
    )
    assert server.body["include"] == ["message.output_text.logprobs"]
    assert completion.confidence == pytest.approx(exp(-0.2))


async def test_without_probabilities_confidence_is_unknown() -> None:
    completion, server = await complete(chat, ask(), Reply.json(chat_answer()))
    assert completion.confidence is None
    assert "logprobs" not in server.body


async def test_the_input_is_counted_in_the_models_own_vocabulary_only_at_openai() -> None:
    own = OpenAIModel("gpt-4.1", price=PRICE, context_window=1000)
    other = OpenAIModel("gpt-4.1", base_url="http://127.0.0.1:9/v1", price=PRICE, context_window=1000)
    request = ask("The quick brown fox jumps over the lazy dog.")
    counted, bounded = await own.count_input(request), await other.count_input(request)
    assert not counted.exact
    assert not bounded.exact
    assert 13 < counted.tokens < bounded.tokens
    assert (own.count_text("hello world"), other.count_text("hello world")) == (2, 15)


def test_openai_itself_is_asked_through_responses_and_others_through_chat(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("OPENAI_BASE_URL", raising=False)
    official = OpenAIModel("gpt-4.1-mini")
    assert (official.api, official.place, official.name) == ("responses", "remote", "openai:gpt-4.1-mini")
    assert official.context_window == 1_000_000
    monkeypatch.setenv("OPENAI_BASE_URL", "http://localhost:8080/v1")
    other = OpenAIModel("qwen", price=PRICE, context_window=4096)
    assert (other.api, other.place, other.address) == ("chat", "local", "http://localhost:8080/v1")
    assert official.fingerprint != other.fingerprint


def test_a_model_that_nobody_prices_or_knows_is_refused() -> None:
    with pytest.raises(UnknownPrice, match="openai:qwen"):
        OpenAIModel("qwen", base_url="http://127.0.0.1:9/v1")
    with pytest.raises(UnknownModel, match="context_window"):
        OpenAIModel("qwen", base_url="http://127.0.0.1:9/v1", price=PRICE)
