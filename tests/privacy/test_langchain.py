"""LangChain's chat models, budgeted: where the class of a conversation is known, it binds them too."""

from __future__ import annotations

from collections.abc import Callable, Generator
from pathlib import Path
from typing import Any

import pytest
from langchain_core.documents import Document
from langchain_core.embeddings import DeterministicFakeEmbedding
from langchain_core.load import dumps, loads
from langchain_core.messages import AIMessage, BaseMessage, HumanMessage, SystemMessage, ToolMessage
from langchain_core.runnables import RunnableConfig, RunnableLambda
from pydantic import Field

from agentbudget.errors import DataRefused
from agentbudget.history import Policy
from agentbudget.langchain import (
    BudgetedChatModel,
    BudgetedEmbeddings,
    ChatModel,
    HistoryMiddleware,
    budgeted,
    budgeted_embeddings,
)
from agentbudget.ledger import Ledger
from agentbudget.privacy import Privacy
from agentbudget.testing import ScriptedModel
from tests.langchain.test_budgeted import PRICE, Foreign

TOKEN = "ghp_" + "16C7e42F292c6912E7710c838347Ae178B4a"
USED = {"input_tokens": 5, "output_tokens": 5, "total_tokens": 10}


@pytest.fixture
def ledger() -> Generator[Ledger]:
    with Ledger.open("memory:") as opened:
        opened.account("user/42")
        yield opened


class Cloud(Foreign):
    """A chat model of which nobody knows where it is. ``heard`` are the texts that reached it."""

    heard: list[list[BaseMessage]] = Field(default_factory=list[list[BaseMessage]])

    def _generate(self, messages: list[BaseMessage], *args: Any, **kwargs: Any) -> Any:
        self.heard.append(messages)
        return super()._generate(messages, *args, **kwargs)


def cloud(ledger: Ledger, **rules: Any) -> tuple[BudgetedChatModel, Cloud]:
    inner = Cloud(steps=[AIMessage("so be it", usage_metadata=USED)], heard=[])
    return budgeted(inner, accounts=["user/42"], ledger=ledger, price=PRICE, privacy=Privacy(**rules)), inner


def found_in(source: str, **metadata: str) -> ToolMessage:
    document = Document("7 coins", metadata={"source": source, **metadata})
    return ToolMessage("7 coins", tool_call_id="1", artifact=[document])


@pytest.mark.parametrize(
    ("messages", "config", "why"),
    [
        ([HumanMessage("hi")], {"metadata": {"data_class": "confidential"}}, r"confidential \(config\)"),
        ([HumanMessage("hi")], {"configurable": {"data_class": "restricted"}}, r"restricted \(config\)"),
        ([HumanMessage("hi", additional_kwargs={"data_class": "confidential"})], {}, r"\(human message\)"),
        ([HumanMessage("hi"), found_in("hr/pay.md")], {}, r"confidential \(hr/pay.md\)"),
        ([HumanMessage("hi"), found_in("x.md", data_class="confidential")], {}, r"confidential \(x.md\)"),
        ([HumanMessage("hi"), found_in("hr/pay.md", data_class="public")], {}, r"confidential \(hr/pay.md\)"),
    ],
)
def test_a_confidential_conversation_is_refused_before_it_is_sent_or_held(
    ledger: Ledger, messages: list[BaseMessage], config: Any, why: str
) -> None:
    model, inner = cloud(ledger, rules={"hr/*": "confidential"})
    with pytest.raises(DataRefused, match=why):
        model.invoke(messages, config)
    assert inner.heard == []
    assert ledger.balance("user/42").posted.usd_nano == 0
    (note,) = ledger.holds()
    assert (note.state, note.meta["kind"]) == ("voided", "refusal")


async def test_streams_and_async_calls_are_refused_alike(ledger: Ledger) -> None:
    model, inner = cloud(ledger)
    config: Any = {"metadata": {"data_class": "confidential"}}
    with pytest.raises(DataRefused):
        await model.ainvoke("hi", config)
    with pytest.raises(DataRefused):
        list(model.stream("hi", config))
    with pytest.raises(DataRefused):
        _ = [piece async for piece in model.astream("hi", config)]
    assert inner.heard == []


def test_what_is_internal_goes_on_and_its_call_says_the_class(ledger: Ledger) -> None:
    model, inner = cloud(ledger)
    assert model.invoke([SystemMessage("be brief"), HumanMessage("hi")]).content == "so be it"
    assert len(inner.heard) == 1
    assert [hold.meta["data_class"] for hold in ledger.holds()] == ["internal"]


