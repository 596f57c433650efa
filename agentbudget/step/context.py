"""What a skill, or a node of a graph, works with."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, TypeVar, cast, overload

from agentbudget.errors import Mistake, SkillError
from agentbudget.history import Policy
from agentbudget.models.base import Image, Message, Tool, ToolChoice
from agentbudget.money import Budget
from agentbudget.output import Output
from agentbudget.privacy import DataClass, Label, Mark
from agentbudget.privacy.classes import checked
from agentbudget.skills import Accept, Skill
from agentbudget.step.climb import climb, request_of
from agentbudget.step.engine import Engine, Event, Scope, nobody
from agentbudget.step.fitting import Fitted, fitted
from agentbudget.step.funds import reserve_step
from agentbudget.step.guarding import CLEARED, LABEL, note
from agentbudget.step.remembering import forget, recall, remember
from agentbudget.step.reply import Reply
from agentbudget.step.retrieval import search
from agentbudget.step.sizing import worst_case
from agentbudget.step.streams import ReplyStream
from agentbudget.step.transaction import Step

if TYPE_CHECKING:
    from datetime import timedelta

    from agentbudget.context import Retrieved
    from agentbudget.memory import Memory, Recalled

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Context:
    """What a skill, or a node of a graph, works with: models, documents and the money that is left."""

    engine: Engine
    scope: Scope
    step: Step | None = None
    ticket: str | None = None
    subject: str | None = None
    listener: Callable[[Event], None] = nobody
    lineage: Mark | None = None

    @property
    def carries(self) -> Label:
        """The class of what may be in the hands of whoever works with this context, and where it comes from.

        A run carries the narrowest class that it has seen, whatever became of the text: what a model said of a
        confidential passage is confidential.
        """
        label = (self.lineage or self.scope.mark).label
        if self.step is not None and self.step.skill.data_class is not None:
            label = label.joined(Label(self.step.skill.data_class, (f"skill {self.step.skill.name}",)))
        return label

    def saw(self, label: Label) -> None:
        """Take note that a text of this label is in the run from here on."""
        self.scope.mark.rise(label)
        if self.lineage is not None:
            self.lineage.rise(label)

    def mark(self, data_class: DataClass, source: str) -> None:
        """Say the class of something that you bring into the run: a tool's result, a row of a database.

        It holds for the rest of the run, and is an entry of the journal. It never widens what the run carries.
        """
        label = Label(checked(data_class, argument="data_class"), (source,))
        note(self, LABEL, label)
        self.saw(label)

    def cleared(self, data_class: DataClass, *, reason: str) -> Context:
        """A context that carries no more than this class, since you have made sure of it: an entry of the journal.

        For what code has checked or reduced, such as a count. What is retrieved in it later narrows it again, and the
        rest of the run stays as it was.
        """
        label = Label(checked(data_class, argument="data_class"), (f"cleared: {reason}",))
        note(self, CLEARED, label, was=self.carries.told)
        return replace(self, lineage=Mark(label))

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
        Raises `SkillError` for arguments that the skill does not take.
        """
        if not isinstance(skill, Skill):
            raise Mistake(f"{getattr(skill, '__name__', skill)!r} is no skill: write @skill above its async def")
        if not isinstance(arguments, Mapping):
            example = f"{{{next(iter(skill.signature.parameters), 'name')!r}: …}}"
            raise SkillError(f"{skill.name} is called with its arguments by name, such as {example}, not {arguments!r}")
        if arguments.keys() != skill.signature.parameters.keys():
            arguments = skill.bind((), arguments)
        return cast(T, await Step(self, skill, arguments, key=key).run())

    async def set_aside(self, skill: Skill[Any, Any], *, input_tokens: int) -> str:
        """Hold now what one step of `skill` will cost later (landing fuel). Returns a ticket for `landing`.

        A node that is carried out again gets the same ticket, as long as nothing was spent on it; so does one that asks
        twice for the same skill: a node sets aside one step of a skill.
        """
        amount = worst_case(self.engine, skill, input_tokens)
        base = f"{self.engine.place(self.run_id)}/{skill.name}.landing"
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
        self,
        prompt: str,
        *,
        system: str | None = None,
        accept: Accept = (),
        max_output_tokens: int | None = None,
        images: Sequence[Image] = (),
        turns: Sequence[Message] = (),
        tools: Sequence[Tool] = (),
        tool_choice: ToolChoice = "auto",
        data_class: DataClass | None = None,
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
        images: Sequence[Image] = (),
        turns: Sequence[Message] = (),
        data_class: DataClass | None = None,
    ) -> Reply[T]: ...
    async def complete(
        self,
        prompt: str,
        *,
        output: Any = str,
        system: str | None = None,
        accept: Accept = (),
        max_output_tokens: int | None = None,
        images: Sequence[Image] = (),
        turns: Sequence[Message] = (),
        tools: Sequence[Tool] = (),
        tool_choice: ToolChoice = "auto",
        data_class: DataClass | None = None,
    ) -> Reply[Any]:
        """Ask the skill's models, cheapest first; climb while an answer does not pass `accept` and may.

        `system` defaults to the skill's docstring; `output` is enforced by grammar or structured output. ``images`` go
        with the prompt, ``turns`` follow it: what was said since, such as `Reply.message` and the results of ``tools``
        that it asked for. A model that asks for tools gives `Reply.calls`; that is no answer, and is not checked.
        ``data_class`` is that of what the prompt brings, if the run does not know (see `mark`).
        Raises `BudgetExceeded` before sending what does not fit, `DataRefused` where no model may see it,
        `InvalidOutput` if no model could give `output`, `SkillError` for a check or a cap that cannot be one.
        """
        step, shape = self._inside("ctx.complete"), Output(output)
        if data_class is not None:
            self.mark(data_class, f"skill {step.skill.name}")
        _check_given(prompt, images, turns, tools)
        messages = _prompt(step.skill, prompt, system, shape, images, turns)
        request = request_of(step.skill, messages, shape, max_output_tokens, fixed=_fixed(messages, system))
        request = replace(request, tools=tuple(tools), tool_choice=tool_choice)
        return await climb(step, request, shape, step.skill.checks(accept))

    def stream(
        self,
        prompt: str,
        *,
        system: str | None = None,
        max_output_tokens: int | None = None,
        images: Sequence[Image] = (),
        turns: Sequence[Message] = (),
        tools: Sequence[Tool] = (),
        tool_choice: ToolChoice = "auto",
        data_class: DataClass | None = None,
    ) -> ReplyStream:
        """Ask the model of the skill's tier, and get the answer as it arrives, on a hold that grows with it::

            async with ctx.stream(f"Tell me about {what}.") as pieces:
                async for piece in pieces:
                    print(piece, end="")
            return pieces.reply.text

        Where the hold cannot grow the stream is cut, and settled at what it used: ``reply.finish`` is ``"cut"``, and
        ``reply.refusal`` says which account had no more. Raises, while it is read, what `complete` does; a stream that
        breaks off raises `OutcomeUnknown` after the pieces that arrived.
        """
        step, shape = self._inside("ctx.stream"), Output(str)
        if data_class is not None:
            self.mark(data_class, f"skill {step.skill.name}")
        _check_given(prompt, images, turns, tools)
        messages = _prompt(step.skill, prompt, system, shape, images, turns)
        request = request_of(step.skill, messages, shape, max_output_tokens, fixed=_fixed(messages, system))
        request = replace(request, tools=tuple(tools), tool_choice=tool_choice)
        return ReplyStream(step, request)

    async def fit(
        self,
        messages: Sequence[Message],
        *,
        tokens: int,
        policy: Policy | None = None,
        tools: Sequence[Tool] = (),
        turns: int | None = None,
    ) -> Fitted:
        """`messages` within `tokens`, as the model of the skill's tier counts them with `tools`.

        A conversation that fits stays whole. Of another, what is old becomes a line each (see `Policy`), then lines
        that nothing speaks of are dropped. Old lines are summed up by the local model where that pays over `turns` more
        calls (None: as many as there are messages); the summary is a call of this step. Raises `ContextTooLong` where
        what must stay does not fit.
        """
        _check_given("", (), messages, tools)
        return await fitted(self._inside("ctx.fit"), messages, tokens, policy=policy, tools=tools, turns=turns)

    def _inside(self, what: str) -> Step:
        if self.step is None:
            raise SkillError(f"{what} belongs inside a skill: a step is what holds the money for it")
        return self.step

    async def retrieve(
        self, question: str, *, tokens: int, hops: int = 1, at_most: DataClass | None = None
    ) -> Retrieved:
        """The passages of the run's documents worth most within `tokens`.

        ``hops=2`` searches again for what the best of them leave open: for questions that lead through two documents.
        From here on the run carries the narrowest class of these documents. ``at_most`` leaves out what is narrower,
        as if it were not there: ``at_most="internal"`` for what is to be sent to a model elsewhere.
        """
        index = self.engine.index
        if index is None:
            raise Mistake("this run has no documents: give the agent index='a folder of documents'")
        return await search(self, index, question, tokens, hops=hops, at_most=at_most)

    async def remember(self, text: str, *, source: str = "", expires: timedelta | None = None) -> Memory:
        """Keep `text`, in a sentence, as something that was learned of the run's user, for later runs to `recall`.

        ``source`` are the words that said it; run, step and time are noted. What says the same as a memory that is
        there becomes one with it. After `expires` it is not recalled, and deleted. Raises `Mistake` for a run without
        a user.
        """
        return await remember(self, text, source=source, expires=expires)

    async def recall(self, question: str, *, tokens: int) -> Recalled:
        """What was learned of the run's user that matters most to `question`, within `tokens`.

        It is data like a retrieved passage: what somebody said, not what the agent was told to do.
        """
        return await recall(self, question, tokens)

    async def forget(self, memory_id: str) -> None:
        """Delete a memory of the run's user, so that it is gone. Raises `Mistake` for one that they do not have."""
        await forget(self, memory_id)


