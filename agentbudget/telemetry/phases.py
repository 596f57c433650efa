"""The phases of a run: each gives its span, or a shared one that does nothing while nobody listens."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final, Literal

from agentbudget.money import Amount, Budget
from agentbudget.telemetry.backend import listening
from agentbudget.telemetry.names import GenAI, Ours, Values
from agentbudget.telemetry.spans import (
    ModelCallSpan,
    ReservationSpan,
    RetrievalSpan,
    RunSpan,
    SettlementSpan,
    StepSpan,
    amount_values,
    limit_values,
)

Decision = Literal["passed", "redacted", "refused"]
"""What was decided about a text on its way to a destination."""

_NO_RUN: Final = RunSpan()
_NO_STEP: Final = StepSpan()
_NO_RESERVATION: Final = ReservationSpan()
_NO_RETRIEVAL: Final = RetrievalSpan()
_NO_MODEL_CALL: Final = ModelCallSpan()
_NO_SETTLEMENT: Final = SettlementSpan()


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


def reservation(
    hold_id: str,
    *,
    held: Amount,
    kind: str = "step",
    estimated: Amount | None = None,
    accounts: Sequence[str] = (),
    within: str | None = None,
) -> ReservationSpan:
    """The span around ``ledger.reserve``; `kind` is what the hold is for: a step, a call, a retrieval."""
    backend = listening()
    if backend is None:
        return _NO_RESERVATION
    values: Values = {
        Ours.HOLD: hold_id,
        Ours.KIND: kind,
        Ours.ACCOUNTS: tuple(accounts) or ((f"hold:{within}",) if within else None),
        Ours.HELD_USD: held.usd_nano,
        Ours.HELD_TOKENS: held.tokens,
        **amount_values(Ours.ESTIMATED, estimated),
    }
    return ReservationSpan(backend, f"reserve {kind}", values)


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
) -> ModelCallSpan:
    """The span of one attempt at `model`, written with or without its provider in front.

    ``data_class`` is that of what it is sent.
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
    }
    return ModelCallSpan(backend, f"{operation} {bare}", values)


def settlement(hold_id: str) -> SettlementSpan:
    """The span around ``settle`` or ``void``."""
    backend = listening()
    return _NO_SETTLEMENT if backend is None else SettlementSpan(backend, "settle", {Ours.HOLD: hold_id})


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
