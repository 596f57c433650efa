"""What holds for every API's streams: however one ends, its error is ours and its use is known or bounded."""

from __future__ import annotations

import asyncio
import traceback
from collections.abc import AsyncIterator
from contextlib import aclosing
from dataclasses import replace

import pytest

from agentbudget.errors import (
    AuthenticationFailed,
    ModelError,
    ModelUnavailable,
    OutcomeUnknown,
    RateLimited,
    RequestRejected,
)
from agentbudget.models.base import Completion, Delta, Meter
from agentbudget.usage import Usage
from tests.models.played import WINDOW, played
from tests.models.played.talker import NUMBERS, Said
from tests.models.provider_server import ProviderServer, Reply
from tests.models.remote_fixtures import APIS, KEY, Api, ask

SAID = Said(NUMBERS, input_tokens=321, output_tokens=200, model="some-model")
CAP = 256

every_api = pytest.mark.parametrize("api", APIS, ids=[api.name for api in APIS])


async def broken(api: Api, reply: Reply, *, timeout_s: float = 20.0) -> tuple[ModelError, Meter, str, ProviderServer]:
    """How a stream failed, what is known of its use, and the text that came before."""
    meter, pieces = Meter(), list[str]()

    async def read(stream: AsyncIterator[Delta]) -> None:
        async for delta in stream:
            pieces.append(delta.text)

    async with ProviderServer(reply) as server:
        model = api.model(server.url)
        with pytest.raises(ModelError) as raised:
            await read(model.stream(ask(cap=CAP, timeout_s=timeout_s), meter))
        await model.aclose()
    return raised.value, meter, "".join(pieces), server


def bounded(meter: Meter, text: str) -> bool:
    """Whether what arrived is covered by what is presumed."""
    presumed = meter.presumed
    assert presumed is not None
    return meter.usage is None and len(text.split()) <= presumed.output_tokens <= CAP


@every_api
async def test_a_stream_tells_its_answer_and_its_usage(api: Api) -> None:
    meter = Meter()
    async with ProviderServer(api.dialect.stream(SAID)) as server:
        model = api.model(server.url)
        deltas = [delta async for delta in model.stream(ask(cap=CAP), meter)]
        await model.aclose()
    completion = deltas[-1].completion
    assert completion is not None
    assert (completion.text, completion.finish, completion.served_by) == (NUMBERS, "stop", "some-model")
    assert len(deltas) == 201  # each word as it came
    assert meter.usage == completion.usage == Usage(321, 200)
    assert meter.presumed is None


@every_api
@pytest.mark.parametrize(
    ("status", "kind", "usage"),
    [
        (400, RequestRejected, Usage()),
        (401, AuthenticationFailed, Usage()),
        (403, AuthenticationFailed, Usage()),
        (404, RequestRejected, Usage()),
        (413, RequestRejected, Usage()),
        (429, RateLimited, Usage()),
        (500, ModelUnavailable, None),
        (503, ModelUnavailable, Usage()),
        (529, ModelUnavailable, Usage()),
        (504, OutcomeUnknown, None),
    ],
)
async def test_a_stream_that_is_refused_fails_like_any_request(
    api: Api, status: int, kind: type[ModelError], usage: Usage | None
) -> None:
    refusal = Reply.json({"error": {"type": "some_error", "message": f"no: {KEY}"}}, status, retry_after="7")
    error, meter, text, server = await broken(api, refusal)
    assert type(error) is kind
    assert (error.usage, meter.usage, meter.sent, text) == (usage, usage, True, "")
    assert len(server.received) == 1
    assert KEY not in "".join(traceback.format_exception(error))
    if kind is not OutcomeUnknown:
        assert (error.status, error.retry_after_s) == (status, 7.0)


@every_api
async def test_a_server_that_never_answers_a_stream_leaves_it_unknown(api: Api) -> None:
    error, meter, text, _ = await broken(api, Reply(hang=True), timeout_s=1.5)
    assert isinstance(error, OutcomeUnknown)
    assert (error.usage, meter.sent, meter.usage, text) == (None, True, None, "")


@every_api
async def test_a_stream_that_stands_still_is_left_and_bounded(api: Api) -> None:
    stalled = api.dialect.stream(SAID).first(9, end="hang")
    error, meter, text, server = await broken(api, stalled, timeout_s=2.5)
    assert isinstance(error, OutcomeUnknown)
    assert text
    assert NUMBERS.startswith(text)
    assert bounded(meter, text)
    assert server.dropped.is_set()


@every_api
async def test_an_answer_that_is_whole_is_not_lost_with_the_connection(api: Api) -> None:
    meter = Meter()
    async with ProviderServer(replace(api.dialect.stream(SAID), end="drop")) as server:
        model = api.model(server.url)
        deltas = [delta async for delta in model.stream(ask(cap=CAP), meter)]
        await model.aclose()
    completion = deltas[-1].completion
    assert completion is not None
    assert (completion.text, completion.finish) == (NUMBERS, "stop")
    assert (meter.usage, meter.presumed) == (Usage(321, 200), None)


