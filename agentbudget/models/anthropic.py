"""Claude through Anthropic's Messages API: one call is one billable request, its output capped by its hold."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncGenerator, AsyncIterable
from typing import TYPE_CHECKING, Annotated, Final, Literal
from weakref import WeakKeyDictionary

from pydantic import BaseModel, Field

from agentbudget.errors import InvalidOutput, MissingDependency, SchemaUnsupported, UnknownModel
from agentbudget.models.base import (
    Completion,
    Delta,
    Finish,
    InputCount,
    Message,
    Meter,
    Place,
    Price,
    Request,
    in_one_piece,
)
from agentbudget.models.remote import Caller, SdkErrors, checked_address, is_loopback, key_from, timeouts
from agentbudget.models.structured import Structure, strict
from agentbudget.models.tokens import bytes_bound, text_tokens
from agentbudget.prices import context_window_of, price_of
from agentbudget.usage import Usage

if TYPE_CHECKING:
    from anthropic import AsyncAnthropic
    from anthropic.types import MessageParam, OutputConfigParam
    from anthropic.types.message_create_params import MessageCreateParamsBase

KEY_VARIABLE: Final = "ANTHROPIC_API_KEY"
ADDRESS_VARIABLE: Final = "ANTHROPIC_BASE_URL"
PUBLIC_ADDRESS: Final = "https://api.anthropic.com"

STREAM_ABOVE_TOKENS: Final = 16_000
"""The SDK refuses to wait in silence for more than about 21,000 output tokens; such answers are streamed."""

Effort = Literal["low", "medium", "high", "xhigh", "max"]

FINISHES: Final[dict[str, Finish]] = {
    "end_turn": "stop",
    "stop_sequence": "stop",
    "max_tokens": "length",
    "model_context_window_exceeded": "length",
    "refusal": "refused",
}


class AnthropicModel:
    """A Claude model. Implements `agentbudget.models.base.Model`.

    ``temperature`` and ``seed`` of a request are not sent: the API has no seed, and current models take no
    temperature. `price` and `context_window` come from the user's price sheet or genai-prices unless given.
    Raises `UnknownPrice` or `UnknownModel` if nobody states them; the key is looked for when it is needed.
    """

    def __init__(
        self,
        model_id: str,
        *,
        base_url: str | None = None,
        api_key: str | None = None,
        price: Price | None = None,
        context_window: int | None = None,
        effort: Effort | None = None,
        name: str | None = None,
    ) -> None:
        self.model_id = model_id
        self.name = name or f"anthropic:{model_id}"
        self.effort: Final = effort
        self._base_url = base_url or os.environ.get(ADDRESS_VARIABLE) or PUBLIC_ADDRESS
        self.address = checked_address(self._base_url)
        self.price: Final[Price] = price or price_of("anthropic", model_id)
        self.context_window = _window(model_id, context_window)
        self._api_key = api_key
        self._clients: WeakKeyDictionary[asyncio.AbstractEventLoop, AsyncAnthropic] = WeakKeyDictionary()

    def __repr__(self) -> str:
        return f"AnthropicModel({self.model_id!r}, address={self.address!r})"

    @property
    def provider(self) -> str:
        """``"anthropic"``, whoever serves the address."""
        return "anthropic"

    @property
    def place(self) -> Place:
        """``"local"`` only for a server on this machine."""
        return "local" if is_loopback(self.address) else "remote"

    @property
    def fingerprint(self) -> str:
        """The API's address, the model's id and its effort."""
        return f"anthropic {self.address} {self.model_id} effort={self.effort or 'default'}"

    async def count_input(self, request: Request) -> InputCount:
        """A bound: Claude's vocabulary is not public, and asking the API would send the prompt."""
        structure = self._structure(request)
        return InputCount(bytes_bound(request.messages, structure.schema if structure else None), exact=False)

    def count_text(self, text: str) -> int:
        """The most tokens that `text` may have by itself."""
        return text_tokens(None, text)

    async def complete(self, request: Request, meter: Meter) -> Completion:
        """Answer `request` in one request to the API; see `Model.complete`."""
        structure = self._structure(request)
        client, caller = self._connect()
        ask = _ask_streaming if request.max_output_tokens > STREAM_ABOVE_TOKENS else _ask
        params = self._params(request, structure)
        answer = await caller.send(lambda: ask(client, params, request.timeout_s), meter, timeout_s=request.timeout_s)
        usage = answer.usage.ours()
        if answer.stop_reason is None or usage is None:
            raise caller.unknown("the answer broke off before its end")
        meter.used(usage)
        return self._completion(answer, answer.stop_reason, usage, structure)

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

    def _structure(self, request: Request) -> Structure | None:
        if request.schema is None:
            return None
        transform_schema = _sdk().transform_schema
        structure = strict(request.schema)
        try:
            return Structure(transform_schema(structure.schema), structure.wrapped)
        except (ValueError, AssertionError) as error:  # the SDK asserts that it knows each type
            raise SchemaUnsupported(f"{self.name} cannot be held to this schema: {error}") from error

    def _params(self, request: Request, structure: Structure | None) -> MessageCreateParamsBase:
        params: MessageCreateParamsBase = {
            "model": self.model_id,
            "max_tokens": request.max_output_tokens,
            "messages": _turns(request),
            "service_tier": "standard_only",  # the tier that the price is for
        }
        if system := _system(request):
            params["system"] = system
        if request.stop:
            params["stop_sequences"] = list(request.stop)
        config: OutputConfigParam = {}
        if structure is not None:
            config["format"] = {"type": "json_schema", "schema": structure.schema}
        if self.effort is not None:
            config["effort"] = self.effort
        if config:
            params["output_config"] = config
        return params

    def _completion(self, answer: _Answer, reason: str, usage: Usage, structure: Structure | None) -> Completion:
        text, finish = answer.text, FINISHES.get(reason)
        if finish is None:
            raise InvalidOutput(f"{self.name} stopped for {reason!r}, not with an answer", model=self.name, usage=usage)
        if structure is not None and finish == "stop":
            try:
                text = structure.unwrap(text)
            except ValueError as error:
                raise InvalidOutput(
                    f"{self.name} did not keep to the schema: {error}", model=self.name, usage=usage
                ) from error
        return Completion(text=text, finish=finish, usage=usage, served_by=answer.model)

    def _connect(self) -> tuple[AsyncAnthropic, Caller]:
        """A client for the running event loop (its connections cannot move to another), and our guard."""
        sdk = _sdk()
        key = key_from(self._api_key, KEY_VARIABLE, address=self.address, model=self.name)
        loop = asyncio.get_running_loop()
        client = self._clients.get(loop)
        if client is None:
            client = sdk.AsyncAnthropic(api_key=key, base_url=self._base_url, max_retries=0, open_telemetry=False)
            self._clients[loop] = client
        errors = SdkErrors(sdk.APIStatusError, sdk.APIConnectionError, sdk.AnthropicError)
        return client, Caller(self.name, KEY_VARIABLE, self.address, errors, key)


