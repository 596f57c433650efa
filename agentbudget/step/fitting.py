"""A conversation in a token allowance: counted by the model that will read it, summed up where that pays."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from agentbudget.errors import Mistake
from agentbudget.history import Compacted, Policy, Worth, approximate, candidates, too_long, worth_of_summary
from agentbudget.history.summary import LINES_AT_ONCE, MAX_TOKENS, asked, summed_up
from agentbudget.models.base import Message, Model, Request, Tool
from agentbudget.output import Output
from agentbudget.step.calls import ask
from agentbudget.step.guarding import Way, ways
from agentbudget.usage import Usage

if TYPE_CHECKING:
    from agentbudget.step.transaction import Step

_PROBE: Final = 1000
"""Tokens by which it is asked whether a price is lower for what a cache has."""


@dataclass(frozen=True, slots=True)
class Fitted:
    """A conversation that fits. ``tokens`` are those of the prompt as the model counts it, ``exact`` or bounded.

    ``summary`` says what a summary was worth where one was weighed; it is in ``messages`` if it pays. ``compacted`` has
    the lines that stand for what is gone.
    """

    messages: tuple[Message, ...]
    tokens: int
    exact: bool
    compacted: Compacted
    summary: Worth | None = None


async def fitted(
    step: Step,
    messages: Sequence[Message],
    tokens: int,
    *,
    policy: Policy | None,
    tools: Sequence[Tool],
    turns: int | None,
) -> Fitted:
    """The gentlest way to bring `messages` within `tokens`. Raises `ContextTooLong` if none does."""
    if tokens < 1:
        raise Mistake(f"an allowance of {tokens} tokens holds nothing; give fit() a few hundred")
    least = 0
    for found in candidates(messages, policy):
        reader = _reader(step, found.messages, tools)
        shorter, worth = await _summarised(step, reader.model, found, len(messages) if turns is None else turns)
        if worth is not None and worth.pays:
            reader = _reader(step, shorter, tools)
        count = await reader.model.count_input(reader.request)
        if count.tokens <= tokens:
            return Fitted(shorter, count.tokens, count.exact, found, worth)
        least = count.tokens
    raise too_long(least, tokens)


def _reader(step: Step, messages: Sequence[Message], tools: Sequence[Tool]) -> Way:
    """The model that will read the conversation, and that may: a server that counts reads what it counts."""
    return ways(step, Request(tuple(messages), 1, tools=tuple(tools)), escalate=False)[0]


async def _summarised(
    step: Step, model: Model, found: Compacted, turns: int
) -> tuple[tuple[Message, ...], Worth | None]:
    """The prompt with its oldest lines summed up, if that pays over so many turns, and what it is worth.

    A number of lines at a time, so that the turns to come find the same summary, paid for already.
    """
    lines = found.lines[: len(found.lines) // LINES_AT_ONCE * LINES_AT_ONCE]
    if not lines or not step.engine.share_answers:  # which is where a later turn would find it
        return found.messages, None
    request = asked(lines)
    way = ways(step, request, tier="local")[0]
    writer = way.model
    old = approximate(Message("user", "\n".join(lines)))
    all_lines = approximate(Message("user", "\n".join(found.lines)))
    standing = [entry.message for entry in found.entries if entry.of is None or entry.of >= found.cut]
    worth = worth_of_summary(
        reader=model.price,
        writer=writer.price,
        old_tokens=old,
        summary_tokens=min(MAX_TOKENS, old // 3),
        behind_tokens=max(0, sum(map(approximate, standing)) - all_lines) + all_lines - old,
        turns=turns,
        cached=_is_cached(model),
    )
    if not worth.pays:
        return found.messages, worth
    answer, _ = await ask(step, way, way.request, Output(str), "summary", trust_history=False)
    return summed_up(found, lines, answer.text), worth


def _is_cached(model: Model) -> bool:
    """Whether what a prompt has in common with the last one is cheaper to read."""
    cached = model.price.cost(Usage(_PROBE, cached_tokens=_PROBE))
    return cached < model.price.expected(input_tokens=_PROBE, output_tokens=0)
