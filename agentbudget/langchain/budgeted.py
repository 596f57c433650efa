"""A chat model that pays: it reserves before each call, settles after it, and refuses what does not fit."""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator, Callable, Coroutine, Generator, Iterator, Mapping, Sequence
from contextlib import AsyncExitStack, ExitStack, aclosing, closing
from dataclasses import asdict, dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any, Self, TypeVar, cast
from uuid import UUID

from langchain_core.callbacks import AsyncCallbackManagerForLLMRun, CallbackManagerForLLMRun
from langchain_core.language_models import BaseChatModel, LangSmithParams, LanguageModelInput
from langchain_core.language_models.chat_model_stream import AsyncChatModelStream, ChatModelStream
from langchain_core.language_models.model_profile import ModelProfile
from langchain_core.messages import AIMessage, AIMessageChunk, BaseMessage
from langchain_core.outputs import ChatGenerationChunk, ChatResult
from langchain_core.runnables import Runnable, RunnableConfig
from langchain_core.runnables.config import ensure_config
from langchain_core.tools import BaseTool
from langchain_core.utils.uuid import uuid7
from pydantic import BaseModel, ConfigDict, Field, PrivateAttr, field_validator

from agentbudget.errors import DataRefused, Mistake
from agentbudget.estimate import tag
from agentbudget.langchain.accounts import Accounts, checked, opened, run_of
from agentbudget.langchain.attempt import Attempt
from agentbudget.langchain.books import Books
from agentbudget.langchain.chat import ChatModel
from agentbudget.langchain.guarding import book_refusal, guarded_call, label_of
from agentbudget.langchain.retrying import aretrying, retrying
from agentbudget.langchain.sizing import Holding, Sized, size
from agentbudget.langchain.terms import Counted, Hosted, Ours, Terms
from agentbudget.ledger import Ledger
from agentbudget.models.base import Price
from agentbudget.models.langchain.known import Known, retries_of, without_retries
from agentbudget.models.langchain.rehome import rehomed
from agentbudget.money import Budget
from agentbudget.privacy import DataClass, Privacy

T = TypeVar("T")


def budgeted(
    model: BaseChatModel | str,
    *,
    accounts: Accounts,
    ledger: Ledger | str | Path | None = None,
    price: Price | None = None,
    label: str = "langchain",
    hold: Holding = "grow",
    attempts: int | None = None,
    stream_lead_tokens: int | None = None,
    privacy: Privacy | None = None,
) -> BudgetedChatModel:
    """`model`, which from now on reserves on `accounts` before each call, and settles what it used after it.

    ``model`` is any chat model, or the name of one of ours (``"llamacpp:qwen2.5-coder-0.5b"``). ``accounts`` are names,
    or names with the limit that a new account gets; ``"user/{user_id}"`` is filled in from each call's config.
    ``ledger`` is a `Ledger`, its path or address; None: the one of the environment (``AGENTBUDGET_LEDGER``).

    ``price`` is looked up by provider and model unless given. ``label`` names what is asked for here, in statements and
    for what is learned. ``hold`` is how much a call sets aside, see `Holding`. ``attempts`` are billable, each has its
    own hold; None: as many as `model` made by itself, which it no longer does. ``stream_lead_tokens`` says that the
    provider stops (and charges no more) when a stream is left, and how many tokens it may be ahead: then streams begin
    on a small hold, which grows. Our own models say it themselves. ``privacy`` are the rules of what may go to the
    model: the class of a conversation is what its config, its messages and the documents of its tools say.

    Raises `UnknownPrice`, and `Mistake` for a model whose retries cannot be switched off.
    """
    chat = ChatModel(model=model) if isinstance(model, str) else model
    if not isinstance(chat, BaseChatModel) or isinstance(chat, BudgetedChatModel):
        raise Mistake(f"budgeted takes a chat model as it was made, before bind_tools and the like, not {chat!r}")
    fields: dict[str, Any] = {
        name: getattr(chat, name)
        for name in ("callbacks", "tags", "metadata", "cache", "rate_limiter", "verbose", "output_version", "profile")
    }
    if "streaming" in chat.model_fields_set:
        fields["streaming"] = getattr(chat, "streaming", None)
    paying = BudgetedChatModel(
        inner=without_retries(chat),
        books=Books(ledger),
        accounts=checked(accounts),
        price=price,
        label=label,
        hold=hold,
        attempts=retries_of(chat) + 1 if attempts is None else attempts,
        stream_lead_tokens=stream_lead_tokens,
        privacy=privacy or Privacy(),
        disable_streaming=chat.disable_streaming,
        **fields,
    )
    _ = paying.terms({}).price  # a model without a price is refused here, not at its first call
    return paying


