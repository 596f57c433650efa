"""Play an hour of a real service's requests against a budget: `python -m evals.estimates.replay --data DIR`.

The log has the moment, the input and the output of each request. Each is reserved on one account that is limited per
minute, by each policy of holds in turn, in a ledger in memory whose clock is the log's; it streams its tokens at an
even pace, and is settled when its last one came. The estimator learns as it would in service: from what has ended.
"""

from __future__ import annotations

import argparse
import asyncio
import heapq
import itertools
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Final, Literal

from agentbudget.errors import AgentBudgetError, BudgetExceeded
from agentbudget.estimate import CallEstimate, Estimator
from agentbudget.evals.tasks import find_data
from agentbudget.ledger import Hold, Ledger
from agentbudget.models.base import Message, Price, Request
from agentbudget.money import Amount, Budget, nano_to_usd
from agentbudget.prices import TokenPrice
from agentbudget.testing import ManualClock, ScriptedModel
from agentbudget.usage import Usage
from evals.estimates.data import Arrival, arrivals

Policy = Literal["worst case", "fixed", "quantile + extend"]

POLICIES: Final[tuple[Policy, ...]] = ("worst case", "fixed", "quantile + extend")

CAP: Final = 2_000
"""The most that an answer may have: what an application writes that has seen answers of 1,000 tokens."""

FIXED: Final = 500
"""What the fixed policy holds, and caps at."""

START_S: Final = 0.5
TOKENS_PER_S: Final = 50.0
WINDOW_S: Final = 60
NS: Final = 10**9


@dataclass(slots=True)
class Tally:
    """What came of all requests under one policy; seconds are those in which money stood still or was at work."""

    policy: Policy
    done: int = 0
    cut: int = 0
    cut_by_mistake: int = 0
    refused: int = 0
    refused_by_mistake: int = 0
    extended: int = 0
    overrun: int = 0
    settled_nano: int = 0
    most_above_limit_nano: int = 0
    idle_nano_s: float = 0.0
    at_work_nano_s: float = 0.0


@dataclass(slots=True)
class Call:
    """One request on its way. ``covered`` are the output tokens that its hold covers."""

    arrival: Arrival
    estimate: CallEstimate
    hold: Hold
    covered: int
    held: list[tuple[float, int]] = field(default_factory=list[tuple[float, int]])

    @property
    def wanted(self) -> int:
        """The tokens that its answer has if nothing cuts it."""
        return min(self.arrival.output_tokens, self.estimate.output_cap)


