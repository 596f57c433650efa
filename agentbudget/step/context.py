"""What a skill, or a node of a graph, works with."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, TypeVar, cast, overload

from agentbudget.errors import Mistake, SkillError
from agentbudget.models.base import Message
from agentbudget.money import Budget
from agentbudget.skills import Accept, Output, Skill
from agentbudget.step.climb import climb, request_of
from agentbudget.step.engine import Engine, Event, Scope
from agentbudget.step.holding import reserve_step
from agentbudget.step.reply import Reply
from agentbudget.step.retrieval import search
from agentbudget.step.sizing import worst_case
from agentbudget.step.transaction import Step

if TYPE_CHECKING:
    from agentbudget.context import Retrieved

T = TypeVar("T")


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
        amount = worst_case(self.engine, skill, input_tokens)
        base = f"{self.run_id}/{self.engine.position()}".rstrip("/") + f"/{skill.name}.landing"
        for record in self.engine.ledger.holds(prefix=base, state="open"):
            if self.engine.can_land(record.id) and not amount.minus(record.amount):
                return record.id
        return reserve_step(self, skill, base, amount, expected=amount, landing=True).id

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
        shape, skill = Output(output), self.step.skill
        text = "\n\n".join(filter(None, [skill.prompt if system is None else system, shape.instruction]))
        messages = (Message("system", text), Message("user", prompt)) if text else (Message("user", prompt),)
        checks = skill.checks(accept)
        return await climb(self.step, request_of(skill, messages, shape, max_output_tokens), shape, checks)

    async def retrieve(self, question: str, *, tokens: int) -> Retrieved:
        """The passages of the run's documents worth most within `tokens`."""
        index = self.engine.index
        if index is None:
            raise Mistake("this run has no documents: give the agent index='a folder of documents'")
        return await search(self, index, question, tokens)
