"""What an API of OpenAI's kind answers, whichever it is, in one form."""

from __future__ import annotations

from dataclasses import dataclass
from math import exp
from typing import Annotated

from pydantic import BaseModel, Field

from agentbudget.errors import ModelError, ModelUnavailable, RateLimited, RequestRejected
from agentbudget.models.base import Finish, ToolCall
from agentbudget.usage import Usage

Count = Annotated[int | None, Field(ge=0)]
"""Tokens, where a server states them."""


@dataclass(frozen=True, slots=True)
class Failure:
    """An error that stands inside an answer or a stream, as one of ours, with the server's words."""

    kind: type[ModelError]
    detail: str


@dataclass(frozen=True, slots=True)
class Answer:
    """A whole answer. ``finish`` is None if it did not end as answers do, ``usage`` if it does not say what it used.

    ``compute_ns`` is how long the server says that it computed, ``tier`` which service tier it says that it served.
    """

    model: str
    text: str
    finish: Finish | None
    usage: Usage | None
    calls: tuple[ToolCall, ...] = ()
    logprobs: tuple[float, ...] = ()
    tier: str | None = None
    compute_ns: int | None = None
    failure: Failure | None = None

    @property
    def confidence(self) -> float | None:
        """The geometric mean of the tokens' probabilities."""
        return min(1.0, exp(sum(self.logprobs) / len(self.logprobs))) if self.logprobs else None


@dataclass(frozen=True, slots=True)
class Piece:
    """What one event of a stream brings.

    ``text`` of the answer; ``hidden`` bytes that the model wrote beside it (arguments of tools, thoughts); the
    ``usage`` so far and the time, if the server states them; the ``answer``, with the last event.
    """

    text: str = ""
    hidden: int = 0
    usage: Usage | None = None
    compute_ns: int | None = None
    answer: Answer | None = None


class ErrorBody(BaseModel):
    """An error as servers state it in the middle of a stream."""

    message: str = ""
    type: str | None = None
    code: str | int | None = None

    def failure(self) -> Failure:
        """The error of ours that it is: a fault of the server unless it says otherwise."""
        said = f"{self.code or ''} {self.type or ''}"
        if "rate_limit" in said or "429" in said or "resource_exhausted" in said:
            kind: type[ModelError] = RateLimited
        elif "invalid" in said or "400" in said or "exceed_context" in said or "BadRequest" in said:
            kind = RequestRejected
        else:
            kind = ModelUnavailable
        return Failure(kind, f"{self.code or self.type or 'error'}: {self.message}")


class InputDetails(BaseModel):
    """What the server's cache did."""

    cached_tokens: Count = None
    cache_write_tokens: Count = None


class OutputDetails(BaseModel):
    """What of the output is reasoning."""

    reasoning_tokens: Count = None


def usage_of(
    input_tokens: int | None,
    output_tokens: int | None,
    total_tokens: int | None,
    *,
    read: InputDetails | None = None,
    wrote: OutputDetails | None = None,
) -> Usage | None:
    """Our usage; None if a count is missing. A server that does not say what its cache did is taken to have none.

    Where the parts come to more than their whole, a server counts them beside it: they are added. So an answer that was
    paid for is not lost over its bill, and no part of that is dropped.
    """
    if input_tokens is None or output_tokens is None:
        return None
    cached = (read.cached_tokens or 0) if read else 0
    written = (read.cache_write_tokens or 0) if read else 0
    reasoning = (wrote.reasoning_tokens or 0) if wrote else 0
    output = max(output_tokens, (total_tokens or 0) - input_tokens)
    return Usage(
        input_tokens=_whole(input_tokens, cached + written),
        output_tokens=_whole(output, reasoning),
        cached_tokens=cached,
        cache_write_tokens=written,
        reasoning_tokens=reasoning,
    )


def _whole(stated: int, parts: int) -> int:
    return stated if parts <= stated else stated + parts
