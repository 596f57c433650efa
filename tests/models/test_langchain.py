"""A LangChain chat model as a rung: what it costs, how it fails, and what its integration's words mean."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from decimal import Decimal
from pathlib import Path
from typing import Any, NotRequired, TypedDict, cast

import pytest
from langchain_core.language_models import GenericFakeChatModel
from langchain_core.messages import AIMessage, HumanMessage
from langchain_core.messages.ai import UsageMetadata
from langchain_core.outputs import ChatResult
from langgraph.graph import END, START, StateGraph
from langgraph.runtime import Runtime
from pydantic import BaseModel, Field

from agentbudget import Agent, Amount, Budget, Context, skill
from agentbudget.errors import Mistake, OutcomeUnknown, SchemaUnsupported, UnknownModel, UnknownPrice
from agentbudget.langchain import ChatModel, budgeted
from agentbudget.ledger import Ledger
from agentbudget.models.base import Image, Message, Meter, Model, Request, ToolCall
from agentbudget.models.langchain import LangChainModel
from agentbudget.models.langchain.known import Known
from agentbudget.models.langchain.messages import from_langchain, to_langchain
from agentbudget.models.langchain.usage import usage_of
from agentbudget.models.tokens import text_tokens
from agentbudget.prices import ComputePrice, TokenPrice
from agentbudget.testing import ScriptedModel
from agentbudget.usage import Usage

PRICE = TokenPrice.custom(input_usd_per_mtok="1", output_usd_per_mtok="10")
ASKED = Request((Message("user", "hi"),), max_output_tokens=10)


def usage(read: int, wrote: int, **more: Any) -> UsageMetadata:
    return UsageMetadata(input_tokens=read, output_tokens=wrote, total_tokens=read + wrote, **more)


def said(text: str = "hello", **told: Any) -> AIMessage:
    return AIMessage(text, usage_metadata=cast("UsageMetadata", {**usage(7, 2), **told}))


class Whole(GenericFakeChatModel):
    """Gives its answers whole."""

    disable_streaming: Any = True


def fake(*messages: AIMessage, **options: Any) -> LangChainModel:
    chat = GenericFakeChatModel(messages=iter(messages))
    chosen: dict[str, Any] = {"price": PRICE, "context_window": 1000, **options}
    return LangChainModel(chat, **chosen)


def test_it_is_a_model_of_ours() -> None:
    assert isinstance(fake(), Model)


async def test_usage_is_the_integrations() -> None:
    meter = Meter()
    answer = await fake(said()).complete(ASKED, meter)
    assert (answer.text, answer.usage, meter.usage) == ("hello", Usage(7, 2), Usage(7, 2))


async def test_an_answer_without_usage_is_an_unknown_outcome() -> None:
    with pytest.raises(OutcomeUnknown):
        await fake(AIMessage("hello")).complete(ASKED, Meter())


async def test_a_type_that_it_cannot_enforce_is_refused() -> None:
    meter = Meter()
    request = Request(ASKED.messages, 10, schema={"type": "object", "properties": {"a": {"type": "string"}}})
    with pytest.raises(SchemaUnsupported):
        await fake(said()).complete(request, meter)
    assert not meter.sent


@pytest.mark.parametrize(
    ("details", "counted"),
    [
        ({"cache_read": 3, "cache_creation": 2}, Usage(7, 2, 3, 2)),
        ({"flex_cache_read": 3}, Usage(7, 2, 3)),
        ({"ephemeral_5m_input_tokens": 1, "ephemeral_1h_input_tokens": 2}, Usage(7, 2, 0, 3, cache_write_1h_tokens=2)),
        ({"cache_read": 30}, Usage(30, 2, 30)),
    ],
)
def test_the_cache_is_part_of_the_input_however_it_is_told(details: dict[str, int], counted: Usage) -> None:
    assert usage_of(said(input_token_details=details)) == counted


def test_reasoning_that_only_the_total_has_is_output() -> None:
    assert usage_of(said(total_tokens=20)) == Usage(7, 13)


def test_an_input_of_nothing_was_not_counted() -> None:
    assert usage_of(said(input_tokens=0, total_tokens=2)) is None


def test_words_that_nobody_counted_are_no_usage() -> None:
    assert usage_of(said(output_tokens=0, total_tokens=7)) is None
    assert usage_of(said("", output_tokens=0, total_tokens=7)) == Usage(7, 0)


@pytest.mark.parametrize(
    "answer",
    [
        said(),
        AIMessage("", tool_calls=[{"id": "1", "name": "look", "args": {"at": "it"}}], usage_metadata=usage(7, 2)),
    ],
)
async def test_what_does_not_stream_comes_as_one_piece(answer: AIMessage) -> None:
    model = LangChainModel(Whole(messages=iter([answer])), price=PRICE, context_window=1000)
    meter = Meter()
    *pieces, last = [delta async for delta in model.stream(ASKED, meter)]
    assert last.completion is not None
    assert "".join(piece.text for piece in pieces) == last.completion.text == answer.text
    assert [(call.name, call.arguments) for call in last.completion.calls] == [
        (call["name"], '{"at": "it"}') for call in answer.tool_calls
    ]
    assert meter.usage == Usage(7, 2)


BY_THE_SECOND = ComputePrice(Decimal("0.10"), prefill_tokens_per_s=1000, decode_tokens_per_s=100)


async def test_where_time_is_paid_for_the_time_of_a_call_is_booked() -> None:
    meter = Meter()
    answer = await fake(said(), price=BY_THE_SECOND).complete(ASKED, meter)
    assert meter.usage == answer.usage
    assert BY_THE_SECOND.cost(answer.usage) > 0
    streamed = LangChainModel(Whole(messages=iter([said()])), price=BY_THE_SECOND, context_window=1000)
    *_, last = [delta async for delta in streamed.stream(ASKED, meter)]
    assert last.completion is not None
    assert BY_THE_SECOND.cost(last.completion.usage) > 0


async def test_a_call_ends_with_the_time_that_was_paid_for() -> None:
    class Endless(GenericFakeChatModel):
        async def _agenerate(self, *_: Any, **__: Any) -> ChatResult:
            await asyncio.Event().wait()
            raise AssertionError("unreachable")

    model = LangChainModel(Endless(messages=iter(())), price=BY_THE_SECOND, context_window=1000)
    with pytest.raises(OutcomeUnknown, match=r"within 0\.01 s"):
        await model.complete(replace(ASKED, max_compute_s=0.01), Meter())


def test_messages_come_back_as_they_went() -> None:
    messages = (
        Message("system", "Be brief."),
        Message("user", "What is this?", images=(Image(b"\x89PNG", "image/png", "low"),)),
        Message("assistant", "", calls=(ToolCall("1", "look", '{"at": "it"}'), ToolCall("2", "look", "{broken"))),
        Message("tool", "a cat", answers="1"),
    )
    assert from_langchain(to_langchain(messages)) == messages


@pytest.mark.parametrize(
    "block",
    [
        {"type": "image", "base64": "iVBORw==", "mime_type": "image/png"},
        {"type": "image_url", "image_url": {"url": "data:image/png;base64,iVBORw=="}},
        {"type": "image_url", "image_url": "data:image/png;base64,iVBORw=="},
        {"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": "iVBORw=="}},
    ],
)
def test_a_picture_is_read_in_every_way_that_langchain_writes_one(block: dict[str, Any]) -> None:
    (message,) = from_langchain([HumanMessage([block])])
    assert message.images == (Image(b"\x89PNG", "image/png"),)


def test_a_picture_by_address_is_refused() -> None:
    with pytest.raises(Mistake, match="base64"):
        from_langchain([HumanMessage([{"type": "image_url", "image_url": {"url": "https://example.org/cat.png"}}])])


def test_a_model_that_nobody_prices_is_refused() -> None:
    with pytest.raises(UnknownPrice):
        fake(price=None)


def test_a_model_of_unknown_context_is_refused() -> None:
    with pytest.raises(UnknownModel):
        fake(context_window=None)


def test_a_budgeted_model_is_no_rung() -> None:
    chat = budgeted(ChatModel(model=ScriptedModel([])), ledger=Ledger.open("memory:"), accounts=["user/42"])
    with pytest.raises(Mistake, match="budgeted already"):
        LangChainModel(chat)


class Reasoned(BaseModel):
    effort: str


class Tuned(GenericFakeChatModel):
    """An integration that names nothing that identifies it, as Ollama's does."""

    temperature: float = 0.0
    options: dict[str, Any] = Field(default_factory=dict)
    reasoning: Reasoned | None = None
    client: object = None
    timeout: float = 60.0
    api_key: str = "old"
    answers: int = 0

    def _generate(self, *given: Any, **options: Any) -> ChatResult:
        self.answers += 1
        return super()._generate(*given, **options)