Count = Annotated[int | None, Field(ge=0)]


class _CountedUsage(BaseModel):
    """Usage as Anthropic counts it: `input_tokens` excludes what the cache read and wrote."""

    input_tokens: Count = None
    output_tokens: Count = None
    cache_read_input_tokens: Count = None
    cache_creation_input_tokens: Count = None

    def ours(self) -> Usage | None:
        """The same, input inclusive; None if it lacks one of both counts."""
        if self.input_tokens is None or self.output_tokens is None:
            return None
        read, written = self.cache_read_input_tokens or 0, self.cache_creation_input_tokens or 0
        return Usage(
            input_tokens=self.input_tokens + read + written,
            output_tokens=self.output_tokens,
            cached_tokens=read,
            cache_write_tokens=written,
        )

    def updated(self, later: _CountedUsage) -> _CountedUsage:
        """These counts with those that a later event of the stream states."""
        return self.model_copy(update=later.model_dump(exclude_none=True))


class _Block(BaseModel):
    type: str
    text: str = ""


class _Answer(BaseModel):
    """The part of a message that we read."""

    model: str
    content: list[_Block]
    stop_reason: str | None = None
    usage: _CountedUsage

    @property
    def text(self) -> str:
        return "".join(block.text for block in self.content if block.type == "text")


class _Delta(BaseModel):
    type: str = ""
    text: str = ""
    stop_reason: str | None = None


class _Event(BaseModel):
    """One event of a streamed message."""

    type: str
    message: _Answer | None = None
    delta: _Delta = _Delta()
    usage: _CountedUsage = _CountedUsage()


async def _ask(client: AsyncAnthropic, params: MessageCreateParamsBase, timeout_s: float) -> _Answer:
    raw = await client.messages.with_raw_response.create(**params, timeout=timeouts(timeout_s))
    return _Answer.model_validate_json(await raw.read())


async def _ask_streaming(client: AsyncAnthropic, params: MessageCreateParamsBase, timeout_s: float) -> _Answer:
    stream = await client.messages.create(**params, stream=True, timeout=timeouts(timeout_s))
    async with stream:
        return await _gather(_Event.model_validate(event.to_dict()) async for event in stream)


async def _gather(events: AsyncIterable[_Event]) -> _Answer:
    """The whole message of a stream; without a stop reason if the stream ended early."""
    answer: _Answer | None = None
    text: list[str] = []
    async for event in events:
        if event.message is not None:
            answer = event.message
        elif event.delta.type == "text_delta":
            text.append(event.delta.text)
        elif event.type == "message_delta" and answer is not None:
            reason, usage = event.delta.stop_reason, answer.usage.updated(event.usage)
            answer = answer.model_copy(update={"stop_reason": reason, "usage": usage})
    if answer is None:
        raise ValueError("a stream without a message")
    return answer.model_copy(update={"content": [_Block(type="text", text="".join(text))]})


def _system(request: Request) -> str:
    return "\n\n".join(message.text for message in request.messages if message.role == "system")


def _turns(request: Request) -> list[MessageParam]:
    return [_turn(message) for message in request.messages if message.role != "system"]


def _turn(message: Message) -> MessageParam:
    if message.role == "user":
        return {"role": "user", "content": message.text}
    return {"role": "assistant", "content": message.text}


def _window(model_id: str, given: int | None) -> int:
    window = given or context_window_of("anthropic", model_id)
    if window is None:
        raise UnknownModel(f"how many tokens of context anthropic:{model_id} has is not known; pass context_window=")
    return window


def _sdk():
    try:
        import anthropic
    except ImportError as error:
        raise MissingDependency(
            "Claude needs the anthropic package: pip install 'agentbudget-runtime[anthropic]'"
        ) from error
    return anthropic
