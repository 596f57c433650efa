"""Real weights, and a real server of them, for the tests of models."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from agentbudget.errors import WeightsError
from agentbudget.models import catalog
from tests.models.llama_server import LlamaServer, NoServer


@pytest.fixture(scope="session")
def smollm2() -> Path:
    """SmolLM2-135M, fetched once into the ordinary weights folder."""
    try:
        return catalog.ensure("smollm2-135m")
    except WeightsError as error:
        if catalog.is_present("smollm2-135m"):
            raise
        pytest.skip(f"the weights cannot be fetched here: {error}")


@pytest.fixture(scope="session")
def llama_server(smollm2: Path) -> Iterator[LlamaServer]:
    """A real llama-server of SmolLM2-135M, one for all tests."""
    try:
        server = LlamaServer(smollm2)
    except NoServer as why:
        pytest.skip(str(why))
    yield server
    server.close()
