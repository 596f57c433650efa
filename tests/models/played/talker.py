"""A small talker: answers by rule whatever is asked. A word is a token, so is each message; a picture is a hundred."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from agentbudget.models.base import Finish, JsonSchema, Request, Tool, ToolCall, ToolChoice

IMAGE_TOKENS: Final = 100
NUMBERS: Final = " ".join(f"number {n}," for n in range(1, 101))
"""What it says when it is asked to count: 200 words."""


@dataclass(frozen=True, slots=True)
class Turn:
    """One turn as the talker reads it."""

    role: str
    text: str
    images: int = 0


@dataclass(frozen=True, slots=True)
class Asked:
    """A request, whichever API brought it."""

    turns: tuple[Turn, ...]
    cap: int
    stop: tuple[str, ...] = ()
    schema: JsonSchema | None = None
    tools: tuple[Tool, ...] = ()
    tool_choice: ToolChoice = "auto"
    stream: bool = False
    model: str = "played"


@dataclass(frozen=True, slots=True)
class Said:
    """An answer, whichever API carries it. ``pieces`` are its text as a stream brings it, joined the whole."""

    text: str = ""
    calls: tuple[ToolCall, ...] = ()
    finish: Finish = "stop"
    stop: str | None = None
    thinking: str = ""
    input_tokens: int = 12
    output_tokens: int = 3
    cached_tokens: int = 0
    cache_write_tokens: int = 0
    cache_write_1h_tokens: int = 0
    reasoning_tokens: int = 0
    model: str = "played"

    @property
    def pieces(self) -> list[str]:
        """The text, a word a piece."""
        return re.findall(r"\s*\S+\s*$|\s*\S+", self.text)


def asked_of(request: Request) -> Asked:
    """Our own request, for a model that needs no provider."""
    turns = tuple(Turn(message.role, message.text, len(message.images)) for message in request.messages)
    return Asked(
        turns,
        request.max_output_tokens,
        request.stop,
        request.schema,
        request.tools,
        request.tool_choice,
    )


def input_tokens(asked: Asked) -> int:
    """What the played provider counts, and charges."""
    words = sum(len(turn.text.split()) + 1 + turn.images * IMAGE_TOKENS for turn in asked.turns)
    schema = len(json.dumps(asked.schema).split()) if asked.schema is not None else 0
    tools = sum(len(f"{tool.name} {tool.description} {json.dumps(tool.parameters)}".split()) for tool in asked.tools)
    return words + schema + tools


def talk(asked: Asked) -> Said:
    """The result of a tool if one came, a tool's call, JSON that fits a schema, numbers, or a greeting."""
    counted = input_tokens(asked)
    last = asked.turns[-1]
    wants_tool = asked.tool_choice == "required" or (asked.tool_choice == "auto" and "tool" in last.text)
    if asked.tools and wants_tool and last.role != "tool":
        tool = asked.tools[0]
        arguments = json.dumps(filled(tool.parameters))
        call = ToolCall("call_0123456789", tool.name, arguments)
        return Said(calls=(call,), finish="tools", input_tokens=counted, output_tokens=8, model=asked.model)
    if last.role == "tool":
        text = f"The tool says: {last.text}"
    elif asked.schema is not None:
        text = json.dumps(filled(asked.schema))
    else:
        text = NUMBERS if "number" in last.text else "Hello there, dear friend."
    return _ended(asked, text, counted)


def _ended(asked: Asked, text: str, counted: int) -> Said:
    """`text` up to the first stop sequence, and no longer than the cap."""
    stop = min((s for s in asked.stop if s in text), key=text.index, default=None)
    if stop is not None:
        text = text[: text.index(stop)]
    said = Said(text, stop=stop, input_tokens=counted, model=asked.model)
    pieces = said.pieces
    if len(pieces) <= asked.cap:
        return Said(text, stop=stop, input_tokens=counted, output_tokens=len(pieces), model=asked.model)
    kept = "".join(pieces[: asked.cap])
    return Said(kept, finish="length", input_tokens=counted, output_tokens=asked.cap, model=asked.model)


def filled(schema: JsonSchema, root: JsonSchema | None = None) -> object:
    """The plainest value that fits a schema."""
    root = schema if root is None else root
    if "$ref" in schema:
        return filled(_found(root, schema["$ref"]), root)
    for key in ("anyOf", "oneOf", "allOf"):
        if key in schema:
            return filled(schema[key][0], root)
    if "const" in schema:
        return schema["const"]
    if "enum" in schema:
        return schema["enum"][0]
    return _plain(schema, root)


def _plain(schema: JsonSchema, root: JsonSchema) -> object:
    match schema.get("type"):
        case "object":
            return {name: filled(value, root) for name, value in schema.get("properties", {}).items()}
        case "array":
            return [filled(schema["items"], root)] * max(1, schema.get("minItems", 1))
        case "integer" | "number":
            return schema.get("minimum", 7)
        case "boolean":
            return True
        case "null":
            return None
        case _:
            return "some words"


def _found(root: JsonSchema, reference: str) -> Mapping[str, Any]:
    found: Any = root
    for name in reference.removeprefix("#/").split("/"):
        found = found[name]
    return found
