"""The judge: a provider on loopback that speaks OpenAI's chat API, answers as scripted, and bills.

It bills a request when it arrives, whether or not anyone waits for the answer, as providers do.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import math
import re
import time
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from decimal import Decimal
from typing import Any, Final, Self, cast

from evals.overspend.scenarios import RATES, Answer, Scenario, Wave, input_tokens

Json = dict[str, Any]

CASE: Final = re.compile(r"Case ([\w-]+)/(\d+)")
"""Every scripted prompt says which wave it belongs to."""

UNSCRIPTED: Final = Wave(1, Answer(5), None)
"""What is answered to what nobody scripted: a library's own calls, which are billed all the same."""

WORDS: Final = (" one", " two", " three", " four", " five")
"""One token each. They take turns, for LiteLLM takes a stream that repeats itself for a fault."""

POLL_S: Final = 0.02
"""How often it is looked whether more has come."""

FOUND_OUT_S: Final = 2.0
"""How long a stream pauses for its reader to leave."""


@dataclass(slots=True)
class Bill:
    """What one request is charged. ``wanted_tokens`` is what the answer would have had without the request's cap."""

    model: str
    input_tokens: int
    cached_tokens: int
    output_tokens: int
    wanted_tokens: int

    @property
    def usd(self) -> Decimal:
        """At the provider's rates."""
        return RATES[self.model].usd(
            input_tokens=self.input_tokens, output_tokens=self.output_tokens, cached_tokens=self.cached_tokens
        )


