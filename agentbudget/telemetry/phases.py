"""The phases of a run: each gives its span, or a shared one that does nothing while nobody listens."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Final, Literal

from agentbudget.money import Budget
from agentbudget.telemetry.backend import UNKNOWN, listening
from agentbudget.telemetry.names import GenAI, Ours, Values
from agentbudget.telemetry.spans import (
    ModelCallSpan,
    Reservation,
    RetrievalSpan,
    RunSpan,
    StepSpan,
    limit_values,
    outcome_of,
    settled_values,
)

if TYPE_CHECKING:
    from agentbudget.ledger import HoldRecord

Decision = Literal["passed", "redacted", "refused"]
"""What was decided about a text on its way to a destination."""

_NO_RUN: Final = RunSpan()
_NO_STEP: Final = StepSpan()
_NO_RESERVATION: Final = Reservation()
_NO_RETRIEVAL: Final = RetrievalSpan()
_NO_MODEL_CALL: Final = ModelCallSpan()


def run(run_id: str, *, agent: str, user: str | None = None, budget: Budget | None = None) -> RunSpan:
    """The span of one agent task."""
    backend = listening()
    if backend is None:
        return _NO_RUN
    values: Values = {
        GenAI.OPERATION: "invoke_agent",
        GenAI.AGENT: agent,
        GenAI.USER: user,
        Ours.RUN: run_id,
        **limit_values(Ours.BUDGET, budget),
    }
    return RunSpan(backend, f"invoke_agent {agent}", values)


def step(skill: str, *, run_id: str, step_id: str, tier: str | None = None) -> StepSpan:
    """The span of one skill call. What happens within it is counted under this skill and tier."""
    backend = listening()
    if backend is None:
        return _NO_STEP
    values: Values = {Ours.SKILL: skill, Ours.TIER: tier, Ours.RUN: run_id, Ours.STEP: step_id}
    return StepSpan(backend, f"step {skill}", values)


def reservation(hold_id: str, *, kind: str = "step") -> Reservation:
    """Around ``ledger.reserve``; `kind` is what the hold is for: a step, a call, a retrieval."""
    backend = listening()
    return _NO_RESERVATION if backend is None else Reservation(backend, hold_id, kind)


def settlement(record: HoldRecord) -> None:
    """An event of the current span: the end of a hold that pays for nothing that has a span."""
    backend = listening()
    if backend is None:
        return
    kind = str(record.meta.get("kind") or UNKNOWN)
    backend.count_hold(outcome_of(record), kind)
    told = {Ours.KIND: kind, **settled_values(record)}
    backend.api.trace.get_current_span().add_event(Ours.SETTLEMENT, told)


def retrieval(source: str, *, tokens: int | None = None) -> RetrievalSpan:
    """The span of a search in the index `source`, with an allowance of `tokens`."""
    backend = listening()
    if backend is None:
        return _NO_RETRIEVAL
    values: Values = {GenAI.OPERATION: "retrieval", GenAI.DATA_SOURCE: source, Ours.RETRIEVAL_ALLOWANCE: tokens}
    return RetrievalSpan(backend, f"retrieval {source}", values)


def model_call(
    provider: str,
    model: str,
    *,
    operation: str = "chat",
    input_tokens_estimated: int | None = None,
    max_output_tokens: int | None = None,
    rung: int | None = None,
    purpose: str | None = None,
    data_class: str | None = None,
    reserve_s: float | None = None,
) -> ModelCallSpan:
    """The span of one attempt at `model`, written with or without its provider in front.

    ``data_class`` is that of what it is sent, ``reserve_s`` how long the ledger took to admit it.
    """
    backend = listening()
    if backend is None:
        return _NO_MODEL_CALL
    bare = model.removeprefix(f"{provider}:")
    values: Values = {
        GenAI.OPERATION: operation,
        GenAI.PROVIDER: provider,
        GenAI.REQUEST_MODEL: bare,
        GenAI.REQUEST_MAX_TOKENS: max_output_tokens,
        Ours.INPUT_ESTIMATED: input_tokens_estimated,
        Ours.MODEL: f"{provider}:{bare}",
        Ours.RUNG: rung,
        Ours.PURPOSE: purpose,
        Ours.DATA_CLASS: data_class,
        Ours.RESERVE_S: reserve_s,
    }
    return ModelCallSpan(backend, f"{operation} {bare}", values)


def data_class(
    data_class: str, *, decision: Decision, destination: str, found: Mapping[str, int] | None = None
) -> None:
    """An event of the current span: what was decided about a text of this class on its way to `destination`.

    ``found`` counts what was found in it by kind; names of documents are not told.
    """
    backend = listening()
    if backend is None:
        return
    told = {Ours.DATA_CLASS: data_class, Ours.DECISION: decision, Ours.DESTINATION: destination}
    kinds = [f"{kind}:{count}" for kind, count in sorted((found or {}).items())]
    backend.api.trace.get_current_span().add_event(Ours.DATA_CLASS, {**told, Ours.FOUND: kinds} if kinds else told)
