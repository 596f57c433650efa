"""Memories of the run's user: remembered and recalled within holds of their own, as documents are searched."""

from __future__ import annotations

import time
from collections.abc import Generator, Mapping
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from datetime import timedelta
from functools import partial
from typing import TYPE_CHECKING, Any, Final, Literal

from agentbudget import telemetry
from agentbudget.errors import DataRefused, Mistake
from agentbudget.ledger import Hold
from agentbudget.models.base import Meter, Price
from agentbudget.money import Amount
from agentbudget.paying import paid
from agentbudget.privacy.classes import outlives_its_run
from agentbudget.settling import settled
from agentbudget.step.funds import base_of, reserve_embedding, reserve_within
from agentbudget.step.guarding import refused, sendable
from agentbudget.step.identity import digest, unused_id
from agentbudget.usage import Usage

if TYPE_CHECKING:
    from agentbudget.context.hosted import Pay
    from agentbudget.memory import Memories, Memory, Owner, Recalled
    from agentbudget.step.context import Context

MEMORY_CAP_NS: Final = 10 * 10**9
"""What remembering or recalling may take of this machine, in nanoseconds: its hold."""

Act = Literal["recall", "remember"]


async def remember(ctx: Context, text: str, *, source: str, expires: timedelta | None) -> Memory:
    """Keep something that was learned of the run's user, with where that was."""
    from agentbudget.memory import Source

    memories, owner = _of(ctx)
    now = time.time_ns()
    if expires is not None and not isinstance(expires, timedelta):
        raise Mistake(f"expires takes a time span, such as timedelta(days=30), not {expires!r}")
    if expires is not None and expires <= timedelta():
        raise Mistake(f"a memory that expires after {expires} is gone already; give it a time to come, or None")
    expires_ns = None if expires is None else now + int(expires.total_seconds() * 1e9)
    places = memories.goes_to
    text = sendable(ctx, places, text, what="what is remembered")
    source = sendable(ctx, places, source, what="what is remembered")
    label = ctx.carries
    if not outlives_its_run(label.data_class):
        refused(ctx, label, "memory")
        raise DataRefused(
            f"what is remembered is {label.told} and stays in its run: remember nothing of it, or only what you have "
            "cleared of it (ctx.cleared)",
            data_class=label.data_class,
            sources=label.sources,
            destinations=("memory",),
        )
    learned = Source(ctx.run_id, None if ctx.step is None else ctx.step.base, now, source)
    with _booked(ctx, "remember", text) as work:
        kept = await memories.remember(
            owner, text, source=learned, expires_ns=expires_ns, data_class=label.data_class, pay=work.pay
        )
        work.done(kept.compute_ns, {"merged": kept.merged})
    return kept.memory


async def recall(ctx: Context, question: str, tokens: int) -> Recalled:
    """What is known of the run's user that may matter to `question`."""
    memories, owner = _of(ctx)
    question = sendable(ctx, memories.goes_to, question, what="the question")
    with _booked(ctx, "recall", question) as work, telemetry.retrieval("memory", tokens=tokens) as span:
        found = await memories.recall(owner, question, tokens=tokens, pay=work.pay)
        ctx.saw(found.label)
        ctx.engine.retrieved.append(found.text)
        told = found.label.data_class
        size = {"memories": len(found.memories), "tokens": found.tokens}
        cost = work.done(found.compute_ns, {**size, "data_class": told}, span=span)
        span.found(passages=len(found.memories), tokens=found.tokens, cost_usd_nano=cost, data_class=told)
    return found


async def forget(ctx: Context, memory_id: str) -> None:
    """Delete a memory of the run's user."""
    memories, owner = _of(ctx)
    await memories.forget(owner, [memory_id])


def _of(ctx: Context) -> tuple[Memories, Owner]:
    from agentbudget.memory import Owner

    memories = ctx.engine.memories
    if memories is None:
        raise Mistake("this run has no memories: give its engine some (agentbudget.memory.open_memories)")
    if ctx.scope.user is None:
        raise Mistake("memories are of a user: say whose run this is with agent.run(…, user=…)")
    return memories, Owner(ctx.scope.tenant, ctx.scope.user)


@dataclass(slots=True)
class _Work:
    """One use of the memories: its hold, and how it is paid for."""

    ctx: Context
    hold: Hold
    pay: Pay
    started: float

    def done(self, compute_ns: int, detail: Mapping[str, Any], *, span: telemetry.Span | None = None) -> int:
        """Settle the time that it took of this machine; what that cost, in nano-dollars."""
        cost = self.ctx.engine.machine.cost(Usage(compute_ns=compute_ns))
        detail = {**detail, "seconds": round(time.perf_counter() - self.started, 4)}
        settled(self.hold, Amount(cost), detail, span=span)
        return cost


@contextmanager
def _booked(ctx: Context, act: Act, text: str) -> Generator[_Work]:
    """A hold for the seconds of this machine. The ledger knows what was done, never the text."""
    engine = ctx.engine
    meta = {"kind": "memory", "source": act, "price": engine.machine.source}
    cap = Amount(engine.machine.cost(Usage(compute_ns=MEMORY_CAP_NS)))
    hold_id = unused_id(engine.ledger, f"{base_of(ctx)}/{act}.{digest(repr(text))}")
    hold = reserve_within(ctx, hold_id, cap, "memory", meta)
    with hold:
        yield _Work(ctx, hold, partial(_pay, ctx, hold), time.perf_counter())


def _pay(ctx: Context, hold: Hold, name: str, price: Price, most: Usage) -> AbstractContextManager[Meter]:
    """Pay for an embedding by an API, beside the seconds of this machine."""
    return paid(partial(reserve_embedding, ctx, hold), name=name, price=price, most=most)
