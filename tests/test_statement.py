"""The statement of a run made by hand, over a real ledger: whatever happened, it is shown and adds up."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from decimal import Decimal
from html.parser import HTMLParser

import pytest
from rich.cells import cell_len

from agentbudget.errors import UnknownRun
from agentbudget.ledger import Hold, Ledger
from agentbudget.ledger.memory import MemoryStore
from agentbudget.money import ZERO, Amount, Budget
from agentbudget.statement import Line, Rejection, Statement, words
from agentbudget.statement.fold import short_names
from agentbudget.statement.page import step_chart
from agentbudget.testing import ManualClock
from agentbudget.usage import Usage

SMALL = "llamacpp:qwen2.5-coder-0.5b"
LARGE = "llamacpp:qwen2.5-coder-1.5b"
PRICE = "0.10 USD/h"
HOSTILE = "<script>alert('x')</script> [bold]&amp; \x1b[31mred\u202e"


@dataclass
class Run:
    """A run as the step module would book it, on a clock that stands still."""

    id: str = "r1"
    budget: Budget = field(default_factory=lambda: Budget(usd="0.05", tokens=20_000))
    clock: ManualClock = field(default_factory=ManualClock)
    count: int = 0

    def __post_init__(self) -> None:
        self.ledger = Ledger(MemoryStore(), clock=self.clock, owner="elsewhere")
        self.ledger.account(f"run/{self.id}", limit=self.budget)

    def step(
        self, skill: str, held: Amount, *, tier: str = "local", within: Hold | None = None, **more: object
    ) -> Hold:
        self.count += 1
        return self.ledger.reserve(
            f"{self.id}/{self.count}-{skill}",
            held,
            accounts=() if within else (f"run/{self.id}",),
            within=within.id if within else None,
            meta={
                "kind": "step",
                "skill": skill,
                "tier": tier,
                "estimated": {"usd_nano": held.usd_nano // 2, "tokens": held.tokens // 2},
                **more,
            },
        )

    def call(self, step: Hold, held: Amount, *, model: str = SMALL, rung: int = 0, purpose: str = "draft") -> Hold:
        self.count += 1
        return self.ledger.reserve(
            f"{step.id}/{self.count}",
            held,
            within=step.id,
            meta={"kind": "call", "model": model, "rung": rung, "purpose": purpose, "price": PRICE},
        )

    def answer(self, call: Hold, cost: Amount, *, seconds: float, cached_tokens: int = 0, finish: str = "stop") -> None:
        """Settle a call at `cost`, a fifth of its tokens being output."""
        call.mark_sent()
        self.clock.advance(seconds)
        output = cost.tokens // 5
        usage = Usage(cost.tokens - output, output, cached_tokens)
        call.settle(cost, detail={"usage": usage.to_dict(), "seconds": seconds, "finish": finish, "cached": False})

    def hit(self, step: Hold, *, saved_usd_nano: int) -> None:
        self.call(step, ZERO).settle(detail={"cached": True, "saved_usd_nano": saved_usd_nano, "seconds": 0.001})

    def end(self, step: Hold, *, seconds: float, status: str = "ok", error: str | None = None, **more: object) -> None:
        step.settle(detail={"status": status, "seconds": seconds, "error": error, "escalated": False} | more)

    def statement(self, task: str | None = None, user: str | None = None) -> Statement:
        return Statement.of(self.ledger, self.id, ladder=(SMALL, LARGE), task=task, user=user)


def usd(nano: int, tokens: int = 0, calls: int = 1) -> Amount:
    return Amount(nano, tokens, calls)


def plan(run: Run) -> None:
    step = run.step("plan", usd(2_000_000, 2_000, 2), tier="frontier")
    run.answer(run.call(step, usd(1_500_000, 1_500), model=LARGE, rung=1), usd(412_300, 620), seconds=6.2)
    run.end(step, seconds=6.4)


def escalation(run: Run) -> None:
    step = run.step("answer", usd(3_000_000, 4_000, 4))
    run.answer(run.call(step, usd(600_000, 900)), usd(83_412, 700), seconds=2.5, cached_tokens=310)
    run.answer(
        run.call(step, usd(1_800_000, 900), model=LARGE, rung=1, purpose="escalation"), usd(410_000, 760), seconds=5.5
    )
    why = {"model": SMALL, "reason": "verify: its quote does not stand in the passages"}
    run.end(step, seconds=8.2, escalated=True, rejected=[why])


def everything(run: Run) -> Statement:
    """A run with one of each: landing fuel, escalation, hit, nested step, timeout, overrun, failure, open and void."""
    fuel = run.step("synthesise", usd(4_000_000, 3_000, 2), tier="frontier")
    index = run.ledger.reserve(
        "r1/index", usd(500_000, 0, 0), accounts=["run/r1"], meta={"kind": "index", "source": "handbook"}
    )
    run.clock.advance(1.5)
    index.settle(usd(41_000, 0, 0), detail={"kept": 9, "embedded": 3, "deleted": 0, "tokens": 640, "seconds": 1.5})
    plan(run)
    escalation(run)
    cached = run.step("answer", usd(3_000_000, 4_000, 4))
    run.hit(cached, saved_usd_nano=83_412)
    run.end(cached, seconds=0.01)
    outer = run.step("research", usd(4_000_000, 4_000, 4))
    inner = run.step("verify", usd(900_000, 900, 1), within=outer)
    run.answer(run.call(inner, usd(900_000, 900), purpose="verify"), usd(52_000, 340), seconds=1.1)
    run.end(inner, seconds=1.2)
    run.answer(run.call(outer, usd(600_000, 800)), usd(77_000, 512), seconds=2.4)
    run.end(outer, seconds=3.9)
    timeout = run.step("extract", usd(1_000_000, 1_000))
    lost = run.call(timeout, usd(900_000, 900))
    lost.mark_sent()
    run.clock.advance(2)
    lost.presume(detail={"seconds": 2.0, "error": "OutcomeUnknown"})
    run.end(timeout, seconds=2.1, status="failed", error="OutcomeUnknown: no answer within 2 s")
    over = run.step("summarise", usd(100_000, 400))
    run.answer(run.call(over, usd(100_000, 400)), usd(130_000, 450), seconds=4)
    run.end(over, seconds=4.1)
    run.step("triage", usd(200_000, 200)).void()
    run.answer(run.call(fuel, usd(3_000_000, 2_500), model=LARGE, rung=1), usd(700_000, 1_400), seconds=9.5)
    run.end(fuel, seconds=9.7)
    last = run.step("translate", usd(600_000, 500))
    run.answer(run.call(last, usd(300_000, 300)), usd(20_000, 100), seconds=0.8)
    return run.statement(task="Can order 1182 be refunded after 40 days, and who has to approve it?", user="42")


@pytest.fixture
def full() -> Statement:
    return everything(Run())


def line(statement: Statement, skill: str) -> Line:
    return next(line for line in statement.lines if line.skill == skill)


# --- the fold


def test_totals_are_what_the_account_and_the_open_steps_say() -> None:
    run = Run()
    totals = everything(run).totals
    account = run.ledger.balance("run/r1")
    spent_in_open_step = usd(20_000, 100)
    assert totals.settled == account.posted + spent_in_open_step
    assert totals.open + spent_in_open_step == account.held
    assert run.ledger.verify().ok


def test_cost_per_skill_adds_up_to_the_total(full: Statement) -> None:
    assert sum((cost.cost for cost in full.by_skill), ZERO) == full.totals.settled
    assert abs(sum(cost.share for cost in full.by_skill) - 1) < Decimal("1e-20")
    assert [cost.skill for cost in full.by_skill][:2] == ["extract", "synthesise"]
    answer = next(cost for cost in full.by_skill if cost.skill == "answer")
    assert (answer.steps, answer.escalated, answer.cache_hits, answer.cost.usd_nano) == (2, 1, 1, 493_412)


def test_a_hit_counts_for_the_skill_that_asked_and_not_for_those_around_it() -> None:
    run = Run()
    outer = run.step("research", usd(4_000_000, 4_000, 4))
    inner = run.step("verify", usd(900_000, 900, 1), within=outer)
    run.hit(inner, saved_usd_nano=9)
    run.end(inner, seconds=0.1)
    run.hit(outer, saved_usd_nano=7)
    run.end(outer, seconds=0.2)
    statement = run.statement()
    assert {cost.skill: cost.cache_hits for cost in statement.by_skill} == {"research": 1, "verify": 1}
    assert (line(statement, "research").cache_hits, statement.totals.cache_hits) == (2, 2)


def test_a_step_shows_what_was_estimated_held_and_settled(full: Statement) -> None:
    plan = line(full, "plan")
    assert (plan.estimated.usd_nano, plan.estimated.tokens) == (1_000_000, 1_000)
    assert (plan.held, plan.settled) == (usd(2_000_000, 2_000, 2), usd(412_300, 620))
    assert (plan.input_tokens, plan.output_tokens, plan.seconds, plan.calls) == (496, 124, 6.4, 1)
    assert (plan.tier, plan.model, plan.status) == ("frontier", "1.5b", "ok")


def test_an_escalated_step_names_both_models(full: Statement) -> None:
    answer = line(full, "answer")
    assert (answer.escalated, answer.model, answer.models) == (True, "0.5b → 1.5b", (SMALL, LARGE))
    assert answer.cached_tokens == 310
    assert full.totals.escalated == 1


def test_an_escalation_is_seen_without_a_settlement_that_says_so() -> None:
    run = Run()
    step = run.step("answer", usd(900, 900, 2))
    run.answer(run.call(step, usd(300, 300)), usd(100, 100), seconds=1)
    run.answer(run.call(step, usd(300, 300), purpose="escalation"), usd(100, 100), seconds=1)
    assert run.statement().lines[0].escalated


def test_a_cache_hit_costs_nothing_and_says_what_it_saved(full: Statement) -> None:
    cached = full.lines[3]
    assert (cached.status, cached.settled, cached.calls, cached.cache_hits) == ("cached", ZERO, 0, 1)
    assert cached.saved_usd_nano == full.totals.saved_usd_nano == 83_412
    assert (cached.input_tokens, cached.output_tokens) == (0, 0)


def test_each_hit_says_its_kind_and_why_it_was_trusted() -> None:
    run = Run()
    step = run.step("answer", usd(900, 900))
    found = {"kind": "retrieval", "because": "exact"}
    alike = {"kind": "answer", "because": "semantic", "similarity": 0.91234, "entries": 12}
    for saved, told in ((9_000, found), (83_000, alike)):
        run.call(step, ZERO).settle(detail={"cached": True, "saved_usd_nano": saved, "cache": told})
    run.end(step, seconds=0.1)
    statement = run.statement()
    assert [(hit.kind, hit.because, hit.saved_usd_nano) for hit in statement.reused] == [
        ("retrieval", "exact", 9_000),
        ("answer", "semantic", 83_000),
    ]
    assert statement.reused[1].facts == {"similarity": 0.91234, "entries": 12}
    assert statement.totals.saved_usd_nano == 92_000
    text = statement.text()
    assert "2 hits saved $0.000092 (1 retrieval, 1 answer)" in text
    assert f"Trusted    {SMALL}: semantic, similarity 0.912, entries 12" in text
    assert json.loads(json.dumps(statement.to_dict()))["reused"][1]["because"] == "semantic"


def test_a_search_that_the_cache_knew_is_cached() -> None:
    run = Run()
    meta = {"kind": "retrieval", "source": "handbook"}
    search = run.ledger.reserve("r1/retrieve", ZERO, accounts=["run/r1"], meta=meta)
    search.settle(detail={"cached": True, "saved_usd_nano": 9, "cache": {"kind": "retrieval", "because": "exact"}})
    (line,) = run.statement().lines
    assert (line.status, line.cache_hits, line.saved_usd_nano) == ("cached", 1, 9)


def test_a_replayed_call_is_not_a_cache_hit() -> None:
    run = Run()
    step = run.step("plan", usd(900, 900))
    run.call(step, ZERO).settle(
        detail={"cached": True, "replayed": True, "saved_usd_nano": 9, "usage": Usage(400, 80).to_dict()}
    )
    run.end(step, seconds=0.1)
    first = run.statement().lines[0]
    assert (first.status, first.replayed, first.cache_hits, first.input_tokens) == ("replayed", 1, 0, 0)
    assert first.saved_usd_nano == 0
    assert "1 call replayed, not paid twice" in run.statement().text()


def test_cached_answers_that_were_not_accepted_are_unaccepted() -> None:
    run = Run()
    step = run.step("answer", usd(900, 900))
    run.hit(step, saved_usd_nano=9)
    run.end(step, seconds=0.1, status="unaccepted")
    first = run.statement().lines[0]
    assert (first.status, first.cache_hits, first.saved_usd_nano) == ("unaccepted", 1, 9)


def test_a_call_that_was_not_billed_used_no_tokens() -> None:
    run = Run()
    step = run.step("plan", usd(900, 900))
    limited = run.call(step, usd(900, 900))
    limited.mark_sent()
    limited.settle(ZERO, detail={"error": "RateLimited: slow down", "finish": "error"})
    run.end(step, seconds=0.1, status="failed", error="RateLimited: slow down")
    first = run.statement().lines[0]
    assert (first.input_tokens, first.output_tokens, first.settled) == (0, 0, ZERO)


def test_a_step_whose_answer_was_not_accepted_says_so() -> None:
    run = Run()
    step = run.step("answer", usd(900, 900))
    run.answer(run.call(step, usd(900, 900)), usd(400, 400), seconds=1)
    run.end(step, seconds=1, status="unaccepted", escalated=True)
    assert "unaccepted" in run.statement().text()


def test_a_step_shows_what_it_is_about() -> None:
    run = Run()
    run.end(run.step("answer", usd(900, 900), about="What is the window?"), seconds=1)
    run.end(run.step("triage", usd(900, 900)), seconds=1)
    statement = run.statement()
    assert [line.about for line in statement.lines] == ["What is the window?", None]
    assert "Asked      answer: What is the window?" in statement.text()
    assert statement.to_dict()["lines"][0]["about"] == "What is the window?"


def test_a_rejected_answer_says_why(full: Statement) -> None:
    reason = "verify: its quote does not stand in the passages"
    assert line(full, "answer").rejected == (Rejection(SMALL, reason),)
    shown = f"answer of {SMALL}: {reason}"
    assert f"Rejected   {shown}" in full.text()
    page = full._repr_html_()  # pyright: ignore[reportPrivateUsage] - the name that IPython looks for
    assert f'<th scope="row">Rejected</th><td>{shown}</td>' in page
    told = next(row for row in full.to_dict()["lines"] if row["skill"] == "answer")
    assert told["rejected"] == [{"model": SMALL, "reason": reason}]


def test_of_many_rejections_the_first_are_shown_and_the_others_counted() -> None:
    run = Run()
    for number in range(9):
        step = run.step("answer", usd(900, 900))
        run.end(step, seconds=1, rejected=[{"model": SMALL, "reason": f"reason {number}"}])
    text = run.statement().text()
    assert "reason 5" in text
    assert "reason 6" not in text
    assert "Rejected   3 more" in text


def test_rejections_that_another_version_wrote_are_read_as_far_as_they_say_why() -> None:
    run = Run()
    run.end(run.step("answer", usd(900, 900)), seconds=1, rejected=["strange", {"model": 7}, {"reason": "too long"}])
    assert run.statement().lines[0].rejected == (Rejection(None, "too long"),)


def test_a_presumed_call_is_booked_as_held_and_its_tokens_are_unknown(full: Statement) -> None:
    extract = line(full, "extract")
    assert (extract.status, extract.presumed, extract.settled) == ("failed", usd(900_000, 900), usd(900_000, 900))
    assert (extract.input_tokens, extract.output_tokens) == (None, None)
    assert full.totals.presumed == usd(900_000, 900)


def test_a_presumption_that_was_corrected_is_gone_from_the_statement() -> None:
    run = Run()
    step = run.step("answer", usd(900, 900))
    lost = run.call(step, usd(900, 900))
    lost.mark_sent()
    lost.presume()
    run.end(step, seconds=1)
    assert run.statement().totals.presumed == usd(900, 900)
    run.ledger.settle(lost.id, usd(400, 300), detail={"usage": Usage(200, 100).to_dict()})
    statement = run.statement()
    assert (statement.totals.presumed, statement.totals.settled) == (ZERO, usd(400, 300))
    assert statement.lines[0].input_tokens == 200


def test_an_overrun_is_counted_once(full: Statement) -> None:
    assert line(full, "summarise").status == "overrun"
    assert full.totals.overrun == usd(30_000, 50, 0)


def test_a_step_within_a_step_is_part_of_it_and_counted_once(full: Statement) -> None:
    outer, inner = line(full, "research"), line(full, "verify")
    assert (outer.depth, inner.depth) == (0, 1)
    assert full.lines.index(inner) == full.lines.index(outer) + 1
    assert (outer.settled, inner.settled) == (usd(129_000, 852, 2), usd(52_000, 340))
    assert (outer.own, inner.own) == (usd(77_000, 512), usd(52_000, 340))
    assert outer.input_tokens == 272 + 410


def test_open_and_voided_steps_are_shown_as_such(full: Statement) -> None:
    opened, voided = line(full, "translate"), line(full, "triage")
    assert (opened.status, opened.settled, opened.own, opened.seconds) == ("open", None, usd(20_000, 100), None)
    assert (voided.status, voided.settled) == ("voided", ZERO)


def test_landing_fuel_stands_where_it_was_used_not_where_it_was_held(full: Statement) -> None:
    skills = [line.skill for line in full.lines]
    assert skills.index("synthesise") > skills.index("summarise")


def test_what_a_crash_left_is_shown_and_unknown_is_not_zero() -> None:
    run = Run()
    step = run.step("answer", usd(900, 900))
    run.call(step, usd(500, 500)).mark_sent()
    run.clock.advance(120)
    run.ledger.sweep()
    crashed = run.statement().lines[0]
    assert (crashed.status, crashed.presumed, crashed.settled) == ("lapsed", usd(500, 500), usd(500, 500))
    assert (crashed.seconds, crashed.input_tokens) == (None, None)


def test_holds_without_details_are_shown_as_unknown() -> None:
    run = Run()
    run.ledger.reserve("r1/x", usd(10, 10), accounts=["run/r1"], meta={"kind": "step", "estimated": "?", "skill": 7})
    run.ledger.settle("r1/x", usd(5, 5), detail={"seconds": "soon", "escalated": None})
    run.ledger.reserve("r1/y", usd(10, 10), accounts=["run/r1"]).settle(usd(1, 1))
    first, second = run.statement().lines
    assert (first.skill, first.status, first.estimated.usd_nano, first.seconds) == ("step", "unknown", None, None)
    assert second.skill == "r1/y"
    assert "–" in run.statement().text()


def test_a_retrieval_is_part_of_its_step_and_stands_alone_without_one() -> None:
    run = Run()
    step = run.step("answer", usd(900, 900))
    meta = {"kind": "retrieval", "source": "/data/indexes/handbook/", "price": PRICE}
    run.ledger.reserve("r1/s/q", usd(9, 0, 0), within=step.id, meta=meta).settle(usd(7, 0, 0))
    run.end(step, seconds=1)
    run.ledger.reserve("r1/q", usd(9, 0, 0), accounts=["run/r1"], meta=meta).settle(usd(8, 0, 0))
    assert [(line.skill, line.own.usd_nano) for line in run.statement().lines] == [
        ("answer", 7),
        ("retrieval handbook", 8),
    ]


def test_what_is_no_step_and_broke_off_is_not_ok() -> None:
    run = Run()
    index = {"kind": "index", "source": "handbook"}
    for number, error in enumerate(("CancelledError", "DocumentsError")):
        hold = run.ledger.reserve(f"r1/index.{number}", usd(9, 0, 0), accounts=["run/r1"], meta=index)
        hold.settle(ZERO, detail={"embedded": 0, "error": error})
    call = run.ledger.reserve("r1/1", usd(9, 9), accounts=["run/r1"], meta={"kind": "call", "skill": "langchain"})
    call.settle(ZERO, detail={"error": "AuthenticationFailed: refused", "finish": "error"})
    assert [line.status for line in run.statement().lines] == ["cancelled", "failed", "failed"]


def test_other_runs_are_left_out() -> None:
    run = Run()
    run.ledger.account("run/r10")
    run.ledger.reserve("r10/1", usd(7), accounts=["run/r10"], meta={"kind": "step", "skill": "other"}).settle(usd(7))
    plan(run)
    assert [line.skill for line in run.statement().lines] == ["plan"]


def test_burn_rate_is_over_wall_time() -> None:
    run = Run()
    step = run.step("answer", usd(900_000, 900))
    run.answer(run.call(step, usd(900_000, 900)), usd(300_000, 500), seconds=30)
    run.end(step, seconds=30)
    statement = run.statement()
    assert statement.seconds == 30
    assert statement.totals.usd_per_minute == Decimal("0.0006")
    assert statement.totals.tokens_per_minute == 1_000


def test_a_clock_that_is_put_back_makes_no_time_negative() -> None:
    run = Run()
    step = run.step("answer", usd(900_000, 900))
    run.answer(run.call(step, usd(900_000, 900)), usd(300_000, 500), seconds=-60)
    run.end(step, seconds=0.5)
    statement = run.statement()
    assert statement.seconds == 60
    assert [point.at_ns for point in statement.curve] == [0, 0]
    assert statement.totals.tokens_per_minute == 500


def test_what_remains_is_the_account_s(full: Statement) -> None:
    assert full.remaining == Budget(usd=Decimal("0.046594288"), tokens=13_818)


def test_of_many_steps_the_dearest_are_drawn_in_their_order() -> None:
    run = Run()
    for number in range(30):
        step = run.step(f"s{number:02}", usd(1_000 + number % 2, 0))
        run.end(step, seconds=0.1)
    drawn = step_chart(run.statement())
    assert "(the 24 dearest)" in drawn
    names = [part[:3] for part in drawn.split('fill="currentColor">')[1:] if part.startswith("s") and part[1].isdigit()]
    assert names == [f"s{number:02}" for number in range(30) if number % 2 or number < 18]


def test_an_unknown_run_is_an_error() -> None:
    with pytest.raises(UnknownRun, match="no run 'nope'"):
        Statement.of(Ledger.open("memory:"), "nope")


def test_a_run_that_has_not_begun_has_an_empty_statement() -> None:
    statement = Run().statement()
    assert (statement.lines, statement.totals.settled, statement.totals.usd_per_minute) == ((), ZERO, None)
    assert "$0.05 · 20,000 tokens" in statement.text()
    assert "<svg" not in statement._repr_html_()  # pyright: ignore[reportPrivateUsage] - the name that IPython looks for


# --- the models


def test_the_ladder_is_named_with_its_prices(full: Statement) -> None:
    assert [(model.tier, model.model, model.price) for model in full.ladder] == [
        ("local", SMALL, PRICE),
        ("frontier", LARGE, PRICE),
    ]


def test_without_a_ladder_the_models_that_were_asked_are_named() -> None:
    run = Run()
    escalation(run)
    ladder = Statement.of(run.ledger, "r1").ladder
    assert [(model.tier, model.model) for model in ladder] == [("local", SMALL), ("rung 1", LARGE)]


def test_models_are_shortened_as_far_as_they_stay_apart() -> None:
    assert short_names([SMALL, "anthropic:claude-sonnet-4-5-20250929", "openai:gpt-5-mini"]) == {
        SMALL: "0.5b",
        "anthropic:claude-sonnet-4-5-20250929": "sonnet-4-5",
        "openai:gpt-5-mini": "gpt-5-mini",
    }
    assert short_names([SMALL, "llamacpp:smollm2-0.5b"]) == {
        SMALL: "qwen2.5-coder-0.5b",
        "llamacpp:smollm2-0.5b": "smollm2-0.5b",
    }
    here, there = "vllm:Qwen/Qwen3@http://localhost:8000/v1", "vllm:Qwen/Qwen3@http://far.example/v1"
    assert short_names([here, "openai:gpt-5-mini"]) == {here: "Qwen3", "openai:gpt-5-mini": "gpt-5-mini"}
    assert short_names([here, there]) == {here: here, there: there}
    assert short_names(["openai:x-7b", "vllm:x-7b"]) == {"openai:x-7b": "openai:x-7b", "vllm:x-7b": "vllm:x-7b"}


# --- how it is shown


@pytest.mark.parametrize("width", [60, 72, 80, 100, 140])
def test_the_text_fits_its_width(full: Statement, width: int) -> None:
    assert max(cell_len(row) for row in full.text(width).splitlines()) <= width


def test_the_text_says_it_all_at_100_columns(full: Statement) -> None:
    text = full.text()
    for word in ("Estimated", "Held", "Settled", "In", "Out", "Cached", "Seconds", "Status", "↳ verify", "0.5b → 1.5b"):
        assert word in text
    assert "≈0.000900" in text
    assert "Overrun    $0.00003 · 50 tokens above what was held, booked in full" in text
    assert "1 hit saved $0.00008341" in text
    assert "Frontier   llamacpp:qwen2.5-coder-1.5b · 0.10 USD/h" in text
    assert str(full) == text


def test_hostile_text_neither_steers_the_terminal_nor_enters_the_page() -> None:
    run = Run()
    step = run.step(HOSTILE, usd(900, 900))
    run.answer(run.call(step, usd(900, 900), model=HOSTILE), usd(400, 400), seconds=1)
    run.end(step, seconds=1, status="failed", error=HOSTILE)
    statement = Statement.of(run.ledger, "r1", task=HOSTILE, user=HOSTILE, ladder=(HOSTILE,), status=HOSTILE)
    text, page = statement.text(), statement._repr_html_()  # pyright: ignore[reportPrivateUsage] - IPython's name
    assert "\x1b" not in text + page
    assert "\u202e" not in text + page
    assert "[bold]" in text
    assert "<script" not in page
    assert "&lt;script&gt;" in page


def test_the_page_is_self_contained_and_well_formed(full: Statement) -> None:
    class Balance(HTMLParser):
        def __init__(self) -> None:
            super().__init__()
            self.open: list[str] = []

        def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
            self.open.append(tag)

        def handle_endtag(self, tag: str) -> None:
            assert self.open.pop() == tag

    page = full._repr_html_()  # pyright: ignore[reportPrivateUsage] - the name that IPython looks for
    parser = Balance()
    parser.feed(page)
    assert parser.open == []
    assert page.count("<svg") == 2
    assert "src=" not in page
    assert "6 % of $0.05" in page


def test_the_budget_is_drawn_where_it_is_near() -> None:
    run = Run(budget=Budget(usd="0.0005"))
    step = run.step("plan", usd(500_000, 500))
    run.answer(run.call(step, usd(500_000, 500)), usd(300_000, 500), seconds=3)
    run.end(step, seconds=3)
    assert "budget $0.0005" in run.statement()._repr_html_()  # pyright: ignore[reportPrivateUsage] - IPython's name


def test_the_curve_ends_at_what_was_booked(full: Statement) -> None:
    booked = [point.booked.usd_nano for point in full.curve]
    assert booked == sorted(booked)
    assert full.curve[-1].booked == full.totals.settled


def test_the_picture_is_an_svg(full: Statement) -> None:
    picture = full.to_svg()
    assert picture.startswith("<svg")
    assert "synthesise" in picture


def test_the_dictionary_is_json_with_exact_amounts(full: Statement) -> None:
    data = full.to_dict()
    assert json.loads(json.dumps(data)) == data
    assert data["budget"] == {"usd": "0.05", "usd_nano": 50_000_000, "tokens": 20_000, "calls": None}
    assert data["totals"]["settled"] == {"usd": "0.002825712", "usd_nano": 2_825_712, "tokens": 5_782, "calls": 9}
    first = next(row for row in data["lines"] if row["skill"] == "answer")
    assert (first["model"], first["models"], first["escalated"]) == ("0.5b → 1.5b", [SMALL, LARGE], True)
    opened = next(row for row in data["lines"] if row["skill"] == "translate")
    assert opened["settled"] is None


def test_the_frame_has_a_row_a_line(full: Statement) -> None:
    pytest.importorskip("pandas", reason="needs the extra notebook")
    rows = json.loads(full.to_frame().to_json(orient="records") or "[]")
    assert [row["skill"] for row in rows] == [line.skill for line in full.lines]
    assert sum(row["own_usd"] for row in rows) == pytest.approx(0.002825712)
    assert next(row for row in rows if row["skill"] == "translate")["settled_usd"] is None
    assert rows[3]["settled_usd"] == 0


def fact(statement: Statement, name: str) -> str:
    return next(value for known, value in words.facts(statement) if known == name)


def test_what_was_spent_names_the_tokens_that_were_embedded_here(full: Statement) -> None:
    assert " · 640 tokens embedded here" in fact(full, "Spent")


def test_answers_that_stopped_at_their_cap_are_told_with_what_that_costs() -> None:
    run = Run()
    step = run.step("answer", usd(3_000_000, 4_000, 4))
    for finish in ("stop", "length", "length"):
        run.answer(run.call(step, usd(600_000, 900)), usd(83_412, 700), seconds=2.5, finish=finish)
    again = run.call(step, usd(600_000, 900), purpose="retry")
    run.answer(again, usd(83_412, 700), seconds=2.5, finish="length")
    run.end(step, seconds=8.2)
    assert line(run.statement(), "answer").cut == 2
    assert fact(run.statement(), "Cut").startswith(
        "answer: 2 answers stopped at the cap. No cache gives such an answer"
    )


def test_nothing_is_said_of_cuts_where_there_were_none(full: Statement) -> None:
    assert "Cut" not in dict(words.facts(full))
