"""Any LangChain chat model as a `Model`: a rung of the ladder."""

from __future__ import annotations

import asyncio
import hashlib
import re
import time
from collections.abc import AsyncGenerator, Mapping, Sequence, Set
from contextlib import aclosing
from dataclasses import replace
from decimal import Decimal
from enum import Enum
from pathlib import PurePath
from typing import Any, Final, cast

from langchain_core.language_models import BaseChatModel
from langchain_core.messages import AIMessage
from langchain_core.runnables import Runnable
from pydantic import BaseModel

from agentbudget.errors import AgentBudgetError, InvalidOutput, Mistake, ModelError, OutcomeUnknown, SchemaUnsupported
from agentbudget.models.base import (
    Completion,
    Delta,
    InputCount,
    JsonSchema,
    Meter,
    Place,
    Price,
    Request,
)
from agentbudget.models.langchain.arrived import Arrived, finish_of
from agentbudget.models.langchain.beside import beside
from agentbudget.models.langchain.failures import failure
from agentbudget.models.langchain.known import Known, stays_here, without_retries
from agentbudget.models.langchain.messages import calls_of, piece_of, spec_of, text_of, to_langchain
from agentbudget.models.langchain.rehome import bound_to
from agentbudget.models.langchain.usage import timed, usage_of
from agentbudget.models.structured import Structure, strict
from agentbudget.usage import Usage

CHOICES: Final = {"auto": "auto", "required": "any", "none": "none"}
"""How LangChain says which tools may be used."""

NO_OTHER_ANSWER: Final = re.compile(r"timeout|api.?key|authorization|secret|password", re.IGNORECASE)
"""Names of settings that make no other answer: how long it is waited for, and with whose key it is asked."""


