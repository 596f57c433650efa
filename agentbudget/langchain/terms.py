"""What a budget needs to know of a chat model: how its calls are counted and capped, and what they cost."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final, Protocol, cast

from langchain_core.language_models import BaseChatModel
from langchain_core.messages import AIMessage, BaseMessage

from agentbudget.errors import Mistake, UnknownModel
from agentbudget.growing import Growth
from agentbudget.langchain import background
from agentbudget.langchain.chat import ChatModel
from agentbudget.models.base import InputCount, Meter, Model, Price, Request
from agentbudget.models.langchain.arrived import Arrived
from agentbudget.models.langchain.known import Known, stays_here
from agentbudget.models.langchain.messages import request_of
from agentbudget.privacy import Destination

BOUNDLESS: Final = 1 << 40
"""The context of a model whose maker states none: its provider refuses what is too long, and charges nothing."""

_OUTPUTS: Final = ("max_tokens", "max_completion_tokens", "max_output_tokens", "num_predict")


@dataclass(frozen=True, slots=True)
class Counted:
    """A model whose input was counted already: the part of `Model` that an estimate asks for."""

    name: str
    price: Price
    context_window: int
    count: InputCount

    async def count_input(self, request: Request) -> InputCount:
        """What was counted."""
        return self.count

    @property
    def model(self) -> Model:
        """As an estimate takes it."""
        return cast("Model", self)


class Terms(Protocol):
    """Of one chat model."""

    @property
    def name(self) -> str: ...

    @property
    def provider(self) -> str: ...

    @property
    def price(self) -> Price: ...

    @property
    def stream_lead_tokens(self) -> int | None: ...

    @property
    def destination(self) -> Destination:
        """Where its conversations go."""
        ...

    def most_output_tokens(self, asked: Mapping[str, Any]) -> int:
        """The output cap that a call has by itself. Raises `Mistake` if it has none."""
        ...

    def request(
        self, messages: Sequence[BaseMessage], stop: Sequence[str] | None, asked: Mapping[str, Any], tokens: int
    ) -> Request:
        """The call as a request of ours."""
        ...

    def counted(self, messages: Sequence[BaseMessage], stop: Sequence[str] | None, asked: Mapping[str, Any]) -> Counted:
        """The call with its input counted."""
        ...

    async def acounted(
        self, messages: Sequence[BaseMessage], stop: Sequence[str] | None, asked: Mapping[str, Any]
    ) -> Counted:
        """The same, for code that is async."""
        ...

    def capped(
        self, asked: Mapping[str, Any], request: Request, meter: Meter, *, streams: bool, growth: Growth | None
    ) -> tuple[BaseChatModel, dict[str, Any]]:
        """The chat model and the keywords with which the call stays within `request`'s caps."""
        ...

    def price_served(self, message: AIMessage) -> Price | None:
        """What is charged by, where that is not the price that was held for."""
        ...

    def arrived(self, input_tokens: int, cap: int) -> Arrived:
        """What will have arrived of a stream."""
        ...


class Hosted:
    """An integration of LangChain's, or of anybody else's."""

    def __init__(self, known: Known, stream_lead_tokens: int | None) -> None:
        self._known = known
        self.stream_lead_tokens = stream_lead_tokens

    @property
    def name(self) -> str:
        return self._known.name

    @property
    def provider(self) -> str:
        return self._known.provider

    @property
    def price(self) -> Price:
        return self._known.price

    @property
    def destination(self) -> Destination:
        address = self._known.address
        return Destination(self.name, address, here=stays_here(self._known.chat, address))

    def most_output_tokens(self, asked: Mapping[str, Any]) -> int:
        found = _asked_for(asked) or self._known.most_output_tokens
        if found is None:
            raise Mistake(
                f"nobody says how long an answer of {self.name} may be, so that nobody can hold what it costs: "
                f"make it with {self._known.cap}=…, or call it with max_tokens=…"
            )
        return found * self._known.answers(asked)

    def request(
        self, messages: Sequence[BaseMessage], stop: Sequence[str] | None, asked: Mapping[str, Any], tokens: int
    ) -> Request:
        return request_of(messages, asked, tokens=tokens)

    def counted(self, messages: Sequence[BaseMessage], stop: Sequence[str] | None, asked: Mapping[str, Any]) -> Counted:
        try:
            window = self._known.context_window
        except UnknownModel:
            window = BOUNDLESS
        return Counted(self.name, self.price, window, self._known.count(messages, asked))

    async def acounted(
        self, messages: Sequence[BaseMessage], stop: Sequence[str] | None, asked: Mapping[str, Any]
    ) -> Counted:
        return self.counted(messages, stop, asked)

    def capped(
        self, asked: Mapping[str, Any], request: Request, meter: Meter, *, streams: bool, growth: Growth | None
    ) -> tuple[BaseChatModel, dict[str, Any]]:
        meter.leaving()  # an integration says nothing of when a request leaves
        chat, sent = self._known.capped(asked, request.max_output_tokens // self._known.answers(asked))
        if streams and self._known.asks_for_usage(asked):
            sent["stream_usage"] = True
        return chat, sent

    def price_served(self, message: AIMessage) -> Price | None:
        return self._known.price_served(message)

    def arrived(self, input_tokens: int, cap: int) -> Arrived:
        return self._known.arrived(input_tokens, cap=cap, lead=self.stream_lead_tokens)


class Ours:
    """One of our models: counted exactly where that can be, cut by its own engine, told to the nanosecond."""

    def __init__(self, chat: ChatModel) -> None:
        self._chat = chat

    @property
    def name(self) -> str:
        return self._chat.served.name

    @property
    def provider(self) -> str:
        return self._chat.served.provider

    @property
    def price(self) -> Price:
        return self._chat.served.price

    @property
    def destination(self) -> Destination:
        return Destination.of_model(self._chat.served)

    @property
    def stream_lead_tokens(self) -> int | None:
        return self._chat.served.stream_lead_tokens

    def most_output_tokens(self, asked: Mapping[str, Any]) -> int:
        return _asked_for(asked) or self._chat.max_tokens

    def request(
        self, messages: Sequence[BaseMessage], stop: Sequence[str] | None, asked: Mapping[str, Any], tokens: int
    ) -> Request:
        return replace(self._chat.request(messages, stop, asked), max_output_tokens=tokens)

    def counted(self, messages: Sequence[BaseMessage], stop: Sequence[str] | None, asked: Mapping[str, Any]) -> Counted:
        return background.run(self.acounted(messages, stop, asked))

    async def acounted(
        self, messages: Sequence[BaseMessage], stop: Sequence[str] | None, asked: Mapping[str, Any]
    ) -> Counted:
        count = await self._chat.served.count_input(self._chat.request(messages, stop, asked))
        return Counted(self.name, self.price, self._chat.served.context_window, count)

    def capped(
        self, asked: Mapping[str, Any], request: Request, meter: Meter, *, streams: bool, growth: Growth | None
    ) -> tuple[BaseChatModel, dict[str, Any]]:
        kept = {name: value for name, value in asked.items() if name not in _OUTPUTS}
        meter.gate = None if growth is None else growth.allows
        caps = {"max_tokens": request.max_output_tokens, "max_compute_s": request.max_compute_s}
        return self._chat, {**kept, **caps, "meter": meter}

    def price_served(self, message: AIMessage) -> Price | None:
        return None

    def arrived(self, input_tokens: int, cap: int) -> Arrived:
        return Arrived(input_tokens, cap=cap)


def _asked_for(asked: Mapping[str, Any]) -> int | None:
    return next((int(asked[name]) for name in _OUTPUTS if asked.get(name)), None)
