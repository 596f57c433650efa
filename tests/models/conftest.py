"""Real weights for the tests of local models."""

from __future__ import annotations

from pathlib import Path

import pytest

from agentbudget.errors import WeightsError
from agentbudget.models import catalog


@pytest.fixture(scope="session")
def smollm2() -> Path:
    """SmolLM2-135M, fetched once into the ordinary weights folder."""
    try:
        return catalog.ensure("smollm2-135m")
    except WeightsError as error:
        if catalog.is_present("smollm2-135m"):
            raise
        pytest.skip(f"the weights cannot be fetched here: {error}")
