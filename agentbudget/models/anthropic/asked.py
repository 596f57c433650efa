"""A request in Anthropic's words: turns, tools, pictures, thinking, and where its prompt may be cached."""

from __future__ import annotations

import json
from base64 import b64encode
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, Literal, assert_never

from agentbudget.errors import RequestRejected
from agentbudget.models.anthropic.families import Family
from agentbudget.models.base import Message, Request, Tool, ToolChoice
from agentbudget.models.structured import Structure
from agentbudget.models.tokens import bytes_bound

if TYPE_CHECKING:
    from anthropic.types import (
        CacheControlEphemeralParam,
        OutputConfigParam,
        TextBlockParam,
        ThinkingConfigParam,
        ToolChoiceParam,
        ToolParam,
    )
    from anthropic.types.message_create_params import MessageCreateParamsBase

Effort = Literal["low", "medium", "high", "xhigh", "max"]
Block = dict[str, Any]

LEAST_BUDGET: Final = 1_024
"""Tokens that a thinking budget has at least. Under a smaller cap, an answer has no room for thinking."""

EFFORTS: Final[tuple[tuple[int, Effort], ...]] = ((LEAST_BUDGET, "low"), (8_192, "medium"))
"""The effort of a model that takes no budget, by the thinking that a request allows (less than so many tokens)."""


@dataclass(frozen=True, slots=True)
class Thought:
    """How a request has the model think. ``hidden``: what it thinks, or how much, need not show in a stream."""

    config: ThinkingConfigParam | None
    effort: Effort | None
    hidden: bool


def params(
    model_id: str, family: Family, request: Request, *, structure: Structure | None, effort: Effort | None
) -> MessageCreateParamsBase:
    """The body of a request. Raises `RequestRejected`, with nothing sent, for what this model is known to refuse."""
    system, turns = _split(request.messages)
    kept = _kept(family, request)
    written: MessageCreateParamsBase = {
        "model": model_id,
        "max_tokens": request.max_output_tokens,
        "messages": [],
        "service_tier": "standard_only",  # the tier that the price is for
    }
    body: dict[str, Any] = {"messages": _turns(model_id, turns, kept)}
    if system:
        body["system"] = _system(system, kept)
    if request.stop:
        body["stop_sequences"] = list(request.stop)
    if request.tools:
        body["tools"] = [_tool(tool) for tool in request.tools]
        body["tool_choice"] = _choice(model_id, family, request.tool_choice)
    thought = thinking(family, request, effort=effort)
    if thought.config is not None:
        body["thinking"] = thought.config
    if config := _output(structure, thought.effort):
        body["output_config"] = config
    return {**written, **body}  # pyright: ignore[reportReturnType] (the blocks are plain dicts until here)


def thinking(family: Family, request: Request, *, effort: Effort | None) -> Thought:
    """How the model is to think: within ``reasoning_tokens`` where it takes a budget, else with less or more effort.

    A request that leaves it to the model, and no room for it under its cap, asks for as little as the model can.
    """
    most = request.reasoning_tokens
    if most is None and request.max_output_tokens < LEAST_BUDGET:
        most = 0
    if most is None:
        return Thought(None, effort, hidden=family.thinking not in ("budget", "asked"))
    if family.thinking == "budget":
        return _budgeted(request, most, effort)
    if most == 0:
        return _least(family, request, effort)
    return Thought({"type": "adaptive"}, effort or _effort(most), hidden=True)


def _budgeted(request: Request, most: int, effort: Effort | None) -> Thought:
    budget = min(most, request.max_output_tokens - 1)
    # A model that thinks cannot be made to call a tool, and must be shown its thoughts with a tool's result.
    forced = bool(request.tools) and request.tool_choice == "required"
    forgotten = any(message.calls and not message.echo for message in request.messages)
    if budget < LEAST_BUDGET or forced or forgotten:
        return Thought(None, effort, hidden=False)
    return Thought({"type": "enabled", "budget_tokens": budget}, effort, hidden=True)


def _least(family: Family, request: Request, effort: Effort | None) -> Thought:
    match family.thinking:
        case "budget" | "asked":
            return Thought(None, effort, hidden=False)
        case "usual":
            strong = effort in ("xhigh", "max")  # with which it cannot be turned off
            return Thought(None if strong else {"type": "disabled"}, effort, hidden=strong)
        case "between":
            return Thought({"type": "between_tools"}, effort, hidden=bool(request.tools))
        case "always":
            return Thought(None, effort or "low", hidden=True)
    assert_never(family.thinking)


def _effort(most: int) -> Effort:
    return next((effort for under, effort in EFFORTS if most < under), "high")


def _output(structure: Structure | None, effort: Effort | None) -> OutputConfigParam:
    config: OutputConfigParam = {}
    if structure is not None:
        config["format"] = {"type": "json_schema", "schema": structure.schema}
    if effort is not None:
        config["effort"] = effort
    return config


