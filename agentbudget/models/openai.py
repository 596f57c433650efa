"""OpenAI's models, and every server that speaks OpenAI's chat API: llama-server, vLLM, Ollama and the like."""

from __future__ import annotations

import asyncio
import os
import re
from collections.abc import AsyncGenerator
from math import exp
from typing import TYPE_CHECKING, Annotated, Final, Literal
from weakref import WeakKeyDictionary

from pydantic import BaseModel, BeforeValidator, Field

from agentbudget.errors import (
    InvalidOutput,
    MissingDependency,
    ModelError,
    ModelUnavailable,
    RateLimited,
    RequestRejected,
    SchemaUnsupported,
    UnknownModel,
)
from agentbudget.models.base import (
    Completion,
    Delta,
    Finish,
    InputCount,
    JsonSchema,
    Message,
    Meter,
    Place,
    Price,
    Request,
    in_one_piece,
)
from agentbudget.models.remote import Caller, SdkErrors, checked_address, is_loopback, key_from, timeouts
from agentbudget.models.structured import Structure, strict, wrap
from agentbudget.models.tokens import Encoding, bytes_bound, encoding_of, openai_bound, text_tokens
from agentbudget.prices import context_window_of, price_of
from agentbudget.usage import Usage

if TYPE_CHECKING:
    from openai import AsyncOpenAI, Omit
    from openai.types.chat import ChatCompletionMessageParam
    from openai.types.responses import EasyInputMessageParam

Api = Literal["responses", "chat"]
Effort = Literal["none", "minimal", "low", "medium", "high", "xhigh", "max"]

KEY_VARIABLE: Final = "OPENAI_API_KEY"
ADDRESS_VARIABLE: Final = "OPENAI_BASE_URL"
PUBLIC_ADDRESS: Final = "https://api.openai.com/v1"

LEAST_RESPONSES_TOKENS: Final = 16
"""The Responses API refuses a smaller output cap; the chat API takes it."""

REASONING: Final = re.compile(r"(ft:)?(o\d|gpt-([5-9]|\d\d)(?!.*chat))")
"""Models that think before they answer, by their id. They refuse temperature, seed and probabilities."""

INCOMPLETE: Final[dict[str, Finish]] = {"max_output_tokens": "length", "content_filter": "refused"}
CHAT_FINISHES: Final[dict[str, Finish]] = {"stop": "stop", "length": "length", "content_filter": "refused"}


