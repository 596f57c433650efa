"""What Anthropic's API answers: messages, events of a stream, and usage as it counts it."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Annotated, Any, Final

from pydantic import BaseModel, Field

from agentbudget.errors import InvalidOutput
from agentbudget.models.anthropic.asked import echo_of
from agentbudget.models.anthropic.bound import made_bound
from agentbudget.models.base import Completion, Finish, ToolCall
from agentbudget.models.structured import Structure
from agentbudget.usage import Usage

FINISHES: Final[dict[str, Finish]] = {
    "end_turn": "stop",
    "stop_sequence": "stop",
    "max_tokens": "length",
    "model_context_window_exceeded": "length",
    "refusal": "refused",
    "tool_use": "tools",
}

Count = Annotated[int | None, Field(ge=0)]


class _Written(BaseModel):
    """What the cache wrote, by how long it is kept."""

    ephemeral_1h_input_tokens: Count = None


class _OutputDetails(BaseModel):
    thinking_tokens: Count = None


class CountedUsage(BaseModel):
    """Usage as Anthropic counts it: `input_tokens` excludes what the cache read and wrote."""

    input_tokens: Count = None
    output_tokens: Count = None
    cache_read_input_tokens: Count = None
    cache_creation_input_tokens: Count = None
    cache_creation: _Written | None = None
    output_tokens_details: _OutputDetails | None = None

    def ours(self) -> Usage | None:
        """The same, input inclusive; None if it lacks one of both counts."""
        if self.input_tokens is None or self.output_tokens is None:
            return None
        read, written = self.cache_read_input_tokens or 0, self.cache_creation_input_tokens or 0
        kept_1h = (self.cache_creation and self.cache_creation.ephemeral_1h_input_tokens) or 0
        thought = (self.output_tokens_details and self.output_tokens_details.thinking_tokens) or 0
        return Usage(
            input_tokens=self.input_tokens + read + written,
            output_tokens=self.output_tokens,
            cached_tokens=read,
            cache_write_tokens=written,
            cache_write_1h_tokens=min(kept_1h, written),
            reasoning_tokens=min(thought, self.output_tokens),
        )

    def updated(self, later: CountedUsage) -> CountedUsage:
        """These counts with those that a later event of the stream states: they are cumulative."""
        stated = {name: getattr(later, name) for name in later.model_fields_set if getattr(later, name) is not None}
        return self.model_copy(update=stated)


class CountedInput(BaseModel):
    """What the count endpoint says."""

    input_tokens: Annotated[int, Field(ge=0)]


class Block(BaseModel):
    """A part of an answer: text, thinking, or the call of a tool."""

    type: str
    text: str = ""
    thinking: str = ""
    signature: str = ""
    data: str = ""
    id: str = ""
    name: str = ""
    input: Mapping[str, Any] = Field(default_factory=dict[str, Any])
    written: str = Field(default="", exclude=True)
    """A call's arguments as they came in a stream: perhaps no JSON, if the model was cut short."""

    def echoed(self) -> dict[str, str]:
        """A block of thinking as it was, to be brought back with a tool's result."""
        if self.type == "redacted_thinking":
            return {"type": self.type, "data": self.data}
        return {"type": self.type, "thinking": self.thinking, "signature": self.signature}


class Answer(BaseModel):
    """The part of a message that we read."""

    model: str
    content: list[Block]
    stop_reason: str | None = None
    usage: CountedUsage

    @property
    def text(self) -> str:
        """What was said, without what was thought."""
        return "".join(block.text for block in self.content if block.type == "text")

    def calls(self) -> tuple[ToolCall, ...]:
        """The tools that are asked for."""
        return tuple(
            ToolCall(block.id, block.name, block.written or json.dumps(block.input, ensure_ascii=False))
            for block in self.content
            if block.type == "tool_use"
        )

    def thoughts(self) -> list[dict[str, str]]:
        """The blocks of thinking, as they were."""
        return [block.echoed() for block in self.content if block.type in ("thinking", "redacted_thinking")]


class _Delta(BaseModel):
    type: str = ""
    text: str = ""
    thinking: str = ""
    signature: str = ""
    partial_json: str = ""
    stop_reason: str | None = None


class Event(BaseModel):
    """One event of a streamed message."""

    type: str
    index: int = -1
    message: Answer | None = None
    content_block: Block | None = None
    delta: _Delta = _Delta()
    usage: CountedUsage = CountedUsage()


