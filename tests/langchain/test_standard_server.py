"""LangChain's own suites over `ChatOpenAI` with a budget, against a real llama-server: nothing is played."""

from __future__ import annotations

from typing import Any, ClassVar, Literal

import httpx2
import pytest
from langchain_core.language_models import BaseChatModel
from langchain_tests.integration_tests import ChatModelIntegrationTests
from pydantic import BaseModel

from agentbudget.langchain import BudgetedChatModel, budgeted
from agentbudget.ledger import Ledger
from agentbudget.models.remote import CLOSE_AFTERWARDS
from agentbudget.money import Budget
from agentbudget.prices import TokenPrice
from tests.models.llama_server import NAME, LlamaServer

PRICE = TokenPrice.custom(input_usd_per_mtok="0.1", output_usd_per_mtok="0.4")


class ChatServed(BudgetedChatModel):
    """`ChatOpenAI`, and the one line that budgets it."""

    ledger_of_test: ClassVar[Ledger]
    url: ClassVar[str]

    def __new__(cls, **params: Any) -> BudgetedChatModel:  # pyright: ignore[reportInconsistentConstructor]
        openai = pytest.importorskip("langchain_openai")
        settings = {
            "max_tokens": 24,
            "temperature": 0,
            "default_headers": CLOSE_AFTERWARDS,
            "http_async_client": httpx2.AsyncClient(trust_env=False),  # LangChain's own is shared between event loops
            **params,
        }
        chat = openai.ChatOpenAI(model=NAME, base_url=f"{cls.url}/v1", api_key="none-needed", **settings)
        accounts = {"suite": Budget(usd="1")}
        return budgeted(chat, ledger=cls.ledger_of_test, accounts=accounts, price=PRICE, stream_lead_tokens=8)


@pytest.fixture(autouse=True)
def booked(llama_server: LlamaServer) -> Any:
    """Every call of a test is booked at what the server says, and the books agree."""
    ChatServed.url, ChatServed.ledger_of_test = llama_server.url, Ledger.open("memory:")
    yield
    assert ChatServed.ledger_of_test.verify().ok
    assert [hold.id for hold in ChatServed.ledger_of_test.holds() if hold.state != "settled" or hold.presumed] == []


class TestIntegration(ChatModelIntegrationTests):
    @property
    def chat_model_class(self) -> type[BaseChatModel]:
        return ChatServed

    @property
    def has_tool_calling(self) -> bool:
        return False  # a model of 135M parameters calls a tool only if the call is put into its mouth

    @property
    def has_structured_output(self) -> bool:
        return False  # its jokes run past every cap that a test can wait for


def made(**params: Any) -> BudgetedChatModel:
    """As the suite makes one."""
    return ChatServed.__new__(ChatServed, **params)


class Team(BaseModel):
    """Who should handle a message."""

    name: Literal["billing", "bug"]


def test_a_type_is_enforced_by_the_server_and_booked() -> None:
    model = made(max_tokens=60).with_structured_output(Team)
    assert isinstance(model.invoke("My invoice is wrong. Who should handle it?"), Team)


def test_an_answer_that_the_sdk_cannot_parse_is_booked_at_what_it_used() -> None:
    model = made(max_tokens=1).with_structured_output(Team)
    with pytest.raises(Exception, match="length limit"):
        model.invoke("My invoice is wrong. Who should handle it?")
    (hold,) = ChatServed.ledger_of_test.holds()
    assert hold.detail["usage"]["output_tokens"] == 1
