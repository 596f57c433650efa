"""How a model writes that it wants a tool: ``<tool_call>{"name": …, "arguments": …}</tool_call>``, as Qwen does."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Sequence
from typing import Any, Final, cast

from agentbudget.models.base import Message, Tool, ToolCall
from agentbudget.models.grammar import alternatives

BEGIN: Final = "<tool_call>"
_END: Final = "</tool_call>"
_BEGUN: Final = re.compile(rf"{BEGIN}\s*")
_ENDED: Final = re.compile(rf"\s*{_END}")
_JSON: Final = json.JSONDecoder()


def grammar(tools: Sequence[Tool]) -> str:
    """The grammar of one call of one of `tools`. Raises `SchemaUnsupported` for what it cannot express."""
    return alternatives(
        [(f'{{"name": {json.dumps(tool.name)}, "arguments": ', _an_object(tool), "}") for tool in tools],
        before=f"{BEGIN}\n",
        after=f"\n{_END}",
    )


def _an_object(tool: Tool) -> dict[str, Any]:
    schema = dict(tool.parameters)
    return schema if "type" in schema or "$ref" in schema else {"type": "object", **schema}


def parse(text: str, before: Sequence[Message]) -> tuple[str, tuple[ToolCall, ...]]:
    """What `text` says up to its first call, and the calls; those of the conversation `before` are numbered on."""
    number = sum(len(message.calls) for message in before)
    found = [call for value in _blocks(text) if (call := _call(value)) is not None]
    if not found:
        return text, ()
    named = (ToolCall(f"call_{n}", name, arguments) for n, (name, arguments) in enumerate(found, start=number))
    return text[: text.index(BEGIN)], tuple(named)


def _blocks(text: str) -> Iterator[object]:
    """The JSON in each block. Where a block ends is for its JSON to say: a string in it may hold the same words."""
    at = 0
    while begun := _BEGUN.search(text, at):
        at = begun.end()
        try:
            value, at = cast("tuple[object, int]", _JSON.raw_decode(text, at))
        except (ValueError, RecursionError):
            continue
        if _ENDED.match(text, at):
            yield value


def _call(value: object) -> tuple[str, str] | None:
    """Name and arguments; None for what is no call: no object, or without a name."""
    if not isinstance(value, dict):
        return None
    fields = cast("dict[str, object]", value)
    name, arguments = fields.get("name"), fields.get("arguments", {})
    if not isinstance(name, str):
        return None
    return name, arguments if isinstance(arguments, str) else json.dumps(arguments, ensure_ascii=False)