@dataclass(frozen=True, slots=True)
class Reader:
    """Makes a `Completion` of an answer to one request. ``model`` is its id, ``name`` ours."""

    model: str
    name: str
    structure: Structure | None

    def completion(self, answer: Answer, reason: str, usage: Usage) -> Completion:
        """The answer. Raises `InvalidOutput`, with what was used, if it is none that was asked for."""
        finish = FINISHES.get(reason)
        if finish is None:
            raise InvalidOutput(f"{self.name} stopped for {reason!r}, not with an answer", model=self.name, usage=usage)
        text = self._unwrapped(answer.text, usage) if finish == "stop" else answer.text
        calls = answer.calls() if finish == "tools" else ()
        echo = echo_of(self.model, answer.thoughts()) if calls else ""
        return Completion(text=text, finish=finish, usage=usage, served_by=answer.model, calls=calls, echo=echo)

    def _unwrapped(self, text: str, usage: Usage) -> str:
        if self.structure is None:
            return text
        try:
            return self.structure.unwrap(text)
        except ValueError as error:
            raise InvalidOutput(
                f"{self.name} did not keep to the schema: {error}", model=self.name, usage=usage
            ) from error


@dataclass(slots=True)
class Heard:
    """What a stream has brought so far.

    ``cap`` is the most output that the request allows. ``hidden``: the model may think without its being seen, so that
    what arrived bounds nothing. ``lead`` is what the server may charge after the stream is closed, None if that may be
    all. Implements `agentbudget.models.remote.Heard`.
    """

    reader: Reader
    cap: int
    hidden: bool
    lead: int | None
    answer: Answer | None = None
    blocks: dict[int, Block] = field(default_factory=dict[int, Block])
    size: int = 0
    counted: bool = False

    @property
    def usage(self) -> Usage | None:
        """What the answer used, once the API has said why it ended and how long it is: its start knows of one token."""
        if self.answer is None or self.answer.stop_reason is None or not self.counted:
            return None
        return self.answer.usage.ours()

    def take(self, event: Event) -> str:
        """The text that an event brings. Raises `ValueError` for an event that cannot stand where it does."""
        if event.type == "message_start" and event.message is not None:
            self.answer = event.message
        elif event.type == "content_block_start" and event.content_block is not None:
            self.blocks[event.index] = event.content_block
            return self._told(event.content_block.text)
        elif event.type == "content_block_delta":
            return self._add(event.index, event.delta)
        elif event.type == "message_delta":
            self._end(event)
        return ""

    def so_far(self) -> Usage | None:
        """The input, and the most output of which what arrived (and what may be under way) was made."""
        made = self.cap if self.hidden else made_bound(self.size, len(self.blocks)) + (self.lead or 0)
        return self._with_output(min(made, self.cap))

    def presumed(self) -> Usage | None:
        """The input, and what output may be charged if the stream ends here."""
        return self._with_output(self.cap) if self.lead is None else self.so_far()

    def completion(self, usage: Usage, *, cut: bool) -> Completion:
        """The answer, whole or cut. Raises `InvalidOutput` if it is none."""
        if self.answer is None:
            raise ValueError("a stream without a message")
        whole = self.answer.model_copy(update={"content": [block for _, block in sorted(self.blocks.items())]})
        if cut:
            return Completion(whole.text, "cut", usage, served_by=whole.model)
        return self.reader.completion(whole, whole.stop_reason or "", usage)

    def _add(self, index: int, delta: _Delta) -> str:
        block = self.blocks.get(index)
        if block is None:
            raise ValueError(f"a piece of block {index}, which has not begun")
        self.size += len(f"{delta.thinking}{delta.partial_json}".encode())
        block.text += delta.text
        block.thinking += delta.thinking
        block.signature += delta.signature
        block.written += delta.partial_json
        return self._told(delta.text)

    def _told(self, text: str) -> str:
        """What of a text that arrived is for the reader."""
        self.size += len(text.encode())
        held_back = self.reader.structure is not None and self.reader.structure.wrapped
        return "" if held_back else text

    def _end(self, event: Event) -> None:
        if self.answer is None:
            raise ValueError("the end of a message that has not begun")
        usage = self.answer.usage.updated(event.usage)
        reason = event.delta.stop_reason or self.answer.stop_reason  # there may be several of these events
        self.answer = self.answer.model_copy(update={"stop_reason": reason, "usage": usage})
        self.counted = self.counted or event.usage.output_tokens is not None

    def _with_output(self, output_tokens: int) -> Usage | None:
        said = self.answer.usage.model_copy(update={"output_tokens": output_tokens}) if self.answer else None
        return said.model_copy(update={"output_tokens_details": None}).ours() if said else None
