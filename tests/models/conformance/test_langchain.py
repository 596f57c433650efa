"""LangChain's OpenAI integration as a rung, played on loopback, passes what every model must."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from agentbudget.models.langchain import LangChainModel
from tests.models.conformance import Case, ModelConformance
from tests.models.played import KEY, UNKNOWN_MODEL, WINDOW, played
from tests.models.played.chat import CHAT
from tests.models.provider_server import ProviderServer
from tests.models.remote_fixtures import PRICE

openai = pytest.importorskip("langchain_openai")
httpx2 = pytest.importorskip("httpx2")


def model(server: ProviderServer, model_id: str = "gpt-4.1-mini", *, api_key: str = KEY) -> LangChainModel:
    chat = openai.ChatOpenAI(
        model=model_id,
        base_url=f"{server.url}/v1",
        api_key=api_key,
        temperature=0,
        http_async_client=httpx2.AsyncClient(trust_env=False),  # LangChain's own is shared between event loops
    )
    return LangChainModel(chat, price=PRICE, context_window=WINDOW)


class TestChatOpenAI(ModelConformance):
    @pytest.fixture
    async def case(self) -> AsyncIterator[Case]:
        async with ProviderServer(play=played(CHAT)) as server:
            refused, unknown = model(server, api_key="sk-wrong"), model(server, UNKNOWN_MODEL)
            yield Case(model(server), secret=KEY, refused=refused, unknown=unknown)
