"""What is known of a LangChain chat model: who serves it, what it costs, how it is counted and capped."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Final, Self, cast

from langchain_core.language_models import BaseChatModel
from langchain_core.messages import AIMessage, BaseMessage

from agentbudget.errors import Mistake, UnknownModel, UnknownPrice
from agentbudget.models.base import Image, InputCount, Price, Request
from agentbudget.models.images import any_image_tokens, openai_image_tokens
from agentbudget.models.langchain.arrived import Arrived
from agentbudget.models.langchain.beside import CAPS, beside
from agentbudget.models.langchain.messages import COUNTED, request_of
from agentbudget.models.remote import is_loopback, is_proxied
from agentbudget.models.tokens import (
    BOUND_PER_SCHEMA,
    TOKENS_PER_SCHEMA,
    Encoding,
    bytes_bound,
    encoding_of,
    openai_bound,
    text_tokens,
)
from agentbudget.prices import InForce, ServiceTier, context_window_of, price_of

PROVIDERS: Final[Mapping[str, str]] = {
    "google_genai": "google",
    "google_vertexai": "google",
    "amazon_bedrock": "aws",
    "xai": "x-ai",
}
"""LangChain's names of providers where price lists have others."""

PUBLIC: Final[Mapping[str, str]] = {
    "openai": "https://api.openai.com/v1",
    "anthropic": "https://api.anthropic.com",
}
"""Providers whose integrations are also used for other servers, and where they themselves are."""

TIERS: Final[Mapping[str, ServiceTier]] = {"flex": "flex", "priority": "priority", "fast": "fast"}
"""Tiers of service that integrations know, in LangChain's words and in ours."""

TRACED: Final = frozenset({"ls_structured_output_format"})
"""Keywords that say a schema once more, for whoever traces a call: they are not sent."""

_NOTHING: Final[Mapping[str, Any]] = {}

REBUILT: Final = ("_client", "_async_client", "_client_params")
"""Clients that an integration makes anew from its fields when they are missing (Anthropic's)."""


