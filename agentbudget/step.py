"""A step: one skill call as one transaction — estimate, reserve, run, verify, settle."""

from __future__ import annotations

import asyncio
import hashlib
import itertools
import json
import logging
import random
import re
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict, dataclass, field, is_dataclass, replace
from typing import TYPE_CHECKING, Any, Final, Generic, Literal, TypeVar, assert_never, cast, overload

from agentbudget import telemetry
from agentbudget.cache import Answers, CachedAnswer, answer_key
from agentbudget.errors import (
    BudgetExceeded,
    HoldConflict,
    InvalidOutput,
    Mistake,
    ModelError,
    SkillError,
    StoreError,
)
from agentbudget.estimate import CallEstimate, Estimator, tag
from agentbudget.ledger import Hold, HoldRecord, Ledger, limits, require_room, units
from agentbudget.models.base import Completion, Message, Meter, Model, Price, Request
from agentbudget.models.ladder import Ladder
from agentbudget.money import ZERO, Amount, Budget
from agentbudget.route import Progress, next_move
from agentbudget.settling import answered, settle_failure, settled
from agentbudget.skills import MAX_OUTPUT_TOKENS, Accept, AnyCheck, Output, Skill, positive
from agentbudget.usage import Usage
from agentbudget.verify import Check, Verdict, judge

if TYPE_CHECKING:
    from agentbudget.context import Index, Retrieved

T = TypeVar("T")

_log = logging.getLogger(__name__)

ATTEMPTS: Final = 3
"""Billable attempts at one model call: the first, and two more after errors that may pass."""

BACKOFF_S: Final = 0.5

RETRIEVAL_CAP_NS: Final = 10 * 10**9
"""What a search may take of this machine, in nanoseconds: the hold of a retrieval."""

Purpose = Literal["draft", "retry", "escalation"]
Phase = Literal["started", "call", "cached", "escalated", "settled", "failed"]


@dataclass(frozen=True, slots=True)
class Event:
    """What a listener hears while a run goes on: for progress, never for accounting."""

    phase: Phase
    skill: str
    step_id: str
    model: str = ""
    settled: Amount = ZERO


@dataclass(frozen=True, slots=True)
class Scope:
    """Who pays: the run's account, and those of the user and the feature. ``tenant`` keeps caches apart."""

    run_id: str
    user: str | None = None
    feature: str | None = None
    tenant: str = "default"
    started_ns: int = field(default_factory=time.time_ns)

    def accounts(self, skill: str | None = None) -> tuple[str, ...]:
        """The accounts that a step of `skill` weighs on, all together."""
        named = (
            f"run/{self.run_id}",
            f"user/{self.user}" if self.user else None,
            f"feature/{self.feature}" if self.feature else None,
            f"skill/{skill}" if skill else None,
        )
        return tuple(name for name in named if name)


@dataclass(slots=True)
class Engine:
    """What steps run on: the ledger, the ladder of models, answers already paid for, the documents.

    ``documents`` names the index in statements and spans; ``machine`` prices the seconds of what is no model call.
    ``tickets`` leads from a landing ticket to the hold that stands for it since a resume.
    """

    ledger: Ledger
    ladder: Ladder
    answers: Answers
    machine: Price
    index: Index | None = None
    documents: str = "documents"
    share_answers: bool = True
    position: Callable[[], str] = lambda: ""
    tickets: dict[str, str] = field(default_factory=dict[str, str])
    used_tickets: set[str] = field(default_factory=set[str])
    estimator: Estimator = field(init=False)
    _open: set[str] = field(init=False, default_factory=set[str])

    def __post_init__(self) -> None:
        self.estimator = Estimator(self.ledger)

    def can_land(self, ticket: str) -> bool:
        """Whether a step may still spend what this ticket's hold set aside: untouched, and in our own hands."""
        record = self.ledger.hold(ticket)
        return (
            record is not None
            and record.state == "open"
            and record.owner == self.ledger.owner
            and ticket not in self.used_tickets
            and not (record.sent or record.spent or record.reserved)
        )

    def renew_landings(self, run_id: str) -> None:
        """Set aside again, for a run that goes on, what was freed when it broke off and had not been spent."""
        freed: dict[str, list[HoldRecord]] = {}
        for record in self.ledger.holds(prefix=f"{run_id}/"):
            if record.meta.get("landing"):
                freed.setdefault(record.id.partition("~")[0], []).append(record)
        for base, records in freed.items():
            if all(record.state == "voided" for record in records):
                last = records[-1]
                hold = self.ledger.reserve(
                    _unused_id(self.ledger, base), last.amount, accounts=last.accounts, tag=last.tag, meta=last.meta
                )
                self.tickets.update({record.id: hold.id for record in records})

    def open_accounts(self, names: Iterable[str]) -> None:
        """Open the accounts that are not open yet: those of users, features and skills come into being when used."""
        for name in names:
            if name not in self._open:
                self.ledger.account(name)
                self._open.add(name)


