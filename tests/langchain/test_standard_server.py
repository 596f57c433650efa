"""LangChain's own suites over `ChatOpenAI` with a budget, against a real llama-server: nothing is played."""

from __future__ import annotations

from typing import Any, ClassVar

import pytest
from langchain_core.language_models import BaseChatModel
from langchain_tests.integration_tests import ChatModelIntegrationTests

from agentbudget.langchain import BudgetedChatModel, budgeted
from agentbudget.ledger import Ledger
from agentbudget.money import Budget
from agentbudget.prices import TokenPrice
from tests.models.llama_server import NAME, LlamaServer

PRICE = TokenPrice.custom(input_usd_per_mtok="0.1", output_usd_per_mtok="0.4")
WEAK = "a model of 135M parameters says something else"


class ChatServed(BudgetedChatModel):
    """`ChatOpenAI`, and the one line that budgets it."""

    ledger_of_test: ClassVar[Ledger]
    url: ClassVar[str]

    def __new__(cls, **params: Any) -> BudgetedChatModel:  # pyright: ignore[reportInconsistentConstructor]
        openai = pytest.importorskip("langchain_openai")
        settings = {"max_tokens": 48, "temperature": 0, **params}
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
    def chat_model_params(self) -> dict[str, Any]:
        return {}

    @property
    def supports_json_mode(self) -> bool:
        return True
