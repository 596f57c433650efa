"""The statement of a run made by hand, over a real ledger: whatever happened, it is shown and adds up."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from decimal import Decimal

import pytest

from agentbudget.errors import UnknownRun
from agentbudget.ledger import Hold, Ledger
from agentbudget.ledger.memory import MemoryStore
from agentbudget.money import ZERO, Amount, Budget
from agentbudget.statement import Line, Statement
from agentbudget.statement.fold import short_names
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
        self.ledger = Ledger(MemoryStore(), clock=self.clock)
        self.ledger.account(f"run/{self.id}", limit=self.budget)

    def step(self, skill: str, held: Amount, *, tier: str = "local", within: Hold | None = None) -> Hold:
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

    def answer(self, call: Hold, cost: Amount, *, seconds: float, cached_tokens: int = 0) -> None:
        """Settle a call at `cost`, a fifth of its tokens being output."""
        call.mark_sent()
        self.clock.advance(seconds)
        output = cost.tokens // 5
        usage = Usage(cost.tokens - output, output, cached_tokens)
        call.settle(cost, detail={"usage": usage.to_dict(), "seconds": seconds, "finish": "stop", "cached": False})

    def hit(self, step: Hold, *, saved_usd_nano: int) -> None:
        self.call(step, ZERO).settle(detail={"cached": True, "saved_usd_nano": saved_usd_nano, "seconds": 0.001})

    def end(self, step: Hold, *, seconds: float, status: str = "ok", error: str | None = None, **more: bool) -> None:
        step.settle(detail={"status": status, "seconds": seconds, "error": error, "escalated": False} | more)

    def statement(self, **more: str) -> Statement:
        return Statement.of(self.ledger, self.id, ladder=(SMALL, LARGE), **more)  # pyright: ignore[reportArgumentType] - the keywords of `of` that are texts


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
    run.end(step, seconds=8.2, escalated=True)


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
