"""A provider on loopback: a real HTTP server that gives the answers, and the failures, that a test scripts."""

from __future__ import annotations

import asyncio
import json
from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Self

Json = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Reply:
    """One scripted answer. ``hang``: never answer. ``cut``: close the connection after so many bytes of the body."""

    body: bytes = b""
    status: int = 200
    headers: Mapping[str, str] = field(default_factory=dict[str, str])
    hang: bool = False
    cut: int | None = None

    @classmethod
    def json(cls, body: object, status: int = 200, **headers: str) -> Self:
        """A JSON answer; header names are written with underscores."""
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        return cls(json.dumps(body).encode(), status, {"content-type": "application/json", **named})

    @classmethod
    def events(cls, *events: Json) -> Self:
        """A stream of server-sent events."""
        lines = (f"event: {event['type']}\ndata: {json.dumps(event)}\n\n" for event in events)
        return cls("".join(lines).encode(), headers={"content-type": "text/event-stream"})


@dataclass(frozen=True, slots=True)
class Received:
    """One request as it arrived."""

    path: str
    headers: dict[str, str]
    body: Json


class ProviderServer:
    """Serves scripted replies in order.

    ``received`` has every request that came; ``dropped`` is set when a client hangs up without its answer.
    """

    def __init__(self, *replies: Reply) -> None:
        self.replies = deque(replies)
        self.received: list[Received] = []
        self.arrived = asyncio.Event()
        self.dropped = asyncio.Event()
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
                if not await self._answer(self.replies.popleft(), reader, writer):
                    return
        finally:
            writer.close()
            del self._serving[task]

    async def _answer(self, reply: Reply, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bool:
        """Whether the connection stays open."""
        if reply.hang:
            await reader.read()  # returns when the client hangs up
            self.dropped.set()
            return False
        headers = "".join(f"{name}: {value}\r\n" for name, value in reply.headers.items())
        head = f"HTTP/1.1 {reply.status} Scripted\r\ncontent-length: {len(reply.body)}\r\n{headers}\r\n"
        writer.write(head.encode() + reply.body[: reply.cut])
        await writer.drain()
        return reply.cut is None


async def _read(reader: asyncio.StreamReader) -> Received | None:
    try:
        head = (await reader.readuntil(b"\r\n\r\n")).decode()
    except (asyncio.IncompleteReadError, ConnectionResetError):
        return None
    first, *lines = head.split("\r\n")
    headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines if line)}
    body = await reader.readexactly(int(headers.get("content-length", "0")))
    return Received(first.split(" ")[1], headers, json.loads(body or b"{}"))
