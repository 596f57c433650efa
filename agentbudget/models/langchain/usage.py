"""What a LangChain message says that it used, in our words."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import replace
from typing import Any, Final, cast

from langchain_core.messages import AIMessage
from langchain_core.messages.ai import UsageMetadata

from agentbudget.models.base import Price
from agentbudget.usage import Usage

OUR_USAGE: Final = "agentbudget_usage"
"""Where a chat model made of one of our models writes what it used, with what LangChain has no words for."""

_TIERS: Final = ("", "priority_", "flex_")


def usage_of(message: AIMessage) -> Usage | None:
    """The usage that came with a message; None if none did.

    By LangChain's definition its input includes cache reads and writes, and its output reasoning. An integration that
    counts otherwise makes the parts larger than the whole: then the whole is raised, never a part dropped.
    """
    ours = cast("Mapping[str, Any]", message.response_metadata).get(OUR_USAGE)
    if isinstance(ours, dict):
        return Usage.from_dict(cast("dict[str, int]", ours))
    said = message.usage_metadata
    if said is None or said["input_tokens"] <= 0:  # no request has an empty input: nobody counted
        return None
    if max(said["output_tokens"], said["total_tokens"] - said["input_tokens"]) <= 0 and _says_something(message):
        return None
    read = cast("Mapping[str, int | None]", said.get("input_token_details", {}))
    wrote = cast("Mapping[str, int | None]", said.get("output_token_details", {}))
    cached = _sum(read, "cache_read")
    hour = _number(read.get("ephemeral_1h_input_tokens"))
    written = max(_sum(read, "cache_creation"), hour + _number(read.get("ephemeral_5m_input_tokens")))
    reasoning = _sum(wrote, "reasoning")
    return Usage(
        input_tokens=max(said["input_tokens"], cached + written),
        output_tokens=max(said["output_tokens"], said["total_tokens"] - said["input_tokens"], reasoning),
        cached_tokens=cached,
        cache_write_tokens=written,
        reasoning_tokens=reasoning,
        cache_write_1h_tokens=hour,
    )


def timed(usage: Usage, price: Price, started_ns: int) -> Usage:
    """The same with the time since ``started_ns`` (`time.perf_counter_ns`), where time is paid for.

    An integration (Ollama's) does not say how long its server computed; one of our models does.
    """
    if price.compute_cap_s(1) is None or usage.compute_ns:
        return usage
    return replace(usage, compute_ns=time.perf_counter_ns() - started_ns)


def metadata_of(usage: Usage) -> UsageMetadata:
    """Our usage as LangChain's ``usage_metadata``."""
    return UsageMetadata(
        input_tokens=usage.input_tokens,
        output_tokens=usage.output_tokens,
        total_tokens=usage.total_tokens,
        input_token_details={"cache_read": usage.cached_tokens, "cache_creation": usage.cache_write_tokens},
        output_token_details={"reasoning": usage.reasoning_tokens},
    )


def _says_something(message: AIMessage) -> bool:
    return bool(message.content or message.tool_calls or message.invalid_tool_calls)


def _sum(details: Mapping[str, int | None], name: str) -> int:
    return sum(_number(details.get(tier + name)) for tier in _TIERS)


def _number(value: int | None) -> int:
    return max(0, value or 0)
