"""Anthropic's Messages API, as its reference describes it."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any, Final

from agentbudget.models.base import Tool, ToolChoice
from tests.models.played.talker import Asked, Said, Turn
from tests.models.provider_server import Json, Reply

REASONS: Final = {"stop": "end_turn", "length": "max_tokens", "tools": "tool_use", "refused": "refusal"}
CHOICES: Final[dict[str, ToolChoice]] = {"auto": "auto", "any": "required", "tool": "required", "none": "none"}


@dataclass(frozen=True, slots=True)
class Messages:
    """``POST /v1/messages``, plain and streamed, and ``/v1/messages/count_tokens``."""

    path: str = "/v1/messages"
    counting: str | None = "/v1/messages/count_tokens"

    def read(self, body: Json) -> Asked:
        """The request in the talker's words. A tool's result is a block of a user's turn."""
        system = [Turn("system", _text(body["system"]))] if "system" in body else []
        output = body.get("output_config", {})
        return Asked(
            turns=(*system, *map(_turn, body["messages"])),
            cap=body.get("max_tokens", 0),
            stop=tuple(body.get("stop_sequences", ())),
            schema=output.get("format", {}).get("schema"),
            tools=tuple(Tool(t["name"], t.get("description", ""), t["input_schema"]) for t in body.get("tools", ())),
            tool_choice=CHOICES[body.get("tool_choice", {}).get("type", "auto")],
            stream=body.get("stream", False),
            model=body["model"],
        )

    def whole(self, said: Said) -> Reply:
        """The answer in one body."""
        return Reply.json(message(said))

    def stream(self, said: Said) -> Reply:
        """The answer in events."""
        return Reply.events(*events(said))

    def counted(self, tokens: int) -> Reply:
        """What the count endpoint says."""
        return Reply.json({"input_tokens": tokens})

    def failure(self, status: int, kind: str, message: str) -> Reply:
        """An error as the API words it."""
        return Reply.json(error(kind, message), status)


MESSAGES: Final = Messages()


def error(kind: str, message: str = "went wrong") -> Json:
    """The body of an error; as an event of a stream, too."""
    return {"type": "error", "error": {"type": kind, "message": message}, "request_id": "req_011CSHoEeqs5C35K2UUqR7Fy"}


def usage(said: Said) -> Json:
    """`said`'s usage: the input without what the cache read and wrote, as Anthropic counts it."""
    written = said.cache_write_tokens
    return {
        "input_tokens": said.input_tokens - said.cached_tokens - written,
        "cache_creation_input_tokens": written,
        "cache_read_input_tokens": said.cached_tokens,
        "cache_creation": {
            "ephemeral_5m_input_tokens": written - said.cache_write_1h_tokens,
            "ephemeral_1h_input_tokens": said.cache_write_1h_tokens,
        },
        "output_tokens": said.output_tokens,
        "output_tokens_details": {"thinking_tokens": said.reasoning_tokens},
        "service_tier": "standard",
    }


def message(said: Said) -> Json:
    """The whole answer."""
    return {
        "id": "msg_01XFDUDYJgAACzvnptvVoYEL",
        "type": "message",
        "role": "assistant",
        "model": said.model,
        "content": _blocks(said),
        "stop_reason": "stop_sequence" if said.stop else REASONS[said.finish],
        "stop_sequence": said.stop,
        "usage": usage(said),
    }


def events(said: Said) -> list[Json]:
    """The same as a stream: message_start counts the input, message_delta the output."""
    whole = message(said)
    started: Json = {**whole, "content": [], "stop_reason": None, "usage": {**whole["usage"], "output_tokens": 1}}
    blocks = [part for index, block in enumerate(whole["content"]) for part in _block_events(index, block, said)]
    return [
        {"type": "message_start", "message": started},
        {"type": "ping"},
        *blocks,
        {
            "type": "message_delta",
            "delta": {"stop_reason": whole["stop_reason"], "stop_sequence": said.stop},
            "usage": {
                "output_tokens": said.output_tokens,
                "output_tokens_details": whole["usage"]["output_tokens_details"],
            },
        },
        {"type": "message_stop"},
    ]


def _blocks(said: Said) -> list[Json]:
    thinking = [{"type": "thinking", "thinking": said.thinking, "signature": "c2lnbmVk"}] if said.thinking else []
    text = [{"type": "text", "text": said.text}] if said.text else []
    calls = [
        {"type": "tool_use", "id": c.id, "name": c.name, "input": json.loads(c.arguments or "{}")} for c in said.calls
    ]
    return [*thinking, *text, *calls]


def _block_events(index: int, block: Json, said: Said) -> list[Json]:
    empty: dict[str, Json] = {
        "thinking": {"thinking": "", "signature": ""},
        "text": {"text": ""},
        "tool_use": {"input": {}},
    }
    return [
        {"type": "content_block_start", "index": index, "content_block": {**block, **empty[block["type"]]}},
        *({"type": "content_block_delta", "index": index, "delta": delta} for delta in _deltas(block, said)),
        {"type": "content_block_stop", "index": index},
    ]


def _deltas(block: Json, said: Said) -> list[Json]:
    match block["type"]:
        case "text":
            return [{"type": "text_delta", "text": piece} for piece in said.pieces]
        case "thinking":
            return [
                {"type": "thinking_delta", "thinking": block["thinking"]},
                {"type": "signature_delta", "signature": block["signature"]},
            ]
        case _:
            written = json.dumps(block["input"])
            middle = len(written) // 2
            parts = ("", written[:middle], written[middle:])
            return [{"type": "input_json_delta", "partial_json": part} for part in parts]


def _turn(turn: Json) -> Turn:
    content = turn["content"]
    if isinstance(content, str):
        return Turn(turn["role"], content)
    results = [block for block in content if block["type"] == "tool_result"]
    if results:
        return Turn("tool", " ".join(_text(block["content"]) for block in results))
    return Turn(turn["role"], _text(content), sum(block["type"] == "image" for block in content))


def _text(content: Any) -> str:
    if isinstance(content, str):
        return content
    return " ".join(block["text"] for block in content if block["type"] == "text")