class BudgetedChatModel(BaseChatModel):
    """What `budgeted` makes. Everything but the money is the wrapped model's: tools, types, profile, tracing, cache."""

    inner: BaseChatModel
    books: Books = Field(default_factory=Books)
    accounts: dict[str, Budget | None]
    price: Any = Field(default=None, exclude=True)
    label: str = "langchain"
    hold: Holding = "grow"
    attempts: int = Field(default=1, ge=1)
    stream_lead_tokens: int | None = None
    privacy: Privacy = Field(default_factory=Privacy, exclude=True)
    streaming: bool | None = None

    _config: RunnableConfig | None = PrivateAttr(default=None)

    model_config = ConfigDict(arbitrary_types_allowed=True, extra="forbid")

    @field_validator("books", mode="before")
    @classmethod
    def _opened_later(cls, given: object) -> object:
        return given if isinstance(given, Books) else Books(cast("Ledger | str | Path | None", given))

    @field_validator("privacy", mode="before")
    @classmethod
    def _as_rules(cls, given: object) -> object:
        return given if isinstance(given, Privacy) else Privacy.from_dict(cast("Mapping[str, Any]", given))

    @property
    def ledger(self) -> Ledger:
        """Where the calls are booked."""
        return self.books.ledger

    # --- what LangChain asks of a chat model, answered by the wrapped one

    @property
    def model_name(self) -> str | None:
        """As the wrapped model says it."""
        return self._get_ls_params().get("ls_model_name")

    @property
    def _llm_type(self) -> str:
        return self.inner._llm_type

    @property
    def _identifying_params(self) -> Mapping[str, Any]:
        return self.inner._identifying_params

    def _get_ls_params(self, stop: list[str] | None = None, **kwargs: Any) -> LangSmithParams:
        return self.inner._get_ls_params(stop=stop, **kwargs)

    def _get_invocation_params(self, stop: list[str] | None = None, **kwargs: Any) -> dict[str, Any]:
        return self.inner._get_invocation_params(stop=stop, **kwargs)

    def _get_llm_string(self, stop: list[str] | None = None, **kwargs: Any) -> str:
        return self.inner._get_llm_string(stop=stop, **kwargs)

    def _combine_llm_outputs(self, _llm_outputs: list[dict[str, Any] | None], /) -> dict[str, Any]:
        return self.inner._combine_llm_outputs(_llm_outputs)

    def _resolve_model_profile(self) -> ModelProfile | None:
        return self.inner.profile

    def get_token_ids(self, text: str) -> list[int]:
        """See the wrapped model."""
        return self.inner.get_token_ids(text)

    def get_num_tokens(self, text: str) -> int:
        """See the wrapped model."""
        return self.inner.get_num_tokens(text)

    @classmethod
    def is_lc_serializable(cls) -> bool:
        """True, where the wrapped model is, and the ledger is a file or a server."""
        return True

    @classmethod
    def get_lc_namespace(cls) -> list[str]:
        """Where LangChain finds the class again."""
        return ["agentbudget", "langchain", "budgeted"]

    @property
    def lc_attributes(self) -> dict[str, Any]:
        """The ledger by its place, the limits as plain data."""
        limits = {
            name: None if limit is None else {**asdict(limit), "usd": None if limit.usd is None else str(limit.usd)}
            for name, limit in self.accounts.items()
        }
        return {"books": self.books.location, "accounts": limits, "privacy": self.privacy.to_dict()}

    def bind_tools(
        self,
        tools: Sequence[dict[str, Any] | type | Callable[..., Any] | BaseTool],
        *,
        tool_choice: str | None = None,
        **kwargs: Any,
    ) -> Runnable[LanguageModelInput, AIMessage]:
        """The wrapped model's tools, bound to this one."""
        chosen = kwargs if tool_choice is None else {**kwargs, "tool_choice": tool_choice}
        return rehomed(self.inner.bind_tools(tools, **chosen), self.inner, self)

    def with_structured_output(
        self, schema: dict[str, Any] | type, *, include_raw: bool = False, **kwargs: Any
    ) -> Runnable[LanguageModelInput, dict[str, Any] | BaseModel]:
        """The wrapped model's structured output, asked of this one."""
        return rehomed(self.inner.with_structured_output(schema, include_raw=include_raw, **kwargs), self.inner, self)

    # --- a call knows its config: who pays may stand there

    def _for(self, config: RunnableConfig | None) -> tuple[Self, RunnableConfig]:
        """This model for one call, and the call's config, which has a run id: that of its trace and of its hold."""
        known = ensure_config(config)
        known["run_id"] = known.get("run_id") or uuid7()
        one = self.model_copy()
        one._config = known
        return one, known

    def invoke(self, input: LanguageModelInput, config: RunnableConfig | None = None, **kwargs: Any) -> AIMessage:
        """See `BaseChatModel`. Raises `BudgetExceeded`, with nothing sent, if the call does not fit its accounts."""
        one, known = self._for(config)
        return BaseChatModel.invoke(one, input, known, **kwargs)

    async def ainvoke(
        self, input: LanguageModelInput, config: RunnableConfig | None = None, **kwargs: Any
    ) -> AIMessage:
        """See `invoke`."""
        one, known = self._for(config)
        return await BaseChatModel.ainvoke(one, input, known, **kwargs)

    def stream(
        self, input: LanguageModelInput, config: RunnableConfig | None = None, **kwargs: Any
    ) -> Iterator[AIMessageChunk]:
        """See `invoke`. A stream whose hold can grow no more ends early, with the ``finish_reason`` ``"cut"``."""
        one, known = self._for(config)
        pieces = BaseChatModel.stream(one, input, known, **kwargs)
        with closing(cast("Generator[AIMessageChunk]", pieces)):
            yield from pieces

    async def astream(
        self, input: LanguageModelInput, config: RunnableConfig | None = None, **kwargs: Any
    ) -> AsyncIterator[AIMessageChunk]:
        """See `stream`."""
        one, known = self._for(config)
        pieces = BaseChatModel.astream(one, input, known, **kwargs)
        async with aclosing(cast("AsyncGenerator[AIMessageChunk]", pieces)):
            async for piece in pieces:
                yield piece

    def _chat_model_stream_v3(
        self, input: LanguageModelInput, config: RunnableConfig | None = None, **kwargs: Any
    ) -> ChatModelStream:
        one, known = self._for(config)
        return BaseChatModel._chat_model_stream_v3(one, input, known, **kwargs)

    async def _achat_model_stream_v3(
        self, input: LanguageModelInput, config: RunnableConfig | None = None, **kwargs: Any
    ) -> AsyncChatModelStream:
        one, known = self._for(config)
        return await BaseChatModel._achat_model_stream_v3(one, input, known, **kwargs)

    # --- one call

    def terms(self, asked: Mapping[str, Any]) -> Terms:
        """What the model that a call asks for costs, and how it is counted. Raises `UnknownPrice`."""
        if isinstance(self.inner, ChatModel):
            return Ours(self.inner)
        other = cast("str | None", asked.get("model"))
        own = self.inner._get_ls_params().get("ls_model_name")
        price = self.price if other in (None, own) else None
        return Hosted(
            Known.of(self.inner, model_id=other, asked=asked, price=price),
            self.stream_lead_tokens,
        )

    def _streaming_disabled(self, **kwargs: Any) -> bool:
        implemented = type(self.inner)._stream is not BaseChatModel._stream
        return not implemented or super()._streaming_disabled(**kwargs)

    def _generate(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None = None,
        run_manager: CallbackManagerForLLMRun | None = None,
        **kwargs: Any,
    ) -> ChatResult:
        paid = partial(self._paid, self._admitted(_Asked(messages, stop, kwargs, run_manager)))
        result, cut_short = paid(whole=False)
        return paid(whole=True)[0] if cut_short else result

    async def _agenerate(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None = None,
        run_manager: AsyncCallbackManagerForLLMRun | None = None,
        **kwargs: Any,
    ) -> ChatResult:
        paid = partial(self._apaid, self._admitted(_Asked(messages, stop, kwargs, run_manager)))
        result, cut_short = await paid(whole=False)
        return (await paid(whole=True))[0] if cut_short else result

    def _stream(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None = None,
        run_manager: CallbackManagerForLLMRun | None = None,
        **kwargs: Any,
    ) -> Iterator[ChatGenerationChunk]:
        asked = self._admitted(_Asked(messages, stop, kwargs, run_manager))
        with ExitStack() as life:
            call, pieces, piece = self._opened(asked, life)
            while piece is not None:
                covered = call.take(piece)
                yield piece
                if not covered:
                    call.streamed(cut=True)
                    yield _cut(call)
                    return
                piece = next(pieces, None)
            call.streamed()

    async def _astream(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None = None,
        run_manager: AsyncCallbackManagerForLLMRun | None = None,
        **kwargs: Any,
    ) -> AsyncIterator[ChatGenerationChunk]:
        asked = self._admitted(_Asked(messages, stop, kwargs, run_manager))
        async with AsyncExitStack() as life:
            call, pieces, piece = await self._aopened(asked, life)
            while piece is not None:
                covered = call.take(piece)
                yield piece
                if not covered:
                    call.streamed(cut=True)
                    yield _cut(call)
                    return
                piece = await anext(pieces, None)
            call.streamed()

    def _admitted(self, asked: _Asked) -> _Asked:
        """The call as it may be sent, before anything is counted or held. Raises `DataRefused`, and books that."""
        config = self._config or ensure_config()
        destination = self.terms(asked.keywords).destination
        label = label_of(asked.messages, config, self.privacy)
        try:
            messages, keywords, found = guarded_call(asked.messages, asked.keywords, label, destination, self.privacy)
        except DataRefused as refused:
            accounts = opened(self.ledger, self.accounts, config)
            hold_id = f"{run_of(accounts)}/{self.label}.{asked.run_id(config)}/refusal"
            book_refusal(self.ledger, hold_id, accounts, label, destination, refused.found)
            raise
        return replace(asked, messages=messages, keywords=keywords, told_class=label.data_class, found=found)

    # --- attempts: sync and async differ by who waits

    def _paid(self, asked: _Asked, *, whole: bool) -> tuple[ChatResult, bool]:
        """An answer, and whether a learned cap cut it. Each attempt has its own hold."""
        terms = self.terms(asked.keywords)
        for attempt in retrying(self.attempts):
            with attempt:
                sized = _now(self._sized(terms, terms.counted(*asked.told), asked, whole=whole))
                with self._reserved(terms, sized, asked, attempt.retry_state.attempt_number, whole=whole) as call:
                    chat, sent = call.ready()
                    result = chat._generate(asked.messages, stop=asked.stop, run_manager=asked.manager, **sent)
                    return result, call.answered(result)
        raise AssertionError("unreachable: the loop above returns or raises")

    async def _apaid(self, asked: _Asked, *, whole: bool) -> tuple[ChatResult, bool]:
        terms = self.terms(asked.keywords)
        async for attempt in aretrying(self.attempts):
            with attempt:
                sized = await self._sized(terms, await terms.acounted(*asked.told), asked, whole=whole)
                with self._reserved(terms, sized, asked, attempt.retry_state.attempt_number, whole=whole) as call:
                    chat, sent = call.ready()
                    result = await chat._agenerate(asked.messages, stop=asked.stop, run_manager=asked.manager, **sent)
                    return result, call.answered(result)
        raise AssertionError("unreachable: the loop above returns or raises")

    def _opened(
        self, asked: _Asked, life: ExitStack
    ) -> tuple[Attempt, Iterator[ChatGenerationChunk], ChatGenerationChunk | None]:
        """A stream with its first piece: what fails before that is tried again, as nobody has seen anything."""
        terms = self.terms(asked.keywords)
        for attempt in retrying(self.attempts):
            with attempt, ExitStack() as opening:
                sized = _now(self._sized(terms, terms.counted(*asked.told), asked, streams=True))
                call = self._reserved(terms, sized, asked, attempt.retry_state.attempt_number, streams=True)
                opening.enter_context(call)
                chat, sent = call.ready()
                pieces = chat._stream(asked.messages, stop=asked.stop, run_manager=asked.manager, **sent)
                opening.callback(getattr(pieces, "close", _nothing))
                first = next(pieces, None)
                life.push(opening.pop_all())
                return call, pieces, first
        raise AssertionError("unreachable: the loop above returns or raises")

    async def _aopened(
        self, asked: _Asked, life: AsyncExitStack
    ) -> tuple[Attempt, AsyncIterator[ChatGenerationChunk], ChatGenerationChunk | None]:
        terms = self.terms(asked.keywords)
        async for attempt in aretrying(self.attempts):
            with attempt:
                async with AsyncExitStack() as opening:
                    counted = await terms.acounted(*asked.told)
                    sized = await self._sized(terms, counted, asked, streams=True)
                    call = self._reserved(terms, sized, asked, attempt.retry_state.attempt_number, streams=True)
                    opening.enter_context(call)
                    chat, sent = call.ready()
                    pieces = chat._astream(asked.messages, stop=asked.stop, run_manager=asked.manager, **sent)
                    opening.push_async_callback(getattr(pieces, "aclose", _anothing))
                    first = await anext(pieces, None)
                    life.push_async_exit(opening.pop_all())
                    return call, pieces, first
        raise AssertionError("unreachable: the loop above returns or raises")

    async def _sized(
        self, terms: Terms, counted: Counted, asked: _Asked, *, whole: bool = False, streams: bool = False
    ) -> Sized:
        tokens = terms.most_output_tokens(asked.keywords)
        request = terms.request(*asked.told, tokens)
        lead = terms.stream_lead_tokens if streams else None
        estimator = self.books.estimator
        return await size(
            estimator, self.label, counted.model, request, holding=self.hold, lead=lead, whole=whole or streams
        )

    def _reserved(
        self,
        terms: Terms,
        sized: Sized,
        asked: _Asked,
        number: int,
        *,
        whole: bool = False,
        streams: bool = False,
    ) -> Attempt:
        """Reserve for one attempt, on the accounts of this call. Raises `BudgetExceeded`."""
        config = self._config or ensure_config()
        accounts = opened(self.ledger, self.accounts, config)
        meta = {
            "kind": "call",
            "skill": self.label,
            "model": terms.name,
            "purpose": "retry" if whole else "draft",
            "price": sized.estimate.price.source,
            "estimated": sized.estimate.told,
            "data_class": asked.told_class,
            **({"found": asked.found} if asked.found else {}),
        }
        hold_id = _hold_id(accounts, self.label, asked.run_id(config), number, whole=whole)
        marked = tag(self.label, terms.name)
        hold = self.books.reserve(hold_id, sized.amount, accounts=accounts, tag=marked, meta=meta)
        estimator = self.books.estimator
        return Attempt(terms, sized, hold, estimator=estimator, label=self.label, asked=asked.keywords, streams=streams)


