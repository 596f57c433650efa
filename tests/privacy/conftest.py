from __future__ import annotations

import pytest

from tests.context.conftest import WordEmbedder, Write, words, write

__all__ = ["WordEmbedder", "Write", "words", "write"]


@pytest.fixture
def looking() -> None:
    """Skips where the extra is not installed."""
    pytest.importorskip("kingfisher_sdk", reason="the extra 'privacy' is not installed")
    pytest.importorskip("datafog_core", reason="the extra 'privacy' is not installed")
