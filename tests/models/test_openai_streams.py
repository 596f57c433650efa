"""Streams of OpenAI's two APIs over real sockets: what is known of them, however they end."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import aclosing
from dataclasses import dataclass, replace
from typing import Any, Final

import pytest

from agentbudget.errors import (
    InvalidOutput,
    ModelError,
    ModelUnavailable,
    OutcomeUnknown,
    RateLimited,
    RequestRejected,
)
from agentbudget.models.base import Completion, Meter, ToolCall
from agentbudget.models.openai import Api, OpenAIModel
from agentbudget.models.servers import LLAMA_SERVER, VLLM
from agentbudget.prices import ComputePrice
from agentbudget.usage import Usage
from tests.models.played.chat import chunks
from tests.models.played.responses import events
from tests.models.played.talker import Said
from tests.models.provider_server import Json, ProviderServer, Reply, frame
from tests.models.remote_fixtures import KEY, PRICE, ask, chat, responses

SAID: Final = Said("one two three four", output_tokens=4, input_tokens=12, model="gpt-4.1-mini-2025-04-14")


@dataclass(frozen=True, slots=True)
class Streaming:
    """One API as these tests see it: a model, a whole stream, and the number of its first piece's event."""

    api: Api
    model: Callable[[str], OpenAIModel]
    events: Callable[[Said], list[Json]]
    first_piece: int

    def reply(self, said: Said = SAID) -> Reply:
        return Reply.events(*self.events(said), done=self.api == "chat")


CHAT: Final = Streaming("chat", chat, chunks, 2)
RESPONSES: Final = Streaming("responses", responses, events, 5)
each_api = pytest.mark.parametrize("to", [CHAT, RESPONSES], ids=lambda to: to.api)


async def listen(
    make: Callable[[str], OpenAIModel], reply: Reply, meter: Meter, **asked: Any
) -> tuple[list[str], Completion | None, ModelError | None]:
    """The pieces that arrived, and the answer or the error at their end."""
    pieces: list[str] = []
    async with ProviderServer(reply) as server:
        model = make(server.url)
        try:
            async with aclosing(model.stream(ask(**asked), meter)) as stream:
                async for delta in stream:
                    pieces += [delta.text] if delta.text else []
                    if delta.completion is not None:
                        return pieces, delta.completion, None
        except ModelError as error:
            return pieces, None, error
        finally:
            await model.aclose()
    raise AssertionError("a stream ended with neither an answer nor an error")


@each_api
async def test_a_whole_stream_is_what_the_answer_in_one_piece_would_be(to: Streaming) -> None:
    said = replace(SAID, cached_tokens=8, reasoning_tokens=2)
    meter = Meter()
    pieces, answer, _ = await listen(to.model, to.reply(said), meter)
    assert answer is not None
    assert pieces == ["one", " two", " three", " four"]
    assert (answer.text, answer.finish, answer.served_by) == (SAID.text, "stop", SAID.model)
    assert answer.usage == meter.usage == Usage(12, 4, cached_tokens=8, reasoning_tokens=2)
    assert meter.presumed is None


@each_api
async def test_tools_come_through_a_stream_whole(to: Streaming) -> None:
    calls = (ToolCall("call_1", "weather", '{"city": "Lyon"}'), ToolCall("call_2", "time", "{}"))
    _, answer, _ = await listen(to.model, to.reply(replace(SAID, text="", calls=calls, finish="tools")), Meter())
    assert answer is not None
    assert (answer.finish, answer.calls, answer.text) == ("tools", calls, "")


def piece_of_a_call(arguments: str, **told: Any) -> Json:
    function = {"name": told.pop("name", None), "arguments": arguments}
    return {"model": "m", "choices": [{"delta": {"tool_calls": [{"function": function, **told}]}}]}


