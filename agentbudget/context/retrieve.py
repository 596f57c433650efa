"""From a question to the context that is worth most within a token allowance."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence, Set
from dataclasses import dataclass, replace
from typing import Final

from agentbudget.context.choose import Candidate, candidates
from agentbudget.context.chunk import Chunk
from agentbudget.context.classify import label_of
from agentbudget.context.hops import BRANCHES, ENDS, MOST_HOPS, doubt, follow_up, less_likely, merged, one_a_step
from agentbudget.context.hosted import Pay
from agentbudget.context.index import Index
from agentbudget.context.pack import WORTHLESS, LeftOut, More, pack_candidates
from agentbudget.context.passages import Passage
from agentbudget.errors import Mistake
from agentbudget.privacy import Label, Privacy
from agentbudget.privacy.classes import within
from agentbudget.privacy.fence import between

NEIGHBOURS: Final = 1
"""Beside so many of the best chunks, the ones before and after are considered, if those are short."""


@dataclass(frozen=True, slots=True)
class Retrieved:
    """What was found for a question. ``str()`` is ``text``, ready for a prompt: each passage under its ``[n]`` mark.

    ``tokens`` is exact by the counter that was given. ``chance`` estimates how likely the answer is inside, and is None
    where it has several parts (``hops``); ``left_out`` says what is not, the likeliest first, and ``more`` what about
    100 tokens more would bring. ``compute_ns`` is the wall time of embedding the question, searching and packing.
    """

    question: str
    passages: tuple[Passage, ...]
    text: str
    tokens: int
    compute_ns: int
    chance: float | None = None
    left_out: tuple[LeftOut, ...] = ()
    more: More | None = None

    def __str__(self) -> str:
        return self.text

    @property
    def fenced(self) -> str:
        """``text`` between ``<passages>`` and ``</passages>``, which no passage can close."""
        return between(self.text)

    def label(self, privacy: Privacy) -> Label:
        """The narrowest class of the passages, by these rules and by what the index knows, and whence it comes."""
        label = Label()
        for passage in self.passages:
            label = label.joined(label_of(passage.chunk, privacy))
        return label

    @property
    def sources(self) -> Set[str]:
        """The files that the passages, and what was left out, are from."""
        return {each.chunk.source for each in (*self.passages, *self.left_out)}

    def marked(self, stale: Set[str]) -> Retrieved:
        """The same, found again at a time when these files, and no others, are no longer as they were read."""

        def now(chunk: Chunk) -> Chunk:
            return replace(chunk, stale=chunk.source in stale)

        return replace(
            self,
            passages=tuple(replace(each, chunk=now(each.chunk)) for each in self.passages),
            left_out=tuple(replace(each, chunk=now(each.chunk)) for each in self.left_out),
        )

    def without_narrower(self, privacy: Privacy) -> Retrieved:
        """The same, with nothing in what was left out that is narrower than the passages are."""
        ceiling = self.label(privacy).data_class
        left = tuple(each for each in self.left_out if within(label_of(each.chunk, privacy).data_class, ceiling))
        more = self.more
        if more is not None and len(left) < len(self.left_out):
            more = replace(more, preview="")  # which may be of those
        return replace(self, left_out=left, more=more)


async def retrieve(
    index: Index,
    question: str,
    *,
    tokens: int,
    count_tokens: Callable[[str], int] | None = None,
    hops: int = 1,
    neighbours: int = NEIGHBOURS,
    limit: int = 24,
    where: Mapping[str, str | Sequence[str]] | None = None,
    pay: Pay | None = None,
) -> Retrieved:
    """The sentences worth most for `question` within `tokens`, as `count_tokens` counts: the model's that reads them.

    None counts with the embedding model, which is near but not exact for another. ``hops`` above 1 searches again for
    what the best chunks leave open (who is the mother of the director of …): up to three more searches a hop. What
    stands before and after the ``neighbours`` best chunks is considered with them, if those are short. At most
    `limit` chunks of a search are considered, of files whose metadata `where` matches; ``pay`` pays for a hosted
    embedding model. Nothing found is no error: ``passages`` is then empty. Raises `Mistake` for an empty question or an
    allowance that not one good sentence fits, `DocumentsError` for an empty index.
    """
    if isinstance(tokens, bool) or not isinstance(tokens, int) or tokens < 1:
        raise Mistake(f"an allowance of {tokens!r} tokens holds nothing; give retrieve() a few hundred")
    if isinstance(hops, bool) or not isinstance(hops, int) or not 1 <= hops <= MOST_HOPS:
        raise Mistake(f"hops must be between 1 and {MOST_HOPS}, not {hops!r}")
    search = _Search(index, limit, neighbours, where, pay)
    found = await search.found(question, hops)
    started = time.perf_counter_ns()
    packed = pack_candidates(
        found,
        tokens=tokens,
        count_tokens=count_tokens or index.count_tokens,
        least_chance=WORTHLESS if hops == 1 else 0.0,
    )
    if packed.least_tokens is not None:
        raise _too_small(tokens, found[0].chunk, packed.least_tokens)
    return Retrieved(
        question,
        packed.passages,
        packed.text,
        packed.tokens,
        search.compute_ns + time.perf_counter_ns() - started,
        packed.chance if hops == 1 else None,
        packed.left_out,
        packed.more,
    )


@dataclass(slots=True)
class _Search:
    """Searches, and the wall time that they took: reading what was found included."""

    index: Index
    limit: int
    neighbours: int
    where: Mapping[str, str | Sequence[str]] | None
    pay: Pay | None
    compute_ns: int = 0

    async def found(self, question: str, hops: int) -> list[Candidate]:
        """What `question` finds, and what the open ends of that find, likelier first within each search."""
        groups = [await self._ask(question)]
        ends = [(question, candidate) for candidate in groups[0][:BRANCHES] if candidate.chances]
        for hop in range(1, hops):
            best = max((max(candidate.chances) for _, candidate in ends), default=0.0)
            ends = [
                end
                for question, candidate in ends
                for end in await self._further(question, candidate, doubt(hop, candidate, best), groups)
            ]
            ends = sorted(ends, key=lambda end: -max(end[1].chances))[:BRANCHES]
        return one_a_step(merged(groups)) if hops > 1 else groups[0]

    async def _further(
        self, question: str, candidate: Candidate, factor: float, groups: list[list[Candidate]]
    ) -> list[tuple[str, Candidate]]:
        """Ask what `candidate` leaves open; the best of what that finds are the next ends."""
        asked = follow_up(question, candidate)
        if asked is None:
            return []
        found = await self._ask(asked.question, besides=candidate.chunk)
        groups.append(less_likely(asked.likelier(found), factor))
        return [(asked.question, each) for each in groups[-1][:ENDS] if each.chances]

    async def _ask(self, question: str, besides: Chunk | None = None) -> list[Candidate]:
        """What `question` finds. The chunk that led to it would come first again, and all else look unlikely by it."""
        answer = await self.index.search(
            question, limit=self.limit, neighbours=self.neighbours, where=self.where, pay=self.pay
        )
        started = time.perf_counter_ns()
        read = candidates(question, [hit for hit in answer.hits if besides is None or hit.chunk.id != besides.id])
        self.compute_ns += answer.compute_ns + time.perf_counter_ns() - started
        return read


def _too_small(tokens: int, best: Chunk, least_tokens: int) -> Mistake:
    return Mistake(
        f"an allowance of {tokens} tokens holds not one sentence of what was found; the best, under its title, takes "
        f"{least_tokens} (from {best.title}): give retrieve() at least that"
    )