class OpenAIModel:
    """A model behind OpenAI's API, or behind a server at `base_url` that speaks it. Implements `base.Model`.

    `api` is ``"responses"`` at OpenAI and ``"chat"`` elsewhere unless given. The Responses API has no stop
    sequences and no cap under 16 tokens: such requests go to the chat API. ``temperature`` and ``seed`` are
    sent where the model takes them. With `probabilities` the completion has a confidence.

    `price` and `context_window` come from the user's price sheet or genai-prices (by the server's address)
    unless given. Raises `UnknownPrice` or `UnknownModel` if nobody states them, `Mistake` for a bad address.
    """

    def __init__(
        self,
        model_id: str,
        *,
        api: Api | None = None,
        base_url: str | None = None,
        api_key: str | None = None,
        price: Price | None = None,
        context_window: int | None = None,
        effort: Effort | None = None,
        probabilities: bool = False,
        name: str | None = None,
    ) -> None:
        self.model_id = model_id
        self.name = name or f"openai:{model_id}"
        self._base_url = base_url or os.environ.get(ADDRESS_VARIABLE) or PUBLIC_ADDRESS
        self.address = checked_address(self._base_url)
        self.official = self.address == PUBLIC_ADDRESS
        self.api: Final[Api] = api or ("responses" if self.official else "chat")
        api_url = None if self.official else self.address
        self.price: Final[Price] = price or price_of("openai", model_id, api_url=api_url)
        self.context_window = context_window or _window(model_id, api_url)
        self.effort: Final = effort
        self.probabilities: Final = probabilities
        self._encoding: Encoding | None = encoding_of(model_id) if self.official else None
        self._api_key = api_key
        self._clients: WeakKeyDictionary[asyncio.AbstractEventLoop, AsyncOpenAI] = WeakKeyDictionary()

    def __repr__(self) -> str:
        return f"OpenAIModel({self.model_id!r}, api={self.api!r}, address={self.address!r})"

    @property
    def provider(self) -> str:
        """``"openai"``, whoever serves the address."""
        return "openai"

    @property
    def place(self) -> Place:
        """``"local"`` only for a server on this machine."""
        return "local" if is_loopback(self.address) else "remote"

    @property
    def fingerprint(self) -> str:
        """The API, its address, the model's id and its effort."""
        return f"openai {self.api} {self.address} {self.model_id} effort={self.effort or 'default'}"

    @property
    def reasons(self) -> bool:
        """Whether this is one of OpenAI's reasoning models, which take no temperature, seed or probabilities."""
        return self.official and REASONING.match(self.model_id) is not None

    async def count_input(self, request: Request) -> InputCount:
        """A bound: the text is counted in the model's own vocabulary, what OpenAI adds around it is not public."""
        structure = self._structure(request.schema)
        schema = structure.schema if structure else None
        if self._encoding is None:
            return InputCount(bytes_bound(request.messages, schema), exact=False)
        return InputCount(openai_bound(self._encoding, request.messages, schema), exact=False)

    def count_text(self, text: str) -> int:
        """Tokens of `text` by itself; the most that it may have where the vocabulary is not known."""
        return text_tokens(self._encoding, text)

    async def complete(self, request: Request, meter: Meter) -> Completion:
        """Answer `request` in one request to the API; see `Model.complete`."""
        structure = self._structure(request.schema)
        client, caller = self._connect()
        ask = self._ask_chat if self._needs_chat(request) else self._ask_responses
        answer = await caller.send(lambda: ask(client, request, structure), meter, timeout_s=request.timeout_s)
        usage = answer.usage
        if usage is not None:
            meter.used(usage)
        if failure := answer.failure():
            raise caller.failed(*failure, usage)
        if usage is None:
            raise caller.unknown(f"{self.address} does not say what the answer used")
        return self._completion(answer, usage, structure)

    @property
    def stream_lead_tokens(self) -> int | None:
        """None: it answers in one piece."""
        return None

    def stream(self, request: Request, meter: Meter) -> AsyncGenerator[Delta, None]:
        """The answer in one piece; see `Model.stream`."""
        return in_one_piece(self, request, meter)

    async def aclose(self) -> None:
        """Close the connections that were opened in the running event loop."""
        client = self._clients.pop(asyncio.get_running_loop(), None)
        if client is not None:
            await client.close()

    def _needs_chat(self, request: Request) -> bool:
        return self.api == "chat" or bool(request.stop) or request.max_output_tokens < LEAST_RESPONSES_TOKENS

    def _structure(self, schema: JsonSchema | None) -> Structure | None:
        """The schema as OpenAI takes it; other servers get one that OpenAI would refuse as it is."""
        if schema is None:
            return None
        try:
            return strict(schema)
        except SchemaUnsupported:
            if self.official:
                raise
            return wrap(schema)

    async def _ask_responses(self, client: AsyncOpenAI, request: Request, structure: Structure | None) -> _Response:
        from openai import omit

        temperature, _ = self._sampling(request)
        probabilities = self.probabilities and not self.reasons
        raw = await client.responses.with_raw_response.create(
            model=self.model_id,
            input=[_item(message) for message in request.messages],
            max_output_tokens=request.max_output_tokens,
            temperature=temperature,
            reasoning={"effort": self.effort} if self.effort else omit,
            text={"format": {"type": "json_schema", "name": "answer", "schema": structure.schema, "strict": True}}
            if structure
            else omit,
            include=["message.output_text.logprobs"] if probabilities else omit,
            service_tier="default" if self.official else omit,  # the tier that the price is for
            store=False,
            timeout=timeouts(request.timeout_s),
        )
        return _Response.model_validate_json(raw.content)

    async def _ask_chat(self, client: AsyncOpenAI, request: Request, structure: Structure | None) -> _Chat:
        from openai import omit

        temperature, seed = self._sampling(request)
        cap = request.max_output_tokens
        raw = await client.chat.completions.with_raw_response.create(
            model=self.model_id,
            messages=[_turn(message) for message in request.messages],
            max_completion_tokens=cap if self.official else omit,
            max_tokens=omit if self.official else cap,  # the name that every other server knows
            temperature=temperature,
            seed=seed,
            stop=list(request.stop) or omit,
            reasoning_effort=self.effort or omit,
            response_format={
                "type": "json_schema",
                "json_schema": {"name": "answer", "schema": structure.schema, "strict": True},
            }
            if structure
            else omit,
            logprobs=True if self.probabilities and not self.reasons else omit,
            service_tier="default" if self.official else omit,
            timeout=timeouts(request.timeout_s),
        )
        return _Chat.model_validate_json(raw.content)

    def _sampling(self, request: Request) -> tuple[float | Omit, int | Omit]:
        from openai import omit

        return (omit, omit) if self.reasons else (request.temperature, request.seed)

    def _completion(self, answer: _Response | _Chat, usage: Usage, structure: Structure | None) -> Completion:
        text, finish = answer.text(), answer.finish()
        if finish is None:
            raise InvalidOutput(f"{self.name} did not end with an answer", model=self.name, usage=usage)
        if structure is not None and finish == "stop":
            try:
                text = structure.unwrap(text)
            except ValueError as error:
                raise InvalidOutput(
                    f"{self.name} did not keep to the schema: {error}", model=self.name, usage=usage
                ) from error
        return Completion(text, finish, usage, served_by=answer.model, confidence=_confidence(answer.logprobs()))

    def _connect(self) -> tuple[AsyncOpenAI, Caller]:
        """A client for the running event loop (its connections cannot move to another), and our guard."""
        sdk = _sdk()
        key = key_from(self._api_key, KEY_VARIABLE, address=self.address, model=self.name)
        loop = asyncio.get_running_loop()
        client = self._clients.get(loop)
        if client is None:
            client = self._clients[loop] = sdk.AsyncOpenAI(api_key=key, base_url=self._base_url, max_retries=0)
        errors = SdkErrors(sdk.APIStatusError, sdk.APIConnectionError, sdk.OpenAIError)
        return client, Caller(self.name, KEY_VARIABLE, self.address, errors, key)


