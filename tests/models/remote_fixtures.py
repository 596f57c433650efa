"""Answers in the shape in which each API sends them, and a model of each API on a loopback server."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final

from agentbudget.models.anthropic import AnthropicModel
from agentbudget.models.base import JsonSchema, Message, Request
from agentbudget.models.openai import OpenAIModel
from agentbudget.prices import TokenPrice
from tests.models.played import Dialect
from tests.models.played.chat import CHAT
from tests.models.played.messages import MESSAGES, error
from tests.models.played.responses import RESPONSES
from tests.models.provider_server import Json, Reply, frame

KEY: Final = "sk-very-secret-0123456789"
PRICE: Final = TokenPrice.custom(input_usd_per_mtok=1, output_usd_per_mtok=5)


def ask(text: str = "Say hi", *, cap: int = 64, schema: JsonSchema | None = None, **more: Any) -> Request:
    messages = (Message("system", "Be brief."), Message("user", text))
    return Request(messages=messages, max_output_tokens=cap, schema=schema, **more)


def claude_answer(text: str = "hi", *, stop_reason: str | None = "end_turn", **usage: int) -> Json:
    return {
        "id": "msg_01XFDUDYJgAACzvnptvVoYEL",
        "type": "message",
        "role": "assistant",
        "model": "claude-haiku-4-5-20251001",
        "content": [{"type": "text", "text": text}],
        "stop_reason": stop_reason,
        "stop_sequence": None,
        "usage": {
            "input_tokens": 12,
            "cache_creation_input_tokens": 0,
            "cache_read_input_tokens": 0,
            "cache_creation": {"ephemeral_5m_input_tokens": 0, "ephemeral_1h_input_tokens": 0},
            "output_tokens": 3,
            "service_tier": "standard",
            **usage,
        },
    }


def response_answer(text: str = "hi", **changes: Any) -> Json:
    return {
        "id": "resp_67ccd2bed1ec8190b14f964abc0542670bb6a6b452d3795b",
        "object": "response",
        "created_at": 1741476542,
        "status": "completed",
        "error": None,
        "incomplete_details": None,
        "model": "gpt-4.1-mini-2025-04-14",
        "output": [
            {"type": "reasoning", "id": "rs_1", "summary": []},
            {
                "type": "message",
                "id": "msg_67ccd2bf17f0819081ff3bb2cf6508e60bb6a6b452d3795b",
                "status": "completed",
                "role": "assistant",
                "content": [{"type": "output_text", "text": text, "annotations": []}],
            },
        ],
        "usage": {
            "input_tokens": 12,
            "input_tokens_details": {"cached_tokens": 0, "cache_write_tokens": 0},
            "output_tokens": 3,
            "output_tokens_details": {"reasoning_tokens": 0},
            "total_tokens": 15,
        },
        **changes,
    }


def chat_answer(text: str | None = "hi", *, finish_reason: str | None = "stop", **changes: Any) -> Json:
    return {
        "id": "chatcmpl-B9MBs8CjcvOU2jLn4n570S5qMJKcT",
        "object": "chat.completion",
        "created": 1741569952,
        "model": "gpt-4.1-mini-2025-04-14",
        "choices": [
            {
                "index": 0,
                "message": {"role": "assistant", "content": text, "refusal": None, "annotations": []},
                "logprobs": None,
                "finish_reason": finish_reason,
            }
        ],
        "usage": {
            "prompt_tokens": 12,
            "completion_tokens": 3,
            "total_tokens": 15,
            "prompt_tokens_details": {"cached_tokens": 0, "audio_tokens": 0},
            "completion_tokens_details": {"reasoning_tokens": 0, "audio_tokens": 0},
        },
        **changes,
    }


def claude(url: str, *, model_id: str = "claude-haiku-4-5", api_key: str = KEY) -> AnthropicModel:
    return AnthropicModel(model_id, base_url=url, api_key=api_key, price=PRICE, context_window=200_000)


def responses(url: str, *, model_id: str = "gpt-4.1-mini", api_key: str = KEY) -> OpenAIModel:
    return OpenAIModel(
        model_id, api="responses", base_url=f"{url}/v1", api_key=api_key, price=PRICE, context_window=128_000
    )


def chat(url: str, *, model_id: str = "gpt-4.1-mini", api_key: str = KEY) -> OpenAIModel:
    return OpenAIModel(model_id, base_url=f"{url}/v1", api_key=api_key, price=PRICE, context_window=128_000)


@dataclass(frozen=True, slots=True)
class Api:
    """One API as the shared tests see it."""

    name: str
    path: str
    variable: str
    model: Callable[[str], AnthropicModel | OpenAIModel]
    answer: Callable[[], Json]
    dialect: Dialect
    error_event: bytes
    """How an API that has begun to answer says that it cannot go on."""

    def reply(self) -> Reply:
        return Reply.json(self.answer())


OVERLOADED: Final = {"error": {"message": "Overloaded", "type": "overloaded_error", "param": None, "code": None}}

APIS: Final = (
    Api(
        "anthropic",
        "/v1/messages",
        "ANTHROPIC_API_KEY",
        claude,
        claude_answer,
        MESSAGES,
        frame(error("overloaded_error", "Overloaded")),
    ),
    Api(
        "responses",
        "/v1/responses",
        "OPENAI_API_KEY",
        responses,
        response_answer,
        RESPONSES,
        frame({"type": "error", "code": "server_error", "message": "Overloaded", "param": None, "sequence_number": 9}),
    ),
    Api("chat", "/v1/chat/completions", "OPENAI_API_KEY", chat, chat_answer, CHAT, frame(OVERLOADED)),
)
