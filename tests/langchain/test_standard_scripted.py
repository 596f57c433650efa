"""LangChain's own suites over a budgeted model: its wrapper changes nothing that LangChain relies on."""

from __future__ import annotations

from typing import Any, ClassVar

import pytest
from langchain_core.language_models import BaseChatModel
from langchain_tests.integration_tests import ChatModelIntegrationTests
from langchain_tests.unit_tests import ChatModelUnitTests

from agentbudget.langchain import BudgetedChatModel, ChatModel, budgeted
from agentbudget.ledger import Ledger
from agentbudget.money import Budget
from agentbudget.testing import ScriptedModel
from tests.langchain.talker import talk


class ChatScripted(BudgetedChatModel):
    """Made like any chat model, then budgeted: the one line that an existing graph changes."""

    ledger_of_test: ClassVar[Ledger]

    def __new__(cls, **params: Any) -> BudgetedChatModel:  # pyright: ignore[reportInconsistentConstructor]
        chat = ChatModel(model=ScriptedModel(talk), **params)
        return budgeted(chat, ledger=cls.ledger_of_test, accounts={"suite": Budget(usd="1")})

    @classmethod
    def is_lc_serializable(cls) -> bool:
        return False  # a script has no name by which another process could find it


@pytest.fixture(autouse=True)
def booked() -> Any:
    """Every call of a test is booked, and the books agree."""
    ChatScripted.ledger_of_test = Ledger.open("memory:")
    yield
    assert ChatScripted.ledger_of_test.verify().ok
    assert ChatScripted.ledger_of_test.holds(state="open") == []


class TestUnits(ChatModelUnitTests):
    @property
    def chat_model_class(self) -> type[BaseChatModel]:
        return ChatScripted

    @property
    def structured_output_kwargs(self) -> dict[str, Any]:
        return {"method": "json_schema"}


class TestIntegration(ChatModelIntegrationTests):
    @property
    def chat_model_class(self) -> type[BaseChatModel]:
        return ChatScripted

    @property
    def supports_image_inputs(self) -> bool:
        return False  # the suite's picture comes from the network

    @property
    def supports_json_mode(self) -> bool:
        return True
