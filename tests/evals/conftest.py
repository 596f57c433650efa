"""Tiny datasets in the files' own form, and models that know their answers."""

from __future__ import annotations

import gzip
import json
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

import pytest

from agentbudget.errors import WeightsError
from agentbudget.evals.tasks import TUNE_SHARE, Item, choose
from agentbudget.models import catalog
from agentbudget.models.base import Request
from agentbudget.testing import ScriptedModel, ScriptedReply

WriteRows = Callable[[str, Iterable[Mapping[str, Any]]], Path]


@pytest.fixture(autouse=True)
def _inspect_apart(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:  # pyright: ignore[reportUnusedFunction]
    """Inspect keeps traces in the user's data folder: here, in the test's."""
    pytest.importorskip("inspect_ai", reason="the extra 'evals' is not installed")
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "xdg"))
    monkeypatch.delenv("AGENTBUDGET_DATA", raising=False)


@pytest.fixture
def write_rows(tmp_path: Path) -> WriteRows:
    """Writes gzipped JSONL into the folder ``data/skills``; gives back ``data``."""

    def write(name: str, rows: Iterable[Mapping[str, Any]]) -> Path:
        path = tmp_path / "data" / "skills" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        with gzip.open(path, "wt", encoding="utf-8") as lines:
            lines.writelines(json.dumps(row) + "\n" for row in rows)
        return tmp_path / "data"

    return write


@pytest.fixture
def sums(write_rows: WriteRows) -> Path:
    """A GSM8K of forty additions."""
    return write_rows(
        "gsm8k_test.jsonl.gz",
        [
            {"id": f"sum-{n}", "question": f"What is {n} + 1000?", "answer": f"{n}+1000\n#### {n + 1000:,}"}
            for n in range(10 * TUNE_SHARE)
        ],
    )


def sums_chosen(limit: int) -> tuple[Item, ...]:
    """The additions that an eval of `limit` items takes."""
    items = [Item(f"sum-{n}", f"What is {n} + 1000?", str(n + 1000)) for n in range(10 * TUNE_SHARE)]
    return choose(items, split="report", limit=limit, seed=0)


def solving(*right: Item, name: str) -> ScriptedModel:
    """A model that solves the items `right`, and gives 0 for every other."""
    targets = {item.question: item.target for item in right}

    def reply(request: Request) -> ScriptedReply:
        answer = targets.get(request.messages[-1].text, "0")
        return ScriptedReply(json.dumps({"reasoning": "so it is", "answer": int(answer)}))

    return ScriptedModel(reply, name=name, fingerprint=name)


@pytest.fixture(scope="session")
def real_weights() -> None:
    """SmolLM2-135M and MiniLM, fetched once into the ordinary weights folder."""
    for name in ("smollm2-135m", "all-minilm-l6-v2"):
        try:
            catalog.ensure(name)
        except WeightsError as error:
            if catalog.is_present(name):
                raise
            pytest.skip(f"{name} cannot be fetched here: {error}")