def main() -> None:
    """Read, replay under each policy, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", help="the folder of evaluation data (or AGENTBUDGET_DATA)")
    parser.add_argument("--level", type=float, default=0.9, help="of the quantile that is held [0.9]")
    parser.add_argument("--limits", default="1.25,2,4", help="dollars a minute, as multiples of the mean [1.25,2,4]")
    parser.add_argument("--first", type=int, help="only so many requests")
    given = parser.parse_args()
    log = arrivals(find_data(given.data))[: given.first]
    for times in map(float, given.limits.split(",")):
        replays = [Replay(log, policy, level=given.level, times=times) for policy in POLICIES]
        for replay in replays:
            asyncio.run(replay.run())
        print("\n".join(table(replays, times=times)), flush=True)


class Replay:
    """The log under one policy and one limit."""

    def __init__(self, log: Sequence[Arrival], policy: Policy, *, level: float, times: float) -> None:
        self.log = log
        self.level = level
        self.tally = Tally(policy)
        self.model = ScriptedModel([], name="scripted:gpt-4o", price=_price(), context_window=2**20)
        self.clock = ManualClock(0)
        self.ledger = Ledger.open("memory:", clock=self.clock)
        self.estimator = Estimator(self.ledger)
        spent = sum(_cost(self.model.price, arrival.input_tokens, arrival.output_tokens) for arrival in log)
        minutes = max(1.0, (log[-1].at_s - log[0].at_s) / WINDOW_S)
        self.limit_nano = round(times * spent / minutes)
        budget = Budget(usd=nano_to_usd(self.limit_nano))
        self.ledger.account("service", windows={f"{WINDOW_S}s": budget})
        self._needed: list[tuple[float, int]] = []

    async def run(self) -> None:
        """Arrivals, moments at which a hold is used up, and ends, in the order of time."""
        order = itertools.count()
        events: list[tuple[float, int, Arrival | Call]] = [(a.at_s, next(order), a) for a in self.log]
        heapq.heapify(events)
        while events:
            at_s, _, what = heapq.heappop(events)
            self.clock.now_ns = round(at_s * NS)
            call = await self._arrives(what, at_s) if isinstance(what, Arrival) else self._goes_on(what, at_s)
            if call is not None:
                next_s = START_S + min(call.covered, call.wanted) / TOKENS_PER_S
                heapq.heappush(events, (call.arrival.at_s + next_s, next(order), call))

    async def _arrives(self, arrival: Arrival, at_s: float) -> Call | None:
        request = Request((Message("user", "word " * (arrival.input_tokens - 1)),), CAP)
        estimate = await self._estimate(request)
        try:
            hold = self.ledger.reserve(
                f"{arrival.at_s}-{len(self._needed)}-{self.tally.refused}", estimate.hold, accounts=["service"]
            )
        except BudgetExceeded:
            self.tally.refused += 1
            self.tally.refused_by_mistake += self._fits(arrival, at_s)
            return None
        self._needed.append((at_s, _cost(self.model.price, arrival.input_tokens, arrival.output_tokens)))
        hold.mark_sent()
        return Call(arrival, estimate, hold, estimate.hold_tokens, [(at_s, estimate.hold.usd_nano)])

    async def _estimate(self, request: Request) -> CallEstimate:
        match self.tally.policy:
            case "worst case":
                return await self.estimator.call("chat", self.model, request, trust_history=False)
            case "fixed":
                capped = Request(request.messages, FIXED)
                return await self.estimator.call("chat", self.model, capped, trust_history=False)
            case "quantile + extend":
                return await self.estimator.call("chat", self.model, request, level=self.level, grows=True)

    def _goes_on(self, call: Call, at_s: float) -> Call | None:
        """Its hold is used up, or its answer is whole: grow by a half, or end."""
        if call.covered < call.wanted:
            covered = min(call.estimate.output_cap, call.covered + call.covered // 2 + 16)
            to = Amount(_cost(self.model.price, call.arrival.input_tokens, covered), 0, 1)
            try:
                call.hold.extend(Amount(to.usd_nano, call.hold.amount.tokens, 1))
            except BudgetExceeded:
                self.tally.cut_by_mistake += self._room(at_s) >= 0
                self._ends(call, at_s, call.covered, "cut")
                return None
            self.tally.extended += 1
            call.covered = covered
            call.held.append((at_s, to.usd_nano))
            return call
        used = min(call.arrival.output_tokens, call.estimate.output_cap)
        self._ends(call, at_s, used, "stop" if used == call.arrival.output_tokens else "length")
        return None

    def _ends(self, call: Call, at_s: float, output_tokens: int, finish: Literal["stop", "length", "cut"]) -> None:
        tally, usage = self.tally, Usage(call.arrival.input_tokens, output_tokens)
        cost = self.model.price.cost(usage)
        record = call.hold.settle(Amount(cost, usage.total_tokens, 1))
        self.estimator.learn("chat", self.model, usage, finish, estimate=call.estimate)
        tally.done += finish == "stop"
        tally.cut += finish != "stop"
        tally.overrun += bool(record.overrun.usd_nano)
        tally.settled_nano += cost
        for (since, held), (until, _) in itertools.pairwise([*call.held, (at_s, 0)]):
            tally.idle_nano_s += max(0, held - cost) * (until - since)
            tally.at_work_nano_s += min(held, cost) * (until - since)
        (window,) = self.ledger.windows("service")
        tally.most_above_limit_nano = max(tally.most_above_limit_nano, window.posted.usd_nano - self.limit_nano)

    def _fits(self, arrival: Arrival, at_s: float) -> bool:
        """Whether a request would have fitted if what all of them come to had been known."""
        return self._room(at_s) >= _cost(self.model.price, arrival.input_tokens, arrival.output_tokens)

    def _room(self, at_s: float) -> int:
        """What is left of the limit beside the true costs of what was let in within the window."""
        recent = itertools.takewhile(lambda each: each[0] > at_s - WINDOW_S, reversed(self._needed))
        return self.limit_nano - sum(cost for _, cost in recent)


def _price() -> Price:
    return TokenPrice.custom(input_usd_per_mtok="2.50", output_usd_per_mtok="10")


def _cost(price: Price, input_tokens: int, output_tokens: int) -> int:
    return price.cost(Usage(input_tokens, output_tokens))


def table(replays: Sequence[Replay], *, times: float) -> Iterator[str]:
    """The policies beside each other, as Markdown."""
    limit = nano_to_usd(replays[0].limit_nano)
    yield f"\n### {times:g} times the mean: {limit:.2f} USD a minute, {len(replays[0].log):,} requests\n"
    titles = (
        "whole",
        "refused",
        "by mistake",
        "cut",
        "by mistake",
        "extended",
        "idle ÷ at work",
        "overruns",
        "above limit",
    )
    yield f"| holds | {' | '.join(titles)} |"
    yield f"| --- |{' --: |' * len(titles)}"
    for tally in (replay.tally for replay in replays):
        cells = (
            f"{tally.done:,}",
            f"{tally.refused:,}",
            f"{tally.refused_by_mistake:,}",
            f"{tally.cut:,}",
            f"{tally.cut_by_mistake:,}",
            f"{tally.extended:,}",
            f"{tally.idle_nano_s / max(1.0, tally.at_work_nano_s):.2f}",
            f"{tally.overrun:,}",
            f"{nano_to_usd(max(0, tally.most_above_limit_nano)):.2f} USD",
        )
        yield f"| {tally.policy} | {' | '.join(cells)} |"


if __name__ == "__main__":
    try:
        main()
    except AgentBudgetError as error:
        sys.exit(str(error))
