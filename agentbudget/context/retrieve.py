"""From a question to the context that is worth most within a token allowance."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from agentbudget.context.hosted import Pay
from agentbudget.context.index import Index
from agentbudget.context.pack import LeftOut, More, Packed, pack
from agentbudget.context.passages import Passage
from agentbudget.context.store import Hit
from agentbudget.errors import Mistake


@dataclass(frozen=True, slots=True)
class Retrieved:
    """What was found for a question. ``str()`` is ``text``, ready for a prompt: each passage under its ``[n]`` mark.

    ``tokens`` is exact by the counter that was given. ``chance`` estimates how likely the answer is inside; ``left_out``
    says what is not, the likeliest first, and ``more`` what about 100 tokens more would bring. ``compute_ns`` is the wall
    time of embedding the question, searching and packing.
    """

    question: str
    passages: tuple[Passage, ...]
    text: str
    tokens: int
    compute_ns: int
    chance: float = 0.0
    left_out: tuple[LeftOut, ...] = ()
    more: More | None = None

    def __str__(self) -> str:
        return self.text


async def retrieve(
    index: Index,
    question: str,
    *,
    tokens: int,
    count_tokens: Callable[[str], int] | None = None,
    limit: int = 24,
    where: Mapping[str, str | Sequence[str]] | None = None,
    pay: Pay | None = None,
) -> Retrieved:
    """The sentences worth most for `question` within `tokens`, as `count_tokens` counts: the model's that reads them.

    None counts with the embedding model, which is near but not exact for another. At most `limit` chunks are considered,
    of files whose metadata `where` matches; ``pay`` pays for a hosted embedding model. Nothing found is no error:
    ``passages`` is then empty. Raises `Mistake` for an empty question or an allowance that not one good sentence fits,
    `DocumentsError` for an empty index.
    """
    if isinstance(tokens, bool) or not isinstance(tokens, int) or tokens < 1:
        raise Mistake(f"an allowance of {tokens!r} tokens holds nothing; give retrieve() a few hundred")
    found = await index.search(question, limit=limit, where=where, pay=pay)
    started = time.perf_counter_ns()
    packed = pack(question, found.hits, tokens=tokens, count_tokens=count_tokens or index.count_tokens)
    if packed.least_tokens is not None:
        raise _too_small(tokens, found.hits, packed)
    return Retrieved(
        question,
        packed.passages,
        packed.text,
        packed.tokens,
        found.compute_ns + time.perf_counter_ns() - started,
        packed.chance,
        packed.left_out,
        packed.more,
    )


def _too_small(tokens: int, hits: Sequence[Hit], packed: Packed) -> Mistake:
    return Mistake(
        f"an allowance of {tokens} tokens holds not one sentence of what was found; the best, under its title, takes "
        f"{packed.least_tokens} (from {hits[0].chunk.title}): give retrieve() at least that"
    )