def tuned(**made: Any) -> LangChainModel:
    chat = Tuned(messages=iter([said(f"as {made}")]), client=object(), **made)
    return LangChainModel(chat, name="ollama:qwen3", price=PRICE, context_window=1000)


@skill(max_output_tokens=10)
async def say(ctx: Context, message: str) -> str:
    """Say it."""
    ...


async def test_a_model_that_was_made_otherwise_answers_for_itself(tmp_path: Path) -> None:
    ways: list[dict[str, Any]] = [
        {},
        {"temperature": 0.9},
        {"options": {"top_k": 3}},
        {"reasoning": Reasoned(effort="high")},
        {"options": {"stop": {"a", "b"}}},
        {"options": {"stop": {"c", "b"}}},
        {"options": {"weights": Path("one.gguf")}},
        {"options": {"weights": Path("other.gguf")}},
    ]
    for way in ways:
        async with Agent([say], models=[tuned(**way)], home=tmp_path) as agent:
            run = await agent.run("hi", budget=Budget(usd="0.01"))
        assert run.output == f"as {way}"
    for way in ways:
        assert tuned(**way).fingerprint == tuned(**way).fingerprint
    assert tuned(options={"key": "sk-1"}).fingerprint.count("sk-1") == 0


async def test_a_model_that_counts_answers_waits_longer_or_has_a_new_key_finds_what_it_paid_for(
    tmp_path: Path,
) -> None:
    outputs: list[str] = []
    for made in ({}, {"timeout": 120.0}, {"api_key": "new"}):
        rung = tuned(**made)
        async with Agent([say], models=[rung], home=tmp_path) as agent:
            for _ in range(2):
                run = await agent.run("hi", budget=Budget(usd="0.01"))
                outputs.append(run.output)
    assert outputs == ["as {}"] * 6


