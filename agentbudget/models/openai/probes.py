"""What a server says of itself, and of a request before it is carried out: whether it is up, its window, its count."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Final, assert_never
from urllib.parse import quote

from pydantic import BaseModel

from agentbudget.models.openai import chat, responses
from agentbudget.models.openai.asked import Asked
from agentbudget.models.servers import Counter, WindowSource, root_of

if TYPE_CHECKING:
    from openai import AsyncOpenAI

PROBE_S: Final = 10.0
"""Longest wait for what a server knows without thinking."""


class Unanswered(Exception):
    """The server does not say it."""


async def is_up(client: AsyncOpenAI, address: str, path: str) -> bool:
    """Whether the server answers at its health endpoint. Raises the SDK's errors if it refuses or is not there."""
    await _get(client, root_of(address) + path)
    return True


async def count(client: AsyncOpenAI, address: str, way: Counter, asked: Asked) -> int:
    """Input tokens of a request, as the server itself counts them. Raises the SDK's errors, `Unanswered`."""
    root = root_of(address)
    match way:
        case "responses":
            said = await _post(client, address + "/responses/input_tokens", responses.counted(asked))
            return _InputTokens.model_validate_json(said).input_tokens
        case "chat":
            said = await _post(client, address + "/chat/completions/input_tokens", chat.counted(asked))
            return _InputTokens.model_validate_json(said).input_tokens
        case "tokenize":
            body = chat.counted(asked)
            rendered = {key: body[key] for key in ("model", "messages", "tools") if key in body}
            return _Count.model_validate_json(await _post(client, root + "/tokenize", rendered)).count
        case "chat_tokenize":
            said = await _post(client, root + "/chat_tokenize", chat.body(asked))
            return len(_Tokenized.model_validate_json(said).tokenize_response)
    assert_never(way)


async def window(client: AsyncOpenAI, address: str, way: WindowSource, model_id: str) -> int:
    """Tokens of context of a model, as its server says. Raises the SDK's errors, `Unanswered` if it is silent on it."""
    root = root_of(address)
    match way:
        case "props":
            said = await _get(client, root + "/props")
            return _Props.model_validate_json(said).default_generation_settings.n_ctx
        case "info":
            return _Info.model_validate_json(await _get(client, root + "/info")).max_total_tokens
        case "models":
            cards = _Cards.model_validate_json(await _get(client, address + "/models")).data
            return _only(model_id, ((card.id, card.max_model_len) for card in cards))
        case "ps":
            running = _Running.model_validate_json(await _get(client, root + "/api/ps")).models
            return _only(model_id, ((model.name, model.context_length) for model in running))
        case "loaded":
            said = await _get(client, f"{root}/api/v0/models/{quote(model_id)}")
            return _only(model_id, [(model_id, _Loaded.model_validate_json(said).loaded_context_length)])
    assert_never(way)


def _only(model_id: str, stated: Iterable[tuple[str, int | None]]) -> int:
    """What is stated of this model. Ollama names its latest version ``name:latest``."""
    for name, tokens in stated:
        if name in (model_id, f"{model_id}:latest") and tokens:
            return tokens
    raise Unanswered(model_id)


async def _get(client: AsyncOpenAI, url: str) -> bytes:
    return await client.get(url, cast_to=bytes, options={"timeout": PROBE_S})


async def _post(client: AsyncOpenAI, url: str, body: dict[str, object]) -> bytes:
    return await client.post(url, cast_to=bytes, body=body, options={"timeout": PROBE_S})


class _InputTokens(BaseModel):
    input_tokens: int


class _Count(BaseModel):
    count: int


class _Tokenized(BaseModel):
    tokenize_response: list[object]


class _Settings(BaseModel):
    n_ctx: int


class _Props(BaseModel):
    default_generation_settings: _Settings


class _Info(BaseModel):
    max_total_tokens: int


class _Card(BaseModel):
    id: str
    max_model_len: int | None = None


class _Cards(BaseModel):
    data: list[_Card]


class _RunningModel(BaseModel):
    name: str
    context_length: int | None = None


class _Running(BaseModel):
    models: list[_RunningModel]


class _Loaded(BaseModel):
    loaded_context_length: int | None = None
