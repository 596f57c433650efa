"""The exact cache: what changes an answer changes its key, and what was cut is not taken for whole."""

from __future__ import annotations

import sqlite3
from dataclasses import replace
from pathlib import Path

import pytest

from agentbudget.cache import Answers, answer_key
from agentbudget.errors import SchemaMismatch
from agentbudget.models.base import Completion, JsonSchema, Message, Request, Tool
from agentbudget.testing import ScriptedModel
from agentbudget.usage import Usage

ASK = Request((Message("system", "s"), Message("user", "u")), max_output_tokens=10)
ANSWER = Completion("text", "stop", Usage(2, 5), "served", confidence=0.5)


def key(request: Request = ASK, *, tenant: str = "a", version: str = "v", model: ScriptedModel | None = None) -> str:
    return answer_key(request, model or ScriptedModel([]), tenant=tenant, skill_version=version)


def test_everything_that_changes_an_answer_changes_the_key() -> None:
    others = [
        key(replace(ASK, messages=(Message("user", "u"),))),
        key(replace(ASK, messages=(Message("system", "su"), Message("user", "")))),
        key(replace(ASK, schema={"type": "boolean"})),
        key(replace(ASK, temperature=0.5)),
        key(replace(ASK, seed=1)),
        key(replace(ASK, stop=("x",))),
        key(tenant="b"),
        key(version="w"),
        key(model=ScriptedModel([], name="scripted:other")),
        key(model=ScriptedModel([], fingerprint="other weights")),
    ]
    assert len({key(), *others}) == len(others) + 1


def test_the_order_in_which_an_answer_is_to_be_written_changes_the_key() -> None:
    """Whoever moves the reasoning before the answer gets no answers that were given before their reasons."""
    first = {"answer": {"type": "integer"}, "reasoning": {"default": "", "type": "string"}}
    last = dict(reversed(first.items()))
    schemas: list[JsonSchema] = [
        {"properties": each, "required": ["answer"], "type": "object"} for each in (first, last)
    ]
    assert key(replace(ASK, schema=schemas[0])) != key(replace(ASK, schema=schemas[1]))
    tools = [(Tool("solve", "Solves it.", each),) for each in schemas]
    assert key(replace(ASK, tools=tools[0])) != key(replace(ASK, tools=tools[1]))


def test_caps_do_not_change_the_key() -> None:
    assert key(replace(ASK, max_output_tokens=99, max_compute_s=1.0)) == key()


def test_the_latest_answer_under_a_key_survives_the_process(tmp_path: Path) -> None:
    later = replace(ANSWER, text="later")
    with Answers(tmp_path / "cache.db") as answers:
        answers.put("k", ANSWER, cost_usd_nano=7)
        answers.put("k", later, cost_usd_nano=9)
    with Answers(tmp_path / "cache.db") as answers:
        found = answers.get("k", max_output_tokens=10)
    assert found is not None
    assert (found.completion, found.cost_usd_nano) == (later, 9)


@pytest.mark.parametrize(("finish", "cap", "hit"), [("stop", 5, True), ("stop", 4, False), ("stop", 9, True)])
def test_a_whole_answer_fits_any_cap_that_is_not_below_it(finish: str, cap: int, hit: bool) -> None:
    answers = Answers()
    answers.put("k", ANSWER, cost_usd_nano=1)
    assert (answers.get("k", max_output_tokens=cap) is not None) is hit


@pytest.mark.parametrize(("cap", "hit"), [(5, True), (9, False)])
def test_a_cut_answer_is_the_answer_under_that_cap_only(cap: int, hit: bool) -> None:
    answers = Answers()
    answers.put("k", replace(ANSWER, finish="length"), cost_usd_nano=1)
    assert (answers.get("k", max_output_tokens=cap) is not None) is hit


def test_another_programs_database_is_refused(tmp_path: Path) -> None:
    other = sqlite3.connect(tmp_path / "other.db")
    other.execute("CREATE TABLE t (x)")
    other.close()
    with pytest.raises(SchemaMismatch):
        Answers(tmp_path / "other.db")
