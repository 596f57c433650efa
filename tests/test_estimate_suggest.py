"""Budgets from history: what so large a share stayed within."""

from __future__ import annotations

import json
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from agentbudget.cache import Answers
from agentbudget.cli import cli
from agentbudget.errors import InvalidArgument
from agentbudget.estimate.suggest import Scope as Of
from agentbudget.estimate.suggest import Suggestion, suggest
from agentbudget.ledger import Hold, Ledger
from agentbudget.models.ladder import Ladder
from agentbudget.money import Amount, Budget
from agentbudget.prices import ComputePrice
from agentbudget.skills import Skill, skill
from agentbudget.step import Context, Engine, Scope
from agentbudget.testing import ManualClock, ScriptedModel

DAY_S = 86_400


def with_steps(ledger: Ledger, amounts: list[Amount], *, skill: str = "say", run: str = "r") -> None:
    """A settled step of `skill` for each amount, each in a run of its own."""
    for number, amount in enumerate(amounts):
        account = f"run/{run}{number}"
        ledger.account(account)
        meta = {"kind": "step", "skill": skill}
        hold = ledger.reserve(f"{run}{number}/{skill}", Amount(10**9, 10**6, 10), accounts=[account], meta=meta)
        hold.settle(amount)


def only(found: list[Suggestion], scope: Of) -> Suggestion:
    (suggestion,) = (each for each in found if each.scope == scope)
    return suggestion


def test_a_step_gets_what_the_level_of_its_like_stayed_within() -> None:
    ledger = Ledger.open("memory:")
    with_steps(ledger, [Amount(1_000 * (1 + number % 20), 10 * (1 + number % 20), 1) for number in range(100)])
    step = only(suggest(ledger, level=0.9), "step")
    assert (step.name, step.count, step.few) == ("say", 100, False)
    assert step.proposed == Amount(19_000, 190, 1)
    assert step.largest == Amount(20_000, 200, 1)
    assert step.covered is not None
    assert 0.8 <= step.covered <= 1


def test_the_level_is_kept_in_all_units_at_once() -> None:
    ledger = Ledger.open("memory:")
    amounts = [Amount(9_000 if n % 10 == 0 else 100, 900 if n % 10 == 5 else 10, 1) for n in range(200)]
    with_steps(ledger, amounts)
    proposed = only(suggest(ledger, level=0.9), "step").proposed
    within = [not amount.minus(proposed) for amount in amounts]
    assert sum(within) / len(within) >= 0.9


def test_too_few_get_the_largest_and_a_quarter() -> None:
    ledger = Ledger.open("memory:")
    with_steps(ledger, [Amount(1_000, 100, 1), Amount(2_000, 40, 2)])
    step = only(suggest(ledger, level=0.95), "step")
    assert step.few
    assert step.proposed == Amount(2_500, 130, 3)  # 125 tokens, rounded up to two digits
    assert step.covered is None


def test_a_run_costs_all_its_steps_and_counts_when_it_is_over() -> None:
    ledger = Ledger.open("memory:")
    ledger.account("run/a")
    ledger.account("run/b")
    for number in range(2):
        ledger.reserve(f"a/{number}", Amount(9), accounts=["run/a"], meta={"kind": "step", "skill": "say"}).settle(
            Amount(8)
        )
    ledger.reserve("b/0", Amount(9), accounts=["run/b"], meta={"kind": "step", "skill": "say"}).settle(Amount(5))
    ledger.reserve("b/1", Amount(9), accounts=["run/b"], meta={"kind": "step", "skill": "say"})
    run = only(suggest(ledger), "run")
    assert (run.count, run.largest.usd_nano) == (1, 16)


@pytest.mark.parametrize("status", ["failed", "cancelled"])
def test_steps_that_broke_off_and_runs_that_ended_so_tell_nothing(status: str) -> None:
    ledger = Ledger.open("memory:")
    meta = {"kind": "step", "skill": "say"}
    for name, endings in (("a", ["ok"]), ("b", ["ok", status]), ("c", [status, "ok"])):
        ledger.account(f"run/{name}")
        for number, ending in enumerate(endings):
            hold = ledger.reserve(f"{name}/{number}", Amount(9), accounts=[f"run/{name}"], meta=meta)
            hold.settle(Amount(8 if ending == "ok" else 1), detail={"status": ending})
    found = suggest(ledger)
    assert (only(found, "step").count, only(found, "step").median.usd_nano) == (3, 8)
    run = only(found, "run")
    assert (run.count, run.largest.usd_nano) == (2, 9)  # one that went on after that cost what it cost


def test_steps_that_were_paid_for_before_tell_nothing() -> None:
    ledger = Ledger.open("memory:")
    with_steps(ledger, [Amount(1_000, 10, 1)] * 40)
    with_steps(ledger, [Amount()] * 960, run="again")
    step = only(suggest(ledger, level=0.95), "step")
    assert (step.count, step.median, step.proposed) == (40, Amount(1_000, 10, 1), Amount(1_000, 10, 1))


