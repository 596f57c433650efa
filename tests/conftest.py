from __future__ import annotations

from pathlib import Path

import pytest

from agentbudget.settings import weights_dir


@pytest.fixture(autouse=True)
def _apart(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:  # pyright: ignore[reportUnusedFunction]
    """Each test has its own home; the weights are shared, and no key or exporter of the machine is seen."""
    monkeypatch.setenv("AGENTBUDGET_WEIGHTS", str(_WEIGHTS))
    monkeypatch.setenv("AGENTBUDGET_HOME", str(tmp_path / "home"))
    for name in (
        "ANTHROPIC_API_KEY",
        "OPENAI_API_KEY",
        "OTEL_EXPORTER_OTLP_ENDPOINT",
        "AGENTBUDGET_MODELS",
        "AGENTBUDGET_LEDGER",
    ):
        monkeypatch.delenv(name, raising=False)


_WEIGHTS = weights_dir()