@every_api
@pytest.mark.parametrize("end", ["drop", "whole"])
async def test_a_stream_that_breaks_off_is_an_error_and_bounded(api: Api, end: str) -> None:
    assert end in ("drop", "whole")
    reply = api.dialect.stream(SAID).first(12, end="drop" if end == "drop" else "whole")
    error, meter, text, _ = await broken(api, reply)
    assert isinstance(error, OutcomeUnknown)
    assert error.retryable
    assert text
    assert bounded(meter, text)


@every_api
@pytest.mark.parametrize(
    "garbage",
    [
        pytest.param(b"event: message_delta\ndata: {half of it\n\n", id="half a JSON"),
        pytest.param(b'event: message_delta\ndata: ["no", "object"]\n\n', id="no object"),
        pytest.param(b"event: message_delta\ndata: \xff\xfe\n\n", id="no text"),
        pytest.param(
            b'event: message_delta\ndata: {"type": "message_delta", "choices": 3, "usage": {"output_tokens": -3}}\n\n',
            id="nonsense",
        ),
    ],
)
async def test_garbage_in_a_stream_is_an_error_and_bounded(api: Api, garbage: bytes) -> None:
    error, meter, text, _ = await broken(api, api.dialect.stream(SAID).first(12, then=garbage))
    assert isinstance(error, OutcomeUnknown)
    assert bounded(meter, text)


@every_api
@pytest.mark.parametrize("status", [200, 500])
async def test_a_stream_that_cannot_be_unpacked_is_unknown(api: Api, status: int) -> None:
    packed = {"content-type": "text/event-stream", "content-encoding": "gzip"}
    error, _, text, _ = await broken(api, Reply(b"no gzip at all", status, packed))
    assert isinstance(error, OutcomeUnknown)
    assert not text


@every_api
async def test_an_error_in_mid_stream_is_told_and_bounded(api: Api) -> None:
    error, meter, text, _ = await broken(api, api.dialect.stream(SAID).first(12, then=api.error_event))
    assert "Overloaded" in str(error)
    assert error.retryable
    assert error.usage is None
    assert bounded(meter, text)


@every_api
async def test_a_stream_of_another_kind_is_an_error(api: Api) -> None:
    other = Reply(b"Welcome to the hotel!", headers={"content-type": "text/html"})
    error, meter, text, _ = await broken(api, other)
    assert isinstance(error, OutcomeUnknown)
    assert (meter.sent, meter.usage, text) == (True, None, "")


@every_api
async def test_closing_a_stream_hangs_up(api: Api) -> None:
    meter = Meter()
    async with ProviderServer(api.dialect.stream(SAID).first(12, end="hang")) as server:
        model = api.model(server.url)
        async with aclosing(model.stream(ask(cap=CAP), meter)) as stream:
            first = await anext(stream)
        await asyncio.wait_for(server.dropped.wait(), 60)
        await model.aclose()
    assert bounded(meter, first.text)


@every_api
async def test_cancelling_a_stream_hangs_up(api: Api) -> None:
    meter, arrived = Meter(), asyncio.Event()
    async with ProviderServer(api.dialect.stream(SAID).first(12, end="hang")) as server:
        model = api.model(server.url)

        async def read() -> None:
            async for _ in model.stream(ask(cap=CAP), meter):
                arrived.set()

        reading = asyncio.create_task(read())
        await asyncio.wait_for(arrived.wait(), 60)
        reading.cancel()
        with pytest.raises(asyncio.CancelledError):
            await reading
        await asyncio.wait_for(server.dropped.wait(), 60)
        await model.aclose()
    assert bounded(meter, "number")


@every_api
async def test_a_stream_is_left_at_once_although_nobody_takes_its_pieces(api: Api) -> None:
    refused = asyncio.Event()

    def gate(so_far: Usage) -> bool:
        if so_far.output_tokens > 20:
            refused.set()
        return so_far.output_tokens <= 20

    async with ProviderServer(api.dialect.stream(SAID).first(40, end="hang")) as server:
        model = api.model(server.url)
        async with aclosing(model.stream(ask(cap=CAP), Meter(gate=gate))) as stream:
            first = await anext(stream)
            await asyncio.wait_for(refused.wait(), 60)
            await asyncio.wait_for(server.dropped.wait(), 60)  # and all the while, nothing more was taken
            rest = [delta async for delta in stream]
        await model.aclose()
    cut = rest[-1].completion
    assert isinstance(cut, Completion)
    assert cut.finish == "cut"
    assert first.text + "".join(delta.text for delta in rest) == cut.text
    assert NUMBERS.startswith(cut.text)


@every_api
async def test_a_model_streams_again_after_one_that_broke(api: Api) -> None:
    async with ProviderServer(api.dialect.stream(SAID).first(12, end="drop"), play=played(api.dialect)) as server:
        model = api.model(server.url)
        with pytest.raises(OutcomeUnknown):
            _ = [delta async for delta in model.stream(ask(cap=CAP), Meter())]
        deltas = [delta async for delta in model.stream(ask(cap=16), Meter())]
        await model.aclose()
    assert WINDOW > CAP
    assert deltas[-1].completion is not None
