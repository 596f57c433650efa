"""What a call of a chat model sends beside its messages, and what of it nobody can hold the price of."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final, cast

from langchain_core.language_models import BaseChatModel

from agentbudget.errors import Mistake

CAPS: Final = ("max_tokens", "max_completion_tokens", "max_output_tokens", "max_tokens_to_sample", "num_predict")
"""What integrations call the most tokens of an answer."""

ELSEWHERE: Final = ("previous_response_id", "conversation", "prompt")
"""What names words that stand at the provider, which reads them, and charges for them, with every call."""

RUN_THERE: Final = ("mcp_servers", "web_search_options")
"""What the provider uses by itself, as often as it likes, and charges apart from what was sent."""


def beside(chat: BaseChatModel, asked: Mapping[str, Any]) -> dict[str, Any]:
    """What the chat model was made with and the keywords of a call, where they are sent as they are.

    Raises `Mistake` for what would be charged and cannot be counted, capped or priced.
    """
    made: Mapping[str, Any] = getattr(chat, "model_kwargs", None) or {}
    body: Mapping[str, Any] = {**(getattr(chat, "extra_body", None) or {}), **(asked.get("extra_body") or {})}
    told = {**made, **asked, **body}
    told.pop("extra_body", None)
    _require_capped(body)
    _require_here(chat, told)
    _require_text(told)
    return told


def _require_capped(body: Mapping[str, Any]) -> None:
    over = [name for name in CAPS if name in body]
    if over:
        raise Mistake(f"{over[0]} in extra_body goes before the cap that is held for: say it as a keyword instead")


def _require_here(chat: BaseChatModel, told: Mapping[str, Any]) -> None:
    for name in ELSEWHERE:
        if told.get(name):
            raise Mistake(
                f"{name} names words that stand at the provider, which are charged with every call: nobody can count "
                "them beforehand. Bring the messages themselves"
            )
    for name in RUN_THERE:
        if name in told or getattr(chat, name, None):
            raise Mistake(
                f"{name} lets the provider run tools, and charge for what they bring: nobody can hold what it will "
                "cost. Use a tool that runs in your own code"
            )


def _require_text(told: Mapping[str, Any]) -> None:
    """Sound has a price of its own, many times that of text, which no list states for a chat model."""
    if "audio" in cast("list[str]", told.get("modalities") or ()):
        raise Mistake("an answer in sound is charged apart from its text, at a price that is not known: ask for text")
