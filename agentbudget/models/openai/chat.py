"""The chat completions API, of OpenAI and of compatible servers: a request in its words, its answers in ours."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import Annotated, Final, cast

from pydantic import BaseModel, BeforeValidator, model_validator

from agentbudget.errors import InvalidArgument
from agentbudget.models.base import Finish, Message, Tool, ToolCall
from agentbudget.models.openai.answers import (
    Answer,
    Count,
    ErrorBody,
    Failure,
    InputDetails,
    OutputDetails,
    Piece,
    usage_of,
)
from agentbudget.models.openai.asked import Asked, data_url
from agentbudget.models.structured import Structure
from agentbudget.usage import Usage

PATH: Final = "/chat/completions"

NS_PER_MS: Final = 10**6

_ENDED: Final = frozenset(
    {"stop", "eos", "eos_token", "stop_sequence", "end_turn", "complete", "tool_calls", "function_call"}
)
"""How an answer ended by itself, in small letters: as OpenAI, TGI, Together (``eos``) and Cohere say. Not every server
says ``tool_calls`` where it made some."""

_FINISHES: Final[dict[str, Finish]] = {
    "length": "length",
    "max_tokens": "length",
    "content_filter": "refused",
    "safety": "refused",
}


def counted(asked: Asked) -> dict[str, object]:
    """The part of a request that its input consists of."""
    request = asked.request
    body: dict[str, object] = {
        "model": asked.model_id,
        "messages": [_turn(message) for message in request.messages],
    }
    if asked.structure is not None:
        body["response_format"] = _format(asked, asked.structure)
    if request.tools:
        body["tools"] = [_tool(tool) for tool in request.tools]
        if asked.profile.tool_choice:
            body["tool_choice"] = request.tool_choice
    return body


def body(asked: Asked, *, stream: bool = False) -> dict[str, object]:
    """A request, capped under the name that the server knows."""
    request = asked.request
    told: dict[str, object | None] = {
        asked.profile.cap: request.max_output_tokens,
        "temperature": asked.temperature,
        "seed": asked.seed if asked.profile.seed else None,
        "stop": list(request.stop) or None,
        "reasoning_effort": asked.effort,
        "logprobs": True if asked.probabilities else None,
        "service_tier": asked.service_tier,
        "prompt_cache_key": asked.cache_key,
    }
    whole = counted(asked) | {key: value for key, value in told.items() if value is not None}
    return whole | _streamed(asked) if stream else whole


def answer(content: bytes) -> Answer:
    """Read a whole answer. Raises `ValueError` if it is none."""
    return _Chat.model_validate_json(content).answer()


@dataclass
class Reader:
    """Reads one stream, chunk by chunk, and keeps what the whole answer will be made of."""

    model: str
    text: str = ""
    refusal: str = ""
    reason: str | None = None
    usage: Usage | None = None
    tier: str | None = None
    compute_ns: int | None = None
    logprobs: list[float] = field(default_factory=list[float])
    calls: list[ToolCall] = field(default_factory=list[ToolCall])
    told_on: dict[int, int] = field(default_factory=dict[int, int])
    """Which of the calls goes on under an index."""

    def read(self, event: object) -> Piece:
        """What a chunk brings. Raises `ValueError` if it is none of this API's."""
        chunk = _Chunk.model_validate(event)
        if failure := chunk.failure():
            return Piece(answer=Answer(self.model, "", None, None, failure=failure))
        self.model, self.tier = chunk.model or self.model, chunk.service_tier or self.tier
        running = chunk.running()
        if chunk.timings is not None:
            self.compute_ns = chunk.timings.compute_ns
        if chunk.usage is not None:
            self.usage = chunk.usage
        if not chunk.choices:
            return Piece(usage=running, compute_ns=self.compute_ns)
        choice = chunk.choices[0]
        self.reason = choice.finish_reason or self.reason
        self.logprobs += choice.probabilities()
        text, hidden = self._delta(choice.delta)
        return Piece(text, hidden, running, self.compute_ns)

    def end(self) -> Answer | None:
        """The whole answer of a stream that has ended; None if it was cut off before it said how it finished."""
        if self.reason is None:
            return None
        return Answer(
            model=self.model,
            text=self.refusal or self.text,
            finish=_finish(self.reason, refused=bool(self.refusal), calls=bool(self.calls)),
            usage=self.usage,
            calls=tuple(self.calls),
            logprobs=tuple(self.logprobs),
            tier=self.tier,
            compute_ns=self.compute_ns,
        )

    def _delta(self, delta: _Said) -> tuple[str, int]:
        """The text that a delta adds, and the bytes of what it adds beside it."""
        self.text += delta.content or ""
        self.refusal += delta.refusal or ""
        hidden = len((delta.reasoning_content or delta.reasoning or "").encode())
        for number, part in enumerate(delta.tool_calls or ()):
            self._call(number if part.index is None else part.index, part)
            hidden += len(part.function.arguments.encode())
        return (delta.content or "") + (delta.refusal or ""), hidden

    def _call(self, index: int, part: _Call) -> None:
        """Begin a call, or add to the one that is told under `index`.

        Not every server counts its calls: one with another id and a name is another, whatever its index. Nor does an
        id alone tell them apart: some make up one for each piece.
        """
        function, at = part.function, self.told_on.get(index)
        if at is None or (function.name and part.id and part.id != self.calls[at].id):
            at = self.told_on[index] = len(self.calls)
            self.calls.append(ToolCall("", "", ""))
        known = self.calls[at]
        self.calls[at] = ToolCall(
            known.id or part.id or "",
            known.name + (function.name or "") if function.name != known.name else known.name,
            known.arguments + function.arguments,
        )


