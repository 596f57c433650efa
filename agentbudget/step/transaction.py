"""A step: one skill call as one transaction — estimate, reserve, run, verify, settle."""

from __future__ import annotations

import asyncio
import itertools
import json
import logging
import time
from collections.abc import Mapping
from dataclasses import replace
from functools import cached_property
from typing import TYPE_CHECKING, Any

from agentbudget import telemetry
from agentbudget.errors import ModelError, SkillError
from agentbudget.ledger import Hold
from agentbudget.money import ZERO, Amount
from agentbudget.settling import settled
from agentbudget.skills import Skill
from agentbudget.step.climb import climb, request_of
from agentbudget.step.engine import Event, Phase, nobody
from agentbudget.step.funds import Funds, reserve_step
from agentbudget.step.guarding import open_rungs, open_ways
from agentbudget.step.identity import digest, stable
from agentbudget.step.sizing import capped, checks_bound, size_body, size_call
from agentbudget.step.starts import ANSWERED, BEGAN

if TYPE_CHECKING:
    from agentbudget.estimate import CallEstimate
    from agentbudget.models.base import Model, Request
    from agentbudget.privacy import DataClass
    from agentbudget.step.context import Context
    from agentbudget.step.guarding import Sorted, Way
    from agentbudget.step.streams import ReplyStream

_encode = json.JSONEncoder(sort_keys=True).encode
_log = logging.getLogger(__name__)


