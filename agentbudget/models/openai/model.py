"""One model behind OpenAI's API or a compatible server: one call is one billable request, its output capped."""

from __future__ import annotations

import asyncio
import hashlib
import json
import os
from collections import OrderedDict
from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, Literal, Protocol
from weakref import WeakKeyDictionary

from agentbudget.errors import (
    InvalidArgument,
    InvalidOutput,
    MissingDependency,
    Mistake,
    ModelError,
    RequestRejected,
    UnknownModel,
    UnknownPrice,
)
from agentbudget.models.base import Completion, Delta, InputCount, Meter, Place, Price, Request
from agentbudget.models.images import any_image_tokens, openai_image_tokens
from agentbudget.models.openai import chat, probes, responses
from agentbudget.models.openai.answers import Answer
from agentbudget.models.openai.asked import Asked, cache_key, check, effort_for, reasons, structure_of
from agentbudget.models.openai.progress import Clock, Progress
from agentbudget.models.openai.streams import Hearing, Reader
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
from agentbudget.models.servers import COMPATIBLE, OPENAI, Effort, Profile
from agentbudget.models.tokens import Encoding, bytes_bound, encoding_of, openai_bound, text_tokens
from agentbudget.prices import InForce, context_window_of, price_of
from agentbudget.usage import Usage

if TYPE_CHECKING:
    from openai import AsyncOpenAI, AsyncStream

Api = Literal["responses", "chat"]
Tier = Literal["standard", "flex", "priority"]

KEY_VARIABLE: Final = "OPENAI_API_KEY"
ADDRESS_VARIABLE: Final = "OPENAI_BASE_URL"
PUBLIC_ADDRESS: Final = "https://api.openai.com/v1"

SERVICE_TIERS: Final[dict[Tier, str]] = {"standard": "default", "flex": "flex", "priority": "priority"}
"""What the API calls a service tier."""

TIERS_SERVED: Final[dict[str, Tier]] = {said: tier for tier, said in SERVICE_TIERS.items()}

COUNTS_KEPT: Final = 64
"""Requests whose count is remembered: an estimate asks for it, and so does the call itself."""


class Body(Protocol):
    """Puts a request into the words of an API."""

    def __call__(self, asked: Asked, *, stream: bool = False) -> dict[str, object]: ...


@dataclass(frozen=True, slots=True)
class Wire:
    """One API: its path, how a request is put into its words, how its answers and streams are read."""

    path: str
    counted: Callable[[Asked], dict[str, object]]
    body: Body
    answer: Callable[[bytes], Answer]
    reader: Callable[[str], Reader]


RESPONSES: Final = Wire(responses.PATH, responses.counted, responses.body, responses.answer, responses.Reader)
CHAT: Final = Wire(chat.PATH, chat.counted, chat.body, chat.answer, chat.Reader)