Failure = tuple[type[ModelError], str]


class _Logprob(BaseModel):
    logprob: float


class _InputDetails(BaseModel):
    cached_tokens: int | None = None
    cache_write_tokens: int | None = None


class _OutputDetails(BaseModel):
    reasoning_tokens: int | None = None


class _ResponseUsage(BaseModel):
    """Usage as the Responses API counts it: input inclusive of the cache, output inclusive of reasoning."""

    input_tokens: int
    output_tokens: int
    input_tokens_details: _InputDetails | None = None
    output_tokens_details: _OutputDetails | None = None


class _ChatUsage(BaseModel):
    """The same in the chat API's words. Some servers leave reasoning out of the output: the total has it."""

    prompt_tokens: int
    completion_tokens: int
    total_tokens: int = 0
    prompt_tokens_details: _InputDetails | None = None
    completion_tokens_details: _OutputDetails | None = None


def _response_usage(value: object) -> Usage | None:
    if value is None:
        return None
    said = _ResponseUsage.model_validate(value)
    return _usage(said.input_tokens, said.output_tokens, said.input_tokens_details, said.output_tokens_details)


def _chat_usage(value: object) -> Usage | None:
    if value is None:
        return None
    said = _ChatUsage.model_validate(value)
    output = max(said.completion_tokens, said.total_tokens - said.prompt_tokens)
    return _usage(said.prompt_tokens, output, said.prompt_tokens_details, said.completion_tokens_details)


