"""Spans as their callers hold them: what each phase of a run tells, and when it ends."""

from __future__ import annotations

import time
from contextvars import Token
from types import TracebackType
from typing import TYPE_CHECKING, ClassVar, Literal, Self

from agentbudget.errors import BudgetExceeded, ModelError
from agentbudget.money import NANO, Amount, Budget
from agentbudget.telemetry.backend import STEP_KEY, UNKNOWN, Backend
from agentbudget.telemetry.names import GenAI, Ours, Outcome, Value, Values
from agentbudget.usage import Usage

if TYPE_CHECKING:
    from opentelemetry.context import Context
    from opentelemetry.trace import Span as OtelSpan

    from agentbudget.ledger import Account, HoldRecord


class Span:
    """A span and how it ends, as a context manager. Without a listener it is shared and does nothing.

    An exception that passes through is noted by its type alone: messages may quote a prompt.
    """

    kind: ClassVar[Literal["INTERNAL", "CLIENT"]] = "INTERNAL"
    leaf: ClassVar[bool] = False
    """Whether nothing within it has a span: then it need not become the current one, which takes its time too."""

    __slots__ = ("_attributes", "_backend", "_current", "_later", "_name", "_otel", "_started", "_token")

    def __init__(self, backend: Backend | None = None, name: str = "", attributes: Values | None = None) -> None:
        self._backend = backend
        self._current = not self.leaf
        self._name = name
        self._attributes: Values = attributes or {}
        self._otel: OtelSpan | None = None
        self._later: dict[str, Value] = {}
        self._token: Token[Context] | None = None
        self._started = 0.0

    def aside(self) -> Self:
        """The span without being the current one: for a generator, whose body runs amid its reader's."""
        if self._backend is not None:
            self._current = False
        return self

    @property
    def is_heard(self) -> bool:
        """Whether anybody listens: what is costly to find out need not be told otherwise."""
        return self._otel is not None and self._otel.is_recording()

    def __enter__(self) -> Self:
        if self._backend is not None:
            self._start(self._backend)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._backend is None or self._otel is None:
            return
        if error is not None and not _is_control_flow(error):
            self._fail(self._backend, error)
        self._ending(self._backend, error)
        if self._later:
            self._otel.set_attributes(self._later)  # all at once: each time costs more than each attribute
        if self._token is not None:
            self._backend.api.context.detach(self._token)
        self._otel.end()

    def _start(self, backend: Backend) -> None:
        api = backend.api
        kind = api.trace.SpanKind.CLIENT if self.kind == "CLIENT" else api.trace.SpanKind.INTERNAL
        self._otel = backend.tracer.start_span(self._name, kind=kind, attributes=_known(self._attributes))
        if self._current:
            self._token = api.context.attach(self._context(backend, api.trace.set_span_in_context(self._otel)))
        self._started = time.perf_counter()

    def _context(self, backend: Backend, context: Context) -> Context:
        """What spans within this one see."""
        return context

    def _ending(self, backend: Backend, error: BaseException | None) -> None:
        """Record what is known only now."""

    def _fail(self, backend: Backend, error: BaseException) -> None:
        if self._otel is None:
            return
        name = type(error).__qualname__
        self._set({GenAI.ERROR_TYPE: name})
        if isinstance(error, BudgetExceeded):
            self._set(_refusal(error))
        self._otel.add_event("exception", {GenAI.EXCEPTION_TYPE: name})
        self._otel.set_status(backend.api.trace.StatusCode.ERROR)

    def _set(self, values: Values) -> None:
        if self.is_heard:
            self._later.update(_known(values))


class RunSpan(Span):
    """``invoke_agent {agent}``: one agent task. Its totals are ours alone: tokens under ``gen_ai.*`` on a parent
    would be counted twice."""

    __slots__ = ()

    def finished(self, *, status: str, settled: Amount | None = None, remaining: Budget | None = None) -> None:
        """How the run ended, what it cost, and what its budget has left."""
        self._set(
            {Ours.STATUS: status} | amount_values(Ours.SETTLED, settled) | limit_values(Ours.REMAINING, remaining)
        )


