"""One model behind OpenAI's API or a compatible server: one call is one billable request, its output capped."""

from __future__ import annotations

import asyncio
import json
import os
from collections import OrderedDict
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import aclosing
from dataclasses import replace
from time import monotonic, monotonic_ns
from typing import TYPE_CHECKING, Final, Literal
from weakref import WeakKeyDictionary

from agentbudget.errors import (
    InvalidOutput,
    MissingDependency,
    Mistake,
    ModelError,
    UnknownModel,
    UnknownPrice,
)
from agentbudget.models.base import Completion, Delta, Finish, InputCount, Meter, Place, Price, Request, in_one_piece
from agentbudget.models.images import any_image_tokens, openai_image_tokens
from agentbudget.models.openai import chat, probes, responses
from agentbudget.models.openai.answers import Answer, Piece
from agentbudget.models.openai.asked import Asked, cache_key, check, effort_for, reasons, structure_of
from agentbudget.models.openai.progress import Progress
from agentbudget.models.remote import Caller, SdkErrors, checked_address, is_loopback, key_from, timeouts
from agentbudget.models.servers import COMPATIBLE, OPENAI, Effort, Profile
from agentbudget.models.tokens import Encoding, bytes_bound, encoding_of, openai_bound, text_tokens
from agentbudget.prices import TokenPrice, context_window_of, price_of
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


class OpenAIModel:
    """A model behind OpenAI's API, or behind a server at `base_url` that speaks it. Implements `base.Model`.

    `api` is ``"responses"`` at OpenAI and ``"chat"`` elsewhere unless given. The Responses API has no stop
    sequences and no cap under 16 tokens: such requests go to the chat API. ``temperature`` and ``seed`` are
    sent where the model takes them. With `probabilities` the completion has a confidence.

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
        self._check_choices()
        self._api_url = None if self.official or profile else self.address
        self.price: Final[Price] = price or self._list_price(tier)
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
        check(self.name, self.profile, request)
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
        if self._by_time and self.profile.usage_in_streams:
            return await self._drained(request, meter)
        asked = self._asked(request)
        client, caller = self._connect()
        api = self._api_of(request)
        body, started = api.body(asked), monotonic_ns()

        async def ask() -> Answer:
            options = {"timeout": timeouts(request.timeout_s)}
            return api.answer(await client.post(api.PATH, cast_to=bytes, body=body, options=options))

        answer = await caller.send(ask, meter, timeout_s=request.timeout_s)
        return self._completed(answer, asked, caller, meter, elapsed_ns=monotonic_ns() - started)

    @property
    def stream_lead_tokens(self) -> int | None:
        """None for OpenAI, which does not say that closing a stream ends the billing; else the profile's."""
        return self.profile.lead_tokens

    async def stream(self, request: Request, meter: Meter) -> AsyncGenerator[Delta, None]:
        """The answer piece by piece; see `Model.stream`."""
        if not self.profile.usage_in_streams:
            async for delta in in_one_piece(self, request, meter):
                yield delta
            return
        asked = self._asked(request)
        client, caller = self._connect()
        progress = Progress(self._most_input(request), request.max_output_tokens, self.stream_lead_tokens)
        started, model = monotonic_ns(), self.model_id
        try:
            async with aclosing(self._pieces(client, caller, asked, meter)) as pieces:
                async for piece in pieces:
                    elapsed_ns = monotonic_ns() - started
                    if piece.answer is not None:
                        answer = piece.answer
                        yield Delta(completion=self._completed(answer, asked, caller, meter, elapsed_ns=elapsed_ns))
                        return
                    progress.add(piece)
                    may_go_on = meter.may_go_on(self._timed(progress.so_far(), piece.compute_ns, elapsed_ns))
                    if piece.text:
                        yield Delta(piece.text)
                    if not may_go_on:
                        break
                    ...
        except BaseException:
            progress.left(meter, compute_ns=monotonic_ns() - started if self._by_time else 0)
            raise

    async def aclose(self) -> None:
        """Close the connections that were opened in the running event loop."""
        client = self._clients.pop(asyncio.get_running_loop(), None)
        if client is not None:
            await client.close()
