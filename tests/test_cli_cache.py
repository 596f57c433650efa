"""``agentbudget cache``: what it prints for people and for programs, and what bad input gets."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from agentbudget.cache import Label, Source, Store
from agentbudget.cli import cli
from agentbudget.errors import Mistake, StoreUnavailable


def cache(*arguments: str) -> Result:
    """A command, in this process."""
    return CliRunner().invoke(cli, ["cache", *arguments], standalone_mode=False)


def data(*arguments: str) -> Any:
    done = cache(*arguments, "--json")
    assert done.exception is None, done.exception
    return json.loads(done.output)


@pytest.fixture
def home() -> Path:
    """A home whose cache has two answers and a plan; one of the answers was asked for again."""
    folder = Path(os.environ["AGENTBUDGET_HOME"])
    with Store(folder / "cache.db") as store:
        made = Label(tenant="acme", skill="answer", skill_version="1", sources=(Source("orders.md", "c1"),))
        store.put({"a": None}, b"v", made, cost_usd_nano=2_000_000)
        store.put({"b": None}, b"v", Label(skill="answer", skill_version="2"), cost_usd_nano=1)
        store.put({"p": None}, b"v", Label(kind="plan", skill="plan"), cost_usd_nano=1)
        store.touch(store.find(("a",))[0].entry)
    return folder


@pytest.mark.usefixtures("home")
def test_stats_tell_what_was_saved_by_kind() -> None:
    answers, plans = data("stats")["kinds"]
    assert (answers["kind"], answers["entries"], answers["hits"], answers["saved_usd"]) == ("answer", 2, 1, "0.002")
    assert (plans["kind"], plans["entries"], plans["hits"]) == ("plan", 1, 0)
    told = cache("stats").output
    assert "$0.002" in told


@pytest.mark.usefixtures("home")
@pytest.mark.parametrize(
    ("options", "gone"),
    [
        (["--tenant", "acme"], 1),
        (["--skill", "answer"], 2),
        (["--skill", "answer@2"], 1),
        (["--document", "orders.md"], 1),
        (["--chunk", "c1"], 1),
        (["--kind", "plan"], 1),
        (["--kind", "plan", "--skill", "answer"], 0),
        (["--older-than", "1"], 0),
    ],
)
def test_what_is_named_is_forgotten(options: list[str], gone: int) -> None:
    assert data("invalidate", *options) == {"forgotten": gone}
    assert sum(kind["entries"] for kind in data("stats")["kinds"]) == 3 - gone


@pytest.mark.usefixtures("home")
def test_clearing_forgets_everything() -> None:
    assert cache("clear").output == "3 entries forgotten\n"
    assert data("stats")["kinds"] == []


@pytest.mark.usefixtures("home")
def test_nothing_named_is_refused() -> None:
    assert isinstance(cache("invalidate").exception, Mistake)


def test_looking_makes_no_cache() -> None:
    assert isinstance(cache("stats").exception, StoreUnavailable)
    assert not (Path(os.environ["AGENTBUDGET_HOME"]) / "cache.db").exists()