class LangChainModel:
    """A LangChain chat model behind our protocol. Implements `base.Model`.

    What it costs, and how much context it takes, is looked up by its provider and model name unless given. Its own
    retries are switched off: attempts are made by the step, one hold each. What an answer used comes from its
    ``usage_metadata``; an answer without one is presumed spent (`OutcomeUnknown`). Sampling (temperature, seed) stays
    as the chat model was made. Raises `UnknownPrice`, `UnknownModel`, `Mistake` if retries cannot be switched off.
    """

    def __init__(
        self,
        chat: BaseChatModel,
        *,
        price: Price | None = None,
        context_window: int | None = None,
        name: str | None = None,
        stream_lead_tokens: int | None = None,
    ) -> None:
        if hasattr(chat, "books"):
            raise Mistake(f"{name or 'this chat model'} is budgeted already, and steps pay: give it as it was made")
        self.chat: Final = without_retries(chat)
        self._known = Known.of(self.chat, price=price, context_window=context_window)
        self.name = name or self._known.name
        if self._known.answers({}) > 1:
            raise Mistake(f"{self.name} gives several answers (n) to a step that takes one: make it without")
        _ = self.price  # what nobody prices is refused here, not at its first call
        self.context_window = self._known.context_window
        self.stream_lead_tokens = stream_lead_tokens
        # As it was made: what it counts while it answers, in fields of its own too, makes no other model of it.
        made = hashlib.blake2b(_made(self.chat).encode("utf-8", "surrogatepass"), digest_size=16).hexdigest()
        self._fingerprint = f"langchain {type(chat).__name__} {self._known.address or ''} {self._known.model_id} {made}"

    def __repr__(self) -> str:
        return f"LangChainModel({type(self.chat).__name__}, name={self.name!r})"

    @property
    def price(self) -> Price:
        """The price that was given, else the one that the lists state now."""
        return self._known.price

    @property
    def provider(self) -> str:
        """As price lists name it: ``"openai"``, ``"google"``."""
        return self._known.provider

    @property
    def place(self) -> Place:
        """``"local"`` only for a server on this machine."""
        return "local" if stays_here(self.chat, self._known.address) else "remote"

    @property
    def address(self) -> str | None:
        """Where the chat model asks; None if its integration does not say."""
        return self._known.address

    @property
    def fingerprint(self) -> str:
        """The integration's class and what it was made with, hashed: not every integration calls a secret one."""
        return self._fingerprint

    async def count_input(self, request: Request) -> InputCount:
        """A bound, as for the provider's own client; see `Model.count_input`."""
        structure = self._structure(request.schema)
        sent = replace(request, schema=structure.schema if structure else None)
        return InputCount(self._known.bound(sent, beside(self.chat, {})), exact=False)

    async def complete(self, request: Request, meter: Meter) -> Completion:
        """Answer `request` in one call of the chat model; see `Model.complete`."""
        structure = self._structure(request.schema)
        ready = self._ready(request, structure)
        meter.leaving()
        started_ns = time.perf_counter_ns()
        within_s = min(request.timeout_s, request.max_compute_s or request.timeout_s)
        failed: AgentBudgetError
        try:
            async with asyncio.timeout(within_s):
                message = await ready.ainvoke(to_langchain(request.messages))
        except TimeoutError:
            failed = self._unknown(f"no complete answer came within {within_s:g} s")
        except Exception as error:  # noqa: BLE001 # integrations raise their SDKs' errors, which share no class
            failed = failure(error, model=self.name)
        else:
            return self._completion(cast("AIMessage", message), meter, structure, started_ns)
        # Raised out here so that no SDK error, whose text may hold the key, stays chained to ours.
        raise self._noted(failed, meter, started_ns)

    async def stream(self, request: Request, meter: Meter) -> AsyncGenerator[Delta, None]:
        """Answer `request` piece by piece; see `Model.stream`."""
        structure = self._structure(request.schema)
        ready = self._ready(request, structure)
        bound = await self.count_input(request)
        arrived = self._known.arrived(bound.tokens, cap=request.max_output_tokens, lead=self.stream_lead_tokens)
        meter.leaving()
        try:
            async for text in self._pieces(ready, request, arrived, meter):
                if structure is None:  # what is asked for may come inside something else
                    yield Delta(text)
            answer = self._streamed(arrived, meter, structure)
        finally:
            if meter.sent and meter.usage is None:
                meter.presumed = arrived.presumed
        if structure is not None and answer.text:
            yield Delta(answer.text)
        yield Delta(completion=answer)

    async def _pieces(
        self, ready: Runnable[Any, Any], request: Request, arrived: Arrived, meter: Meter
    ) -> AsyncGenerator[str, None]:
        """The text of a stream as it arrives, until its end or until it may not go on."""
        failed: AgentBudgetError | None = None
        pieces = cast("AsyncGenerator[AIMessage, None]", ready.astream(to_langchain(request.messages)))
        try:
            async with asyncio.timeout(request.timeout_s), aclosing(pieces):
                async for message in pieces:
                    piece = piece_of(message)
                    arrived.take(piece)
                    if text := text_of(piece):
                        yield text
                    if not meter.may_go_on(arrived.most):
                        arrived.cut = True
                        return
        except TimeoutError:
            failed = self._unknown(f"no complete answer came within {request.timeout_s:g} s")
        except Exception as error:  # noqa: BLE001 # as above
            failed = failure(error, model=self.name)
        if failed is not None:
            raise self._noted(failed, meter, arrived.started_ns)

    async def aclose(self) -> None:
        """Nothing: whoever made the chat model closes it."""

    def _structure(self, schema: JsonSchema | None) -> Structure | None:
        return None if schema is None else strict(schema)

    def _ready(self, request: Request, structure: Structure | None) -> Runnable[Any, Any]:
        """The chat model with everything that the request asks for bound to it."""
        asked: dict[str, Any] = {"stop": list(request.stop)} if request.stop else {}
        chat, capped = self._known.capped(asked, request.max_output_tokens)
        if structure is not None:
            return self._shaped(chat, structure).bind(**capped)
        if request.tools and request.tool_choice != "none":
            tools = [spec_of(tool) for tool in request.tools]
            return chat.bind_tools(tools, tool_choice=CHOICES[request.tool_choice]).bind(**capped)
        return chat.bind(**capped)

    def _shaped(self, chat: BaseChatModel, structure: Structure) -> Runnable[Any, Any]:
        """The chat model bound to a schema in its integration's own way: what parses the answer stays behind."""
        schema = {"title": "answer", "description": "The answer.", **structure.schema}
        try:
            return bound_to(chat, chat.with_structured_output(schema))
        except NotImplementedError as error:
            raise SchemaUnsupported(f"{self.name} ({type(chat).__name__}) has no structured output: {error}") from error

    def _completion(self, message: AIMessage, meter: Meter, structure: Structure | None, started_ns: int) -> Completion:
        usage = usage_of(message)
        if usage is None:
            raise self._unknown("it does not say what the answer used")
        usage = timed(usage, self.price, started_ns)
        meter.used(usage)
        calls, text, finish = calls_of(message), text_of(message), finish_of(message)
        if structure is not None and finish in ("stop", "tools"):
            text, calls, finish = self._answer(message, structure, usage), (), "stop"
        served = str(message.response_metadata.get("model_name") or self._known.model_id)
        if calls and finish == "stop":
            finish = "tools"
        price = self._known.price_served(message)
        return Completion(text, finish, usage, served_by=served, calls=calls, price=price)

    def _answer(self, message: AIMessage, structure: Structure, usage: Usage) -> str:
        """The answer as JSON, whether the integration asked for it as a tool call or as text."""
        calls = calls_of(message)
        try:
            return structure.unwrap(calls[0].arguments if calls else text_of(message))
        except ValueError as error:
            fact = f"{self.name} did not keep to the schema: {error}"
            raise InvalidOutput(fact, model=self.name, usage=usage) from error

    def _streamed(self, arrived: Arrived, meter: Meter, structure: Structure | None) -> Completion:
        """The whole of a stream that has ended, or was left."""
        if arrived.cut:
            return Completion(arrived.text, "cut", arrived.presumed, served_by=self._known.model_id)
        if arrived.message is None or not arrived.ended:
            raise self._unknown("the stream broke off")
        return self._completion(arrived.message, meter, structure, arrived.started_ns)

    def _unknown(self, what: str) -> OutcomeUnknown:
        return OutcomeUnknown(f"{self.name}: {what}; the call is presumed spent", model=self.name)

    def _noted(self, failed: AgentBudgetError, meter: Meter, started_ns: int) -> AgentBudgetError:
        """The error, with the meter brought up to what it says."""
        if isinstance(failed, ModelError):
            if not failed.sent:
                meter.sent = False
            if failed.usage is not None:
                meter.used(timed(failed.usage, self.price, started_ns) if failed.usage != Usage() else failed.usage)
        return failed


def _made(chat: BaseChatModel) -> str:
    """What a chat model was made with."""
    identifying = chat._identifying_params  # pyright: ignore[reportPrivateUsage]
    # Many integrations (Ollama's) name nothing there that identifies them.
    own = sorted(chat.model_fields_set - BaseChatModel.model_fields.keys())
    return f"{sorted(identifying.items())} {_told({name: getattr(chat, name) for name in own})}"


def _told(value: object) -> object:
    """A setting as plain data, the same in every process; of a client, a callback or a secret, only its type."""
    if isinstance(value, BaseModel):
        return _told({name: getattr(value, name) for name in sorted(value.model_fields_set)})
    if isinstance(value, Mapping):
        items = cast("Mapping[object, object]", value).items()
        return [(str(name), _told(one)) for name, one in items if not NO_OTHER_ANSWER.search(str(name))]
    if isinstance(value, list | tuple):
        return [_told(one) for one in cast("Sequence[object]", value)]
    if isinstance(value, Set):
        return sorted(repr(_told(one)) for one in cast("Set[object]", value))
    plain = isinstance(value, str | bytes | int | float | Decimal | PurePath | Enum)
    return value if plain or value is None else type(value).__qualname__
