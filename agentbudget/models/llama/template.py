"""A model's chat template: messages and tools → text, in which only the template's own words can be control tokens."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Sequence
from contextvars import ContextVar
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final

from agentbudget.models.base import Message, Tool
from agentbudget.models.llama import calls

_MARK: Final = re.compile("\ue000([0-9]+)\ue001")
"""Stands for a text in what is rendered: characters for private use, which no template writes."""


@dataclass(frozen=True, slots=True)
class Piece:
    """A part of a rendered prompt. ``of`` is the number of the message that it is the text of, None for other parts.

    ``own``: the template's own words, in which control tokens count; all else is text, whatever it says.
    """

    text: str
    own: bool
    of: int | None = None


class ChatTemplate:
    """A Jinja template, as it stands in a GGUF file or as somebody gives it."""

    def __init__(self, source: str, *, begin: str, end: str) -> None:
        """`begin` and `end` are the names of the tokens that begin and end a text."""
        import jinja2
        from jinja2 import meta
        from jinja2.ext import loopcontrols
        from jinja2.sandbox import ImmutableSandboxedEnvironment
        from llama_cpp.llama_chat_format import Jinja2ChatFormatter

        environment = ImmutableSandboxedEnvironment(
            trim_blocks=True,
            lstrip_blocks=True,
            extensions=[Jinja2ChatFormatter.IgnoreGenerationTags, loopcontrols],
        )
        environment.filters["tojson"] = _mark_json
        known: dict[str, Any] = {"raise_exception": _refuse, "strftime_now": _now, "bos_token": begin, "eos_token": end}
        environment.globals.update(known)
        self._template: jinja2.Template = environment.from_string(source)
        names = meta.find_undeclared_variables(environment.parse(source))
        self.knows_tools = "tools" in names and calls.BEGIN in source

    def render(self, messages: Sequence[Message], tools: Sequence[Tool] = ()) -> Iterator[Piece]:
        """The prompt up to where the answer begins. Raises what the template raises (`ValueError`, `TemplateError`)."""
        texts = _Texts()
        turns = [texts.turn(number, message) for number, message in enumerate(messages)]
        described = [texts.tool(tool) for tool in tools]
        token = _rendering.set(texts)
        try:
            rendered = self._template.render(messages=turns, tools=described or None, add_generation_prompt=True)
        finally:
            _rendering.reset(token)
        at = 0
        for mark in _MARK.finditer(rendered):
            if mark.start() > at:
                yield Piece(rendered[at : mark.start()], own=True)
            yield texts.piece(int(mark[1]))
            at = mark.end()
        if at < len(rendered):
            yield Piece(rendered[at:], own=True)


class _Texts:
    """What marks stand for."""

    def __init__(self) -> None:
        self._pieces: list[Piece] = []

    def turn(self, number: int, message: Message) -> dict[str, Any]:
        turn: dict[str, Any] = {"role": message.role, "content": self._mark(message.text, number)}
        if message.calls:
            turn["tool_calls"] = [
                {
                    "type": "function",
                    "id": call.id,
                    "function": {"name": self._mark(call.name, number), "arguments": _arguments(call.arguments)},
                }
                for call in message.calls
            ]
        if message.answers is not None:
            turn["tool_call_id"] = message.answers
        return turn

    def tool(self, tool: Tool) -> dict[str, Any]:
        function = {"name": tool.name, "description": tool.description, "parameters": dict(tool.parameters)}
        return {"type": "function", "function": function}

    def json(self, written: str) -> str:
        """A mark for JSON, in which marks of a message's texts may stand."""
        return self._mark(_MARK.sub(self._unmarked, written), None)

    def _unmarked(self, mark: re.Match[str]) -> str:
        number = int(mark[1])
        return self._pieces[number].text if number < len(self._pieces) else mark[0]

    def piece(self, number: int) -> Piece:
        return self._pieces[number]

    def _mark(self, text: str, of: int | None) -> str:
        self._pieces.append(Piece(text, own=False, of=of))
        return f"\ue000{len(self._pieces) - 1}\ue001"


def _arguments(written: str) -> object:
    """A template writes arguments by ``tojson``: as the value that they are, or as they stand if they are not JSON."""
    try:
        return json.loads(written)
    except ValueError:
        return written


def _mark_json(value: object, *, ensure_ascii: bool = False, indent: int | None = None, **others: Any) -> str:
    """The filter ``tojson``, as transformers has it; what it writes is text, in which nothing is a control token."""
    return _rendering.get().json(json.dumps(value, ensure_ascii=ensure_ascii, indent=indent, **others))


def _now(style: str) -> str:
    return datetime.now().strftime(style)


def _refuse(message: str) -> None:
    raise ValueError(message)


_rendering: Final[ContextVar[_Texts]] = ContextVar("_rendering")
