"""A scripted model that answers whatever it is asked: with the tool, or the type, that the request offers."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from agentbudget.models.base import Request, ToolCall
from agentbudget.testing import ScriptedReply

_PLAIN: dict[str, Any] = {"integer": 3, "number": 3.0, "boolean": True, "null": None}


def talk(request: Request) -> ScriptedReply:
    """A call of the first tool while nobody has answered one; JSON where a schema is asked for; else a sentence."""
    asked = request.messages[-1].text
    if request.schema is not None:
        return ScriptedReply(json.dumps(value_of(request.schema, request.schema, asked)))
    if request.tools and request.messages[-1].role == "user" and request.tool_choice != "none":
        tool = request.tools[0]
        arguments = json.dumps(value_of(tool.parameters, tool.parameters, asked))
        return ScriptedReply("", calls=(ToolCall("call-1", tool.name, arguments),), finish="tools")
    return ScriptedReply("Old pond, a frog leaps in.")


def value_of(schema: Mapping[str, Any], root: Mapping[str, Any], text: str) -> Any:
    """The plainest value that fits a schema; a string says `text`."""
    if "$ref" in schema:
        return value_of(root["$defs"][schema["$ref"].rpartition("/")[2]], root, text)
    if "enum" in schema:
        return schema["enum"][0]
    if "anyOf" in schema:
        return value_of(schema["anyOf"][0], root, text)
    if schema.get("type") == "object":
        required = schema.get("required", list(schema.get("properties", {})))
        return {
            name: value_of(part, root, text) for name, part in schema.get("properties", {}).items() if name in required
        }
    if schema.get("type") == "array":
        return [value_of(schema["items"], root, text)]
    return _PLAIN.get(schema.get("type", "string"), text)