def test_a_run_needs_room_for_what_is_settled_and_held_at_once() -> None:
    ledger = Ledger.open("memory:")
    ledger.account("run/r")

    def reserve(name: str, usd_nano: int) -> Hold:
        meta = {"kind": "step", "skill": "say"}
        return ledger.reserve(f"r/{name}", Amount(usd_nano), accounts=["run/r"], meta=meta)

    reserve("a", 50).settle(Amount(10))
    b, c = reserve("b", 40), reserve("c", 20)
    b.settle(Amount(5))
    c.settle(Amount(5))
    reserve("d", 30).settle(Amount(1))
    run = only(suggest(ledger), "run")
    assert (run.largest.usd_nano, run.proposed.usd_nano) == (21, 88)  # 10, 40 and 20 at once, and a quarter


def reply_within(budget: Budget | None) -> Skill[[int], str]:
    @skill(max_output_tokens=20, escalate="frontier", accept=lambda text: "sure" in text, cache="off", budget=budget)
    async def reply(ctx: Context, number: int) -> str:
        """Say something about a number."""
        ...

    return reply


async def test_runs_and_steps_have_room_in_the_budgets_proposed_for_them() -> None:
    ledger = Ledger.open("memory:")
    small = ScriptedModel(lambda request: "well" if "7" in request.messages[-1].text else "sure", name="scripted:small")
    engine = Engine(
        ledger,
        Ladder((small, ScriptedModel(lambda _: "sure", name="scripted:large"))),
        Answers(),
        ComputePrice(Decimal("0.10"), 100, 10),
    )

    async def run(name: str, first: int, *, run: Budget | None = None, step: Budget | None = None) -> None:
        ledger.account(f"run/{name}", limit=run or Budget())
        reply = reply_within(step)
        for number in range(first, first + 3):
            assert await reply(Context(engine, Scope(name)), number) == "sure"

    for number in range(40):
        await run(f"before{number}", number)
    proposed = {each.scope: each.proposed for each in suggest(ledger)}
    budgets = {scope: Budget(usd=most.usd, tokens=most.tokens, calls=most.calls) for scope, most in proposed.items()}
    await run("within", 5, run=budgets["run"], step=budgets["step"])


def test_a_day_of_a_skill_is_the_sum_of_its_steps_and_counts_when_it_is_over() -> None:
    clock = ManualClock()
    ledger = Ledger.open("memory:", clock=clock)
    for day in range(3):
        with_steps(ledger, [Amount(100 * (day + 1), 0, 1)] * 4, run=f"d{day}-")
        clock.advance(DAY_S)
    day = only(suggest(ledger), "day")
    assert (day.name, day.count, day.account) == ("say", 2, "skill/say")
    assert day.largest == Amount(800, 0, 4)


def test_what_is_only_presumed_tells_nothing() -> None:
    ledger = Ledger.open("memory:")
    ledger.account("run/r")
    hold = ledger.reserve("h", Amount(9), accounts=["run/r"], meta={"kind": "step", "skill": "say"})
    hold.mark_sent()
    hold.presume()
    assert suggest(ledger, scopes=("step", "day")) == []


@pytest.mark.parametrize("level", [0.0, 1.0])
def test_a_level_is_a_share(level: float) -> None:
    with pytest.raises(InvalidArgument, match=r"such as 0\.95"):
        suggest(Ledger.open("memory:"), level=level)


def invoke(*arguments: object) -> tuple[int, str]:
    """``agentbudget budget …``: exit code and output."""
    result = CliRunner().invoke(cli, ["budget", *map(str, arguments)])
    return result.exit_code, result.output


@pytest.fixture
def journal(tmp_path: Path) -> Path:
    """A ledger's file with fifty steps."""
    path = tmp_path / "ledger.db"
    with Ledger.open(path) as ledger:
        with_steps(ledger, [Amount(1_000 * (1 + number % 10), 10, 1) for number in range(50)])
    return path


def test_the_command_prints_a_table(journal: Path) -> None:
    code, out = invoke("suggest", "--ledger", journal, "--level", "0.9")
    assert code == 0
    assert "a step of say" in out
    assert "a run" in out


def test_the_command_prints_json_for_the_scopes_that_were_asked_for(journal: Path) -> None:
    code, out = invoke("suggest", "--ledger", journal, "--level", "0.9", "--for", "step", "--json")
    rows: list[dict[str, Any]] = json.loads(out)
    assert code == 0
    assert [(row["scope"], row["skill"], row["count"]) for row in rows] == [("step", "say", 50)]
    assert rows[0]["proposed"] == {"usd_nano": 10_000, "tokens": 10, "calls": 1}


def test_an_empty_ledger_says_what_to_do(tmp_path: Path) -> None:
    Ledger.open(tmp_path / "new.db").close()
    code, out = invoke("suggest", "--ledger", tmp_path / "new.db")
    assert code == 0
    assert "run something first" in out
