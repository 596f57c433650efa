from __future__ import annotations

import pytest

from tests.context.conftest import WordEmbedder


@pytest.fixture
def words() -> WordEmbedder:
    return WordEmbedder()