def test_one_of_our_models_on_this_machine_may_hear_it(ledger: Ledger) -> None:
    model = budgeted(ChatModel(model=ScriptedModel(["so be it"])), accounts=["user/42"], ledger=ledger)
    answer = model.invoke("hi", {"metadata": {"data_class": "restricted"}})
    assert answer.content == "so be it"


@pytest.mark.usefixtures("looking")
@pytest.mark.parametrize("keyword", ["instructions", "system"])
def test_what_keywords_say_to_a_model_is_searched_like_a_message(ledger: Ledger, keyword: str) -> None:
    said: dict[str, Any] = {keyword: f"use {TOKEN}"}
    model, inner = cloud(ledger, secrets="redact")
    model.invoke(f"also {TOKEN}", **said)
    assert inner.heard[0][0].content == "also <github-pat 1>"
    assert inner.seen[0][keyword] == "use <github-pat 1>"
    refusing, inner = cloud(ledger, secrets="refuse")
    with pytest.raises(DataRefused):
        refusing.invoke("hi", **said)
    assert inner.heard == []


@pytest.mark.usefixtures("looking")
def test_what_is_found_in_a_conversation_is_taken_out_or_stops_it(ledger: Ledger) -> None:
    said = [HumanMessage([{"type": "text", "text": f"use {TOKEN}"}]), HumanMessage("as ada@kettles.example")]
    model, inner = cloud(ledger, secrets="redact", personal="redact")
    model.invoke(said)
    (heard,) = inner.heard
    assert [message.content for message in heard] == [
        [{"type": "text", "text": "use <github-pat 1>"}],
        "as <email 1>",
    ]
    assert ledger.holds()[0].meta["found"] == {"github-pat": 1, "email": 1}
    model, inner = cloud(ledger, secrets="refuse")
    with pytest.raises(DataRefused, match="the conversation holds 1 github-pat") as caught:
        model.invoke(said)
    assert inner.heard == []
    (note,) = (hold for hold in ledger.holds() if hold.meta["kind"] == "refusal")
    assert note.meta["found"] == {"github-pat": 1}
    assert note.detail["reason"].startswith("1 github-pat may not go to ")
    assert TOKEN not in str(caught.value)
    assert TOKEN not in str(ledger.entries())


def test_rules_travel_with_a_model_that_is_written_and_read_again(tmp_path: Path) -> None:
    rules = Privacy(rules={"hr/*": "confidential"}, private=("10.0.0.0/8",), secrets="refuse")
    model = budgeted(
        ChatModel(model="llamacpp:smollm2-135m"), accounts=["user/42"], ledger=tmp_path / "l.db", privacy=rules
    )
    written = dumps(model)
    again = loads(written, valid_namespaces=["agentbudget"], allowed_objects=[BudgetedChatModel, ChatModel])
    assert again.privacy == rules


@pytest.mark.usefixtures("looking")
@pytest.mark.parametrize(
    "said",
    [
        AIMessage("", tool_calls=[{"name": "login", "args": {"with": [{"token": TOKEN}]}, "id": "1"}]),
        AIMessage("", additional_kwargs={"tool_calls": [{"id": "1", "function": {"arguments": f'"{TOKEN}"'}}]}),
        AIMessage([{"type": "tool_use", "id": "1", "name": "login", "input": {"id": TOKEN}}]),
        HumanMessage([{"type": "tool_result", "content": [{"type": "text", "text": TOKEN}]}]),
    ],
)
def test_secrets_in_the_arguments_of_tools_and_within_blocks_are_found_too(ledger: Ledger, said: BaseMessage) -> None:
    model, inner = cloud(ledger, secrets="redact")
    model.invoke([said])
    (heard,) = inner.heard
    assert TOKEN not in str(heard)
    assert "<github-pat 1>" in str(heard)
    assert TOKEN in str(said), "the caller's own messages stay as they were"
    refusing, inner = cloud(ledger, secrets="refuse")
    with pytest.raises(DataRefused):
        refusing.invoke([said])
    assert inner.heard == []