@dataclass(frozen=True, slots=True)
class Kept:
    """Where the part ends that many requests share: after so many system messages, or so many turns (else 0)."""

    system: int
    turns: int
    control: CacheControlEphemeralParam


def _kept(family: Family, request: Request) -> Kept | None:
    """The place for a breakpoint; None where nothing is shared, or surely too little to be cached."""
    shared = request.messages[: request.fixed]
    if not shared or bytes_bound(shared, None, tools=request.tools) < family.cached_from:
        return None
    system = [message for message in shared if message.role == "system"]
    turns = len(shared) - len(system)
    # What the system says goes before all turns: where some of it is not shared, no turn after it can be.
    all_shared = all(message.role != "system" for message in request.messages[request.fixed :])
    if not (system or (turns and all_shared)):
        return None
    return Kept(len(system), turns if all_shared else 0, {"type": "ephemeral", "ttl": request.cache_time})


def _split(messages: tuple[Message, ...]) -> tuple[list[Message], list[Message]]:
    system = [message for message in messages if message.role == "system"]
    return system, [message for message in messages if message.role != "system"]


def _system(system: list[Message], kept: Kept | None) -> str | list[TextBlockParam]:
    if kept is None or kept.turns or not kept.system:
        return "\n\n".join(message.text for message in system)
    shared: TextBlockParam = {
        "type": "text",
        "text": "\n\n".join(message.text for message in system[: kept.system]),
        "cache_control": kept.control,
    }
    own = "\n\n".join(message.text for message in system[kept.system :])
    return [shared, *([{"type": "text", "text": own} if own else None] if own else [])]  # type: ignore[list-item]


def _turns(model_id: str, turns: list[Message], kept: Kept | None) -> list[Block]:
    """The turns. Results of tools that were called together come back together."""
    written: list[Block] = []
    for number, message in enumerate(turns, 1):
        content = _content(model_id, message)
        if kept is not None and kept.turns == number:
            content = _marked(content, kept.control)
        role = "assistant" if message.role == "assistant" else "user"
        if message.role == "tool" and number > 1 and turns[number - 2].role == "tool":
            written[-1]["content"] += content
        else:
            written.append({"role": role, "content": content})
    return written


def _content(model_id: str, message: Message) -> str | list[Block]:
    if message.role == "tool":
        return [{"type": "tool_result", "tool_use_id": message.answers, "content": _shown(message)}]
    if message.calls:
        text = [{"type": "text", "text": message.text}] if message.text.strip() else []
        return [*_echoed(model_id, message.echo), *text, *map(_call, message.calls)]
    return _shown(message)


def _shown(message: Message) -> str | list[Block]:
    """Text, after the pictures that it is about."""
    if not message.images:
        return message.text
    pictures: list[Block] = [
        {
            "type": "image",
            "source": {"type": "base64", "media_type": image.media_type, "data": b64encode(image.data).decode()},
        }
        for image in message.images
    ]
    return [*pictures, {"type": "text", "text": message.text}] if message.text.strip() else pictures


def _marked(content: str | list[Block], control: CacheControlEphemeralParam) -> list[Block]:
    blocks: list[Block] = [{"type": "text", "text": content}] if isinstance(content, str) else content
    return [*blocks[:-1], {**blocks[-1], "cache_control": control}]


def _call(call: Any) -> Block:
    return {"type": "tool_use", "id": call.id, "name": call.name, "input": _arguments(call.arguments)}


def _arguments(written: str) -> Mapping[str, object]:
    """Arguments as the API wants them: an object, even if the model wrote something else."""
    try:
        value: object = json.loads(written or "{}")
    except ValueError:
        return {"unreadable": written}
    return value if isinstance(value, dict) else {"value": value}


def echo_of(model_id: str, blocks: list[Block]) -> str:
    """The thinking of an answer as it must come back, with whose it is: another model would refuse it."""
    return json.dumps({"model": model_id, "blocks": blocks}) if blocks else ""


def _echoed(model_id: str, echo: str) -> list[Block]:
    if not echo:
        return []
    said: Mapping[str, Any] = json.loads(echo)
    return said["blocks"] if said.get("model") == model_id else []


def _tool(tool: Tool) -> ToolParam:
    return {"name": tool.name, "description": tool.description, "input_schema": dict(tool.parameters)}


def _choice(model_id: str, family: Family, choice: ToolChoice) -> ToolChoiceParam:
    match choice:
        case "auto":
            return {"type": "auto"}
        case "none":
            return {"type": "none"}
        case "required":
            if not family.forces_tools:
                raise RequestRejected(
                    f"anthropic:{model_id} cannot be made to call a tool: leave tool_choice at 'auto', and say in the "
                    "prompt when it should",
                    model=f"anthropic:{model_id}",
                    sent=False,
                )
            return {"type": "any"}
    assert_never(choice)
