"""Lines summed up by a model, and the facts that it forgot put beside its words."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Final

from agentbudget.history.compact import Compacted
from agentbudget.history.facts import facts, stands_in, words
from agentbudget.models.base import Message, Request

LINES_AT_ONCE: Final = 12
"""Lines that are summed up together: then the next so many are added, and the prompt changes once for all of them."""

MAX_TOKENS: Final = 160

_PROMPT: Final = (
    "Sum up these notes of a conversation in at most 80 words, for the assistant that goes on with it. Say what was "
    "asked for, what was found and done, and what was refused. Add nothing of your own."
)


def asked(lines: Sequence[str]) -> Request:
    """What is asked of the model that sums up `lines`."""
    return Request((Message("system", _PROMPT), Message("user", "\n".join(lines))), MAX_TOKENS, fixed=1)


def summed_up(found: Compacted, lines: Sequence[str], summary: str) -> tuple[Message, ...]:
    """The prompt with `summary` in the place of its oldest `lines`, and the ids, dates, names and amounts it lacks.

    A summary that is no shorter with them is left out: the prompt is as it was.
    """
    old = "\n".join(lines)
    text = " ".join(summary.split())
    known = words(text)
    forgotten = dict.fromkeys(fact for _, fact in facts(old) if len(fact) > 1 and not stands_in(fact, known))
    new = "\n".join(filter(None, [text, f"also: {', '.join(forgotten)}" if forgotten else ""]))
    if not text or len(new) >= len(old):
        return found.messages
    return tuple(replace(message, text=message.text.replace(old, new, 1)) for message in found.messages)
