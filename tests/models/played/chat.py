"""OpenAI's chat completions, as its reference describes them."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any, Final

from agentbudget.models.base import Tool, ToolChoice
from tests.models.played.talker import Asked, Said, Turn
from tests.models.provider_server import Json, Reply

REASONS: Final = {"stop": "stop", "length": "length", "tools": "tool_calls", "refused": "content_filter"}
CHOICES: Final[dict[str, ToolChoice]] = {"auto": "auto", "required": "required", "none": "none"}


@dataclass(frozen=True, slots=True)
class Chat:
    """``POST /v1/chat/completions``, plain and streamed."""

    path: str = "/v1/chat/completions"
    counting: str | None = None

    def read(self, body: Json) -> Asked:
        """The request in the talker's words."""
        tools = [tool["function"] for tool in body.get("tools", ())]
        stop = body.get("stop") or ()
        return Asked(
            turns=tuple(map(_turn, body["messages"])),
            cap=body.get("max_completion_tokens") or body["max_tokens"],
            stop=(stop,) if isinstance(stop, str) else tuple(stop),
            schema=body.get("response_format", {}).get("json_schema", {}).get("schema"),
            tools=tuple(Tool(tool["name"], tool.get("description", ""), tool["parameters"]) for tool in tools),
            tool_choice=CHOICES[body.get("tool_choice", "auto")],
            stream=body.get("stream", False),
            model=body["model"],
        )

    def whole(self, said: Said) -> Reply:
        """The answer in one body."""
        message: Json = {"role": "assistant", "content": said.text or None, "refusal": None}
        if said.calls:
            message["tool_calls"] = [_call(call.id, call.name, call.arguments) for call in said.calls]
        choice = {"index": 0, "message": message, "logprobs": None, "finish_reason": REASONS[said.finish]}
        return Reply.json({**_head("chat.completion", said), "choices": [choice], "usage": usage(said)})

    def stream(self, said: Said) -> Reply:
        """The answer in chunks; the usage comes in a last one, as ``include_usage`` asks for."""
        return Reply.events(*chunks(said), done=True)

    def counted(self, tokens: int) -> Reply:
        """This API counts nothing beforehand."""
        raise AssertionError(f"nobody asks for {tokens}")

    def failure(self, status: int, kind: str, message: str) -> Reply:
        """An error as the API words it."""
        return Reply.json({"error": {"message": message, "type": kind, "param": None, "code": None}}, status)


CHAT: Final = Chat()


def usage(said: Said) -> Json:
    """`said`'s usage in the chat API's words."""
    return {
        "prompt_tokens": said.input_tokens,
        "completion_tokens": said.output_tokens,
        "total_tokens": said.input_tokens + said.output_tokens,
        "prompt_tokens_details": {"cached_tokens": said.cached_tokens},
        "completion_tokens_details": {"reasoning_tokens": said.reasoning_tokens},
    }


def chunks(said: Said) -> list[Json]:
    """The answer as a stream."""
    deltas: list[Json] = [{"role": "assistant", "content": ""}, *({"content": piece} for piece in said.pieces)]
    for index, call in enumerate(said.calls):
        middle = len(call.arguments) // 2
        deltas.append({"tool_calls": [{"index": index, **_call(call.id, call.name, "")}]})
        parts = (call.arguments[:middle], call.arguments[middle:])
        deltas += [{"tool_calls": [{"index": index, "function": {"arguments": part}}]} for part in parts]
    head = {**_head("chat.completion.chunk", said), "usage": None}
    told = [{**head, "choices": [{"index": 0, "delta": delta, "finish_reason": None}]} for delta in deltas]
    ended: Json = {**head, "choices": [{"index": 0, "delta": {}, "finish_reason": REASONS[said.finish]}]}
    return [*told, ended, {**head, "choices": [], "usage": usage(said)}]


def _head(kind: str, said: Said) -> Json:
    return {
        "id": "chatcmpl-B9MBs8CjcvOU2jLn4n570S5qMJKcT",
        "object": kind,
        "created": 1741569952,
        "model": said.model,
        "service_tier": "default",
    }


def _call(identity: str, name: str, arguments: str) -> Json:
    return {"id": identity, "type": "function", "function": {"name": name, "arguments": arguments}}


def _turn(message: Json) -> Turn:
    content: Any = message.get("content") or ""
    calls = json.dumps(message["tool_calls"]) if "tool_calls" in message else ""
    if isinstance(content, str):
        return Turn(message["role"], f"{content}{calls}")
    text = " ".join(part["text"] for part in content if part["type"] == "text")
    return Turn(message["role"], text + calls, sum(part["type"] == "image_url" for part in content))
