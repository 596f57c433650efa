"""What has arrived of a LangChain stream: its text, what it says of itself, and the most that it may have used."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import replace
from typing import Any, Final, cast

from langchain_core.messages import AIMessage, AIMessageChunk

from agentbudget.models.base import Finish, Price
from agentbudget.models.langchain.messages import text_of, thoughts_of
from agentbudget.models.langchain.usage import timed, usage_of
from agentbudget.models.tokens import Encoding, text_tokens
from agentbudget.usage import Usage

FINISHES: Final[Mapping[str, Finish]] = {
    "budget": "budget",
    "cut": "cut",
    "refused": "refused",
    "tools": "tools",
    "length": "length",
    "max_tokens": "length",
    "max_output_tokens": "length",
    "content_filter": "refused",
    "refusal": "refused",
    "safety": "refused",
    "tool_calls": "tools",
    "tool_use": "tools",
}
"""Why an answer ended, in the providers' words, and our own, in small letters; any other word is an ordinary end."""

REASONS: Final = ("finish_reason", "stop_reason", "done_reason", "status")
"""Where integrations keep it."""

ALWAYS_SAY: Final = frozenset({"openai", "anthropic"})
"""Providers whose streams always say why they ended: one that does not has broken off, without an error."""


def reason_of(message: AIMessage) -> str | None:
    """The provider's word for why the answer ended, if it said."""
    told = cast("Mapping[str, Any]", message.response_metadata)
    incomplete = told.get("incomplete_details")
    if isinstance(incomplete, dict):
        return str(cast("dict[str, Any]", incomplete).get("reason"))
    return next((str(told[name]) for name in REASONS if told.get(name)), None)


def finish_of(message: AIMessage) -> Finish:
    """The same in our words."""
    return FINISHES.get((reason_of(message) or "").lower(), "stop")


class Arrived:
    """The pieces of one stream, added up.

    ``lead`` tokens may have been made beyond what arrived; None if nobody knows, so that all of ``cap`` may have been.
    Where ``price`` is one of time, what was used has the time since this was made, too.
    """

    def __init__(
        self,
        input_tokens: int,
        *,
        cap: int,
        lead: int | None = None,
        encoding: Encoding | None = None,
        provider: str = "",
        price: Price | None = None,
    ) -> None:
        self.started_ns: Final = time.perf_counter_ns()
        self._price = price
        self._input = input_tokens
        self._cap = cap
        self._lead = lead
        self.cut = False
        self._encoding: Encoding | None = encoding
        self._says_when_it_ends = provider in ALWAYS_SAY
        self._output = 0
        self.message: AIMessageChunk | None = None

    def take(self, piece: AIMessageChunk) -> None:
        """Add a piece."""
        self.message = piece if self.message is None else self.message + piece
        arguments = "".join((call["name"] or "") + (call["args"] or "") for call in piece.tool_call_chunks)
        made = text_of(piece) + arguments + thoughts_of(piece)
        if made:
            self._output += max(1, text_tokens(self._encoding, made))

    @property
    def text(self) -> str:
        """The text until now."""
        return "" if self.message is None else text_of(self.message)

    @property
    def most(self) -> Usage:
        """The most that the stream has used: what the provider said, or a bound of what arrived and is under way."""
        told = None if self.message is None else self.message.usage_metadata
        said = None if self.message is None else usage_of(self.message)
        # Usage without its input is none yet; what it states of the output is true all the same.
        stated = said.output_tokens if said else told["output_tokens"] if told else 0
        output = max(self._output + (self._lead or 0), stated)
        return self._timed(Usage(max(self._input, said.input_tokens if said else 0), min(self._cap, output)))

    def _timed(self, usage: Usage) -> Usage:
        return usage if self._price is None else timed(usage, self._price, self.started_ns)

    @property
    def presumed(self) -> Usage:
        """The most that may be charged for the stream if it ends here without a word of its provider's."""
        most = self.most
        return most if self._lead is not None else replace(most, output_tokens=self._cap)

    @property
    def ended(self) -> bool:
        """Whether the provider said that this was the end."""
        said = self.message is not None and reason_of(self.message) is not None
        return said or not self._says_when_it_ends
