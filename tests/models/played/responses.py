"""OpenAI's responses, as its reference describes them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final

from agentbudget.models.base import Tool, ToolCall, ToolChoice
from tests.models.played.talker import Asked, Said, Turn
from tests.models.provider_server import Json, Reply

CHOICES: Final[dict[str, ToolChoice]] = {"auto": "auto", "required": "required", "none": "none"}
MESSAGE_ID: Final = "msg_67ccd2bf17f0819081ff3bb2cf6508e6"


@dataclass(frozen=True, slots=True)
class Responses:
    """``POST /v1/responses``, plain and streamed, and ``/v1/responses/input_tokens``."""

    path: str = "/v1/responses"
    counting: str | None = "/v1/responses/input_tokens"

    def read(self, body: Json) -> Asked:
        """The request in the talker's words."""
        given: Any = body["input"]
        turns = [Turn("user", given)] if isinstance(given, str) else list(map(_turn, given))
        if body.get("instructions"):
            turns.insert(0, Turn("system", body["instructions"]))
        return Asked(
            turns=tuple(turns),
            cap=body.get("max_output_tokens", 0),
            schema=body.get("text", {}).get("format", {}).get("schema"),
            tools=tuple(Tool(t["name"], t.get("description") or "", t["parameters"]) for t in body.get("tools", ())),
            tool_choice=CHOICES[body.get("tool_choice", "auto")],
            stream=body.get("stream", False),
            model=body["model"],
        )

    def whole(self, said: Said) -> Reply:
        """The answer in one body."""
        return Reply.json(response(said))

    def stream(self, said: Said) -> Reply:
        """The answer in events."""
        return Reply.events(*events(said))

    def counted(self, tokens: int) -> Reply:
        """What the count endpoint says."""
        return Reply.json({"object": "response.input_tokens", "input_tokens": tokens})

    def failure(self, status: int, kind: str, message: str) -> Reply:
        """An error as the API words it."""
        return Reply.json({"error": {"message": message, "type": kind, "param": None, "code": None}}, status)


RESPONSES: Final = Responses()


def usage(said: Said) -> Json:
    """`said`'s usage in the Responses API's words."""
    return {
        "input_tokens": said.input_tokens,
        "input_tokens_details": {
            "cached_tokens": said.cached_tokens,
            "cache_write_tokens": said.cache_write_tokens,
        },
        "output_tokens": said.output_tokens,
        "output_tokens_details": {"reasoning_tokens": said.reasoning_tokens},
        "total_tokens": said.input_tokens + said.output_tokens,
    }


def response(said: Said, **changes: Any) -> Json:
    """The whole answer."""
    reasons = {"length": "max_output_tokens", "refused": "content_filter"}
    reason = reasons.get(said.finish)
    return {
        "id": "resp_67ccd2bed1ec8190b14f964abc054267",
        "object": "response",
        "created_at": 1741476542,
        "status": "incomplete" if reason else "completed",
        "error": None,
        "incomplete_details": {"reason": reason} if reason else None,
        "model": said.model,
        "output": _items(said),
        "parallel_tool_calls": True,
        "tool_choice": "auto",
        "tools": [],
        "service_tier": "default",
        "usage": usage(said),
        **changes,
    }


def events(said: Said) -> list[Json]:
    """The same as a stream."""
    whole = response(said)
    begun: Json = {**whole, "status": "in_progress", "incomplete_details": None, "output": [], "usage": None}
    told: list[Json] = [
        {"type": "response.created", "response": begun},
        {"type": "response.in_progress", "response": begun},
    ]
    for index, item in enumerate(whole["output"]):
        told += _text_events(index, item, said) if item["type"] == "message" else _call_events(index, item)
    told.append({"type": f"response.{whole['status']}", "response": whole})
    return [{**event, "sequence_number": number} for number, event in enumerate(told)]


def _items(said: Said) -> list[Json]:
    part: Json = {"type": "output_text", "text": said.text, "annotations": [], "logprobs": []}
    message: Json = {"type": "message", "id": MESSAGE_ID, "status": "completed", "role": "assistant", "content": [part]}
    return [*([message] if said.text else []), *map(_call, said.calls)]


def _text_events(index: int, item: Json, said: Said) -> list[Json]:
    place = {"item_id": item["id"], "output_index": index, "content_index": 0}
    part = item["content"][0]
    return [
        {"type": "response.output_item.added", "output_index": index, "item": {**item, "content": []}},
        {"type": "response.content_part.added", **place, "part": {**part, "text": ""}},
        *({"type": "response.output_text.delta", **place, "delta": piece, "logprobs": []} for piece in said.pieces),
        {"type": "response.output_text.done", **place, "text": said.text, "logprobs": []},
        {"type": "response.content_part.done", **place, "part": part},
        {"type": "response.output_item.done", "output_index": index, "item": item},
    ]


def _call_events(index: int, item: Json) -> list[Json]:
    place = {"item_id": item["id"], "output_index": index}
    written: str = item["arguments"]
    middle = len(written) // 2
    return [
        {"type": "response.output_item.added", "output_index": index, "item": {**item, "arguments": ""}},
        *(
            {"type": "response.function_call_arguments.delta", **place, "delta": part}
            for part in (written[:middle], written[middle:])
        ),
        {"type": "response.function_call_arguments.done", **place, "arguments": written, "name": item["name"]},
        {"type": "response.output_item.done", "output_index": index, "item": item},
    ]


def _call(call: ToolCall) -> Json:
    return {
        "type": "function_call",
        "id": f"fc_{call.id}",
        "call_id": call.id,
        "name": call.name,
        "arguments": call.arguments,
        "status": "completed",
    }


def _turn(item: Json) -> Turn:
    if item.get("type") == "function_call_output":
        return Turn("tool", str(item["output"]))
    if item.get("type") == "function_call":
        return Turn("assistant", f"{item['name']} {item['arguments']}")
    content = item["content"]
    if isinstance(content, str):
        return Turn(item["role"], content)
    text = " ".join(part["text"] for part in content if part["type"] in ("input_text", "output_text"))
    return Turn(item["role"], text, sum(part["type"] == "input_image" for part in content))
