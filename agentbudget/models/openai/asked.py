"""What a request to a server consists of, before it is put into the words of one of its APIs."""

from __future__ import annotations

import hashlib
import json
import re
from base64 import b64encode
from dataclasses import dataclass
from typing import Final

from agentbudget.errors import InvalidArgument, SchemaUnsupported
from agentbudget.models.base import Image, Message, Request
from agentbudget.models.servers import Effort, Profile
from agentbudget.models.structured import Structure, strict, wrap

REASONING: Final = re.compile(r"(ft:)?(o\d|gpt-([5-9]|\d\d)(?!.*chat))")
"""Models that think before they answer, by their id. They refuse temperature, seed and probabilities."""

NO_THOUGHT: Final = re.compile(r"(ft:)?gpt-(5\.[1-9]|[6-9]|\d\d)")
"""Models of which ``none`` may be asked; ``minimal`` is the least that gpt-5 does, ``low`` the least of the others."""

THOUGHTS: Final[tuple[tuple[int, Effort], ...]] = ((2048, "low"), (8192, "medium"))
"""The effort for so many tokens of reasoning, ``high`` for more. OpenAI takes no number; the output cap holds."""


@dataclass(frozen=True, slots=True)
class Asked:
    """A request to one model, with all that depends on who serves it settled.

    ``service_tier`` and ``cache_key`` are what only OpenAI itself is told.
    """

    model_id: str
    request: Request
    profile: Profile
    structure: Structure | None
    effort: Effort | None
    temperature: float | None
    seed: int | None
    probabilities: bool
    service_tier: str | None = None
    cache_key: str | None = None


def structure_of(request: Request, *, official: bool) -> Structure | None:
    """The schema as OpenAI takes it; other servers get one that OpenAI would refuse as it is."""
    if request.schema is None:
        return None
    try:
        return strict(request.schema)
    except SchemaUnsupported:
        if official:
            raise
        return wrap(request.schema)


def reasons(model_id: str) -> bool:
    """Whether this is one of OpenAI's reasoning models, which take no temperature, seed or probabilities."""
    return REASONING.match(model_id) is not None


def effort_for(model_id: str, reasoning_tokens: int | None) -> Effort | None:
    """The effort that a number of reasoning tokens stands for."""
    if reasoning_tokens is None or not reasons(model_id):
        return None
    if reasoning_tokens <= 0:
        if NO_THOUGHT.match(model_id):
            return "none"
        return "minimal" if model_id.removeprefix("ft:").startswith("gpt-5") else "low"
    for most, effort in THOUGHTS:
        if reasoning_tokens <= most:
            return effort
    return "high"


def check(name: str, profile: Profile, request: Request, *, images: bool) -> None:
    """Refuse, before anything is sent, what the server would ignore or refuse. Raises a `Mistake`."""
    if request.stop and not profile.stop:
        raise _refused(name, "stop", request.stop, "takes no stop sequences; leave them out")
    if request.tools and request.tool_choice == "required" and not profile.tool_choice:
        raise _refused(name, "tool_choice", "required", "minds no tool_choice; leave it at 'auto'")
    if request.tools and request.schema is not None and not profile.schema_with_tools:
        raise SchemaUnsupported(f"{name} takes tools or a schema, not both: ask for them in two calls")
    for message in request.messages:
        _check_turn(name, profile, message, images=images)


def _check_turn(name: str, profile: Profile, message: Message, *, images: bool) -> None:
    if message.role == "tool" and message.answers is None:
        raise _refused(name, "answers", None, "needs to know which call a tool's turn answers: set Message.answers")
    if message.images and not images:
        raise _refused(name, "images", len(message.images), "cannot see: leave pictures out, or ask another model")
    if message.images and message.role not in ("user", "tool"):
        raise _refused(name, "images", message.role, "takes pictures in a user's turn only, or from a tool")
    for image in message.images:
        if image.media_type not in profile.image_types:
            raise _refused(name, "images", image.media_type, f"reads no {image.media_type}; convert it to image/png")


def cache_key(request: Request) -> str | None:
    """What requests with the same beginning share, so that they reach the machine that has it in its cache.

    See ``prompt_cache_key`` in https://developers.openai.com/api/docs/guides/prompt-caching.
    """
    if not request.fixed:
        return None
    parts = [
        [[message.role, message.text] for message in request.messages[: request.fixed]],
        [[tool.name, tool.description, tool.parameters] for tool in request.tools],
    ]
    return f"agentbudget-{hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()[:24]}"


def data_url(image: Image) -> str:
    """The picture inside an address, as both APIs take it."""
    return f"data:{image.media_type};base64,{b64encode(image.data).decode()}"


def _refused(name: str, argument: str, value: object, what: str) -> InvalidArgument:
    return InvalidArgument(f"{name} {what}", argument=argument, value=value)
