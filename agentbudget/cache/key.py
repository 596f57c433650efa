"""Keys: everything that changes what is paid for, hashed."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from typing import Final

from agentbudget.models.base import Message, Model, Request

_encoded: Final = json.JSONEncoder(sort_keys=True).encode
_as_written: Final = json.JSONEncoder().encode


def answer_key(
    request: Request, model: Model, *, tenant: str | None, skill_version: str = "", sample: str | None = None
) -> str:
    """Everything that changes an answer, hashed: model and weights, messages, schema, tools, sampling, tenant.

    Passages are in the messages, word for word: another version of a document that says something else makes another
    key. The output cap is left out: an answer that ended by itself is the same under any cap that it fits. ``tenant``
    is None for an answer that all tenants share; ``sample`` tells apart several draws of one request.
    """
    parts: dict[str, object] = {
        "model": model.name,
        "fingerprint": model.fingerprint,
        "messages": [_told(message) for message in request.messages],
        "schema": request.schema,
        "temperature": request.temperature,
        "seed": request.seed,
        "stop": request.stop,
        "tenant": tenant,
        "skill": skill_version,
    }
    if request.tools:
        parts["tools"] = [
            request.tool_choice,
            *([tool.name, tool.description, tool.parameters] for tool in request.tools),
        ]
    if request.tools or request.schema is not None:
        schemas = [request.schema, *(tool.parameters for tool in request.tools)]
        written = _as_written(schemas)
        if written != _encoded(schemas):  # a model writes properties in their order: what it reasons first, it knows
            parts["order"] = written
    if request.reasoning_tokens is not None:
        parts["reasoning"] = request.reasoning_tokens
    if sample is not None:
        parts["sample"] = sample
    return hashed(parts)


def hashed(parts: Mapping[str, object]) -> str:
    """Forty hexadecimal digits for named parts. They are hashed as JSON, so that no part can pass for another."""
    return hashlib.blake2b(_encoded(parts).encode(), digest_size=20).hexdigest()


def _told(message: Message) -> list[object]:
    """A message as it counts in a key: texts as they were before there was anything else, so that old answers stay."""
    told: list[object] = [message.role, message.text]
    if message.images:
        told.append([[hashlib.blake2b(i.data).hexdigest(), i.media_type, i.detail] for i in message.images])
    if message.calls or message.answers is not None:
        told.append([message.answers, [[call.id, call.name, call.arguments] for call in message.calls]])
    if message.echo:
        told.append({"echo": message.echo})
    return told
