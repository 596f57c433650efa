"""A Claude model behind Anthropic's API, or a server's that speaks it."""

from __future__ import annotations

import asyncio
import json
import logging
import os
from collections import OrderedDict
from collections.abc import AsyncGenerator, AsyncIterator, Callable
from contextlib import aclosing
from typing import TYPE_CHECKING, Any, Final
from weakref import WeakKeyDictionary

from pydantic import BaseModel

from agentbudget.errors import (
    MissingDependency,
    ModelUnavailable,
    OutcomeUnknown,
    RateLimited,
    SchemaUnsupported,
    UnknownModel,
)
from agentbudget.models.anthropic.answers import Answer, CountedInput, Event, Heard, Reader
from agentbudget.models.anthropic.asked import Effort, Writer
from agentbudget.models.anthropic.bound import counted_bound, input_bound
from agentbudget.models.anthropic.families import family_of
from agentbudget.models.base import Completion, Delta, InputCount, Meter, Place, Price, Request
from agentbudget.models.remote import (
    CLOSE_AFTERWARDS,
    Caller,
    SdkErrors,
    checked_address,
    connected_to,
    is_loopback,
    key_from,
    timeouts,
)
from agentbudget.models.structured import Structure, strict
from agentbudget.models.tokens import text_tokens
from agentbudget.prices import InForce, context_window_of

if TYPE_CHECKING:
    from anthropic import AsyncAnthropic, AsyncStream
    from anthropic.types import RawMessageStreamEvent
    from anthropic.types.message_count_tokens_params import MessageCountTokensParams
    from anthropic.types.message_create_params import MessageCreateParamsBase

KEY_VARIABLE: Final = "ANTHROPIC_API_KEY"
ADDRESS_VARIABLE: Final = "ANTHROPIC_BASE_URL"
PUBLIC_ADDRESS: Final = "https://api.anthropic.com"

STREAM_ABOVE_TOKENS: Final = 16_000
"""The SDK refuses to wait in silence for more than about 21,000 output tokens; such answers are streamed."""

COUNTS_KEPT: Final = 256
"""Requests whose count is remembered: a step counts its request on each rung, and again before each attempt."""

COUNTED: Final = ("model", "messages", "system", "tools", "tool_choice", "thinking", "output_config")
"""What of a request the count endpoint takes."""

_log = logging.getLogger(__name__)


