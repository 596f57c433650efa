"""llama.cpp in process passes what every model must, on real weights that were given a template with tools."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

pytest.importorskip("llama_cpp", reason="llama-cpp-python is not installed")

from agentbudget.models.llamacpp import LlamaCppModel
from tests.models.conformance import Case, ModelConformance
from tests.models.conformance.requests import ENDLESS, LONG, ask
from tests.models.llama import PRICE, TEMPLATE


class TestLlamaCppModel(ModelConformance):
    @pytest.fixture
    async def case(self, smollm2: Path) -> AsyncIterator[Case]:
        model = LlamaCppModel("llamacpp:smollm2-135m", smollm2, price=PRICE, fingerprint="test", template=TEMPLATE)
        yield Case(model, images=False, seeded=True, long=ask(LONG, schema=ENDLESS))
        await model.aclose()