@dataclass(frozen=True, slots=True)
class Reply(Generic[T]):
    """What came of ``ctx.complete``.

    ``value`` is the text, or the parsed output where a type was asked for; ``accepted`` is False if no model
    that the skill may use gave an answer that passed the checks: then this is the last one.
    """

    text: str
    value: T
    model: str
    accepted: bool
    confidence: float | None

    def __str__(self) -> str:
        return self.text


@dataclass(frozen=True, slots=True)
class Context:
    """What a skill, or a node of a graph, works with: models, documents and the money that is left."""

    engine: Engine
    scope: Scope
    step: Step | None = None
    ticket: str | None = None
    subject: str | None = None
    listener: Callable[[Event], None] = lambda _event: None

    @property
    def run_id(self) -> str:
        """The run's id: its account is ``run/<id>``."""
        return self.scope.run_id

    @property
    def remaining(self) -> Budget:
        """What the run's budget still has room for, holds counted as spent."""
        return self.engine.ledger.balance(f"run/{self.run_id}").available

    async def call(self, skill: Skill[Any, T], arguments: Mapping[str, Any], *, key: str | None = None) -> T:
        """Run `skill` as a step. ``await skill(ctx, …)`` is the same, with types.

        The step's identity is its place in the graph, the skill and its arguments, so that a resumed run
        finds what it paid for. A node that wants several samples of one call tells them apart by `key`.
        """
        return cast(T, await Step(self, skill, arguments, key=key).run())

    async def set_aside(self, skill: Skill[Any, Any], *, input_tokens: int) -> str:
        """Hold now what one step of `skill` will cost later (landing fuel). Returns a ticket for `landing`.

        A node that is carried out again gets the same ticket, as long as nothing was spent on it.
        """
        amount = _worst_case(self.engine, skill, input_tokens)
        base = f"{self.run_id}/{self.engine.position()}".rstrip("/") + f"/{skill.name}.landing"
        for record in self.engine.ledger.holds(prefix=base, state="open"):
            if self.engine.can_land(record.id) and not amount.minus(record.amount):
                return record.id
        return _reserve_step(self, skill, base, amount, expected=amount, landing=True).id

    def landing(self, ticket: str) -> Context:
        """A context in which one step, the first, spends what `set_aside` held; a further one reserves for itself."""
        return replace(self, ticket=ticket)

    def about(self, subject: str) -> Context:
        """A context whose steps and searches the statement shows with what they are about, such as a question.

        The ledger keeps `subject` as plain text; telemetry never carries it.
        """
        return replace(self, subject=subject)

    @overload
    async def complete(
        self, prompt: str, *, system: str | None = None, accept: Accept = (), max_output_tokens: int | None = None
    ) -> Reply[str]: ...
    @overload
    async def complete(
        self,
        prompt: str,
        *,
        output: type[T],
        system: str | None = None,
        accept: Accept = (),
        max_output_tokens: int | None = None,
    ) -> Reply[T]: ...
    async def complete(
        self,
        prompt: str,
        *,
        output: Any = str,
        system: str | None = None,
        accept: Accept = (),
        max_output_tokens: int | None = None,
    ) -> Reply[Any]:
        """Ask the skill's models, cheapest first; climb while an answer does not pass `accept` and may.

        `system` defaults to the skill's docstring; `output` is enforced by grammar or structured output.
        Raises `BudgetExceeded` before sending what does not fit, `InvalidOutput` if no model could give `output`,
        `SkillError` for a check or a cap that cannot be one.
        """
        if self.step is None:
            raise SkillError("ctx.complete belongs inside a skill: a step is what holds the money for it")
        shape = Output(output)
        text = "\n\n".join(filter(None, [self.step.skill.prompt if system is None else system, shape.instruction]))
        messages = (Message("system", text), Message("user", prompt)) if text else (Message("user", prompt),)
        return await self.step.complete(messages, shape, self.step.skill.checks(accept), max_output_tokens)

    async def retrieve(self, question: str, *, tokens: int) -> Retrieved:
        """The passages of the run's documents worth most within `tokens`."""
        index = self.engine.index
        if index is None:
            raise Mistake("this run has no documents: give the agent index='a folder of documents'")
        return await _retrieve(self, index, question, tokens)


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
        self.context = Context(ctx.engine, ctx.scope, self, listener=ctx.listener)
        self.base = self._identity(key)
        self.escalated = False
        self.accepted = True
        self.rejected: list[dict[str, str]] = []
        self._numbers = itertools.count(1)
        self._hold: Hold | None = None

    def _identity(self, key: str | None) -> str:
        """Stable over a resume: where in the graph, which skill, which arguments."""
        told = json.dumps([_stable(self.arguments), key], sort_keys=True)
        digest = hashlib.blake2b(told.encode("utf-8", "surrogatepass"), digest_size=5).hexdigest()
        place = self.parent.base if self.parent else f"{self.scope.run_id}/{self.engine.position()}"
        return f"{place.rstrip('/')}/{self.skill.name}.{digest}"

    @property
    def hold(self) -> Hold:
        """The step's hold. It exists from `run` on."""
        if self._hold is None:
            raise SkillError(f"step {self.base} has not begun")
        return self._hold

    async def run(self) -> Any:
        """Estimate, reserve, carry out, settle."""
        ladder = self.engine.ladder
        with telemetry.step(self.skill.name, run_id=self.scope.run_id, step_id=self.base, tier=self.skill.tier) as span:
            expected, bound = await self._estimate()
            self._hold = self._reserve(expected, bound)
            self._tell("started", model=ladder.at(self.skill.tier).name)  # a listener that fails is only logged
            started = time.perf_counter()
            status, error = "failed", None
            try:
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
                self._settle(status, error, time.perf_counter() - started)
                span.finished(status=status, escalated=self.escalated)

    async def _carry_out(self) -> Any:
        if self.skill.has_body:
            result = self.skill.function(self.context, **self.arguments)
            return await result
        messages = self.skill.messages(self.arguments)
        reply = await self.complete(messages, self.skill.output, self.skill.accept, None)
        return reply.value

    # --- estimate and reserve

    async def _estimate(self) -> tuple[Amount, Amount]:
        """What the step should cost, and the most: a call on each rung that it may climb, checks included."""
        expected, bound = ZERO, ZERO
        for number, model in enumerate(self.engine.ladder.climb(self.skill.tier, self.skill.escalate)):
            if self.skill.has_body:
                call = self.engine.estimator.sized(
                    self.skill.name,
                    model,
                    input_tokens=self.skill.max_input_tokens,
                    output_tokens=self.skill.max_output_tokens,
                )
                likely = call
            else:
                request = self._request(self.skill.messages(self.arguments), self.skill.output, None)
                estimate = await self.engine.estimator.call(self.skill.name, model, request)
                call, likely = estimate.bound, estimate.expected
            checks = _checks_bound(self.engine, self.skill)
            bound = bound + call + checks
            if number == 0:
                expected = likely + checks
        if self.skill.budget is not None:
            bound = _capped(bound, self.skill.budget)
        return expected, bound

    def _reserve(self, expected: Amount, bound: Amount) -> Hold:
        ticket = self.outer.ticket
        if ticket is not None:
            ticket = self.engine.tickets.get(ticket, ticket)
            record = self.engine.ledger.hold(ticket)
            if record is not None and self.engine.can_land(ticket):
                self.engine.used_tickets.add(ticket)
                return Hold(self.engine.ledger, record)
        return _reserve_step(self.outer, self.skill, self.base, bound, expected=expected)

    def _settle(self, status: str, error: str | None, seconds: float) -> None:
        detail = {
            "status": status,
            "escalated": self.escalated,
            "rejected": self.rejected,
            "seconds": round(seconds, 4),
            "error": error,
        }
        with telemetry.settlement(self.hold.id) as span:
            record = self.hold.settle(detail=detail)
            span.closed(record)
            span.balance(
                self.engine.ledger.balance(f"run/{self.scope.run_id}"),
                elapsed_s=(time.time_ns() - self.scope.started_ns) / 1e9,
            )
        self._tell("settled" if status in ("ok", "unaccepted") else "failed", settled=record.settled or ZERO)

    def _tell(self, phase: Phase, *, model: str = "", settled: Amount = ZERO) -> None:
        event = Event(phase, self.skill.name, self.hold.id, model, settled)
        try:
            self.outer.listener(event)
        except Exception:  # noqa: BLE001 # whatever a listener does, the books are not its affair
            _log.exception("a listener failed at %s; the run goes on", event)

    # --- the models, cheapest first

    def _request(self, messages: tuple[Message, ...], output: Output, max_output_tokens: int | None) -> Request:
        cap = self.skill.max_output_tokens
        if max_output_tokens is not None:
            cap = min(cap, positive("max_output_tokens", max_output_tokens, MAX_OUTPUT_TOKENS))
        return Request(messages, cap, schema=output.schema, temperature=self.skill.temperature)

    async def complete(
        self, messages: tuple[Message, ...], output: Output, checks: tuple[AnyCheck, ...], max_output_tokens: int | None
    ) -> Reply[Any]:
        """Try the rungs from the skill's tier upward until an answer is accepted."""
        request = self._request(messages, output, max_output_tokens)
        rungs = self.engine.ladder.climb(self.skill.tier, self.skill.escalate)
        rung, retries, purpose = 0, 0, cast(Purpose, "draft")
        while True:
            model = rungs[rung]
            answer, cap = await self._ask(model, request, output, purpose, trust_history=retries == 0)
            cut_by_us = answer.finish == "budget" or (answer.finish == "length" and cap < request.max_output_tokens)
            value, verdict = await self._read(answer, output, checks)
            if cut_by_us and verdict.ok:
                verdict = Verdict(False, "cut at the cap that its hold paid for")
            if not verdict.ok:
                self.rejected.append({"model": model.name, "reason": verdict.reason})
            progress = Progress(
                rung=rung,
                top=len(rungs) - 1,
                finish=answer.finish,
                passed=verdict.ok,
                retries=retries if cut_by_us else 1,
            )
            move = next_move(progress)
            if move in ("accept", "stop"):
                return self._conclude(answer, output, model, value, verdict)
            if move == "retry":
                retries, purpose = retries + 1, "retry"
            else:
                rung, retries, purpose = rung + 1, 0, "escalation"
                self.escalated = True
                self._tell("escalated", model=rungs[rung].name)

    def _conclude(self, answer: Completion, output: Output, model: Model, value: Any, verdict: Verdict) -> Reply[Any]:
        if value is _UNREADABLE:
            raise InvalidOutput(
                f"{self.skill.name!r}: {model.name} gave no {output.name}: {verdict.reason}",
                model=model.name,
                usage=answer.usage,
                advice="raise max_output_tokens, or let the skill escalate to a stronger model",
            )
        self.accepted = self.accepted and verdict.ok
        return Reply(answer.text, value, model.name, verdict.ok, answer.confidence)

    async def _read(self, answer: Completion, output: Output, checks: tuple[AnyCheck, ...]) -> tuple[Any, Verdict]:
        if answer.finish == "refused":
            return (answer.text if output.is_text else _UNREADABLE), Verdict(False, "the model declined")
        try:
            value = output.parse(answer.text)
        except ValueError as error:
            return _UNREADABLE, Verdict(False, _why_unreadable(answer, error))
        return value, await judge(value, tuple(self._bound_check(check) for check in checks))

    def _bound_check(self, check: AnyCheck) -> Check:
        """A skill as a check: it gets the output as ``answer`` and those of our arguments that it names."""
        if not isinstance(check, Skill):
            return cast(Check, check)
        verifier = cast("Skill[..., bool | Verdict]", check)

        async def verified(value: object) -> bool | Verdict:
            known = {**self.arguments, "answer": value}
            wanted = {name: known[name] for name in verifier.signature.parameters if name in known}
            return await self.context.call(verifier, verifier.bind((), wanted))

        verified.__name__ = verifier.name
        return verified

    async def _ask(
        self, model: Model, request: Request, output: Output, purpose: Purpose, *, trust_history: bool
    ) -> tuple[Completion, int]:
        """One answer of one model: from what was already paid for, else by attempts, each with its own hold."""
        keys = self._answer_keys(model, request)
        for key in keys:
            found = self._kept(key, request.max_output_tokens)
            if found is not None:
                replayed = key == keys[0]
                self._book_free(model, purpose, found.completion, found.cost_usd_nano, replayed=replayed)
                return found.completion, request.max_output_tokens
        for attempt in itertools.count(1):
            estimate = await self.engine.estimator.call(self.skill.name, model, request, trust_history=trust_history)
            hold = self._hold_call(model, purpose, estimate)
            try:
                answer = await self._attempt(hold, model, estimate=estimate, output=output, purpose=purpose, keys=keys)
                return answer, estimate.output_cap
            except ModelError as error:
                if not error.retryable or attempt == ATTEMPTS:
                    raise
                await asyncio.sleep(error.retry_after_s or BACKOFF_S * 2 ** (attempt - 1) * (1 + random.random()))
                self._make_good(hold.record.settled or ZERO)
        raise AssertionError("unreachable: the loop above returns or raises")

    def _answer_keys(self, model: Model, request: Request) -> tuple[str, ...]:
        """Where this answer may stand already: as this run's own, and, if that is wanted, shared between runs."""
        shared = answer_key(request, model, tenant=self.scope.tenant, skill_version=self.skill.version)
        own = f"{self.base}#{shared}"
        return (own, shared) if self.engine.share_answers else (own,)

    def _kept(self, key: str, max_output_tokens: int) -> CachedAnswer | None:
        try:
            return self.engine.answers.get(key, max_output_tokens=max_output_tokens)
        except StoreError as error:
            _log.warning("answers already paid for cannot be read, so this one is bought: %s", error)
            return None

    def _keep(self, answer: Completion, output: Output, keys: tuple[str, ...], cost_usd_nano: int) -> None:
        """A whole answer for whoever asks again; one cut at a cap only for this run, should it be resumed.

        What cannot be read is not kept: asking again must ask. A cache that fails loses a saving, not the answer.
        """
        if answer.finish not in ("stop", "length") or not output.reads(answer.text):
            return
        try:
            for key in keys if answer.finish == "stop" else keys[:1]:
                self.engine.answers.put(key, answer, cost_usd_nano=cost_usd_nano)
        except StoreError as error:
            _log.warning("an answer that was paid for cannot be kept: %s", error)

    def _book_free(
        self, model: Model, purpose: Purpose, answer: Completion, saved_usd_nano: int, *, replayed: bool
    ) -> None:
        hold = self._hold_within(ZERO, "", self._call_meta(model, purpose, None))
        detail = answered(answer, 0.0) | {"cached": True, "replayed": replayed, "saved_usd_nano": saved_usd_nano}
        with telemetry.model_call(model.provider, model.name, purpose=purpose) as span:
            span.cache_hit(saved_usd_nano=saved_usd_nano)
            settled(hold, ZERO, detail)
        self._tell("cached", model=model.name)

    def _hold_call(self, model: Model, purpose: Purpose, estimate: CallEstimate) -> Hold:
        meta = self._call_meta(model, purpose, estimate)
        return self._hold_within(estimate.bound, tag(self.skill.name, model.name), meta)

    async def _attempt(
        self,
        hold: Hold,
        model: Model,
        *,
        estimate: CallEstimate,
        output: Output,
        purpose: Purpose,
        keys: tuple[str, ...],
    ) -> Completion:
        """Call and settle: whatever happens in between, the hold ends with the truth as far as it is known."""
        meter = Meter(on_leaving=hold.mark_sent)
        self._tell("call", model=model.name)
        started = time.perf_counter()
        with telemetry.model_call(
            model.provider,
            model.name,
            purpose=purpose,
            rung=self.engine.ladder.rung(model),
            input_tokens_estimated=estimate.input.tokens,
            max_output_tokens=estimate.output_cap,
        ) as span:
            try:
                answer = await model.complete(estimate.request, meter)
            except BaseException as error:
                with telemetry.settlement(hold.id) as settling:
                    seconds = time.perf_counter() - started
                    record = settle_failure(hold, model.price, meter, error, seconds=seconds)
                    settling.closed(record)
                span.cost((record.settled or ZERO).usd_nano, presumed=record.presumed)
                raise
            span.answered(finish=answer.finish, served_by=answer.served_by, confidence=answer.confidence)
            span.used(answer.usage)
            price = answer.price or model.price
            cost = price.cost(answer.usage)
            try:
                # Kept before it is settled: a crash in between costs a presumption, not a second call.
                self._keep(answer, output, keys, cost)
            finally:
                detail = answered(answer, time.perf_counter() - started) | {"price": price.terms}
                settled(hold, Amount(cost, answer.usage.total_tokens, 1), detail)
                span.cost(cost)
            self.engine.estimator.learn(self.skill.name, model, answer.usage, answer.finish, estimate=estimate)
        return answer

    def _call_meta(self, model: Model, purpose: Purpose, estimate: CallEstimate | None) -> dict[str, Any]:
        meta: dict[str, Any] = {
            "kind": "call",
            "skill": self.skill.name,
            "model": model.name,
            "rung": self.engine.ladder.rung(model),
            "purpose": purpose,
            "price": model.price.source,
        }
        if estimate is not None:
            meta["estimated"] = estimate.told
        return meta

    def _hold_within(self, amount: Amount, call_tag: str, meta: Mapping[str, Any]) -> Hold:
        call_id = f"{self.hold.id}/{next(self._numbers)}"
        return self.hold_within(call_id, amount, call_tag, meta)

    def hold_within(self, hold_id: str, amount: Amount, hold_tag: str, meta: Mapping[str, Any]) -> Hold:
        """Reserve inside this step, raising the step's own hold where it falls short and its budget allows."""
        ledger = self.engine.ledger
        kind = str(meta["kind"])
        with telemetry.reservation(hold_id, held=amount, kind=kind, within=self.hold.id) as span:
            room = self.hold.refresh().room
            deficit = amount.minus(room)
            if deficit:
                self._extend(self.hold.amount + deficit)
            hold = ledger.reserve(hold_id, amount, within=self.hold.id, tag=hold_tag, meta=meta)
            if hold.replayed:
                raise HoldConflict(
                    f"hold {hold_id!r} is taken by another call: two steps must not share a hold",
                    hold_id=hold_id,
                    known=hold.amount,
                    asked=amount,
                )
            span.granted()
            return hold

    def _make_good(self, lost: Amount) -> None:
        """Hold anew what a failed attempt took, so that the room for the escalation stays, here and in the steps above.

        Where that does not fit, the next attempt is made from what is left.
        """
        if not lost:
            return
        if self.parent is not None:
            self.parent._make_good(lost)
        try:
            self._extend(self.hold.refresh().amount + lost)
        except BudgetExceeded as refused:
            _log.warning("step %s may not afford its escalation: an attempt failed, and %s", self.hold.id, refused)

    def _extend(self, to: Amount) -> None:
        if self.skill.budget is not None:
            require_room(
                f"the budget of skill {self.skill.name!r}", units(to), limit=limits(self.skill.budget), used=(0, 0, 0)
            )
        if self.parent is not None:
            room = self.parent.hold.refresh().room
            deficit = to.minus(self.hold.amount).minus(room)
            if deficit:
                self.parent._extend(self.parent.hold.amount + deficit)
        self.hold.extend(to)