def _check_given(prompt: object, images: Iterable[object], turns: Iterable[object], tools: Iterable[object]) -> None:
    """Raise `Mistake` for a part of a prompt that is of another kind, and say how it is written."""
    kinds: tuple[tuple[type, str, Iterable[object]], ...] = (
        (str, "a prompt is text; what was said before or since goes into turns=[Message(role, text), …]", (prompt,)),
        (Image, "a picture is Image(Path('a.png').read_bytes(), 'image/png')", images),
        (Message, "a conversation is made of Message(role, text)", turns),
        (Tool, "a tool is Tool(name, description, schema of its arguments), which your code carries out", tools),
    )
    for kind, how, given in kinds:
        for one in given:
            if not isinstance(one, kind):
                raise Mistake(f"{how}, not {type(one).__name__}")


def _prompt(
    skill: Skill[Any, Any],
    prompt: str,
    system: str | None,
    shape: Output,
    images: Sequence[Image],
    turns: Sequence[Message],
) -> tuple[Message, ...]:
    text = "\n\n".join(filter(None, [skill.prompt if system is None else system, shape.instruction]))
    asked = Message("user", prompt, images=tuple(images))
    return (Message("system", text), asked, *turns) if text else (asked, *turns)


def _fixed(messages: tuple[Message, ...], system: str | None) -> int:
    """How many messages are the same in every call of the skill: its own docstring is."""
    return int(system is None and messages[0].role == "system")