def _streamed(asked: Asked) -> dict[str, object]:
    """How a stream is asked for, its usage included: at its end, and while it runs where the server can."""
    options: dict[str, object] = {"include_usage": True}
    if asked.profile.running == "continuous":
        options["continuous_usage_stats"] = True
    asking: dict[str, object] = {"stream": True, "stream_options": options}
    return asking | {"timings_per_token": True} if asked.profile.running == "timings" else asking


def _format(asked: Asked, structure: Structure) -> dict[str, object]:
    """The schema in the wrapping that the server knows."""
    match asked.profile.schema:
        case "named":
            named = {"name": "answer", "schema": structure.schema, "strict": True}
            return {"type": "json_schema", "json_schema": named}
        case "bare":
            return {"type": "json_schema", "json_schema": structure.schema}
        case "value":
            return {"type": "json", "value": structure.schema}


def _turn(message: Message) -> dict[str, object]:
    if message.role == "tool":
        if message.images:
            raise InvalidArgument(
                "the chat API takes no pictures from tools; use the Responses API, or a user's turn",
                argument="images",
                value="tool",
            )
        return {"role": "tool", "tool_call_id": message.answers, "content": message.text}
    if not message.calls:
        return {"role": message.role, "content": _content(message)}
    calls = [
        {"id": call.id, "type": "function", "function": {"name": call.name, "arguments": call.arguments}}
        for call in message.calls
    ]
    return {"role": message.role, "content": message.text or None, "tool_calls": calls}


def _content(message: Message) -> str | list[dict[str, object]]:
    if not message.images:
        return message.text
    pictures: list[dict[str, object]] = [
        {"type": "image_url", "image_url": {"url": data_url(image), "detail": image.detail}} for image in message.images
    ]
    return [{"type": "text", "text": message.text}, *pictures] if message.text else pictures


def _tool(tool: Tool) -> dict[str, object]:
    function = {"name": tool.name, "description": tool.description, "parameters": tool.parameters}
    return {"type": "function", "function": function}


def _finish(reason: str | None, *, refused: bool, calls: bool) -> Finish | None:
    """None for a word that nobody knows: the answer may have been broken off."""
    if refused:
        return "refused"
    word = (reason or "").lower()
    if word in _ENDED and calls:
        return "tools"
    return "stop" if word in _ENDED and word != "tool_calls" else _FINISHES.get(word)


class _Counted(BaseModel):
    """Usage in this API's words. Some servers leave reasoning out of the output: the total has it."""

    prompt_tokens: Count = None
    completion_tokens: Count = None
    total_tokens: Count = None
    prompt_tokens_details: InputDetails | None = None
    completion_tokens_details: OutputDetails | None = None


def _usage(value: object) -> Usage | None:
    if value is None:
        return None
    said = _Counted.model_validate(value)
    read, wrote = said.prompt_tokens_details, said.completion_tokens_details
    return usage_of(said.prompt_tokens, said.completion_tokens, said.total_tokens, read=read, wrote=wrote)