def _why_unreadable(answer: Completion, error: ValueError) -> str:
    match answer.finish:
        case "length":
            return f"cut at {answer.usage.output_tokens} output tokens"
        case "budget":
            return f"cut after the {answer.usage.compute_ns / 1e9:.1f} s of compute that its hold paid for"
        case "cut":
            return "cut when its hold could not grow"
        case "stop" | "refused" | "tools":
            return f"not of the type: {error}"
        case _:
            assert_never(answer.finish)


class _Unreadable:
    """Stands for an output that does not fit its type."""


_UNREADABLE: Final = _Unreadable()


def _reserve_step(
    ctx: Context, skill: Skill[Any, Any], base: str, amount: Amount, *, expected: Amount, landing: bool = False
) -> Hold:
    """Hold a step's amount on its run, user, feature and skill at once, or inside the step that calls it."""
    ledger = ctx.engine.ledger
    meta: dict[str, Any] = {
        "kind": "step",
        "skill": skill.name,
        "tier": skill.tier,
        "estimated": {"usd_nano": expected.usd_nano, "tokens": expected.tokens},
    }
    if ctx.subject is not None:
        meta["about"] = ctx.subject
    if landing:
        meta["landing"] = True
    hold_id = _unused_id(ledger, base)
    if ctx.step is not None:
        return ctx.step.hold_within(hold_id, amount, f"step|{skill.name}", meta)
    accounts = ctx.scope.accounts(skill.name)
    ctx.engine.open_accounts(accounts)
    with telemetry.reservation(hold_id, held=amount, estimated=expected, accounts=accounts) as span:
        hold = ledger.reserve(hold_id, amount, accounts=accounts, tag=f"step|{skill.name}", meta=meta)
        span.granted()
        return hold


