"""Shipped fakes for tests of code that uses agentbudget: a model with a script, a clock that stands still."""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import AsyncGenerator, Callable, Iterable
from dataclasses import dataclass, field
from typing import Final

from agentbudget.errors import Mistake
from agentbudget.models.base import (
    Completion,
    Delta,
    Finish,
    InputCount,
    Meter,
    Place,
    Price,
    Request,
    ToolCall,
)
from agentbudget.prices import TokenPrice
from agentbudget.telemetry import capture as capture_spans
from agentbudget.usage import Usage

__all__ = ["ManualClock", "ScriptedModel", "ScriptedReply", "capture_spans"]


class ManualClock:
    """Nanoseconds that pass only when told to."""

    def __init__(self, start_ns: int = 1_700_000_000_000_000_000) -> None:
        self.now_ns = start_ns

    def __call__(self) -> int:
        return self.now_ns

    def advance(self, seconds: float) -> None:
        """Let time pass."""
        self.now_ns += int(seconds * 1e9)


@dataclass(frozen=True, slots=True)
class ScriptedReply:
    """What a `ScriptedModel` does once: answer with `text`, or raise `error`, sent or not, with usage or without.

    ``confidence`` is how sure it says it is; None: it does not say."""

    text: str = ""
    error: BaseException | None = None
    sent: bool = True
    usage: Usage | None = None
    finish: Finish = "stop"
    delay_s: float = 0.0
    calls: tuple[ToolCall, ...] = ()
    confidence: float | None = 0.9


IMAGE_TOKENS: Final = 100


def _count(request: Request) -> int:
    turns = sum(len(message.text.split()) + 1 + len(message.images) * IMAGE_TOKENS for message in request.messages)
    tools = (f"{tool.name} {tool.description} {json.dumps(dict(tool.parameters))}" for tool in request.tools)
    return turns + sum(len(tool.split()) for tool in tools)


@dataclass
class ScriptedModel:
    """A `Model` that answers from a script, in order, or by a function of the request.

    A word is a token, a picture 100. `requests` records what it was asked.
    It raises ``AssertionError`` when the script runs out.
    """

    script: Iterable[str | ScriptedReply] | Callable[[Request], str | ScriptedReply]
    name: str = "scripted:model"
    provider: str = "scripted"
    place: Place = "local"
    price: Price = field(default_factory=lambda: TokenPrice.custom(input_usd_per_mtok="1", output_usd_per_mtok="10"))
    context_window: int = 8192
    fingerprint: str = "scripted"
    stream_lead_tokens: int | None = 0
    requests: list[Request] = field(default_factory=list[Request])
    closed: bool = False

    def __post_init__(self) -> None:
        if isinstance(self.script, str):  # its letters would be the replies
            raise Mistake(f"a script is a list of replies: write ScriptedModel([{self.script!r}])")
        self._replies = None if callable(self.script) else iter(self.script)

    async def count_input(self, request: Request) -> InputCount:
        """Words, those of tools too, plus one a message."""
        return InputCount(_count(request), exact=True)

    async def complete(self, request: Request, meter: Meter) -> Completion:
        """The script's next reply."""
        reply = await self._begin(request, meter)
        if reply.error is not None:
            if reply.usage is not None:
                meter.used(reply.usage)
            raise reply.error
        usage = reply.usage or Usage(_count(request), min(len(reply.text.split()), request.max_output_tokens))
        meter.used(usage)
        return self._completion(reply, reply.text, reply.finish, usage)

    async def stream(self, request: Request, meter: Meter) -> AsyncGenerator[Delta, None]:
        """The script's next reply, word by word; an error of the script comes after its text."""
        reply = await self._begin(request, meter)
        text, finish, usage = "", reply.finish, Usage(_count(request))
        for word in re.findall(r"\S+\s*", reply.text)[: request.max_output_tokens]:
            if not meter.may_go_on(usage + Usage(output_tokens=1 + (self.stream_lead_tokens or 0))):
                finish = "cut"
                break
            usage += Usage(output_tokens=1)
            meter.used(usage)
            text += word
            yield Delta(word)
        if reply.error is not None and finish != "cut":
            meter.usage, meter.presumed = reply.usage, usage
            raise reply.error
        if reply.usage is not None and finish != "cut":
            usage = reply.usage
        meter.used(usage)
        yield Delta(completion=self._completion(reply, text, finish, usage))

    async def _begin(self, request: Request, meter: Meter) -> ScriptedReply:
        self.requests.append(request)
        reply = self._next(request)
        if reply.sent:
            meter.leaving()
        await asyncio.sleep(reply.delay_s)
        return reply

    def _completion(self, reply: ScriptedReply, text: str, finish: Finish, usage: Usage) -> Completion:
        return Completion(text, finish, usage, served_by=self.name, confidence=reply.confidence, calls=reply.calls)

    async def aclose(self) -> None:
        """Note that it was closed."""
        self.closed = True

    def _next(self, request: Request) -> ScriptedReply:
        if self._replies is None:
            assert callable(self.script)
            reply = self.script(request)
        else:
            reply = next(self._replies, None)
            if reply is None:
                raise AssertionError(f"{self.name}: the script has no reply for {request.messages[-1].text!r}")
        return ScriptedReply(reply) if isinstance(reply, str) else reply