@pytest.mark.parametrize(
    "pieces",
    [
        [
            piece_of_a_call('{"n": ', index=0, id="a", name="f"),
            piece_of_a_call("1}", index=0),
            piece_of_a_call('{"n": ', index=0, id="b", name="f"),
            piece_of_a_call("2}", index=0),
        ],
        [piece_of_a_call('{"n": 1}', id="a", name="f"), piece_of_a_call('{"n": 2}', id="b", name="f")],
        [
            piece_of_a_call('{"n": ', index=0, id="a", name="f"),
            piece_of_a_call('{"n": ', index=1, id="b", name="f"),
            piece_of_a_call("1}", index=0, id="other"),
            piece_of_a_call("2}", index=1, id="another"),
        ],
    ],
    ids=["all under one index", "without an index", "an id for each piece"],
)
async def test_calls_are_told_apart_though_a_server_does_not_count_them(pieces: list[Json]) -> None:
    end: Json = {"model": "m", "choices": [{"delta": {}, "finish_reason": "tool_calls"}]}
    _, answer, _ = await listen(chat, Reply.events(*pieces, end, chunks(SAID)[-1], done=True), Meter())
    assert answer is not None
    assert answer.calls == (ToolCall("a", "f", '{"n": 1}'), ToolCall("b", "f", '{"n": 2}'))


async def test_nulls_and_text_in_parts_do_not_lose_an_answer_that_is_paid_for() -> None:
    thought = {"type": "thinking", "thinking": [{"type": "text", "text": "hm"}]}
    events: list[Json] = [
        {"model": None, "choices": None},
        {"model": "m", "choices": [{"delta": None, "finish_reason": None}]},
        {"model": "m", "choices": [{"delta": {"content": [thought, {"type": "text", "text": "one"}]}}]},
        {"model": "m", "choices": [{"delta": {"content": " two", "tool_calls": None}, "finish_reason": "stop"}]},
    ]
    _, answer, _ = await listen(chat, Reply.events(*events, chunks(SAID)[-1], done=True), Meter())
    assert answer is not None
    assert (answer.text, answer.usage) == ("one two", Usage(12, 4))


@each_api
async def test_an_answer_inside_a_wrapping_is_shown_when_it_is_whole(to: Streaming) -> None:
    said = replace(SAID, text='{"result": "bug"}')
    pieces, answer, _ = await listen(to.model, to.reply(said), Meter(), schema={"enum": ["bug", "billing"]})
    assert answer is not None
    assert pieces == [answer.text] == ['"bug"']


@each_api
@pytest.mark.parametrize("end", ["drop", "whole", "hang"])
async def test_a_stream_that_breaks_off_is_presumed_spent_after_its_pieces(to: Streaming, end: Any) -> None:
    meter = Meter()
    reply = to.reply().first(to.first_piece + 1, end=end)
    pieces, _, error = await listen(to.model, reply, meter, timeout_s=2.5 if end == "hang" else 60.0)
    assert pieces[:1] == ["one"]
    assert isinstance(error, OutcomeUnknown)
    assert "presumed spent" in str(error)
    assert meter.usage is None
    assert meter.presumed is not None  # nobody says that leaving OpenAI's stream ends the billing: all of the cap
    assert meter.presumed.output_tokens == 64
    assert meter.presumed.input_tokens >= 12


@each_api
@pytest.mark.parametrize("garbage", [b"data: {half a js\n\n", b"data: [1, 2]\n\n", b'data: {"usage": 7}\n\n'])
async def test_an_event_that_makes_no_sense_ends_the_stream_as_unknown(to: Streaming, garbage: bytes) -> None:
    meter = Meter()
    if to.api == "responses" and b"usage" in garbage:
        garbage = b'data: {"type": "response.completed", "response": {"status": "completed", "usage": 7}}\n\n'
    pieces, _, error = await listen(to.model, to.reply().first(to.first_piece, then=garbage), meter)
    assert pieces == ["one"] or pieces == []
    assert isinstance(error, OutcomeUnknown)
    assert (meter.usage, meter.sent) == (None, True)