class _Timings(BaseModel):
    """What llama-server measures: tokens of the prompt from its cache and computed, tokens made, and milliseconds."""

    cache_n: int = 0
    prompt_n: int = 0
    predicted_n: int = 0
    prompt_ms: float = 0.0
    predicted_ms: float = 0.0

    @property
    def compute_ns(self) -> int:
        return round((self.prompt_ms + self.predicted_ms) * NS_PER_MS)

    @property
    def usage(self) -> Usage:
        return Usage(self.cache_n + self.prompt_n, self.predicted_n, cached_tokens=self.cache_n)


class _Logprob(BaseModel):
    logprob: float


class _Logprobs(BaseModel):
    content: list[_Logprob] | None = None


def _as_json(value: object) -> object:
    """Arguments as JSON: some servers send the object itself."""
    return value if value is None or isinstance(value, str) else json.dumps(value)


class _Read(BaseModel):
    """A part of what a server sends, of which a null says as little as what is not there."""

    @model_validator(mode="before")
    @classmethod
    def _without_nulls(cls, value: object) -> object:
        if not isinstance(value, dict):
            return value
        return {name: one for name, one in cast("dict[str, object]", value).items() if one is not None}


class _Function(_Read):
    name: str | None = None
    arguments: Annotated[str, BeforeValidator(lambda value: _as_json(value) or "")] = ""


class _Call(_Read):
    index: int | None = None
    id: Annotated[str | None, BeforeValidator(lambda value: None if value is None else str(value))] = None
    function: _Function = _Function()


def _as_text(value: object) -> object:
    """Text as a string: some servers send it in parts, with thoughts beside it (Mistral's)."""
    if not isinstance(value, list):
        return value
    parts = [cast("dict[str, object]", part) for part in cast("list[object]", value) if isinstance(part, dict)]
    return "".join(str(part.get("text", "")) for part in parts if part.get("type") == "text")


class _Said(_Read):
    """A message, or what a chunk adds to one."""

    content: Annotated[str | None, BeforeValidator(_as_text)] = None
    refusal: str | None = None
    reasoning_content: str | None = None
    reasoning: Annotated[str | None, BeforeValidator(lambda value: value if isinstance(value, str) else None)] = None
    tool_calls: list[_Call] | None = None


class _Choice(_Read):
    message: _Said = _Said()
    delta: _Said = _Said()
    finish_reason: str | None = None
    logprobs: _Logprobs | None = None

    def probabilities(self) -> list[float]:
        return [token.logprob for token in self.logprobs.content or ()] if self.logprobs else []


class _Chat(BaseModel):
    """The part of an answer that we read."""

    model: str
    choices: list[_Choice]
    usage: Annotated[Usage | None, BeforeValidator(_usage)] = None
    service_tier: str | None = None
    timings: _Timings | None = None

    def answer(self) -> Answer:
        choice = self.choices[0] if self.choices else _Choice()
        said = choice.message
        calls = tuple(
            ToolCall(call.id or f"call_{number}", call.function.name or "", call.function.arguments)
            for number, call in enumerate(said.tool_calls or ())
        )
        return Answer(
            model=self.model,
            text=said.refusal or said.content or "",
            finish=_finish(choice.finish_reason, refused=bool(said.refusal), calls=bool(calls)),
            usage=self.usage,
            calls=calls,
            logprobs=tuple(choice.probabilities()),
            tier=self.service_tier,
            compute_ns=self.timings.compute_ns if self.timings else None,
        )


class _Chunk(_Read):
    """The part of a chunk that we read: one of an answer, or an error in its place."""

    model: str = ""
    choices: list[_Choice] = []
    usage: Annotated[Usage | None, BeforeValidator(_usage)] = None
    service_tier: str | None = None
    timings: _Timings | None = None
    error: ErrorBody | str | None = None
    object: str = ""
    message: str = ""

    def running(self) -> Usage | None:
        """The usage so far, if the chunk states it."""
        return self.usage or (self.timings.usage if self.timings else None)

    def failure(self) -> Failure | None:
        if isinstance(self.error, str):
            return ErrorBody(message=self.error).failure()
        if self.error is not None:
            return self.error.failure()
        return ErrorBody(message=self.message).failure() if self.object == "error" else None
