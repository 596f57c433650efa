"""OpenAI's two APIs, played on loopback, pass what every model must."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import pytest

from agentbudget.models.openai import Api, OpenAIModel
from tests.models.conformance import Case, ModelConformance
from tests.models.played import KEY, UNKNOWN_MODEL, WINDOW, played
from tests.models.played.chat import CHAT
from tests.models.played.responses import RESPONSES
from tests.models.provider_server import ProviderServer, Received, Reply
from tests.models.remote_fixtures import PRICE


def model(server: ProviderServer, api: Api, model_id: str = "gpt-4.1-mini", *, api_key: str = KEY) -> OpenAIModel:
    shared: dict[str, Any] = {"price": PRICE, "context_window": WINDOW}
    return OpenAIModel(model_id, api=api, base_url=f"{server.url}/v1", api_key=api_key, **shared)


def play(received: Received) -> Reply:
    """As OpenAI: both APIs at one address."""
    return played(CHAT if received.path == CHAT.path else RESPONSES)(received)


async def played_case(api: Api) -> AsyncIterator[Case]:
    async with ProviderServer(play=play) as server:
        tested = model(server, api)
        refused, unknown = model(server, api, api_key="sk-wrong"), model(server, api, UNKNOWN_MODEL)
        yield Case(tested, secret=KEY, refused=refused, unknown=unknown)
        for made in (tested, refused, unknown):
            await made.aclose()


class TestChat(ModelConformance):
    @pytest.fixture
    async def case(self) -> AsyncIterator[Case]:
        async for case in played_case("chat"):
            yield case


class TestResponses(ModelConformance):
    @pytest.fixture
    async def case(self) -> AsyncIterator[Case]:
        async for case in played_case("responses"):
            yield case
