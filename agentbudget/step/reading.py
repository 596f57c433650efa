"""What a run has read of its documents: so that an answer knows what it was made of."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

from agentbudget.cache import Source

if TYPE_CHECKING:
    from agentbudget.context import Passage
    from agentbudget.models.base import Message
    from agentbudget.step.transaction import Step

REMEMBERED: Final = 512
"""Passages of a run that are remembered, the latest: a prompt brings a few."""


@dataclass(slots=True)
class _Read:
    """A passage, and by which steps' skills it was read; none for a node of the graph."""

    source: Source
    text: str
    by: set[str] = field(default_factory=set[str])


class Reading:
    """The passages that were retrieved in one run."""

    def __init__(self) -> None:
        self._read: dict[tuple[Source, str], _Read] = {}

    def add(self, passages: Iterable[Passage], step: Step | None) -> None:
        """Remember that these were retrieved, by `step` or by a node."""
        for passage in passages:
            source, text = Source(passage.chunk.source, passage.chunk.id), passage.told
            read = self._read.pop((source, text), None) or _Read(source, text)
            if step is not None:
                read.by.add(step.base)
            self._read[source, text] = read
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
            read.source
            for read in self._read.values()
            if read.by & steps or read.text in told or read.source.document in told
        }
        return tuple(sorted(found))
