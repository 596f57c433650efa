"""A request in Anthropic's words: turns, tools, pictures, thinking, and where its prompt may be cached."""

from __future__ import annotations

import json
from base64 import b64encode
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, Literal, assert_never, cast

from agentbudget.errors import RequestRejected
from agentbudget.models.anthropic.families import Family, Way
from agentbudget.models.base import Message, Request, Tool, ToolCall, ToolChoice
from agentbudget.models.structured import Structure
from agentbudget.models.tokens import bytes_bound

if TYPE_CHECKING:
    from anthropic.types import (
        CacheControlEphemeralParam,
        MessageParam,
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


@dataclass(frozen=True, slots=True)
class Writer:
    """Writes requests to one model. ``model`` is its id, ``name`` ours; ``effort`` None leaves that to the model."""

    model: str
    name: str
    family: Family
    effort: Effort | None

    def params(self, request: Request, structure: Structure | None) -> MessageCreateParamsBase:
        """The body of a request. Raises `RequestRejected`, for what this model is known to refuse."""
        kept = _kept(self.family, request)
        body: MessageCreateParamsBase = {
            "model": self.model,
            "max_tokens": request.max_output_tokens,
            "messages": _turns(self.model, request.messages, kept),
            "service_tier": "standard_only",  # the tier that the price is for
        }
        if any(message.role == "system" for message in request.messages):
            body["system"] = _system(request.messages, kept)
        if request.stop:
            body["stop_sequences"] = list(request.stop)
        if request.tools:
            body["tools"] = [_tool(tool) for tool in request.tools]
            body["tool_choice"] = self._choice(request.tool_choice)
        thought = self.thinking(request)
        if thought.config is not None:
            body["thinking"] = thought.config
        if config := _output(structure, thought.effort):
            body["output_config"] = config
        return body

    def thinking(self, request: Request) -> Thought:
        """How the model is to think: within ``reasoning_tokens`` where it takes a budget, else with some effort.

        A request that leaves it to the model, and no room for it under its cap, asks for as little as the model can.
        """
        most = request.reasoning_tokens
        if most is None and request.max_output_tokens < LEAST_BUDGET:
            most = 0
        if most is None:
            return Thought(None, self.effort, hidden=self.family.thinking not in ("budget", "asked"))
        if self.family.thinking == "budget":
            return _budgeted(request, most, self.effort)
        if most == 0:
            return _least(self.family.thinking, request, self.effort)
        return Thought({"type": "adaptive"}, self.effort or _effort(most), hidden=True)

    def _choice(self, choice: ToolChoice) -> ToolChoiceParam:
        match choice:
            case "auto":
                return {"type": "auto"}
            case "none":
                return {"type": "none"}
            case "required":
                return self._forced()
        assert_never(choice)

    def _forced(self) -> ToolChoiceParam:
        if self.family.forces_tools:
            return {"type": "any"}
        raise RequestRejected(
            f"{self.name} cannot be made to call a tool: leave tool_choice at 'auto', and ask for it in the prompt",
            model=self.name,
            sent=False,
        )


def _budgeted(request: Request, most: int, effort: Effort | None) -> Thought:
    budget = min(most, request.max_output_tokens - 1)
    # A model that thinks cannot be made to call a tool, and must be shown its thoughts with a tool's result.
    forced = bool(request.tools) and request.tool_choice == "required"
    forgotten = any(message.calls and not message.echo for message in request.messages)
    if budget < LEAST_BUDGET or forced or forgotten:
        return Thought(None, effort, hidden=False)
    return Thought({"type": "enabled", "budget_tokens": budget}, effort, hidden=True)


def _least(way: Way, request: Request, effort: Effort | None) -> Thought:
    match way:
        case "budget" | "asked":
            return Thought(None, effort, hidden=False)
        case "usual":
            strong = effort in ("xhigh", "max")  # with which it cannot be turned off
            return Thought(None if strong else {"type": "disabled"}, effort, hidden=strong)
        case "between":
            return Thought({"type": "between_tools"}, effort, hidden=bool(request.tools))
        case "always":
            return Thought(None, effort or "low", hidden=True)
    assert_never(way)


def _effort(most: int) -> Effort:
    for under, effort in EFFORTS:
        if most < under:
            return effort
    return "high"


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


def _system(messages: tuple[Message, ...], kept: Kept | None) -> str | list[TextBlockParam]:
    """What the system says: in one text, or in two where the first is shared by many requests."""
    said = [message.text for message in messages if message.role == "system"]
    if kept is None or kept.turns or not kept.system:
        return "\n\n".join(said)
    blocks: list[TextBlockParam] = [
        {"type": "text", "text": "\n\n".join(said[: kept.system]), "cache_control": kept.control}
    ]
    if own := said[kept.system :]:
        blocks.append({"type": "text", "text": "\n\n".join(own)})
    return blocks


def _turns(model: str, messages: tuple[Message, ...], kept: Kept | None) -> list[MessageParam]:
    """The turns. Results of tools that were called together come back together."""
    turns = [message for message in messages if message.role != "system"]
    written: list[Block] = []
    for number, message in enumerate(turns, 1):
        content = _content(model, message)
        if kept is not None and kept.turns == number:
            content = _marked(content, kept.control)
        if message.role == "tool" and number > 1 and turns[number - 2].role == "tool":
            written[-1]["content"] += content
        else:
            written.append({"role": "assistant" if message.role == "assistant" else "user", "content": content})
    return cast("list[MessageParam]", written)


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


def _call(call: ToolCall) -> Block:
    return {"type": "tool_use", "id": call.id, "name": call.name, "input": _arguments(call.arguments)}


def _arguments(written: str) -> Mapping[str, object]:
    """Arguments as the API wants them: an object, even if the model wrote something else."""
    try:
        value: object = json.loads(written or "{}")
    except (ValueError, RecursionError):
        return {"unreadable": written}
    return cast("dict[str, object]", value) if isinstance(value, dict) else {"value": value}


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