@pytest.mark.parametrize("retries", [None, 4])
def test_the_retries_of_openais_integration_are_switched_off(retries: int | None) -> None:
    openai = pytest.importorskip("langchain_openai")
    chat = openai.ChatOpenAI(model="gpt-4.1-mini", api_key="none", max_retries=retries)
    model = LangChainModel(chat)
    once: Any = model.chat
    assert (once.root_client.max_retries, once.root_async_client.max_retries) == (0, 0)
    assert once.client._client.max_retries == 0
    assert chat.root_client.max_retries == (2 if retries is None else retries)
    assert (model.name, model.price.source) == ("openai:gpt-4.1-mini", "genai-prices 0.2.3")


def openais(**options: Any) -> LangChainModel:
    openai = pytest.importorskip("langchain_openai")
    return LangChainModel(openai.ChatOpenAI(model="gpt-5.1", api_key="none", **options))


def test_a_tier_of_service_has_its_own_price() -> None:
    usage = Usage(1_000_000, 1_000)
    assert openais(service_tier="priority").price.cost(usage) > openais().price.cost(usage)


def test_a_call_without_a_tier_asks_for_the_one_that_its_price_is_for() -> None:
    model = openais()
    _, sent = model._known.capped({}, 10)  # pyright: ignore[reportPrivateUsage]
    assert sent == {"service_tier": "default", "max_tokens": 10}


def test_an_answer_served_at_another_tier_is_charged_by_that() -> None:
    known = openais()._known  # pyright: ignore[reportPrivateUsage]
    served = known.price_served(said(input_token_details={"priority": 7}))
    assert served is not None
    assert served.cost(Usage(7, 2)) == openais(service_tier="priority").price.cost(Usage(7, 2))
    assert known.price_served(said()) is None


INSTRUCTIONS = "Be brief. " * 100


class Wanted(BaseModel):
    """What is wanted."""

    size: int = Field(description=INSTRUCTIONS)


@pytest.mark.parametrize("sent", [{"instructions": INSTRUCTIONS}, {"response_format": Wanted}], ids=str)
def test_words_and_types_among_the_keywords_of_a_call_are_counted(sent: dict[str, Any]) -> None:
    known = Known.of(openais().chat)
    plain = known.count([HumanMessage("hi")], {}).tokens
    assert known.count([HumanMessage("hi")], sent).tokens >= plain + text_tokens("o200k_base", INSTRUCTIONS)


