"""What steps run on, who pays for them, and what a listener hears."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final, Literal

from agentbudget.cache import AnswerCache, Answers
from agentbudget.estimate import Estimator
from agentbudget.history import SystemCounts
from agentbudget.ledger import HoldRecord, Ledger
from agentbudget.models.base import Price
from agentbudget.models.ladder import Ladder
from agentbudget.money import NANO, ZERO, Amount
from agentbudget.privacy import Mark, Privacy
from agentbudget.step.identity import unused_id
from agentbudget.step.outages import Outages
from agentbudget.step.reading import Reading
from agentbudget.step.starts import Starts
from agentbudget.tenants import DEFAULT_TENANT, payers

if TYPE_CHECKING:
    from agentbudget.context import Index
    from agentbudget.memory import Memories

RETRIEVED_KEPT: Final = 64
"""Texts of searches by which prompts are known to have been retrieved in part."""

Phase = Literal["started", "call", "cached", "escalated", "settled", "failed"]


@dataclass(frozen=True, slots=True)
class Event:
    """What a listener hears while a run goes on: for progress, never for accounting."""

    phase: Phase
    skill: str
    step_id: str
    model: str = ""
    settled: Amount = ZERO


def nobody(_event: Event) -> None:
    """A listener that does not listen."""


@dataclass(frozen=True, slots=True)
class Scope:
    """Who pays: the run's account, and those of the tenant, its user and its feature. ``tenant`` keeps caches apart.

    ``started_ns`` is when the run began or was resumed; ``age_from_ns`` when it began, if that was before.
    ``mark`` is the class of the narrowest text that the run has seen, ``reading`` what it has read of its documents.
    """

    run_id: str
    user: str | None = None
    feature: str | None = None
    tenant: str = DEFAULT_TENANT
    started_ns: int = field(default_factory=time.time_ns)
    age_from_ns: int | None = None
    reading: Reading = field(default_factory=Reading, repr=False, compare=False)
    mark: Mark = field(default_factory=Mark, compare=False)

    @property
    def age_s(self) -> float:
        """How long ago the run began, the time in which it lay still included."""
        return (time.time_ns() - (self.age_from_ns or self.started_ns)) / NANO

    def accounts(self, skill: str | None = None) -> tuple[str, ...]:
        """The accounts that a step of `skill` weighs on, all together."""
        others = payers(self.tenant, user=self.user, feature=self.feature)
        return (f"run/{self.run_id}", *others, *((f"skill/{skill}",) if skill else ()))


@dataclass(slots=True)
class Engine:
    """What steps run on: the ledger, the ladder of models, answers already paid for, the documents.

    ``similar`` finds answers to questions that mean the same, for skills that want that (None: no skill gets any).
    ``documents`` names the index in statements and spans; ``machine`` prices the seconds of what is no model call.
    ``tickets`` leads from a landing ticket to the hold that stands for it since a resume. ``privacy`` says what may
    go where.
    """

    ledger: Ledger
    ladder: Ladder
    answers: Answers
    machine: Price
    similar: AnswerCache | None = None
    index: Index | None = None
    documents: str = "documents"
    memories: Memories | None = None
    share_answers: bool = True
    position: Callable[[], str] = lambda: ""
    tickets: dict[str, str] = field(default_factory=dict[str, str])
    used_tickets: set[str] = field(default_factory=set[str])
    privacy: Privacy = field(default_factory=Privacy)
    retrieved: deque[str] = field(default_factory=lambda: deque[str](maxlen=RETRIEVED_KEPT))
    system_counts: SystemCounts = field(init=False, default_factory=SystemCounts)
    outages: Outages = field(init=False, default_factory=Outages)
    estimator: Estimator = field(init=False)
    starts: Starts = field(init=False)
    _open: set[str] = field(init=False, default_factory=set[str])

    def __post_init__(self) -> None:
        self.estimator = Estimator(self.ledger)
        self.starts = Starts(self.ledger)

    def place(self, run_id: str) -> str:
        """Where in the run's graph its work is: what the ids of its holds begin with."""
        return f"{run_id}/{self.position()}".rstrip("/")

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
                    unused_id(self.ledger, base), last.amount, accounts=last.accounts, tag=last.tag, meta=last.meta
                )
                self.tickets.update({record.id: hold.id for record in records})

    def open_accounts(self, names: Iterable[str]) -> None:
        """Open the accounts that are not open yet: those of users, features and skills come into being when used."""
        for name in names:
            if name not in self._open:
                self.ledger.account(name)
                self._open.add(name)
