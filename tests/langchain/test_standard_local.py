"""LangChain's own suites over llama.cpp in this process: one of our models as a chat model, budgeted."""

from __future__ import annotations

from collections.abc import Iterator
from decimal import Decimal
from functools import cache
from pathlib import Path
from typing import Any, ClassVar, Literal

import pytest
from langchain_core.language_models import BaseChatModel
from langchain_tests.integration_tests import ChatModelIntegrationTests
from langchain_tests.unit_tests import ChatModelUnitTests
from pydantic import BaseModel

from agentbudget.langchain import BudgetedChatModel, ChatModel, budgeted
from agentbudget.ledger import Ledger
from agentbudget.models.llamacpp import LlamaCppModel
from agentbudget.money import Budget
from agentbudget.prices import ComputePrice

PRICE = ComputePrice(Decimal("0.10"), 370, 160, safety=1000)
"""So much time that no machine is too slow, however busy it is."""


@cache
def smollm() -> LlamaCppModel:
    """One model for all tests: its weights are loaded once."""
    return LlamaCppModel.from_catalog("smollm2-135m", price=PRICE)


class ChatLocal(BudgetedChatModel):
    """The model of this machine, and the one line that budgets it."""

    ledger_of_test: ClassVar[Ledger]

    def __new__(cls, **params: Any) -> BudgetedChatModel:  # pyright: ignore[reportInconsistentConstructor]
        settings: dict[str, Any] = {"max_tokens": 24, **params}
        chat = ChatModel(model=smollm(), **settings)
        return budgeted(chat, ledger=cls.ledger_of_test, accounts={"suite": Budget(usd="100")})

    @classmethod
    def is_lc_serializable(cls) -> bool:
        return False  # it has no name by which another process could find it


@pytest.fixture(autouse=True)
def booked(smollm2: Path) -> Iterator[None]:
    """Every call of a test is booked at what the engine measured, and the books agree."""
    ChatLocal.ledger_of_test = ledger = Ledger.open("memory:")
    yield
    assert ledger.verify().ok
    assert [hold.id for hold in ledger.holds() if hold.state != "settled" or hold.presumed or hold.overrun] == []


class TestUnits(ChatModelUnitTests):
    @property
    def chat_model_class(self) -> type[BaseChatModel]:
        return ChatLocal


class TestIntegration(ChatModelIntegrationTests):
    @property
    def chat_model_class(self) -> type[BaseChatModel]:
        return ChatLocal

    @property
    def has_tool_calling(self) -> bool:
        return False  # a model of 135M parameters calls a tool only if the call is put into its mouth

    @property
    def has_structured_output(self) -> bool:
        return False  # its jokes run past every cap that a test can wait for


def made(**params: Any) -> BudgetedChatModel:
    """As the suite makes one."""
    return ChatLocal.__new__(ChatLocal, **params)


class Team(BaseModel):
    """Who should handle a message."""

    name: Literal["billing", "bug"]


def test_a_type_is_enforced_by_grammar_and_booked() -> None:
    model = made().with_structured_output(Team)
    assert isinstance(model.invoke("My invoice is wrong. Who should handle it?"), Team)