@dataclass(frozen=True)
class Known:
    """A hosted chat model as a budget sees it.

    ``cap`` is the keyword that caps its output, ``in_field`` whether only its field does (Ollama takes no keyword).
    ``most_output_tokens`` is the cap that it was made with, else what its maker states.
    """

    chat: BaseChatModel
    provider: str
    model_id: str
    cap: str
    in_field: bool
    most_output_tokens: int | None
    given_price: Price | None = None
    given_window: int | None = None
    tier: ServiceTier = "standard"

    @classmethod
    def of(
        cls,
        chat: BaseChatModel,
        *,
        model_id: str | None = None,
        asked: Mapping[str, Any] = _NOTHING,
        price: Price | None = None,
        context_window: int | None = None,
    ) -> Self:
        """Look at a chat model; `model_id` is another model that its integration is asked for in its place.

        `asked` are the keywords of a call, which go before what the chat model was made with. Raises `Mistake` for what
        nobody can hold the price of.
        """
        sent = beside(chat, asked)
        service = str(sent.get("service_tier") or getattr(chat, "service_tier", None))
        told = chat._get_ls_params()  # pyright: ignore[reportPrivateUsage] # what integrations are asked to override
        provider = str(told.get("ls_provider") or "unknown")
        fields = type(chat).model_fields
        cap = next((name for name in CAPS if name in fields), CAPS[0])
        return cls(
            chat,
            PROVIDERS.get(provider, provider),
            model_id or str(told.get("ls_model_name") or type(chat).__name__),
            cap,
            in_field=cap == "num_predict",
            most_output_tokens=_positive(getattr(chat, cap, None)) or _profiled(chat, "max_output_tokens"),
            given_price=price,
            given_window=context_window,
            tier=TIERS.get(service) or TIERS.get(str(sent.get("speed"))) or "standard",
        )

    @property
    def name(self) -> str:
        """Provider first: ``"openai:gpt-4.1-mini"``."""
        return f"{self.provider}:{self.model_id}"

    @cached_property
    def address(self) -> str | None:
        """Where requests go, if that is not where the provider itself is."""
        return address_of(self.chat, self.provider)

    @property
    def price(self) -> Price:
        """The price that was given, else the price sheet's, else genai-prices', now. Raises `UnknownPrice`."""
        return self.given_price or self._in_force()

    @cached_property
    def _in_force(self) -> InForce:
        return InForce(self.provider, self.model_id, api_url=self.address, tier=self.tier)

    def price_served(self, message: AIMessage) -> Price | None:
        """What is charged by, if the provider says that it served another tier than was asked for.

        None if it served what was asked for, or at a tier that nobody prices: then what was held for is charged by.
        """
        details = cast("Mapping[str, Any]", (message.usage_metadata or {}).get("input_token_details", {}))
        served: ServiceTier = "standard"
        for said, tier in TIERS.items():
            served = tier if said in details else served
        if served == self.tier or self.given_price is not None or not self._tiered:
            return None
        try:
            return self._listed(served)
        except UnknownPrice:
            return None

    def _listed(self, tier: ServiceTier) -> Price:
        return price_of(self.provider, self.model_id, api_url=self.address, tier=tier)

    @property
    def _tiered(self) -> bool:
        """Whether the provider has tiers of service, each with its price: OpenAI itself."""
        return self.provider == "openai" and self.address is None

    @cached_property
    def context_window(self) -> int:
        """Input and output tokens that fit together. Raises `UnknownModel` if nobody states them."""
        found = self.given_window or _profiled(self.chat, "max_input_tokens")
        found = found or context_window_of(self.provider, self.model_id, api_url=self.address)
        if not found:
            raise UnknownModel(f"nobody states how much context {self.name} takes: pass context_window=…")
        return found

    @cached_property
    def encoding(self) -> Encoding | None:
        """The public vocabulary of the model, if it has one."""
        return encoding_of(self.model_id) if self.provider in ("openai", "azure") and self._is_openais else None

    @property
    def _is_openais(self) -> bool:
        return self.address is None or self.provider == "azure"

    def count(self, messages: Sequence[BaseMessage], asked: Mapping[str, Any]) -> InputCount:
        """A bound of the input: messages, tools and schemas, in the model's vocabulary or by their bytes.

        ``asked`` are the keywords of the call. Raises `Mistake` for what nobody can count or bound.
        """
        sent = beside(self.chat, asked)
        return InputCount(self.bound(request_of(messages, sent, tokens=1), sent), exact=False)

    def bound(self, request: Request, asked: Mapping[str, Any] = _NOTHING) -> int:
        """The most input tokens of a request of ours, and of the words and structures among the keywords of a call."""
        if self.encoding is None:
            text = bytes_bound(request.messages, request.schema, tools=request.tools)
        else:
            text = openai_bound(self.encoding, request.messages, request.schema, tools=request.tools)
        pictures = sum(self._picture(image) for message in request.messages for image in message.images)
        counted = COUNTED | TRACED if request.schema is not None or request.tools else COUNTED
        return text + pictures + sum(self._structure(value) for name, value in asked.items() if name not in counted)

    def _structure(self, value: object) -> int:
        """Whatever else is sent beside the messages: as JSON, or as words such as OpenAI's ``instructions``."""
        if isinstance(value, str):
            return text_tokens(self.encoding, value)
        if not isinstance(value, dict | list):
            return 0
        frame = BOUND_PER_SCHEMA if self.encoding is None else TOKENS_PER_SCHEMA
        return frame + text_tokens(self.encoding, json.dumps(value, indent=2, default=str))

    def _picture(self, image: Image) -> int:
        if self.encoding is not None:
            return openai_image_tokens(self.model_id, image)
        if self.provider == "anthropic" and self.address is None:
            from agentbudget.models.anthropic.bound import picture_tokens
            from agentbudget.models.anthropic.families import family_of

            return picture_tokens(family_of(self.model_id), image)
        return any_image_tokens(image)

    def arrived(self, input_tokens: int, *, cap: int, lead: int | None) -> Arrived:
        """What will have arrived of a stream."""
        provider = self.provider if self.address is None else ""
        return Arrived(input_tokens, cap=cap, lead=lead, encoding=self.encoding, provider=provider, price=self.price)

    def asks_for_usage(self, asked: Mapping[str, Any]) -> bool:
        """Whether a stream says what it used only if it is told to, and nobody has said that it must not."""
        if "stream_usage" in asked or getattr(self.chat, "stream_usage", True) is not None:
            return False
        responses: Any = getattr(self.chat, "_use_responses_api", None)  # which say it always, and know no such keyword
        return responses is None or not responses(dict(asked))

    def answers(self, asked: Mapping[str, Any]) -> int:
        """How many answers a call asks for: each may be as long as the cap."""
        return _positive(beside(self.chat, asked).get("n")) or _positive(getattr(self.chat, "n", None)) or 1

    def capped(self, asked: Mapping[str, Any], tokens: int) -> tuple[BaseChatModel, dict[str, Any]]:
        """The chat model and the keywords that make it answer with at most `tokens` tokens."""
        kept = {name: value for name, value in asked.items() if name not in CAPS}
        if self._tiered and self.tier == "standard" and "service_tier" in type(self.chat).model_fields:
            kept["service_tier"] = "default"  # a project may be set to another, dearer one
        if self.in_field:
            return self.chat.model_copy(update={self.cap: tokens}), kept
        return self.chat, {**kept, CAPS[0] if self.provider == "openai" else self.cap: tokens}