class StepSpan(Span):
    """``step {skill}``: one skill call, a transaction."""

    __slots__ = ()

    def _context(self, backend: Backend, context: Context) -> Context:
        labels = {name: str(value) for name in (Ours.SKILL, Ours.TIER) if (value := self._attributes.get(name))}
        return backend.api.context.set_value(STEP_KEY, labels, context)

    def finished(self, *, status: str, escalated: bool = False, settled: Amount | None = None) -> None:
        """How the step ended: its status, whether a stronger model was asked, and what it cost."""
        self._set({Ours.STATUS: status, Ours.ESCALATED: escalated} | amount_values(Ours.SETTLED, settled))


class ReservationSpan(Span):
    """``reserve {kind}``: an admission. It is granted if the block ends well, refused if `BudgetExceeded` passes."""

    leaf = True
    __slots__ = ()

    def granted(self, *, held: Amount | None = None, replayed: bool = False) -> None:
        """What is held in the end, and whether the hold existed already (a resumed run)."""
        self._set({Ours.REPLAYED: replayed} | amount_values(Ours.HELD, held))

    def _ending(self, backend: Backend, error: BaseException | None) -> None:
        outcome: Outcome = "granted"
        if error is not None:
            outcome = "refused" if isinstance(error, BudgetExceeded) else "error"
        self._set({Ours.OUTCOME: outcome})
        backend.count_hold(outcome, self._attributes.get(Ours.KIND))


class RetrievalSpan(Span):
    """``retrieval {source}``: passages fetched from an index."""

    __slots__ = ()

    def found(self, *, passages: int, tokens: int, cost_usd_nano: int | None = None) -> None:
        """How many passages were packed, their tokens, and what finding them cost."""
        self._set({Ours.PASSAGES: passages, Ours.RETRIEVAL_TOKENS: tokens, Ours.COST_NANO: cost_usd_nano})
        if self._backend is not None and cost_usd_nano is not None:
            self._backend.add_cost(cost_usd_nano, self._backend.labels("retrieval"))


class ModelCallSpan(Span):
    """``chat {model}``: one attempt at a model, or the answer that a cache gave in its place."""

    kind = "CLIENT"
    __slots__ = ("_cached", "_labels", "_served_by", "_usage")

    def __init__(self, backend: Backend | None = None, name: str = "", attributes: Values | None = None) -> None:
        super().__init__(backend, name, attributes)
        self._usage: Usage | None = None
        self._served_by: str | None = None
        self._labels: dict[str, str] | None = None
        self._cached = False

    def answered(self, *, finish: str, served_by: str | None = None, confidence: float | None = None) -> None:
        """Why the answer ended, which model gave it, and how sure it was (0 to 1)."""
        if self._otel is None:
            return
        self._served_by = served_by
        self._set({GenAI.FINISH_REASONS: (finish,), GenAI.RESPONSE_MODEL: served_by, Ours.CONFIDENCE: confidence})

    def used(self, usage: Usage) -> None:
        """What the provider, or the local engine, says that the attempt used."""
        if self._otel is None:
            return
        self._usage = usage
        self._set(
            {
                GenAI.INPUT_TOKENS: usage.input_tokens,
                GenAI.OUTPUT_TOKENS: usage.output_tokens,
                GenAI.CACHE_READ_TOKENS: usage.cached_tokens or None,
                GenAI.CACHE_CREATION_TOKENS: usage.cache_write_tokens or None,
                GenAI.REASONING_TOKENS: usage.reasoning_tokens or None,
                Ours.COMPUTE_S: usage.compute_ns / NANO if usage.compute_ns else None,
            }
        )

    def cost(self, usd_nano: int, *, presumed: bool = False) -> None:
        """What the attempt cost, once; `presumed` if nobody knows and the hold was taken in full."""
        self._set({Ours.COST_NANO: usd_nano, Ours.PRESUMED: presumed})
        if self._backend is not None:
            self._backend.add_cost(usd_nano, self._series(self._backend))

    def cache_hit(self, *, saved_usd_nano: int | None = None) -> None:
        """The answer was paid for already: no model is asked, and no usage is reported."""
        if self._backend is None:
            return
        self._cached = True
        self._set({Ours.CACHE_HIT: True, Ours.CACHE_SAVED: saved_usd_nano, Ours.COST_NANO: 0})
        self._backend.instruments.cache_hits.add(1, self._series(self._backend))

    def _start(self, backend: Backend) -> None:
        super()._start(backend)
        backend.announce(self._series(backend))

    def _ending(self, backend: Backend, error: BaseException | None) -> None:
        if isinstance(error, ModelError) and error.usage is not None and self._usage is None:
            self.used(error.usage)
        if self._cached:
            return
        labels = self._client_labels()
        if error is not None:
            labels[GenAI.ERROR_TYPE] = type(error).__qualname__
        backend.instruments.duration.record(time.perf_counter() - self._started, labels)
        if self._usage is not None:
            backend.add_tokens(self._usage, self._client_labels(), self._series(backend))

    def _series(self, backend: Backend) -> dict[str, str]:
        if self._labels is None:
            self._labels = backend.labels(str(self._attributes.get(Ours.MODEL) or UNKNOWN))
        return self._labels

    def _client_labels(self) -> dict[str, str]:
        names = (GenAI.OPERATION, GenAI.PROVIDER, GenAI.REQUEST_MODEL)
        labels = {name: str(self._attributes[name]) for name in names}
        if self._served_by is not None:
            labels[GenAI.RESPONSE_MODEL] = self._served_by
        return labels


