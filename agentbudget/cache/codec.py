"""Completions and vectors as the bytes that are kept."""

from __future__ import annotations

import json
from array import array

from agentbudget.models.base import Completion, Finish, ToolCall
from agentbudget.usage import Usage

_Told = tuple[Finish, list[int] | dict[str, int], str, float | None, list[tuple[str, str, str]], str]
"""What stands before the text. ``Usage`` is by name where an earlier version kept it."""


def encode_completion(completion: Completion) -> bytes:
    """Everything that an answer was, but for the price it was charged by: a line of JSON, then its text as it is.

    The text stands apart since it is most of the bytes, and need not be searched for what JSON escapes.
    """
    told: list[object] = [
        completion.finish,
        completion.usage.to_list(),
        completion.served_by,
        completion.confidence,
        [[call.id, call.name, call.arguments] for call in completion.calls],
        completion.echo,
    ]
    return json.dumps(told).encode() + b"\n" + completion.text.encode("utf-8", "surrogatepass")


def decode_completion(value: bytes) -> Completion:
    """The answer again. Raises ``ValueError``, ``KeyError`` or ``TypeError`` for bytes that are none."""
    if value.startswith(b"{"):
        return _decode_object(value)
    head, _, text = value.partition(b"\n")
    told: _Told = json.loads(head)
    finish, used, served_by, confidence, calls, echo = told
    return Completion(
        str(text, "utf-8", "surrogatepass"),
        finish,
        Usage.from_dict(used) if isinstance(used, dict) else Usage(*used),
        served_by,
        confidence,
        tuple([ToolCall(*call) for call in calls]) if calls else (),
        None,
        echo,
    )


def _decode_object(value: bytes) -> Completion:
    """An answer as earlier versions kept it: all of it in one JSON object."""
    data = json.loads(value)
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