@dataclass(frozen=True, slots=True)
class _Asked:
    """One call, as LangChain hands it on."""

    messages: list[BaseMessage]
    stop: list[str] | None
    keywords: dict[str, Any]
    manager: Any
    told_class: DataClass = "internal"
    found: Mapping[str, int] = field(default_factory=dict[str, int])

    def run_id(self, config: RunnableConfig) -> UUID:
        """That of the call's trace."""
        return self.manager.run_id if self.manager is not None else config.get("run_id") or uuid7()

    @property
    def told(self) -> tuple[list[BaseMessage], list[str] | None, dict[str, Any]]:
        """What it says to a model."""
        return self.messages, self.stop, self.keywords


def _hold_id(accounts: Sequence[str], label: str, run_id: UUID | str, number: int, *, whole: bool) -> str:
    """The call's run id, which no other call has, under the run that pays for it."""
    again = ("+whole" if whole else "") + (f"~{number}" if number > 1 else "")
    return f"{run_of(accounts)}/{label}.{run_id}{again}"


def _cut(call: Attempt) -> ChatGenerationChunk:
    """The last piece of a stream that was cut, which says so."""
    refusal = None if call.growth is None else call.growth.refusal
    told = {"finish_reason": "cut", "cut": str(refusal)}
    return ChatGenerationChunk(message=AIMessageChunk(content="", response_metadata=told, chunk_position="last"))


def _now(work: Coroutine[Any, Any, T]) -> T:
    """The result of a coroutine that has nothing to wait for."""
    try:
        work.send(None)
    except StopIteration as done:
        return cast("T", done.value)
    work.close()
    raise AssertionError("a count that was made already is waited for")


def _nothing() -> None:
    """A stream that cannot be closed."""


async def _anothing() -> None:
    """The same."""