def _unused_id(ledger: Ledger, base: str) -> str:
    """`base`, or the next of ``base~2``, ``base~3`` … that is not taken by an earlier try at the same step."""
    for number in itertools.count(1):
        hold_id = base if number == 1 else f"{base}~{number}"
        record = ledger.hold(hold_id)
        if record is None:
            return hold_id
        if record.state == "open" and record.owner != ledger.owner:
            raise HoldConflict(
                f"step {hold_id!r} is being carried out by {record.owner}; wait until it is done",
                hold_id=hold_id,
                known=record.owner,
                asked=ledger.owner,
            )
    raise AssertionError("unreachable: the loop above returns or raises")


def _worst_case(engine: Engine, skill: Skill[Any, Any], input_tokens: int) -> Amount:
    """The most that one step of `skill` may cost with prompts of `input_tokens`: every rung, and its checks."""
    total = ZERO
    for model in engine.ladder.climb(skill.tier, skill.escalate):
        call = engine.estimator.sized(
            skill.name, model, input_tokens=input_tokens, output_tokens=skill.max_output_tokens
        )
        total = total + call + _checks_bound(engine, skill)
    return total if skill.budget is None else _capped(total, skill.budget)


def _checks_bound(engine: Engine, skill: Skill[Any, Any]) -> Amount:
    """The most that checking one answer of `skill` may cost."""
    total = ZERO
    for check in skill.accept:
        if isinstance(check, Skill):
            verifier = cast("Skill[..., bool | Verdict]", check)
            total = total + _worst_case(engine, verifier, verifier.max_input_tokens)
    return total


