"""What an API of OpenAI's kind answers, whichever it is, in one form."""

from __future__ import annotations

from dataclasses import dataclass
from math import exp

from pydantic import BaseModel

from agentbudget.errors import ModelError, ModelUnavailable, RateLimited, RequestRejected
from agentbudget.models.base import Finish, ToolCall
from agentbudget.usage import Usage


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

    cached_tokens: int | None = None
    cache_write_tokens: int | None = None


class OutputDetails(BaseModel):
    """What of the output is reasoning."""

    reasoning_tokens: int | None = None


def usage_of(
    input_tokens: int, output_tokens: int, read: InputDetails | None = None, wrote: OutputDetails | None = None
) -> Usage:
    """Our usage. A server that does not say what its cache did is taken to have none."""
    return Usage(
        input_tokens=input_tokens,
        output_tokens=output_tokens,
        cached_tokens=(read.cached_tokens or 0) if read else 0,
        cache_write_tokens=(read.cache_write_tokens or 0) if read else 0,
        reasoning_tokens=(wrote.reasoning_tokens or 0) if wrote else 0,
    )