class Step:
    """One transaction. Its hold covers the draft, the checks and the escalation before the draft is tried."""

    def __init__(
        self, ctx: Context, skill: Skill[Any, Any], arguments: Mapping[str, Any], *, key: str | None = None
    ) -> None:
        self.skill = skill
        self.arguments = arguments
        self.engine = ctx.engine
        self.scope = ctx.scope
        self.parent = ctx.step
        self.outer = ctx
        self.context = replace(ctx, step=self, ticket=None, subject=None)
        self.sample = key
        self.base = self._identity(key)
        self.escalated = False
        self.accepted = True
        self.began: str | None = None
        """The model that it began with, where its skill leaves that to us."""
        self.saved_usd_nano = 0
        self.took: dict[str, int] = {}
        """What each answer has taken so far, its tries that led to none included: nano-dollars by its own key."""
        self.rejected: list[dict[str, str]] = []
        self.refused: set[str] = set()
        self.streams: list[ReplyStream] = []
        self.estimates: dict[str, CallEstimate] = {}
        self.known_ways: tuple[Request, DataClass, Sorted] | None = None
        self._numbers = itertools.count(1)
        self._funds: Funds | None = None

    def _identity(self, key: str | None) -> str:
        """Stable over a resume: where in the graph, which skill, which arguments."""
        told = _encode([stable(self.arguments), key])
        place = self.parent.base if self.parent else self.engine.place(self.scope.run_id)
        return f"{place}/{self.skill.name}.{digest(told)}"

    @property
    def above(self) -> tuple[Step, ...]:
        """The steps that this one is a part of, the nearest first."""
        return () if self.parent is None else (self.parent, *self.parent.above)

    @property
    def funds(self) -> Funds:
        """The money that the step may spend. It exists from `run` on."""
        if self._funds is None:
            raise SkillError(f"step {self.base} has not begun")
        return self._funds

    @property
    def _weighs_on(self) -> tuple[str, ...]:
        record = self.hold.record
        return record.accounts if record.parent is None else (f"hold:{record.parent}",)

    @property
    def hold(self) -> Hold:
        """The step's hold."""
        return self.funds.hold

    def next_call_id(self) -> str:
        """The id of the step's next hold for a model call."""
        return f"{self.hold.id}/{next(self._numbers)}"

    def reject(self, model: Model, reason: str) -> None:
        """Note for the statement that there is no answer of a model, or none that is good enough."""
        self.rejected.append({"model": model.name, "reason": reason})

    def climbed_to(self, model: Model) -> None:
        """Note that a stronger model is asked."""
        self.escalated = True
        self.tell("escalated", model=model.name)

    async def run(self) -> Any:
        """Estimate, reserve, carry out, settle."""
        ladder = self.engine.ladder
        with telemetry.step(self.skill.name, run_id=self.scope.run_id, step_id=self.base, tier=self.skill.tier) as span:
            expected, bound = await self._estimate()
            above = self.parent.funds if self.parent else None
            began = time.perf_counter()
            self._funds = Funds(self.engine.ledger, self._reserve(expected, bound), self.skill, above)
            started = time.perf_counter()
            status, error = "failed", None
            try:  # from here on whatever fails, be it a processor of spans: what is held is settled
                span.reserved(self._funds.id, estimated=expected, accounts=self._weighs_on, took_s=started - began)
                self.context.saw(self.context.carries)
                self.tell("started", model=ladder.at(self.skill.tier).name)  # a listener that fails is only logged
                value = await self._carry_out()
                status = "ok" if self.accepted else "unaccepted"
                return value
            except asyncio.CancelledError:
                status = "cancelled"
                raise
            except Exception as caught:
                error = f"{type(caught).__name__}: {caught}"
                raise
            finally:
                await self._close_streams()
                self._settle(span, status, error, time.perf_counter() - started)
                span.finished(status=status, escalated=self.escalated)
                # Its own context leads back to it: let go of, both are freed at once, not when cycles are looked for.
                self.context = self.outer

    async def _carry_out(self) -> Any:
        if self.skill.has_body:
            result = self.skill.function(self.context, **self.arguments)
            return await result
        return (await climb(self, self._request, self.skill.output, self.skill.accept)).value

    @cached_property
    def _request(self) -> Request:
        """What a skill without a body asks."""
        return request_of(self.skill, self.skill.messages(self.arguments), self.skill.output, fixed=1)

    async def _close_streams(self) -> None:
        """End what the skill left open of its streams: they are paid for within this step."""
        try:
            for stream in self.streams:
                await stream.aclose()
        except Exception:  # noqa: BLE001 # what a stream did not settle itself is presumed spent when the step settles
            _log.exception("a stream of step %s could not be closed", self.hold.id)

    async def _estimate(self) -> tuple[Amount, Amount]:
        """What the step should cost, and the most: a call on each rung that it may climb, checks included."""
        expected, bound = ZERO, ZERO
        for number, (call, likely) in enumerate(await self._sized()):
            checks = checks_bound(self.engine, self.skill)
            bound = bound + call + checks
            if number == 0:
                expected = likely + checks
        if self.skill.budget is not None:
            bound = capped(bound, self.skill.budget)
        return expected, bound

    async def _sized(self) -> list[tuple[Amount, Amount]]:
        """A call on each rung that the step may climb: the most, and what it should cost.

        One that rests, or whose server cannot even count, is left out while another is there: see `climb`.
        """
        if self.skill.has_body:
            sizes = (size_body(self.engine, self.skill, model) for model in open_rungs(self))
            return [(size, size) for size in sizes]
        found: list[tuple[Amount, Amount]] = []
        absent: ModelError | None = None
        ways = open_ways(self, self._request)
        for way in ways:
            if way is not ways[-1] and not self.engine.outages.attempts(way.model.name):
                continue
            try:
                found.append(await self._sized_way(way))
            except ModelError as error:
                if not error.retryable:
                    raise
                absent = error
        if absent is not None and not found:
            raise absent
        return found

    async def _sized_way(self, way: Way) -> tuple[Amount, Amount]:
        estimate = await size_call(self.engine, self.skill, way.model, way.request)
        self.estimates[way.model.name] = estimate
        return estimate.bound, estimate.expected

    def _reserve(self, expected: Amount, bound: Amount) -> Hold:
        ticket = self.outer.ticket
        if ticket is not None:
            ticket = self.engine.tickets.get(ticket, ticket)
            record = self.engine.ledger.hold(ticket)
            if record is not None and self.engine.can_land(ticket):
                self.engine.used_tickets.add(ticket)
                return Hold(self.engine.ledger, record)
        return reserve_step(self.outer, self.skill, self.base, bound, expected=expected)

    def _settle(self, span: telemetry.StepSpan, status: str, error: str | None, seconds: float) -> None:
        detail: dict[str, Any] = {
            "status": status,
            "escalated": self.escalated,
            "rejected": self.rejected,
            "seconds": round(seconds, 4),
            "error": error,
        }
        if self.began is not None:
            usd_nano = self.hold.refresh().spent.usd_nano + self.saved_usd_nano
            detail[BEGAN] = {"model": self.began, "usd_nano": usd_nano}
            if status in ANSWERED:
                self.engine.starts.ended(self.skill.name, self.began, usd_nano)
        record = settled(self.hold, ZERO, detail, span=span)
        if span.is_heard:
            span.balance(self.engine.ledger.glance(f"run/{self.scope.run_id}"), elapsed_s=self.scope.age_s)
        self.tell("settled" if status in ANSWERED else "failed", settled=record.settled or ZERO)

    def tell(self, phase: Phase, *, model: str = "", settled: Amount = ZERO) -> None:
        """Let the run's listener hear of what happens in this step."""
        if self.outer.listener is nobody:
            return
        event = Event(phase, self.skill.name, self.hold.id, model, settled)
        try:
            self.outer.listener(event)
        except Exception:  # noqa: BLE001 # whatever a listener does, the books are not its affair
            _log.exception("a listener failed at %s; the run goes on", event)