@each_api
@pytest.mark.parametrize(
    ("said", "kind"),
    [
        ({"message": "Overloaded", "type": "server_error", "code": None}, ModelUnavailable),
        ({"message": "Slow down", "type": "tokens", "code": "rate_limit_exceeded"}, RateLimited),
        ({"message": "Too long", "type": "invalid_request_error", "code": "context"}, RequestRejected),
    ],
    ids=["server", "rate", "request"],
)
async def test_an_error_in_mid_stream_is_named_and_its_use_presumed(
    to: Streaming, said: Json, kind: type[ModelError]
) -> None:
    meter = Meter()
    event = {"type": "error", "error": said} if to.api == "responses" else {"error": said}
    pieces, _, error = await listen(to.model, to.reply().first(to.first_piece, then=frame(event)), meter)
    assert pieces[:1] in ([], ["one"])
    assert isinstance(error, kind)
    assert said["message"] in str(error)
    assert (meter.usage, meter.sent, error.usage) == (None, True, None)
    assert meter.presumed is not None


async def test_the_flat_error_event_of_the_responses_api_is_named_too() -> None:
    event = {"type": "error", "code": "server_error", "message": "went wrong", "param": None, "sequence_number": 3}
    _, _, error = await listen(responses, RESPONSES.reply().first(3, then=frame(event)), Meter())
    assert isinstance(error, ModelUnavailable)
    assert "server_error: went wrong" in str(error)


async def test_a_response_that_failed_in_a_stream_settles_what_it_used() -> None:
    told = events(SAID)
    failed = {**told[-1]["response"], "status": "failed", "error": {"code": "server_error", "message": "oh"}}
    reply = Reply.events(*told[:-1], {"type": "response.failed", "response": failed, "sequence_number": 99})
    meter = Meter()
    _, _, error = await listen(responses, reply, meter)
    assert isinstance(error, ModelUnavailable)
    assert error.usage == meter.usage == Usage(12, 4)


async def test_a_chat_stream_that_never_says_what_it_used_is_presumed_spent() -> None:
    reply = Reply.events(*chunks(SAID)[:-1], done=True)
    meter = Meter()
    pieces, _, error = await listen(chat, reply, meter)
    assert "".join(pieces) == SAID.text
    assert isinstance(error, OutcomeUnknown)
    assert meter.usage is None


@each_api
@pytest.mark.parametrize(
    "reply",
    [
        Reply(b"Welcome to the hotel!", 200, {"content-type": "text/html"}),
        Reply.json({"object": "list", "data": []}),
        Reply(b"", 200, {"content-type": "text/event-stream"}),
    ],
    ids=["a page", "JSON", "nothing"],
)
async def test_what_is_no_stream_at_all_is_unknown(to: Streaming, reply: Reply) -> None:
    _, _, error = await listen(to.model, reply, Meter())
    assert isinstance(error, OutcomeUnknown)


@each_api
@pytest.mark.parametrize(("status", "usage"), [(429, Usage()), (400, Usage()), (503, Usage()), (500, None)])
async def test_a_stream_that_is_refused_says_what_it_cost(to: Streaming, status: int, usage: Usage | None) -> None:
    meter = Meter()
    said = {"error": {"message": "no", "type": "x"}}
    _, _, error = await listen(to.model, Reply.json(said, status, retry_after="3"), meter)
    assert error is not None
    assert (error.status, error.usage, meter.usage) == (status, usage, usage)
    assert error.retry_after_s == 3.0


@each_api
async def test_an_answer_that_ignores_its_schema_is_invalid_but_settled(to: Streaming) -> None:
    meter = Meter()
    _, _, error = await listen(to.model, to.reply(), meter, schema={"type": "integer"})
    assert isinstance(error, InvalidOutput)
    assert error.usage == meter.usage == Usage(12, 4)


