"""``agentbudget cache``: what it prints for people and for programs, and what bad input gets."""

from __future__ import annotations

import json
import os
import sqlite3
from pathlib import Path
from typing import Any, get_args

import click
import pytest
from click.testing import CliRunner, Result

from agentbudget.cache import Kind, Label, Source, Store
from agentbudget.cache.semantic import Place, Semantic, SemanticCache
from agentbudget.cli import cli
from agentbudget.errors import Mistake, StoreUnavailable, UnknownHit
from tests.context.conftest import WordEmbedder


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
@pytest.mark.parametrize("hours", ["nan", "inf", "1e300", "-1"])
def test_an_age_that_is_none_is_refused(hours: str) -> None:
    refused = cache("invalidate", f"--older-than={hours}")
    assert isinstance(refused.exception, click.UsageError)
    assert sum(kind["entries"] for kind in data("stats")["kinds"]) == 3


@pytest.mark.usefixtures("home")
def test_clearing_forgets_everything() -> None:
    assert cache("clear").output == "3 entries forgotten\n"
    assert data("stats")["kinds"] == []


@pytest.mark.usefixtures("home")
def test_nothing_named_is_refused() -> None:
    assert isinstance(cache("invalidate").exception, Mistake)


@pytest.mark.usefixtures("home")
@pytest.mark.parametrize("kind", get_args(Kind))
def test_every_kind_can_be_named(kind: Kind) -> None:
    assert cache("invalidate", "--kind", kind).exception is None


def test_looking_makes_no_cache() -> None:
    assert isinstance(cache("stats").exception, StoreUnavailable)
    assert not (Path(os.environ["AGENTBUDGET_HOME"]) / "cache.db").exists()


def questions(home: Path) -> SemanticCache:
    return SemanticCache(home / "semantic.db", WordEmbedder())


def asked(home: Path) -> None:
    """Two questions whose answers stand under the keys a and b."""
    place, policy = Place("acme", "answer", "form"), Semantic(wrong=0.1)
    with questions(home) as cache:
        for question, key in (("how high is it", "a"), ("where do they live", "b")):
            cache.bought(cache.look(place, question, policy), key=key, same=None, policy=policy)


def kept_questions(home: Path) -> int:
    with sqlite3.connect(home / "semantic.db") as db:
        (count,) = db.execute("SELECT count(*) FROM entries").fetchone()
    return count


def learned(home: Path) -> int:
    with sqlite3.connect(home / "semantic.db") as db:
        (trials,), (outcomes,) = (
            db.execute(f"SELECT count(*) FROM {table}").fetchone() for table in ("trials", "outcomes")
        )
    return trials + outcomes


@pytest.mark.parametrize(
    ("command", "left"),
    [(["clear"], 0), (["invalidate", "--tenant", "acme"], 0), (["invalidate", "--skill", "other"], 2)],
)
def test_what_was_learned_goes_with_whose_it_is(home: Path, command: list[str], left: int) -> None:
    asked(home)
    place, policy = Place("acme", "answer", "form"), Semantic(wrong=0.1)
    with questions(home) as similar:
        similar.bought(similar.look(place, "so how high is it", policy), key="c", same=True, policy=policy)
    assert learned(home) == 2
    cache(*command)
    assert learned(home) == left


def test_questions_go_with_their_answers(home: Path) -> None:
    asked(home)
    cache("invalidate", "--document", "orders.md")
    assert kept_questions(home) == 1
    cache("clear")
    assert kept_questions(home) == 0
    assert all(b"how high" not in path.read_bytes() for path in home.glob("semantic.db*"))


def test_a_hit_can_be_said_to_be_wrong(home: Path) -> None:
    asked(home)
    with questions(home) as similar:
        hit = similar.reused(similar.look(Place("acme", "answer", "form"), "how high is it", Semantic(wrong=0.1)))
    assert "not given again" in cache("wrong", str(hit)).output
    assert json.loads(cache("wrong", str(hit), "--json").output) == {"wrong": hit}


@pytest.mark.usefixtures("home")
def test_a_hit_that_nobody_knows_is_a_mistake() -> None:
    error = cache("wrong", "7").exception
    assert isinstance(error, UnknownHit)
    assert error.hit == 7
