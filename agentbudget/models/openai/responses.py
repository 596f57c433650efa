"""OpenAI's Responses API: a request in its words, its answers and the events of its streams in ours."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Final

from pydantic import BaseModel, BeforeValidator

from agentbudget.errors import ModelError, ModelUnavailable, RateLimited, RequestRejected
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
from agentbudget.usage import Usage

PATH: Final = "/responses"

LEAST_TOKENS: Final = 16
"""The API refuses a smaller output cap; the chat API takes it."""

INCOMPLETE: Final[dict[str, Finish]] = {"max_output_tokens": "length", "content_filter": "refused"}
FAILURES: Final[dict[str, type[ModelError]]] = {"server_error": ModelUnavailable, "rate_limit_exceeded": RateLimited}


def counted(asked: Asked) -> dict[str, object]:
    """The part of a request that its input consists of, as ``/responses/input_tokens`` takes it."""
    request, structure = asked.request, asked.structure
    body: dict[str, object] = {
        "model": asked.model_id,
        "input": [item for message in request.messages for item in _items(message)],
    }
    if asked.effort:
        body["reasoning"] = {"effort": asked.effort}
    if structure is not None:
        named = {"type": "json_schema", "name": "answer", "schema": structure.schema, "strict": True}
        body["text"] = {"format": named}
    if request.tools:
        body |= {"tools": [_tool(tool) for tool in request.tools], "tool_choice": request.tool_choice}
    return body


def body(asked: Asked, *, stream: bool = False) -> dict[str, object]:
    """A request, private and capped."""
    told: dict[str, object | None] = {
        "max_output_tokens": asked.request.max_output_tokens,
        "temperature": asked.temperature,
        "include": ["message.output_text.logprobs"] if asked.probabilities else None,
        "service_tier": asked.service_tier,
        "prompt_cache_key": asked.cache_key,
        "store": False,
        "stream": True if stream else None,
    }
    return counted(asked) | {key: value for key, value in told.items() if value is not None}


def answer(content: bytes) -> Answer:
    """Read a whole answer. Raises `ValueError` if it is none."""
    return _Response.model_validate_json(content).answer()


@dataclass
class Reader:
    """Reads one stream, event by event."""

    model: str

    def read(self, event: object) -> Piece:
        """What an event brings. Raises `ValueError` if it is none of this API's."""
        said = _Event.model_validate(event)
        match event:
            case {"response": {"model": str(model)}}:
                self.model = model
            case _:
                pass
        if said.response is not None and said.type in ("response.completed", "response.incomplete", "response.failed"):
            return Piece(answer=said.response.answer())
        if said.type == "error" or said.error is not None:
            error = said.error or ErrorBody(message=said.message, code=said.code, type="error")
            return Piece(answer=Answer("", "", None, None, failure=error.failure()))
        if said.type in ("response.output_text.delta", "response.refusal.delta"):
            return Piece(said.delta)
        return Piece(hidden=len(said.delta.encode()))

    def end(self) -> Answer | None:
        """None: a stream that ends without its last event was cut off."""
        return None


def _items(message: Message) -> list[dict[str, object]]:
    """The items that a turn is in this API."""
    if message.role == "tool":
        return [{"type": "function_call_output", "call_id": message.answers, "output": _content(message)}]
    calls: list[dict[str, object]] = [
        {"type": "function_call", "call_id": call.id, "name": call.name, "arguments": call.arguments}
        for call in message.calls
    ]
    said: dict[str, object] = {"role": message.role, "content": _content(message)}
    if message.role == "assistant":
        said["type"] = "message"  # llama-server knows an assistant's turn by it
    return [said, *calls] if message.text or not calls else calls


def _content(message: Message) -> str | list[dict[str, object]]:
    if not message.images:
        return message.text
    pictures: list[dict[str, object]] = [
        {"type": "input_image", "image_url": data_url(image), "detail": image.detail} for image in message.images
    ]
    return [{"type": "input_text", "text": message.text}, *pictures] if message.text else pictures


def _tool(tool: Tool) -> dict[str, object]:
    return {
        "type": "function",
        "name": tool.name,
        "description": tool.description,
        "parameters": tool.parameters,
        "strict": False,  # the arguments are checked by whoever runs the tool; its schema may be any
    }


class _Counted(BaseModel):
    """Usage as this API counts it: input inclusive of the cache, output inclusive of reasoning."""

    input_tokens: Count = None
    output_tokens: Count = None
    total_tokens: Count = None
    input_tokens_details: InputDetails | None = None
    output_tokens_details: OutputDetails | None = None


def _usage(value: object) -> Usage | None:
    if value is None:
        return None
    said = _Counted.model_validate(value)
    read, wrote = said.input_tokens_details, said.output_tokens_details
    return usage_of(said.input_tokens, said.output_tokens, said.total_tokens, read=read, wrote=wrote)


class _Logprob(BaseModel):
    logprob: float


class _Part(BaseModel):
    type: str
    text: str = ""
    refusal: str = ""
    logprobs: list[_Logprob] | None = None


class _Item(BaseModel):
    type: str
    content: list[_Part] | None = None
    call_id: str = ""
    name: str = ""
    arguments: str = ""


class _Incomplete(BaseModel):
    reason: str | None = None


class _Error(BaseModel):
    code: str
    message: str = ""


class _Response(BaseModel):
    """The part of an answer that we read."""

    model: str
    status: str
    output: list[_Item]
    usage: Annotated[Usage | None, BeforeValidator(_usage)] = None
    error: _Error | None = None
    incomplete_details: _Incomplete | None = None
    service_tier: str | None = None

    def answer(self) -> Answer:
        parts = [part for item in self.output if item.type == "message" for part in item.content or ()]
        calls = tuple(
            ToolCall(item.call_id, item.name, item.arguments) for item in self.output if item.type == "function_call"
        )
        return Answer(
            model=self.model,
            text="".join(part.text or part.refusal for part in parts),
            finish=self._finish(refused=any(part.type == "refusal" for part in parts), calls=bool(calls)),
            usage=self.usage,
            calls=calls,
            logprobs=tuple(token.logprob for part in parts for token in part.logprobs or ()),
            tier=self.service_tier,
            failure=self._failure(),
        )

    def _finish(self, *, refused: bool, calls: bool) -> Finish | None:
        if refused:
            return "refused"
        if self.status == "completed":
            return "tools" if calls else "stop"
        reason = self.incomplete_details.reason if self.incomplete_details else None
        return INCOMPLETE.get(reason or "")

    def _failure(self) -> Failure | None:
        if self.status != "failed":
            return None
        error = self.error or _Error(code="server_error")
        return Failure(FAILURES.get(error.code, RequestRejected), f"{error.code}: {error.message}")


class _Event(BaseModel):
    """The part of an event that we read."""

    type: str = ""
    delta: Annotated[str, BeforeValidator(lambda value: value if isinstance(value, str) else "")] = ""
    message: Annotated[str, BeforeValidator(lambda value: value if isinstance(value, str) else "")] = ""
    code: str | int | None = None
    error: ErrorBody | None = None
    response: Annotated[_Response | None, BeforeValidator(lambda value: _whole(value))] = None


def _whole(value: object) -> object:
    """A response that has begun has no answer to read yet, and not every server fills in its parts."""
    match value:
        case {"status": "completed" | "incomplete" | "failed"}:
            return value
        case _:
            return None
