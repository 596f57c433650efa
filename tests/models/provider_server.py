"""A provider on loopback: a real HTTP server that gives the answers, and the failures, that a test scripts."""

from __future__ import annotations

import asyncio
import json
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Final, Literal, Self

Json = dict[str, Any]
End = Literal["whole", "drop", "hang"]

DONE: Final = b"data: [DONE]\n\n"
"""How a stream of OpenAI's chat API ends."""


def frame(event: Json) -> bytes:
    """One server-sent event, named by its type where it has one."""
    name = f"event: {event['type']}\n" if "type" in event else ""
    return f"{name}data: {json.dumps(event)}\n\n".encode()


@dataclass(frozen=True, slots=True)
class Reply:
    """One answer, in one body or (``frames``) in chunks, with a ``pause_s`` before each.

    ``hang``: never answer. ``cut``: close the connection after so many bytes of the body. ``end`` says what follows the
    last chunk: the end that HTTP knows, a dropped connection, or nothing for as long as the client waits.
    """

    body: bytes = b""
    status: int = 200
    headers: Mapping[str, str] = field(default_factory=dict[str, str])
    hang: bool = False
    cut: int | None = None
    frames: tuple[bytes, ...] | None = None
    pause_s: float = 0.0
    end: End = "whole"

    @classmethod
    def json(cls, body: object, status: int = 200, **headers: str) -> Self:
        """A JSON answer; header names are written with underscores."""
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        return cls(json.dumps(body).encode(), status, {"content-type": "application/json", **named})

    @classmethod
    def events(cls, *events: Json, done: bool = False) -> Self:
        """A stream of server-sent events, a chunk each; with `done`, the last line that OpenAI's chat API sends."""
        frames = (*map(frame, events), *((DONE,) if done else ()))
        return cls(headers={"content-type": "text/event-stream"}, frames=frames)

    def first(self, count: int, *, end: End = "whole", then: bytes = b"") -> Reply:
        """The same stream, given up after `count` chunks (negative: so many before its end), and `then`."""
        assert self.frames is not None
        return replace(self, frames=(*self.frames[:count], *((then,) if then else ())), end=end)

    def slowly(self, pause_s: float) -> Reply:
        """The same stream with a pause before each chunk."""
        return replace(self, pause_s=pause_s)


@dataclass(frozen=True, slots=True)
class Received:
    """One request as it arrived."""

    path: str
    headers: dict[str, str]
    body: Json


class ProviderServer:
    """Serves scripted replies in order, then what `play` answers to a request.

    ``received`` has every request that came; ``dropped`` is set when a client hangs up without its whole answer;
    ``frames_sent`` counts the chunks of all streams that were written.
    """

    def __init__(self, *replies: Reply, play: Callable[[Received], Reply] | None = None) -> None:
        self.replies = deque(replies)
        self.received: list[Received] = []
        self.frames_sent = 0
        self.arrived = asyncio.Event()
        self.dropped = asyncio.Event()
        self._play = play
        self._server: asyncio.Server | None = None
        self._serving: dict[asyncio.Task[None], asyncio.StreamWriter] = {}

    @property
    def url(self) -> str:
        assert self._server is not None
        host, port = self._server.sockets[0].getsockname()[:2]
        return f"http://{host}:{port}"

    @property
    def body(self) -> Json:
        """The only request's body: fails the test if there were more, or none."""
        assert len(self.received) == 1
        return self.received[0].body

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        return self

    async def __aexit__(self, *_: object) -> None:
        assert self._server is not None
        self._server.close()
        for writer in self._serving.values():
            writer.close()  # what is being read ends, and so does its task
        await asyncio.gather(*self._serving)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._serving[task] = writer
        try:
            while (received := await _read(reader)) is not None:
                self.received.append(received)
                self.arrived.set()
                if not await self._answer(self._reply(received), reader, writer):
                    return
        except ConnectionError:
            self.dropped.set()
        finally:
            writer.close()
            del self._serving[task]

    def _reply(self, received: Received) -> Reply:
        if self.replies or self._play is None:
            return self.replies.popleft()
        return self._play(received)

    async def _answer(self, reply: Reply, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bool:
        """Whether the connection stays open."""
        if reply.hang:
            return await self._wait_for_hang_up(reader)
        headers = "".join(f"{name}: {value}\r\n" for name, value in reply.headers.items())
        size = f"content-length: {len(reply.body)}" if reply.frames is None else "transfer-encoding: chunked"
        writer.write(f"HTTP/1.1 {reply.status} Scripted\r\n{size}\r\n{headers}\r\n".encode())
        if reply.frames is not None:
            return await self._stream(reply, reader, writer)
        writer.write(reply.body[: reply.cut])
        await writer.drain()
        return reply.cut is None

    async def _stream(self, reply: Reply, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bool:
        for chunk in reply.frames or ():
            await asyncio.sleep(reply.pause_s)
            if reader.at_eof():
                self.dropped.set()
                return False
            writer.write(f"{len(chunk):x}\r\n".encode() + chunk + b"\r\n")
            await writer.drain()
            self.frames_sent += 1
        if reply.end == "hang":
            return await self._wait_for_hang_up(reader)
        if reply.end == "whole":
            writer.write(b"0\r\n\r\n")
            await writer.drain()
        return reply.end == "whole"

    async def _wait_for_hang_up(self, reader: asyncio.StreamReader) -> bool:
        await reader.read()
        self.dropped.set()
        return False


async def _read(reader: asyncio.StreamReader) -> Received | None:
    try:
        head = (await reader.readuntil(b"\r\n\r\n")).decode()
    except (asyncio.IncompleteReadError, ConnectionResetError):
        return None
    first, *lines = head.split("\r\n")
    headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines if line)}
    body = await reader.readexactly(int(headers.get("content-length", "0")))
    return Received(first.split(" ")[1], headers, json.loads(body or b"{}"))