class Provider:
    """Serves one scenario. ``bills`` has what was billed, in the order in which it came."""

    def __init__(self, scenario: Scenario) -> None:
        self.scenario = scenario
        self.bills: list[Bill] = []
        self._arrived = asyncio.Event()
        self._came: Counter[Wave] = Counter()
        self._last_arrival = 0.0
        self._server: asyncio.Server | None = None
        self._serving: dict[asyncio.Task[None], asyncio.StreamWriter] = {}

    @property
    def url(self) -> str:
        """The address to give as ``base_url``."""
        assert self._server is not None
        host, port = self._server.sockets[0].getsockname()[:2]
        return f"http://{host}:{port}/v1"

    @property
    def billed_usd(self) -> Decimal:
        """All bills together."""
        return sum((bill.usd for bill in self.bills), Decimal(0))

    async def gathered(self, wave: Wave, calls: int, *, quiet_s: float) -> None:
        """Wait until so many calls of a wave have come, or some have and no further one for `quiet_s`."""
        await self._arrived.wait()
        while self._came[wave] < calls and time.monotonic() < self._last_arrival + quiet_s:  # noqa: ASYNC110 # a deadline
            await asyncio.sleep(POLL_S)

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0, backlog=256)
        return self

    async def __aexit__(self, *_: object) -> None:
        assert self._server is not None
        self._server.close()
        for task, writer in list(self._serving.items()):
            task.cancel()
            writer.close()
        await asyncio.gather(*self._serving, return_exceptions=True)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._serving[task] = writer
        try:
            # The caller left, or the scenario is over: what came is billed, which is all that matters.
            with contextlib.suppress(ConnectionError, asyncio.CancelledError):
                while (received := await _read(reader)) is not None:
                    await self._answer(*received, reader, writer)
        finally:
            writer.close()
            del self._serving[task]

    async def _answer(self, path: str, body: Json, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if not path.endswith("/chat/completions") or body.get("model") not in RATES:
            missing: Json = {"error": {"message": "no such path or model", "type": "invalid_request_error"}}
            await _send(writer, missing, status="404 Not Found")
            return
        texts = [_text(message["content"]) for message in body["messages"]]
        wave = self._scripted(texts)
        answer = wave.answer
        bill = self._bill(body, texts, answer)
        batch = math.ceil(self._arrive(wave) / wave.together)
        await asyncio.sleep(answer.delay_s)
        await self.gathered(wave, batch * wave.together, quiet_s=answer.quiet_s)
        if not body.get("stream"):
            await _send(writer, _completion(bill))
            return
        async with _Stream(reader, writer) as stream:
            await self._stream(bill, answer, body, stream)

    def _scripted(self, texts: list[str]) -> Wave:
        for text in reversed(texts):
            case = CASE.search(text)
            if case and case[1] == self.scenario.name:
                return self.scenario.waves[int(case[2])]
        return UNSCRIPTED

    def _bill(self, body: Json, texts: list[str], answer: Answer) -> Bill:
        wanted = answer.output_tokens
        allowed = body.get("max_completion_tokens") or body.get("max_tokens") or wanted
        tokens = input_tokens(texts)
        bill = Bill(body["model"], tokens, min(answer.cached_tokens, tokens), min(wanted, allowed), wanted)
        self.bills.append(bill)
        return bill

    def _arrive(self, wave: Wave) -> int:
        """How many calls of the wave have come, this one among them."""
        self._came[wave] += 1
        self._last_arrival = time.monotonic()
        self._arrived.set()
        return self._came[wave]

    async def _stream(self, bill: Bill, answer: Answer, body: Json, stream: _Stream) -> None:
        for sent in range(bill.output_tokens):
            if sent == answer.pause_after and await stream.reader_left():
                if answer.billing == "generated":
                    bill.output_tokens = sent + answer.ahead
                return
            await stream.send(_chunk(bill, delta={"content": WORDS[sent % len(WORDS)]}))
        await stream.send(_chunk(bill, finish=_finish(bill)))
        if (body.get("stream_options") or {}).get("include_usage"):
            await stream.send(_chunk(bill, usage=True))


class _Stream:
    """Server-sent events, chunk by chunk."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer

    async def __aenter__(self) -> Self:
        head = "HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n"
        self._writer.write(head.encode())
        return self

    async def __aexit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if kind is None:
            await self._write(b"data: [DONE]\n\n")
            self._writer.write(b"0\r\n\r\n")
            await self._writer.drain()

    async def send(self, event: Mapping[str, Any]) -> None:
        """One event."""
        await self._write(f"data: {json.dumps(event)}\n\n".encode())

    async def reader_left(self) -> bool:
        """Whether the reader hangs up within a moment. It has no reason to send anything."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(FOUND_OUT_S):
                return await self._reader.read(1) == b""
        return False

    async def _write(self, data: bytes) -> None:
        self._writer.write(b"%x\r\n%s\r\n" % (len(data), data))
        await self._writer.drain()


def _text(content: object) -> str:
    """A message's content: a string, or parts of which only the texts count."""
    if isinstance(content, str):
        return content
    parts = cast("list[Json]", content or [])
    return "".join(part.get("text", "") for part in parts)


def _finish(bill: Bill) -> str:
    return "length" if bill.output_tokens < bill.wanted_tokens else "stop"


def _usage(bill: Bill) -> Json:
    return {
        "prompt_tokens": bill.input_tokens,
        "completion_tokens": bill.output_tokens,
        "total_tokens": bill.input_tokens + bill.output_tokens,
        "prompt_tokens_details": {"cached_tokens": bill.cached_tokens, "audio_tokens": 0},
        "completion_tokens_details": {"reasoning_tokens": 0, "audio_tokens": 0},
    }


def _envelope(bill: Bill, kind: str) -> Json:
    return {"id": "chatcmpl-scripted", "object": kind, "created": 1_790_000_000, "model": bill.model}


def _completion(bill: Bill) -> Json:
    text = "".join(WORDS[n % len(WORDS)] for n in range(bill.output_tokens))
    message = {"role": "assistant", "content": text}
    choice = {"index": 0, "message": message, "finish_reason": _finish(bill), "logprobs": None}
    return {**_envelope(bill, "chat.completion"), "choices": [choice], "usage": _usage(bill)}


def _chunk(bill: Bill, *, delta: Json | None = None, finish: str | None = None, usage: bool = False) -> Json:
    choice = {"index": 0, "delta": delta or {}, "finish_reason": finish, "logprobs": None}
    envelope = _envelope(bill, "chat.completion.chunk")
    return {**envelope, "choices": [], "usage": _usage(bill)} if usage else {**envelope, "choices": [choice]}


async def _send(writer: asyncio.StreamWriter, body: Json, *, status: str = "200 OK") -> None:
    data = json.dumps(body).encode()
    head = f"HTTP/1.1 {status}\r\ncontent-type: application/json\r\ncontent-length: {len(data)}\r\n\r\n"
    writer.write(head.encode() + data)
    await writer.drain()


async def _read(reader: asyncio.StreamReader) -> tuple[str, Json] | None:
    """One request: its path and body; None when the connection ends."""
    try:
        head = (await reader.readuntil(b"\r\n\r\n")).decode()
    except asyncio.IncompleteReadError:
        return None
    first, *lines = head.split("\r\n")
    headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines if line)}
    body = await reader.readexactly(int(headers.get("content-length", "0")))
    return first.split(" ")[1], json.loads(body or b"{}")