def _stable(value: Any) -> Any:
    """An argument as JSON that is the same in every process: sets in order, objects without their addresses."""
    if isinstance(value, Mapping):
        return {str(k): _stable(v) for k, v in cast(Mapping[Any, Any], value).items()}
    if isinstance(value, list | tuple):
        return [_stable(item) for item in cast(Iterable[Any], value)]
    if isinstance(value, set | frozenset):
        return sorted(json.dumps(_stable(item), sort_keys=True) for item in cast(Iterable[Any], value))
    if value is None or isinstance(value, str | int | float | bool):
        return value
    if hasattr(value, "model_dump"):
        return _stable(value.model_dump())
    if is_dataclass(value) and not isinstance(value, type):
        return _stable(asdict(value))
    return re.sub(r" at 0x[0-9a-fA-F]+", "", repr(value))


def _capped(amount: Amount, budget: Budget) -> Amount:
    def least(value: int, limit: int | None) -> int:
        return value if limit is None else min(value, limit)

    return Amount(
        least(amount.usd_nano, budget.usd_nano), least(amount.tokens, budget.tokens), least(amount.calls, budget.calls)
    )


async def _retrieve(ctx: Context, index: Index, question: str, tokens: int) -> Retrieved:
    """Search and pack, booked by the seconds that this machine works for it."""
    from agentbudget.context import retrieve

    engine = ctx.engine
    meta = {"kind": "retrieval", "source": engine.documents, "price": engine.machine.source}
    if ctx.subject is not None:
        meta["about"] = ctx.subject
    hold = _reserve_retrieval(ctx, question, meta)
    started = time.perf_counter()
    with hold, telemetry.retrieval(engine.documents, tokens=tokens) as span:
        found = await retrieve(index, question, tokens=tokens)
        cost = engine.machine.cost(Usage(compute_ns=found.compute_ns))
        seconds = round(time.perf_counter() - started, 4)
        settled(hold, Amount(cost), {"passages": len(found.passages), "tokens": found.tokens, "seconds": seconds})
        span.found(passages=len(found.passages), tokens=found.tokens, cost_usd_nano=cost)
    return found


def _reserve_retrieval(ctx: Context, question: str, meta: Mapping[str, Any]) -> Hold:
    engine = ctx.engine
    cap = Amount(engine.machine.cost(Usage(compute_ns=RETRIEVAL_CAP_NS)))
    base = ctx.step.hold.id if ctx.step else f"{ctx.run_id}/{engine.position()}".rstrip("/")
    digest = hashlib.blake2b(repr(question).encode(), digest_size=5).hexdigest()
    hold_id = _unused_id(engine.ledger, f"{base}/retrieve.{digest}")
    if ctx.step is not None:
        return ctx.step.hold_within(hold_id, cap, "retrieval", meta)
    accounts = ctx.scope.accounts()
    with telemetry.reservation(hold_id, held=cap, kind="retrieval", accounts=accounts) as span:
        hold = engine.ledger.reserve(hold_id, cap, accounts=accounts, tag="retrieval", meta=meta)
        span.granted()
        return hold