@each_api
async def test_a_stream_that_is_left_hangs_up(to: Streaming) -> None:
    meter = Meter()
    async with ProviderServer(to.reply().first(to.first_piece + 1, end="hang")) as server:
        model = to.model(server.url)
        async with aclosing(model.stream(ask(), meter)) as stream:
            assert (await anext(stream)).text == "one"
        await asyncio.wait_for(server.dropped.wait(), 60)
        await model.aclose()
    assert meter.presumed == Usage(meter.presumed.input_tokens if meter.presumed else 0, 64)


def served(profile: Any, price: Any = PRICE) -> Callable[[str], OpenAIModel]:
    def make(url: str) -> OpenAIModel:
        return OpenAIModel(
            "m", base_url=f"{url}/v1", api_key=KEY, profile=profile, price=price, context_window=4096, counted=False
        )

    return make


def with_timings(told: list[Json]) -> list[Json]:
    """The same chunks with what llama-server measured until each."""
    return [
        {**chunk, "timings": {"cache_n": 10, "prompt_n": 2, "prompt_ms": 5.0, "predicted_n": n, "predicted_ms": n * 10}}
        for n, chunk in enumerate(told)
    ]


async def test_a_server_that_counts_while_it_streams_is_believed_and_given_its_lead() -> None:
    asked: list[Usage] = []

    def gate(so_far: Usage) -> bool:
        asked.append(so_far)
        return len(asked) < 3

    meter = Meter(gate=gate)
    reply = Reply.events(*with_timings(chunks(SAID)), done=True)
    pieces, answer, _ = await listen(served(LLAMA_SERVER), reply, meter)
    assert answer is not None
    lead = LLAMA_SERVER.lead_tokens or 0
    assert asked == [Usage(12, n + lead, cached_tokens=10) for n in range(3)]
    assert (answer.finish, "".join(pieces)) == ("cut", answer.text)
    assert answer.usage == meter.presumed == asked[-1]
    assert meter.usage is None


async def test_usage_in_every_chunk_is_asked_for_and_read() -> None:
    told = [
        {**chunk, "usage": {"prompt_tokens": 12, "completion_tokens": n, "total_tokens": 12 + n}}
        for n, chunk in enumerate(chunks(SAID)[:-2])
    ]
    meter = Meter()
    async with ProviderServer(Reply.events(*told, done=True).first(4, end="drop")) as server:
        model = served(VLLM)(server.url)
        with pytest.raises(OutcomeUnknown):
            async for _ in model.stream(ask(), meter):
                pass
        await model.aclose()
    assert server.body["stream_options"] == {"include_usage": True, "continuous_usage_stats": True}
    assert meter.presumed == Usage(12, 3 + (VLLM.lead_tokens or 0))


async def test_what_is_paid_for_by_the_second_is_cut_when_its_time_is_over() -> None:
    price = ComputePrice("3600", 100, 100)  # pyright: ignore[reportArgumentType] - any number does
    meter = Meter()
    reply = Reply.events(*with_timings(chunks(SAID))).first(3, end="hang")
    pieces, answer, _ = await listen(served(LLAMA_SERVER, price), reply, meter, max_compute_s=0.3)
    assert answer is not None
    assert (answer.finish, answer.text) == ("budget", "".join(pieces))
    assert answer.usage == meter.usage
    assert answer.usage.compute_ns >= 0.25e9
    assert answer.usage.input_tokens == 12


async def test_what_is_paid_for_by_the_second_takes_the_servers_word_for_the_time() -> None:
    price = ComputePrice("3600", 100, 100)  # pyright: ignore[reportArgumentType] - any number does
    meter = Meter()
    async with ProviderServer(Reply.events(*with_timings(chunks(SAID)), done=True)) as server:
        model = served(LLAMA_SERVER, price)(server.url)
        answer = await model.complete(ask(), meter)
        await model.aclose()
    assert server.body["stream"] is True
    assert (answer.text, answer.usage.output_tokens) == (SAID.text, 4)
    assert answer.usage.compute_ns >= 5_000_000 + 6 * 10_000_000
    assert price.cost(answer.usage) > 0