async def test_what_a_rung_says_each_time_is_counted() -> None:
    plain, more = openais(), openais(model_kwargs={"instructions": INSTRUCTIONS})
    assert (await more.count_input(ASKED)).tokens > (await plain.count_input(ASKED)).tokens + 200


@pytest.mark.parametrize(
    ("sent", "why"),
    [
        ({"previous_response_id": "resp_1"}, "stand at the provider"),
        ({"conversation": "conv_1"}, "stand at the provider"),
        ({"prompt": {"id": "pmpt_1"}}, "stand at the provider"),
        ({"web_search_options": {}}, "run tools"),
        ({"mcp_servers": [{"url": "https://mcp.example.com"}]}, "run tools"),
        ({"modalities": ["text", "audio"]}, "in sound"),
        ({"extra_body": {"max_tokens": 10_000}}, "max_tokens in extra_body"),
    ],
)
def test_what_nobody_can_hold_the_price_of_is_refused(sent: dict[str, Any], why: str) -> None:
    with pytest.raises(Mistake, match=why):
        Known.of(openais().chat, asked=sent)
    made = sent if "extra_body" in sent else {"model_kwargs": sent}
    with pytest.raises(Mistake, match=why):
        openais(**made)


def test_what_a_body_adds_is_priced() -> None:
    chat = openais().chat
    priority = Known.of(chat, asked={"extra_body": {"service_tier": "priority", "n": 3}})
    assert priority.price == TokenPrice.known("openai", "gpt-5.1", tier="priority")
    assert priority.answers({"extra_body": {"n": 3}}) == 3
    assert Known.of(chat, asked={"service_tier": "auto", "speed": "fast"}).tier == "fast"
    with pytest.raises(Mistake, match=r"several answers \(n\)"):
        openais(n=2)


def test_a_server_on_this_machine_behind_a_proxy_is_elsewhere(monkeypatch: pytest.MonkeyPatch) -> None:
    for variable in ("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"):
        monkeypatch.delenv(variable, raising=False)
    there: dict[str, Any] = {"base_url": "http://127.0.0.1:9/v1"}
    openai = pytest.importorskip("langchain_openai")

    def rung(**options: Any) -> LangChainModel:
        chat = openai.ChatOpenAI(model="mine", api_key="none", **there, **options)
        return LangChainModel(chat, price=PRICE, context_window=1000)

    assert rung().place == "local"
    assert rung(openai_proxy="http://proxy.example:3128").place == "remote"
    monkeypatch.setenv("http_proxy", "http://proxy.example:3128")
    assert rung().place == "remote"


def test_retries_that_cannot_be_switched_off_are_refused() -> None:
    class Stubborn(GenericFakeChatModel):
        max_retries: int = 2

    with pytest.raises(Mistake, match="max_retries=2"):
        LangChainModel(Stubborn(messages=iter([])), price=PRICE, context_window=1000)


@skill(max_output_tokens=10)
async def greet(ctx: Context, name: str) -> str:
    """Greet somebody."""
    return (await ctx.complete(name)).text


class Task(TypedDict):
    task: str
    output: NotRequired[str]


async def greeted(state: Task, runtime: Runtime[Context]) -> dict[str, str]:
    return {"output": await greet(runtime.context, name=state["task"])}


async def test_an_agent_takes_a_chat_model_as_it_is_and_pays_for_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sheet = tmp_path / "prices.toml"
    named = '["genericfakechatmodel:GenericFakeChatModel"]'
    sheet.write_text(f"{named}\ninput = 1\noutput = 10\ncontext_window = 4000\n")
    monkeypatch.setenv("AGENTBUDGET_PRICES", str(sheet))
    graph = StateGraph(Task, context_schema=Context)
    graph.add_node("greet", greeted)
    graph.add_edge(START, "greet")
    graph.add_edge("greet", END)
    chat = GenericFakeChatModel(messages=iter([said("hello, Ada")]))
    async with Agent([greet], models=[chat], graph=graph, home=tmp_path) as agent:
        run = await agent.run("Ada", budget=Budget(usd="0.10"))
    assert run.output == "hello, Ada"
    assert run.statement.totals.settled == Amount(27_000, 9, 1)
