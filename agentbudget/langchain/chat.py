"""One of our models as a LangChain chat model: counted, capped and cut as a step would."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
from contextlib import aclosing
from dataclasses import replace
from functools import cached_property
from operator import itemgetter
from typing import Any, Final, Self, cast

from langchain_core.callbacks import AsyncCallbackManagerForLLMRun, CallbackManagerForLLMRun
from langchain_core.language_models import BaseChatModel, LangSmithParams, LanguageModelInput
from langchain_core.messages import AIMessage, AIMessageChunk, BaseMessage
from langchain_core.messages.tool import tool_call_chunk
from langchain_core.output_parsers import JsonOutputParser, PydanticOutputParser
from langchain_core.outputs import ChatGeneration, ChatGenerationChunk, ChatResult
from langchain_core.runnables import Runnable, RunnableMap, RunnablePassthrough
from langchain_core.tools import BaseTool
from langchain_core.utils.function_calling import convert_to_json_schema, convert_to_openai_tool
from langchain_core.utils.pydantic import is_basemodel_subclass
from pydantic import BaseModel, ConfigDict

from agentbudget.errors import Mistake
from agentbudget.langchain import background
from agentbudget.models import make_model
from agentbudget.models.base import Completion, Delta, Meter, Model, Request
from agentbudget.models.langchain.messages import asks, request_of
from agentbudget.models.langchain.usage import OUR_USAGE, metadata_of
from agentbudget.settings import Settings

MAX_TOKENS: Final = 1024
"""Output tokens of an answer where nobody says how many it may have."""

_OUTPUTS: Final = ("max_tokens", "max_completion_tokens", "max_output_tokens")
_NOTED: Final = frozenset({"tools", "tool_choice", "response_format", "strict", "parallel_tool_calls", "stream"})


class ChatModel(BaseChatModel):
    """One of our models as a LangChain chat model: ``ChatModel(model="llamacpp:qwen2.5-coder-0.5b")``.

    ``model`` is a name as `make_model` reads it, or a `Model`. Structured output is enforced by grammar or by the
    provider; ``bind_tools`` offers tools where the model has them. Sync calls run in an event loop in the background.
    What an answer used, compute included, stands in its ``response_metadata``. It books nothing by itself: wrap it in
    `budgeted`.
    """

    model: Any
    temperature: float = 0.0
    max_tokens: int = MAX_TOKENS
    stop: list[str] | None = None
    seed: int = 0
    timeout: float = 120.0
    streaming: bool | None = None

    model_config = ConfigDict(arbitrary_types_allowed=True)

    @cached_property
    def served(self) -> Model:
        """The model itself."""
        model: object = self.model
        return make_model(model, Settings.from_env()) if isinstance(model, str) else cast("Model", model)

    def __getstate__(self) -> dict[Any, Any]:
        """Without the model itself, which another process opens by its name."""
        state = super().__getstate__()
        return {**state, "__dict__": {name: value for name, value in state["__dict__"].items() if name != "served"}}

    def __deepcopy__(self, memo: dict[int, Any] | None = None) -> Self:
        """A copy that shares the model: its weights are not loaded twice."""
        return self.model_copy()

    @property
    def model_name(self) -> str:
        """Its name, provider first."""
        return self.model if isinstance(self.model, str) else self.served.name

    @property
    def _llm_type(self) -> str:
        return "agentbudget"

    @property
    def _identifying_params(self) -> Mapping[str, Any]:
        kept = ("temperature", "max_tokens", "stop", "seed")
        return {"model_name": self.model_name, **{name: getattr(self, name) for name in kept}}

    @classmethod
    def is_lc_serializable(cls) -> bool:
        """True, for a model that was given by its name."""
        return True

    @classmethod
    def get_lc_namespace(cls) -> list[str]:
        """Where LangChain finds the class again."""
        return ["agentbudget", "langchain", "chat"]

    def _get_ls_params(self, stop: list[str] | None = None, **kwargs: Any) -> LangSmithParams:
        provider, _, name = self.model_name.partition(":")
        params = LangSmithParams(
            ls_provider=provider,
            ls_model_name=str(kwargs.get("model") or name or provider),
            ls_model_type="chat",
            ls_temperature=self.temperature,
            ls_max_tokens=self.max_tokens,
        )
        if ended := stop or self.stop:
            params["ls_stop"] = ended
        return params

    # --- one call

    def request(self, messages: Sequence[BaseMessage], stop: Sequence[str] | None, asked: Mapping[str, Any]) -> Request:
        """The request of ours that a call asks for. Raises `Mistake` for keywords that it has no place for."""
        asked = dict(asked)
        for name in ("meter", "max_compute_s"):
            asked.pop(name, None)
        output = [asked.pop(name) for name in _OUTPUTS if name in asked]
        chosen = {name: asked.pop(name, getattr(self, name)) for name in ("temperature", "seed", "timeout")}
        other = asked.pop("model", self.model_name)
        if other != self.model_name:
            raise Mistake(f"a call asks for {other!r}: make another ChatModel for another model")
        if unknown := {name for name, value in asked.items() if value is not None} - _NOTED:
            raise Mistake(f"{self.model_name} takes no {', '.join(sorted(unknown))}")
        only = asked.get("tool_choice")
        request = request_of(messages, asked, tokens=output[-1] if output else self.max_tokens, thoughts=False)
        return replace(
            request,
            temperature=float(chosen["temperature"] or 0.0),
            seed=int(chosen["seed"]),
            timeout_s=float(chosen["timeout"]),
            stop=tuple(stop or self.stop or ()),
            tool_choice="required" if _named(only) else request.tool_choice,
            tools=tuple(tool for tool in request.tools if not _named(only) or tool.name == _named(only)),
        )

    def _call(
        self, messages: Sequence[BaseMessage], stop: Sequence[str] | None, asked: Mapping[str, Any]
    ) -> tuple[Request, Meter]:
        """The request and the meter of a call: whoever pays for it brings its own (`budgeted`)."""
        request = replace(self.request(messages, stop, asked), max_compute_s=asked.get("max_compute_s"))
        return request, asked.get("meter") or Meter()

    def _generate(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None = None,
        run_manager: CallbackManagerForLLMRun | None = None,
        **kwargs: Any,
    ) -> ChatResult:
        request, meter = self._call(messages, stop, kwargs)
        return _result(background.run(_complete(self.served, request, meter)))

    async def _agenerate(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None = None,
        run_manager: AsyncCallbackManagerForLLMRun | None = None,
        **kwargs: Any,
    ) -> ChatResult:
        request, meter = self._call(messages, stop, kwargs)
        return _result(await self.served.complete(request, meter))

    def _stream(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None = None,
        run_manager: CallbackManagerForLLMRun | None = None,
        **kwargs: Any,
    ) -> Iterator[ChatGenerationChunk]:
        request, meter = self._call(messages, stop, kwargs)
        for delta in background.iterate(self.served.stream(request, meter)):
            yield _chunk(delta)

    async def _astream(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None = None,
        run_manager: AsyncCallbackManagerForLLMRun | None = None,
        **kwargs: Any,
    ) -> AsyncIterator[ChatGenerationChunk]:
        request, meter = self._call(messages, stop, kwargs)
        async with aclosing(self.served.stream(request, meter)) as deltas:
            async for delta in deltas:
                yield _chunk(delta)

    # --- tools and types

    def bind_tools(
        self,
        tools: Sequence[dict[str, Any] | type | Callable[..., Any] | BaseTool],
        *,
        tool_choice: str | dict[str, Any] | bool | None = None,
        **kwargs: Any,
    ) -> Runnable[LanguageModelInput, AIMessage]:
        """Offer tools. ``tool_choice``: ``"auto"``, ``"any"``, ``"none"``, or the name of the one that must be used."""
        specs = [convert_to_openai_tool(tool) for tool in tools]
        choice = "any" if tool_choice is True else tool_choice or "auto"
        return self.bind(tools=specs, tool_choice=choice, **kwargs)

    def with_structured_output(
        self, schema: dict[str, Any] | type, *, include_raw: bool = False, **kwargs: Any
    ) -> Runnable[LanguageModelInput, dict[str, Any] | BaseModel]:
        """Answers of a type: ``"function_calling"`` by a tool, any other ``method`` by grammar or provider."""
        method, _ = kwargs.pop("method", "json_schema"), kwargs.pop("strict", None)
        if method == "function_calling":
            return super().with_structured_output(schema, include_raw=include_raw, **kwargs)
        wanted = convert_to_json_schema(schema)
        named = {"name": wanted.get("title", "answer"), "schema": wanted}
        told = {"kwargs": {"method": method}, "schema": schema}
        asked = self.bind(
            response_format={"type": "json_schema", "json_schema": named}, ls_structured_output_format=told, **kwargs
        )
        typed = isinstance(schema, type) and is_basemodel_subclass(schema)
        parser: Runnable[Any, Any] = JsonOutputParser()
        if typed:
            parser = PydanticOutputParser[BaseModel](pydantic_object=cast("type[BaseModel]", schema))
        if not include_raw:
            return asked | parser
        parsed = RunnablePassthrough.assign(parsed=itemgetter("raw") | parser, parsing_error=lambda _: None)
        failed = RunnablePassthrough.assign(parsed=lambda _: None)
        return RunnableMap(raw=asked) | parsed.with_fallbacks([failed], exception_key="parsing_error")


async def _complete(model: Model, request: Request, meter: Meter) -> Completion:
    return await model.complete(request, meter)


def _named(choice: object) -> str | None:
    """The one tool that must be used, if a choice names one."""
    if isinstance(choice, Mapping):
        told = cast("Mapping[str, Any]", choice)
        return str(told.get("function", told).get("name"))
    known = choice is None or choice in ("auto", "any", "required", "none")
    return None if known else str(choice)


def _result(answer: Completion) -> ChatResult:
    return ChatResult(generations=[ChatGeneration(message=message_of(answer))])


def message_of(answer: Completion) -> AIMessage:
    """An answer of ours as LangChain's message."""
    asked = [asks(call) for call in answer.calls]
    return AIMessage(
        answer.text,
        tool_calls=[call for call, good in asked if good],
        invalid_tool_calls=[call for call, good in asked if not good],
        usage_metadata=metadata_of(answer.usage),
        response_metadata=_told(answer),
    )


def _chunk(delta: Delta) -> ChatGenerationChunk:
    answer = delta.completion
    if answer is None:
        return ChatGenerationChunk(message=AIMessageChunk(content=delta.text))
    calls = [
        tool_call_chunk(name=call.name, args=call.arguments, id=call.id, index=index)
        for index, call in enumerate(answer.calls)
    ]
    message = AIMessageChunk(
        content=delta.text,
        tool_call_chunks=calls,
        usage_metadata=metadata_of(answer.usage),
        response_metadata=_told(answer),
        chunk_position="last",
    )
    return ChatGenerationChunk(message=message)


def _told(answer: Completion) -> dict[str, Any]:
    return {
        "model_name": answer.served_by,
        "finish_reason": answer.finish,
        "confidence": answer.confidence,
        OUR_USAGE: answer.usage.to_dict(),
    }