class AnthropicModel:
    """A Claude model. Implements `agentbudget.models.base.Model`.

    ``temperature`` and ``seed`` of a request are not sent: the API has no seed, and current models take no
    temperature. ``reasoning_tokens`` become a thinking budget, or effort where a model takes no budget; 0, or a cap
    under 1,024 tokens, has it think as little as it can. What ``fixed`` names is kept in Anthropic's cache where it is
    long enough.

    `price` and `context_window` come from the user's price sheet or genai-prices unless given. With `counted`, the API
    is asked how long a request is (its prompt is sent for that, free of charge); else its bytes bound it.
    ``stream_lead_tokens`` is for servers that stop, and charge no more, when a stream is closed: the most that they may
    have made by then. Anthropic says nothing of the kind, so that a stream of theirs is held, and if it breaks off
    presumed, at its worst case.

    Raises `UnknownPrice` or `UnknownModel` if nobody states price or window; the key is looked for when it is needed.
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
        counted: bool = False,
        stream_lead_tokens: int | None = None,
        name: str | None = None,
    ) -> None:
        self.model_id = model_id
        self.name = name or f"anthropic:{model_id}"
        self.effort: Final = effort
        self.counted: Final = counted
        self.stream_lead_tokens: Final = stream_lead_tokens
        self._base_url = base_url or os.environ.get(ADDRESS_VARIABLE) or PUBLIC_ADDRESS
        self.address = checked_address(self._base_url)
        self._price: Callable[[], Price] = (lambda: price) if price is not None else InForce("anthropic", model_id)
        self.context_window = _window(model_id, context_window)
        self._writer = Writer(model_id, self.name, family_of(model_id), effort)
        self._api_key = api_key
        self._counts: OrderedDict[str, int] = OrderedDict()
        self._clients: WeakKeyDictionary[asyncio.AbstractEventLoop, AsyncAnthropic] = WeakKeyDictionary()

    def __repr__(self) -> str:
        return f"AnthropicModel({self.model_id!r}, address={self.address!r})"

    @property
    def price(self) -> Price:
        """The price that was given, else the one that the lists state now."""
        return self._price()

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
        """A bound: Claude's vocabulary is not public. With `counted`, what the API counts, and a little more."""
        structure = self._structure(request)
        written = self._params(request, structure)
        bound = input_bound(self._writer.family, request, structure.schema if structure else None)
        if not self.counted:
            return InputCount(bound, exact=False)
        counted = await self._count(written, request.timeout_s)
        return InputCount(bound if counted is None else min(bound, counted_bound(counted)), exact=False)

    def count_text(self, text: str) -> int:
        """The most tokens that `text` may have by itself."""
        return text_tokens(None, text)

    async def complete(self, request: Request, meter: Meter) -> Completion:
        """Answer `request` in one request to the API; see `Model.complete`."""
        if request.max_output_tokens > STREAM_ABOVE_TOKENS:
            return await self._gather(request, meter)
        structure = self._structure(request)
        written = self._params(request, structure)
        client, caller = self._connect()

        async def ask() -> Answer:
            raw = await client.messages.with_raw_response.create(**written, timeout=timeouts(request.timeout_s))
            return Answer.model_validate_json(await raw.read())

        answer = await caller.send(ask, meter, timeout_s=request.timeout_s)
        usage = answer.usage.ours()
        if answer.stop_reason is None or usage is None:
            raise caller.unknown("the answer broke off before its end")
        meter.used(usage)
        return self._reader(structure).completion(answer, answer.stop_reason, usage)

    async def stream(self, request: Request, meter: Meter) -> AsyncGenerator[Delta, None]:
        """Answer `request` piece by piece; see `Model.stream`. JSON that is not an object comes in one piece."""
        structure = self._structure(request)
        written = self._params(request, structure)
        client, caller = self._connect()
        hidden = self._writer.thinking(request).hidden
        heard = Heard(self._reader(structure), request.max_output_tokens, hidden, self.stream_lead_tokens)

        headers = None if self.address == PUBLIC_ADDRESS else CLOSE_AFTERWARDS
        wait = timeouts(request.timeout_s)

        async def ask() -> _Events:
            return _Events(await client.messages.create(**written, stream=True, extra_headers=headers, timeout=wait))

        async with aclosing(caller.send_stream(ask, heard, meter, timeout_s=request.timeout_s)) as deltas:
            async for delta in deltas:
                yield delta

    async def aclose(self) -> None:
        """Close the connections that were opened in the running event loop."""
        client = self._clients.pop(asyncio.get_running_loop(), None)
        if client is not None:
            await client.close()

    async def _gather(self, request: Request, meter: Meter) -> Completion:
        """A streamed answer as a whole."""
        completion: Completion | None = None
        async with aclosing(self.stream(request, meter)) as deltas:
            async for delta in deltas:
                completion = delta.completion
        assert completion is not None  # a stream that ends without one raises
        return completion

    async def _count(self, written: MessageCreateParamsBase, timeout_s: float) -> int | None:
        """What the API counts, asked once for each request; None if it has no answer just now."""
        asked: dict[str, Any] = {name: value for name, value in written.items() if name in COUNTED}
        key = json.dumps(asked, sort_keys=True)
        if key in self._counts:
            self._counts.move_to_end(key)
            return self._counts[key]
        client, caller = self._connect()
        body: MessageCountTokensParams = asked  # pyright: ignore[reportAssignmentType] (a part of what `params` wrote)

        async def ask() -> int:
            raw = await client.messages.with_raw_response.count_tokens(**body, timeout=timeouts(timeout_s))
            return CountedInput.model_validate_json(await raw.read()).input_tokens

        try:
            self._counts[key] = await caller.send(ask, Meter(), timeout_s=timeout_s)
        except (RateLimited, ModelUnavailable, OutcomeUnknown) as error:
            _log.warning("the input is bounded by its bytes, since it could not be counted: %s", error)
            return None
        while len(self._counts) > COUNTS_KEPT:
            self._counts.popitem(last=False)
        return self._counts[key]

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
        return self._writer.params(request, structure)

    def _reader(self, structure: Structure | None) -> Reader:
        return Reader(self.model_id, self.name, structure)

    def _connect(self) -> tuple[AsyncAnthropic, Caller]:
        """A client for the running event loop (its connections cannot move to another), and our guard."""
        sdk = _sdk()
        key = key_from(self._api_key, KEY_VARIABLE, address=self.address, model=self.name)
        loop = asyncio.get_running_loop()
        client = self._clients.get(loop)
        if client is None:
            http = sdk.DefaultAsyncHttpxClient(**connected_to(self.address))
            client = sdk.AsyncAnthropic(
                api_key=key, base_url=self._base_url, max_retries=0, open_telemetry=False, http_client=http
            )
            self._clients[loop] = client
        errors = SdkErrors(sdk.APIStatusError, sdk.APIConnectionError, sdk.AnthropicError)
        return client, Caller(self.name, KEY_VARIABLE, self.address, errors, key)


class _Events:
    """The SDK's stream, each event read by our own rules: the SDK believes whatever comes."""

    def __init__(self, stream: AsyncStream[RawMessageStreamEvent]) -> None:
        self._stream = stream

    async def __aiter__(self) -> AsyncIterator[Event]:
        async for event in self._stream:
            if not isinstance(event, BaseModel):
                raise ValueError("an event that is no object")
            yield Event.model_validate(event.model_dump(exclude_none=True, warnings=False))

    async def close(self) -> None:
        """Hang up."""
        await self._stream.close()


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