class OpenAIModel:
    """A model behind OpenAI's API, or behind a server at `base_url` that speaks it. Implements `base.Model`.

    `api` is ``"responses"`` at OpenAI and ``"chat"`` elsewhere unless given. The Responses API has no stop
    sequences and no cap under 16 tokens: such requests go to the chat API. ``temperature`` and ``seed`` are
    sent where the model takes them. With `probabilities` the completion has a confidence. ``images=False`` says that
    the model cannot see: requests with pictures are then refused before they are sent.

    `tier` is the service tier that OpenAI is asked for; a completion that was served at another has that tier's
    ``price``. `effort` is how much a reasoning model thinks; a request's ``reasoning_tokens`` go before it. With
    `counted` the server itself is asked how many tokens a request has (it sees the prompt): OpenAI if wanted, the
    servers of a `profile` that can always.

    `price` and `context_window` come from the user's price sheet or genai-prices (by the server's address)
    unless given; a server's own word on its window is taken when a request is first counted.
    Raises `UnknownPrice` or `UnknownModel` if nobody states them, `Mistake` for a bad address or a tier elsewhere.
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
        tier: Tier = "standard",
        probabilities: bool = False,
        images: bool = True,
        counted: bool | None = None,
        profile: Profile | None = None,
        name: str | None = None,
    ) -> None:
        self.model_id = model_id
        self._base_url = base_url or _default_address(profile)
        self.address = checked_address(self._base_url)
        self.official = self.address == PUBLIC_ADDRESS
        self.profile: Final[Profile] = profile or (OPENAI if self.official else COMPATIBLE)
        self.name = name or f"{self.profile.name}:{model_id}"
        self.api: Final[Api] = api or ("responses" if self.official else "chat")
        self.effort: Final = effort
        self.tier: Final[Tier] = tier
        self.probabilities: Final = probabilities
        self.images: Final = images
        self._refuse_wrong_choices()
        self._api_url = None if self.official or profile else self.address
        self._price: Callable[[], Price] = (
            (lambda: price)
            if price is not None
            else InForce(self.profile.name, model_id, api_url=self._api_url, tier=tier)
        )
        self._window = context_window or context_window_of(self.profile.name, model_id, api_url=self._api_url)
        if self._window is None and self.profile.window is None:
            raise UnknownModel(
                f"how many tokens of context {self.name} has is not known; pass context_window=, "
                "or add context_window to its entry in the price sheet"
            )
        self._counted = counted if counted is not None else not self.official
        self._encoding: Encoding | None = encoding_of(model_id) if self.official else None
        self._by_time = self.price.compute_cap_s(1) is not None
        self._counts: OrderedDict[str, InputCount] = OrderedDict()
        self._api_key = api_key
        self._clients: WeakKeyDictionary[asyncio.AbstractEventLoop, AsyncOpenAI] = WeakKeyDictionary()

    def __repr__(self) -> str:
        return f"OpenAIModel({self.model_id!r}, api={self.api!r}, address={self.address!r})"

    def _refuse_wrong_choices(self) -> None:
        if self.tier != "standard" and not self.official:
            raise Mistake(f"{self.name}: only OpenAI itself has service tiers; leave tier at 'standard'")
        if self.effort is not None and self.effort not in self.profile.efforts:
            known = ", ".join(self.profile.efforts) or "none at all"
            raise Mistake(f"{self.name}: {self.profile.name} knows no effort {self.effort!r}; it knows {known}")

    @property
    def price(self) -> Price:
        """The price that was given, else the one that the lists state now."""
        return self._price()

    @property
    def provider(self) -> str:
        """The profile's name: ``"openai"`` for OpenAI and for servers of which no more is known."""
        return self.profile.name

    @property
    def place(self) -> Place:
        """``"local"`` only for a server on this machine."""
        return "local" if is_loopback(self.address) else "remote"

    @property
    def context_window(self) -> int:
        """Input and output tokens that fit together. A server's own word on it is known once a request was counted."""
        if self._window is None:
            raise UnknownModel(
                f"{self.name} was not asked yet how many tokens of context it has: count a request first, "
                "or pass context_window="
            )
        return self._window

    @property
    def fingerprint(self) -> str:
        """The API, its address, the model's id and its effort."""
        return f"{self.provider} {self.api} {self.address} {self.model_id} effort={self.effort or 'default'}"

    @property
    def reasons(self) -> bool:
        """Whether this is one of OpenAI's reasoning models, which take no temperature, seed or probabilities."""
        return self.official and reasons(self.model_id)

    async def ready(self) -> bool:
        """Whether the server answers that it is up. Raises the `ModelError` that says why it cannot be asked."""
        client, caller = self._connect()
        return await caller.send(
            lambda: probes.is_up(client, self.address, self.profile.health), Meter(), timeout_s=probes.PROBE_S
        )

    async def count_input(self, request: Request) -> InputCount:
        """The server's own count where it is asked for one, and gives it; else a bound.

        At OpenAI the text is counted in the model's own vocabulary: what is put around it is not public.
        """
        check(self.name, self.profile, request, images=self.images)
        if self._window is None:
            await self._learn_window()
        return await self._server_count(request) or self._bound(request)

    def count_text(self, text: str) -> int:
        """Tokens of `text` by itself; the most that it may have where the vocabulary is not known."""
        return text_tokens(self._encoding, text)

    async def complete(self, request: Request, meter: Meter) -> Completion:
        """Answer `request` in one request to the API; see `Model.complete`.

        What is paid for by the second is streamed, so that it can be cut when what was held has been computed.
        """
        if self._by_time:
            return await self._drained(request, meter)
        asked = self._asked(request)
        client, caller = self._connect()
        api = self._api_of(request)
        body = api.body(asked)

        async def ask() -> Answer:
            said = await client.post(
                api.path, cast_to=bytes, body=body, options={"timeout": timeouts(request.timeout_s)}
            )
            return api.answer(said)

        answer = await caller.send(ask, meter, timeout_s=request.timeout_s)
        if answer.usage is not None:
            meter.used(answer.usage)
            return self._completion(answer, answer.usage, asked, caller)
        if answer.failure is not None:
            raise caller.failed(answer.failure.kind, answer.failure.detail, None)
        raise caller.unknown(f"{self.address} does not say what the answer used")

    @property
    def stream_lead_tokens(self) -> int | None:
        """None for OpenAI, which does not say that closing a stream ends the billing; else the profile's."""
        return self.profile.lead_tokens

    def stream(self, request: Request, meter: Meter) -> AsyncGenerator[Delta, None]:
        """The answer piece by piece; see `Model.stream`."""
        asked = self._asked(request)
        client, caller = self._connect()
        api = self._api_of(request)
        body = api.body(asked, stream=True)
        heard = Hearing(
            reader=api.reader(self.model_id),
            progress=Progress(self._most_input(request), request.max_output_tokens, self.stream_lead_tokens),
            clock=Clock(),
            caller=caller,
            whole=lambda answer, usage: self._completion(answer, usage, asked, caller),
            shown=asked.structure is None or not asked.structure.wrapped,
            seconds=request.max_compute_s if self._by_time else None,
            by_time=self._by_time,
        )

        async def opened() -> AsyncStream[object]:
            return await client.post(
                api.path,
                cast_to=object,
                body=body,
                options={
                    "timeout": timeouts(request.timeout_s),
                    "headers": {} if self.official else CLOSE_AFTERWARDS,
                    "stream_mode": "events",  # errors inside the stream are for our reader; the SDK's own have no code
                },
                stream=True,
                stream_cls=_sdk().AsyncStream[object],
            )

        return caller.send_stream(lambda: heard.in_time(opened), heard, meter, timeout_s=request.timeout_s)

    async def aclose(self) -> None:
        """Close the connections that were opened in the running event loop."""
        client = self._clients.pop(asyncio.get_running_loop(), None)
        if client is not None:
            await client.close()

    async def _drained(self, request: Request, meter: Meter) -> Completion:
        """The answer at the end of a stream."""
        answer: Completion | None = None
        async with aclosing(self.stream(request, meter)) as deltas:
            async for delta in deltas:
                answer = delta.completion
        assert answer is not None  # a stream ends with one, or raises
        return answer

    def _api_of(self, request: Request) -> Wire:
        """The API that can carry out the request."""
        small = request.max_output_tokens < responses.LEAST_TOKENS
        schema = request.schema is not None and not self.profile.schema_in_responses
        return CHAT if self.api == "chat" or request.stop or small or schema else RESPONSES

    def _asked(self, request: Request) -> Asked:
        """The request with all that depends on the model and its server settled. Raises a `Mistake`."""
        check(self.name, self.profile, request, images=self.images)
        return Asked(
            model_id=self.model_id,
            request=request,
            profile=self.profile,
            structure=structure_of(request, official=self.official),
            effort=(effort_for(self.model_id, request.reasoning_tokens) if self.official else None) or self.effort,
            temperature=None if self.reasons else request.temperature,
            seed=None if self.reasons else request.seed,
            probabilities=self.probabilities and not self.reasons,
            service_tier=SERVICE_TIERS[self.tier] if self.official else None,
            cache_key=cache_key(request) if self.official else None,
        )

    def _completion(self, answer: Answer, usage: Usage, asked: Asked, caller: Caller) -> Completion:
        """What is made of an answer that said what it used."""
        if answer.failure is not None:
            raise caller.failed(answer.failure.kind, answer.failure.detail, usage)
        if answer.finish is None:
            raise InvalidOutput(f"{self.name} did not end with an answer", model=self.name, usage=usage)
        text, finish = answer.text, answer.finish
        if finish == "stop" and not self.official and usage.output_tokens >= asked.request.max_output_tokens:
            finish = "length"  # not every server says that its cap cut the answer
        if asked.structure is not None and finish == "stop":
            try:
                text = asked.structure.unwrap(text)
            except ValueError as error:
                raise InvalidOutput(
                    f"{self.name} did not keep to the schema: {error}", model=self.name, usage=usage
                ) from error
        return Completion(
            text,
            finish,
            usage,
            served_by=answer.model,
            confidence=answer.confidence,
            calls=answer.calls,
            price=self._price_served(answer.tier),
        )

    def _price_served(self, said: str | None) -> Price | None:
        """The price of the service tier that served, where that is another than was asked for and somebody prices it.

        A tier that nobody prices is booked at the price that was held.
        """
        tier = TIERS_SERVED.get(said or "")
        if not self.official or tier is None or tier == self.tier:
            return None
        try:
            return self._list_price(tier)
        except UnknownPrice:
            return None

    def _list_price(self, tier: Tier) -> Price:
        return price_of(self.profile.name, self.model_id, api_url=self._api_url, tier=tier)

    async def _learn_window(self) -> None:
        """Ask the server how many tokens of context it has. Raises `UnknownModel`, or why it cannot be asked."""
        way = self.profile.window
        assert way is not None  # `__init__` refused a model whose window nobody can tell
        client, caller = self._connect()
        try:
            self._window = await caller.send(
                lambda: probes.window(client, self.address, way, self.model_id), Meter(), timeout_s=probes.PROBE_S
            )
        except (probes.Unanswered, RequestRejected) as error:
            raise UnknownModel(
                f"{self.address} does not say how many tokens of context {self.name} has: load the model there first, "
                "or pass context_window=, or add context_window to its entry in the price sheet"
            ) from error

    async def _server_count(self, request: Request) -> InputCount | None:
        """The server's own count; None where it is not asked, or cannot count: what is wrong, the call will say."""
        way = self.profile.count
        if way is None or not self._counted:
            return None
        asked = self._asked(request)
        key = self._count_key(asked)
        if key not in self._counts:
            client, caller = self._connect()
            try:
                tokens = await caller.send(
                    lambda: probes.count(client, self.address, way, asked), Meter(), timeout_s=probes.PROBE_S
                )
            except (ModelError, InvalidArgument, probes.Unanswered):
                return None
            exact = way != "responses" or self._api_of(request) is RESPONSES
            self._counts[key] = InputCount(tokens, exact=exact)
            if len(self._counts) > COUNTS_KEPT:
                self._counts.popitem(last=False)
        return self._counts[key]

    def _count_key(self, asked: Asked) -> str:
        """What requests of the same input share, however they are capped."""
        body = json.dumps(self._api_of(asked.request).counted(asked), sort_keys=True)
        return hashlib.sha256(body.encode()).hexdigest()

    def _most_input(self, request: Request) -> int:
        """The most input tokens of a request, by what was counted of it."""
        counted = self._counts.get(self._count_key(self._asked(request))) if self._counts else None
        return (counted or self._bound(request)).tokens

    def _bound(self, request: Request) -> InputCount:
        """The most that a request's input can have, counted here."""
        structure = structure_of(request, official=self.official)
        schema = structure.schema if structure else None
        pictures = [image for message in request.messages for image in message.images]
        if self._encoding is None:
            seen = sum(
                openai_image_tokens(self.model_id, image) if self.official else any_image_tokens(image)
                for image in pictures
            )
            return InputCount(bytes_bound(request.messages, schema, tools=request.tools) + seen, exact=False)
        seen = sum(openai_image_tokens(self.model_id, image) for image in pictures)
        text = openai_bound(self._encoding, request.messages, schema, tools=request.tools)
        return InputCount(text + seen, exact=False)

    def _connect(self) -> tuple[AsyncOpenAI, Caller]:
        """A client for the running event loop (its connections cannot move to another), and our guard."""
        sdk = _sdk()
        key = key_from(self._api_key, KEY_VARIABLE, address=self.address, model=self.name)
        loop = asyncio.get_running_loop()
        client = self._clients.get(loop)
        if client is None:
            http = sdk.DefaultAsyncHttpxClient(**connected_to(self.address))
            client = sdk.AsyncOpenAI(api_key=key, base_url=self._base_url, max_retries=0, http_client=http)
            self._clients[loop] = client
        errors = SdkErrors(sdk.APIStatusError, sdk.APIConnectionError, sdk.OpenAIError)
        return client, Caller(self.name, KEY_VARIABLE, self.address, errors, key)


def _default_address(profile: Profile | None) -> str:
    """Where a model is unless it is given: where such servers listen; else where the environment says, or OpenAI."""
    if profile is not None and profile.address is not None:
        return profile.address
    return os.environ.get(ADDRESS_VARIABLE) or PUBLIC_ADDRESS


def _sdk():
    try:
        import openai
    except ImportError as error:
        raise MissingDependency("OpenAI's API needs openai: pip install 'agentbudget-runtime[openai]'") from error
    return openai
