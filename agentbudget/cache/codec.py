"""Completions and vectors as the bytes that are kept."""

from __future__ import annotations

import json
from array import array

from agentbudget.models.base import Completion, ToolCall
from agentbudget.usage import Usage


def encode_completion(completion: Completion) -> bytes:
    """Everything that an answer was, but for the price it was charged by."""
    data: dict[str, object] = {
        "text": completion.text,
        "finish": completion.finish,
        "usage": completion.usage.to_dict(),
        "served_by": completion.served_by,
        "confidence": completion.confidence,
        "calls": [[call.id, call.name, call.arguments] for call in completion.calls],
    }
    if completion.echo:
        data["echo"] = completion.echo
    return json.dumps(data).encode()


def decode_completion(value: bytes) -> Completion:
    """The answer again. Raises ``ValueError``, ``KeyError`` or ``TypeError`` for bytes that are none."""
    data = json.loads(value.decode())
    calls = data.get("calls")
    return Completion(
        text=data["text"],
        finish=data["finish"],
        usage=Usage.from_dict(data["usage"]),
        served_by=data["served_by"],
        confidence=data["confidence"],
        calls=tuple(ToolCall(*call) for call in calls) if calls else (),
        echo=data.get("echo", ""),
    )


def encode_vector(vector: list[float]) -> bytes:
    """Numbers of eight bytes each: a vector comes back as it was."""
    return array("d", vector).tobytes()


def decode_vector(value: bytes) -> list[float]:
    """The vector again. Raises ``ValueError`` for bytes that are none."""
    numbers = array("d")
    numbers.frombytes(value)
    return numbers.tolist()