class SettlementSpan(Span):
    """``settle``: the truth is booked."""

    leaf = True
    __slots__ = ()

    def closed(self, record: HoldRecord) -> None:
        """The hold as it stands after it was settled or voided."""
        if self._backend is None:
            return
        outcome: Outcome = "voided" if record.state == "voided" else "presumed" if record.presumed else "settled"
        overrun = record.overrun
        values: Values = {
            Ours.OUTCOME: outcome,
            Ours.PRESUMED: record.presumed,
            **amount_values(Ours.HELD, record.amount),
            **amount_values(Ours.SETTLED, record.settled),
            **(amount_values(Ours.OVERRUN, overrun) if overrun else {}),
        }
        self._set(values)
        self._backend.count_hold(outcome, record.meta.get("kind"))

    def balance(self, account: Account, *, elapsed_s: float | None = None) -> None:
        """What the run's account has left; with the run's age also how fast it burns."""
        self._set(limit_values(Ours.REMAINING, account.available))
        if elapsed_s:
            self._set({Ours.BURN_RATE: account.posted.usd_nano / NANO * 60 / elapsed_s})


def _known(values: Values) -> dict[str, Value]:
    return {name: value for name, value in values.items() if value is not None}


def amount_values(prefix: str, amount: Amount | None) -> dict[str, Value | None]:
    """An amount under `prefix`: nothing of it while it is not known."""
    if amount is None:
        return {}
    return {f"{prefix}.usd_nano": amount.usd_nano, f"{prefix}.tokens": amount.tokens}


def limit_values(prefix: str, budget: Budget | None) -> dict[str, Value | None]:
    """Limits under `prefix`."""
    if budget is None:
        return {}
    return {f"{prefix}.usd_nano": budget.usd_nano, f"{prefix}.tokens": budget.tokens}


def _refusal(error: BudgetExceeded) -> Values:
    return {
        Ours.REFUSED_BY: error.account,
        Ours.REFUSED_UNIT: error.unit,
        Ours.NEEDED: error.needed,
        Ours.AVAILABLE: error.available,
    }


def _is_control_flow(error: BaseException) -> bool:
    """True for what LangGraph raises to pause a graph: an interrupt is not a failure."""
    return any(base.__name__ == "GraphBubbleUp" for base in type(error).__mro__)