@pytest.mark.parametrize(
    "source",
    [
        found_in("hr/pay.md"),
        found_in("x.md", data_class="confidential"),
        ToolMessage("7 coins", tool_call_id="1", additional_kwargs={"data_class": "confidential"}),
    ],
)
def test_a_history_in_short_is_of_the_class_of_what_it_stands_for(ledger: Ledger, source: ToolMessage) -> None:
    agents = pytest.importorskip("langchain.agents.middleware")
    model, inner = cloud(ledger, rules={"hr/*": "confidential"})
    said: list[BaseMessage] = [
        HumanMessage("what does the stoker earn?"),
        AIMessage("", tool_calls=[{"name": "search", "args": {"what": "pay"}, "id": "1"}]),
        source,
        AIMessage("7 coins."),
        HumanMessage("I see. " * 100),
        AIMessage("Yes."),
        HumanMessage("And tomorrow?"),
    ]
    request = agents.ModelRequest(model=model, messages=said)

    def send(shortened: Any) -> Any:
        assert not any(isinstance(message, ToolMessage) for message in shortened.messages)
        return shortened.model.invoke(shortened.messages)

    middleware = HistoryMiddleware(Policy(step_tokens=0))

    def shorten_again(shortened: Any) -> Any:
        return middleware.wrap_model_call(shortened, send)

    with pytest.raises(DataRefused, match="confidential"):
        middleware.wrap_model_call(request, shorten_again)
    assert inner.heard == []


# --- embeddings


class CloudEmbeddings(DeterministicFakeEmbedding):
    """Embeddings of which nobody knows where they are. ``heard`` are the texts that reached them."""

    heard: list[str] = Field(default_factory=list[str])
    base_url: str | None = None

    def embed_documents(self, texts: list[str]) -> list[list[float]]:
        self.heard += texts
        return super().embed_documents(texts)

    def embed_query(self, text: str) -> list[float]:
        self.heard.append(text)
        return super().embed_query(text)


def embeds(ledger: Ledger, *, base_url: str | None = None, **rules: Any) -> tuple[BudgetedEmbeddings, CloudEmbeddings]:
    inner = CloudEmbeddings(size=4, heard=[], base_url=base_url)
    options: Any = {"name": "openai:text-embedding-3-small", "price": PRICE, "privacy": Privacy(**rules)}
    return budgeted_embeddings(inner, accounts=["user/42"], ledger=ledger, **options), inner


def within(config: RunnableConfig, act: Callable[[str], object], text: str) -> object:
    """`act` in a step of a graph that has this config."""
    return RunnableLambda(act).invoke(text, config)


CONFIDENTIAL: RunnableConfig = {"configurable": {"data_class": "confidential"}}


async def test_confidential_texts_are_not_embedded_elsewhere(ledger: Ledger) -> None:
    model, inner = embeds(ledger)
    with pytest.raises(DataRefused, match=r"confidential \(config\)"):
        within(CONFIDENTIAL, model.embed_query, "7 coins")
    with pytest.raises(DataRefused, match=r"confidential \(config\)"):
        within(CONFIDENTIAL, lambda text: model.embed_documents([text]), "7 coins")
    with pytest.raises(DataRefused):
        await RunnableLambda(model.aembed_query).ainvoke("7 coins", CONFIDENTIAL)
    assert inner.heard == []
    assert {(note.state, note.meta["kind"]) for note in ledger.holds()} == {("voided", "refusal")}
    within({}, model.embed_query, "8 coins")
    assert inner.heard == ["8 coins"]


def test_confidential_texts_may_be_embedded_on_this_machine_or_where_the_rules_say(ledger: Ledger) -> None:
    here, inner_here = embeds(ledger, base_url="http://127.0.0.1:8080/v1")
    allowed, inner_allowed = embeds(ledger, allow={"openai:text-embedding-3-small": "confidential"})
    for model, inner in ((here, inner_here), (allowed, inner_allowed)):
        within(CONFIDENTIAL, model.embed_query, "7 coins")
        assert inner.heard == ["7 coins"]


def test_secrets_are_taken_out_of_texts_or_the_texts_refused_as_a_whole(ledger: Ledger) -> None:
    redacting, inner = embeds(ledger, secrets="redact")
    redacting.embed_documents(["one", f"token {TOKEN}"])
    assert inner.heard[0] == "one"
    assert TOKEN not in inner.heard[1]
    refusing, silent = embeds(ledger, secrets="refuse")
    with pytest.raises(DataRefused):
        refusing.embed_documents(["one", f"token {TOKEN}"])
    assert silent.heard == []