def _usage(input_tokens: int, output_tokens: int, read: _InputDetails | None, wrote: _OutputDetails | None) -> Usage:
    """Our usage. A server that does not say what its cache did is taken to have none."""
    return Usage(
        input_tokens=input_tokens,
        output_tokens=output_tokens,
        cached_tokens=(read.cached_tokens or 0) if read else 0,
        cache_write_tokens=(read.cache_write_tokens or 0) if read else 0,
        reasoning_tokens=(wrote.reasoning_tokens or 0) if wrote else 0,
    )


class _Part(BaseModel):
    type: str
    text: str = ""
    refusal: str = ""
    logprobs: list[_Logprob] | None = None


class _Item(BaseModel):
    type: str
    content: list[_Part] | None = None


class _ResponseError(BaseModel):
    code: str
    message: str = ""


class _Incomplete(BaseModel):
    reason: str | None = None


class _Response(BaseModel):
    """The part of a Responses answer that we read."""

    model: str
    status: str
    output: list[_Item]
    usage: Annotated[Usage | None, BeforeValidator(_response_usage)] = None
    error: _ResponseError | None = None
    incomplete_details: _Incomplete | None = None

    def _parts(self) -> list[_Part]:
        return [part for item in self.output if item.type == "message" for part in item.content or ()]

    def text(self) -> str:
        return "".join(part.text or part.refusal for part in self._parts())

    def finish(self) -> Finish | None:
        if any(part.type == "refusal" for part in self._parts()):
            return "refused"
        if self.status == "completed":
            return "stop"
        reason = self.incomplete_details.reason if self.incomplete_details else None
        return INCOMPLETE.get(reason or "")

    def failure(self) -> Failure | None:
        if self.status != "failed":
            return None
        error = self.error or _ResponseError(code="server_error")
        kind = {"server_error": ModelUnavailable, "rate_limit_exceeded": RateLimited}.get(error.code, RequestRejected)
        return kind, f"{error.code}: {error.message}"

    def logprobs(self) -> list[float]:
        return [token.logprob for part in self._parts() for token in part.logprobs or ()]


class _ChatMessage(BaseModel):
    content: str | None = None
    refusal: str | None = None


class _ChatLogprobs(BaseModel):
    content: list[_Logprob] | None = None


class _Choice(BaseModel):
    message: _ChatMessage
    finish_reason: str | None = None
    logprobs: _ChatLogprobs | None = None


class _Chat(BaseModel):
    """The part of a chat answer that we read."""

    model: str
    choices: Annotated[list[_Choice], Field(min_length=1)]
    usage: Annotated[Usage | None, BeforeValidator(_chat_usage)] = None

    def text(self) -> str:
        message = self.choices[0].message
        return message.refusal or message.content or ""

    def finish(self) -> Finish | None:
        choice = self.choices[0]
        if choice.message.refusal:
            return "refused"
        return CHAT_FINISHES.get(choice.finish_reason or "")

    def failure(self) -> Failure | None:
        return None

    def logprobs(self) -> list[float]:
        logprobs = self.choices[0].logprobs
        return [token.logprob for token in logprobs.content or ()] if logprobs else []


def _confidence(logprobs: list[float]) -> float | None:
    """The geometric mean of the tokens' probabilities."""
    return min(1.0, exp(sum(logprobs) / len(logprobs))) if logprobs else None


def _item(message: Message) -> EasyInputMessageParam:
    return {"role": message.role, "content": message.text}


def _turn(message: Message) -> ChatCompletionMessageParam:
    if message.role == "user":
        return {"role": "user", "content": message.text}
    if message.role == "assistant":
        return {"role": "assistant", "content": message.text}
    return {"role": "system", "content": message.text}


def _window(model_id: str, api_url: str | None) -> int:
    window = context_window_of("openai", model_id, api_url=api_url)
    if window is None:
        raise UnknownModel(
            f"how many tokens of context openai:{model_id} has is not known; pass context_window=, "
            "or add context_window to its entry in the price sheet"
        )
    return window


def _sdk():
    try:
        import openai
    except ImportError as error:
        raise MissingDependency("OpenAI's API needs openai: pip install 'agentbudget-runtime[openai]'") from error
    return openai
