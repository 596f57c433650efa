"""Claude, played over real sockets, passes what every model must."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from agentbudget.models.anthropic import AnthropicModel
from agentbudget.prices import TokenPrice
from tests.models.conformance import Case, ModelConformance
from tests.models.played import KEY, UNKNOWN_MODEL, WINDOW, played
from tests.models.played.messages import MESSAGES
from tests.models.provider_server import ProviderServer

PRICE = TokenPrice.custom(input_usd_per_mtok=1, output_usd_per_mtok=5)


def claude(url: str, *, model_id: str = "claude-haiku-4-5", key: str = KEY, counted: bool = False) -> AnthropicModel:
    return AnthropicModel(model_id, base_url=url, api_key=key, price=PRICE, context_window=WINDOW, counted=counted)


class TestClaude(ModelConformance):
    @pytest.fixture
    async def case(self) -> AsyncIterator[Case]:
        async with ProviderServer(play=played(MESSAGES)) as server:
            models = [
                claude(server.url),
                claude(server.url, key="sk-wrong"),
                claude(server.url, model_id=UNKNOWN_MODEL),
            ]
            yield Case(models[0], seeded=True, secret=KEY, refused=models[1], unknown=models[2])
            for model in models:
                await model.aclose()


class TestClaudeThatCounts(ModelConformance):
    @pytest.fixture
    async def case(self) -> AsyncIterator[Case]:
        async with ProviderServer(play=played(MESSAGES)) as server:
            model = claude(server.url, counted=True)
            yield Case(model, seeded=True, secret=KEY)
            await model.aclose()


class TestClaudeThatThinks(ModelConformance):
    """A newer one: it cannot be made to call a tool, and what it thinks does not show."""

    @pytest.fixture
    async def case(self) -> AsyncIterator[Case]:
        async with ProviderServer(play=played(MESSAGES)) as server:
            model = claude(server.url, model_id="claude-opus-5-5")
            yield Case(model, tool_choice="auto", seeded=True, secret=KEY)
            await model.aclose()
