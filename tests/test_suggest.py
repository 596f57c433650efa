"""Budgets proposed from what was spent."""

from __future__ import annotations

import json
from collections.abc import Generator
from pathlib import Path

import pytest
from click.testing import CliRunner

from agentbudget.cli import cli
from agentbudget.errors import InvalidArgument
from agentbudget.ledger import Ledger
from agentbudget.money import Amount, Budget
from agentbudget.suggest import Suggestion, suggest


@pytest.fixture
def ledger() -> Generator[Ledger]:
    with Ledger.open("memory:") as opened:
        yield opened


def spend(ledger: Ledger, *tokens: int, skill: str = "answer") -> None:
    """A run for each, of one step with one call."""
    for number, used in enumerate(tokens):
        ledger.account(f"run/{skill}{number}")
        meta = {"kind": "step", "skill": skill}
        step = ledger.reserve(f"{skill}{number}", Amount(10**9, 10**6, 9), accounts=[f"run/{skill}{number}"], meta=meta)
        meta = {"kind": "call", "skill": skill, "model": "m"}
        call = ledger.reserve(f"{skill}{number}/1", Amount(10**8, 10**5, 1), within=step.id, meta=meta)
        call.settle(Amount(1000 * used, used, 1))
        step.settle()


def found(ledger: Ledger, kind: str, *, level: float = 0.9) -> Suggestion:
    (one,) = (suggestion for suggestion in suggest(ledger, level=level) if suggestion.kind == kind)
    return one


@pytest.mark.parametrize("kind", ["run", "step", "call"])
def test_a_budget_covers_the_share_that_was_asked_for(ledger: Ledger, kind: str) -> None:
    spend(ledger, *range(101, 201))
    suggestion = found(ledger, kind)
    assert suggestion.budget == Budget(usd="0.0002", tokens=200, calls=1)  # 191 is rank 91 of 100; two digits
    assert suggestion.covered == 1.0
    assert suggestion.typical.tokens == 151
    assert suggestion.most.tokens == 200
    assert (suggestion.samples, suggestion.promised) == (100, 0.9)


def test_a_budget_is_below_the_rare_and_dear(ledger: Ledger) -> None:
    spend(ledger, *[10] * 97, 900, 900, 900)
    assert found(ledger, "step").budget.tokens == 10
    assert found(ledger, "step").covered == 0.97


def test_few_samples_promise_little(ledger: Ledger) -> None:
    spend(ledger, 10, 20, 30)
    suggestion = found(ledger, "step", level=0.99)
    assert suggestion.budget.tokens == 30
    assert suggestion.promised == 0.75


def test_only_the_last_are_looked_at(ledger: Ledger) -> None:
    spend(ledger, *[1000] * 50, *[10] * 50)
    (step,) = (each for each in suggest(ledger, last=50) if each.kind == "step")
    assert step.budget.tokens == 10


def test_what_was_void_or_free_says_nothing(ledger: Ledger) -> None:
    spend(ledger, 10)
    ledger.account("run/x")
    ledger.reserve("void", Amount(5, 5, 1), accounts=["run/x"], meta={"kind": "step", "skill": "answer"}).void()
    assert found(ledger, "step").samples == 1


def test_a_presumption_is_told_apart(ledger: Ledger) -> None:
    ledger.account("run/x")
    hold = ledger.reserve("h", Amount(5, 5, 1), accounts=["run/x"], meta={"kind": "step", "skill": "answer"})
    hold.mark_sent()
    hold.presume()
    assert found(ledger, "step").presumed == 1


def test_a_level_that_is_no_share_is_refused(ledger: Ledger) -> None:
    with pytest.raises(InvalidArgument, match="a share between 0 and 1"):
        suggest(ledger, level=95)


def test_the_command_prints_a_table_and_json(tmp_path: Path) -> None:
    with Ledger.open(tmp_path / "ledger.db") as ledger:
        spend(ledger, *range(1, 41))
        spend(ledger, 7, skill="triage")
    where = ["budget", "suggest", "--ledger", str(tmp_path / "ledger.db")]
    table = CliRunner().invoke(cli, where)
    assert table.exit_code == 0, table.output
    assert "answer on m" in table.output
    told = CliRunner().invoke(cli, [*where, "triage", "--json"])
    assert [(one["kind"], one["name"], one["samples"]) for one in json.loads(told.output)] == [
        ("step", "triage", 1),
        ("call", "triage on m", 1),
    ]


def test_an_empty_ledger_has_nothing_to_suggest(tmp_path: Path) -> None:
    Ledger.open(tmp_path / "ledger.db").close()
    said = CliRunner().invoke(cli, ["budget", "suggest", "--ledger", str(tmp_path / "ledger.db")])
    assert "nothing was spent yet" in said.output