def retries_of(chat: BaseChatModel) -> int:
    """How often a chat model tries again by itself. OpenAI's SDK does twice where nothing is said."""
    if "max_retries" not in type(chat).model_fields:
        return 0
    said = getattr(chat, "max_retries", None)
    return 2 if said is None else max(0, int(said))


def without_retries(chat: BaseChatModel) -> BaseChatModel:
    """The same chat model, which tries once: a second try is a second request that is billed, and its own hold.

    Raises `Mistake` for an integration that cannot be told so after it was made.
    """
    retries = retries_of(chat)
    if not retries:
        return chat
    once = chat.model_copy(update={"max_retries": 0})
    if hasattr(chat, "root_async_client"):  # langchain-openai, and what is built on it
        for root, used in (("root_client", "client"), ("root_async_client", "async_client")):
            client: Any = getattr(chat, root, None)
            if client is not None:
                setattr(once, root, client.with_options(max_retries=0))
                setattr(once, used, getattr(once, root).chat.completions)
        return once
    if all(hasattr(type(chat), name) for name in REBUILT):  # langchain-anthropic
        for name in REBUILT:
            vars(once).pop(name, None)
        return once
    raise Mistake(
        f"{type(chat).__name__} tries again by itself (max_retries={retries}), and every try may be billed: make it "
        "with max_retries=0; attempts are made here, each with its own hold"
    )


def address_of(integration: object, provider: str) -> str | None:
    """Where a chat model or embeddings send what they are given; None: to the provider itself, or nobody says."""
    client = getattr(integration, "root_client", None) or getattr(getattr(integration, "client", None), "_client", None)
    root: object = getattr(client, "base_url", None)
    names = ("openai_api_base", "anthropic_api_url", "azure_endpoint", "base_url")
    given = root or next(filter(None, (getattr(integration, name, None) for name in names)), None)
    url = None if given is None else str(given).rstrip("/")
    return None if url is None or url == PUBLIC.get(provider) else url


def stays_here(integration: object, address: str | None) -> bool:
    """Whether what an integration is given stays on this machine: its client heeds the proxy of the environment."""
    proxy = any(getattr(integration, name, None) for name in ("openai_proxy", "anthropic_proxy"))
    return address is not None and is_loopback(address) and not proxy and not is_proxied(address)


def _positive(value: object) -> int | None:
    return value if isinstance(value, int) and not isinstance(value, bool) and value > 0 else None


def _profiled(chat: BaseChatModel, name: str) -> int | None:
    profile = cast("Mapping[str, Any]", chat.profile or {})
    return _positive(profile.get(name))
