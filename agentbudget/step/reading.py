"""What a run has read of its documents: so that an answer knows what it was made of."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Final

from agentbudget.cache import Source

if TYPE_CHECKING:
    from agentbudget.context import Passage
    from agentbudget.models.base import Message
    from agentbudget.step.transaction import Step

REMEMBERED: Final = 512
"""Passages of a run that are remembered, the latest: a prompt brings a few."""


class Reading:
    """The passages that were retrieved in one run, the latest last, and the steps that read each; none for a node."""

    def __init__(self) -> None:
        self._read: dict[tuple[Source, str], set[str]] = {}

    def add(self, passages: Iterable[Passage], step: Step | None) -> None:
        """Remember that these were retrieved, by `step` or by a node."""
        for passage in passages:
            piece = Source(passage.chunk.source, passage.chunk.id), passage.told
            readers = self._read.pop(piece, set[str]())
            if step is not None:
                readers.add(step.base)
            self._read[piece] = readers
        while len(self._read) > REMEMBERED:
            del self._read[next(iter(self._read))]

    def behind(self, step: Step, messages: Sequence[Message]) -> tuple[Source, ...]:
        """What a prompt was made of: all that its step, or one that called it, has read, whatever became of the words;
        and what else of this run stands in it, or is named there."""
        if not self._read:
            return ()
        steps = {one.base for one in (step, *step.above)}
        told = "\n".join(message.text for message in messages)
        found = {
            source
            for (source, text), readers in self._read.items()
            if readers & steps or text in told or source.document in told
        }
        return tuple(sorted(found))
