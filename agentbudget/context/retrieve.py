"""From a question to the passages that answer it, within a token allowance."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from agentbudget.context.classify import label_of
from agentbudget.context.hosted import Pay
from agentbudget.context.index import Index
from agentbudget.context.pack import Passage, pack
from agentbudget.errors import Mistake
from agentbudget.privacy import Label, Privacy


@dataclass(frozen=True, slots=True)
class Retrieved:
    """What was found for a question. ``str()`` is ``text``, ready for a prompt: each passage under its ``[n]`` mark.

    ``tokens`` is exact by the counter that was given; ``left_out`` candidates did not fit; ``compute_ns`` is the wall
    time of embedding the question and searching.
    """

    question: str
    passages: tuple[Passage, ...]
    text: str
    tokens: int
    left_out: int
    compute_ns: int

    def __str__(self) -> str:
        return self.text

    def label(self, privacy: Privacy) -> Label:
        """The narrowest class of the passages, by these rules and by what the index knows, and whence it comes."""
        label = Label()
        for passage in self.passages:
            label = label.joined(label_of(passage.chunk, privacy))
        return label


async def retrieve(
    index: Index,
    question: str,
    *,
    tokens: int,
    count_tokens: Callable[[str], int] | None = None,
    limit: int = 24,
    pay: Pay | None = None,
) -> Retrieved:
    """The best passages for `question` within `tokens`, as `count_tokens` counts: the model's that will read them.

    None counts with the embedding model, which is near but not exact for another. At most `limit` candidates are
    considered; ``pay`` pays for a hosted embedding model. Nothing found is no error: ``passages`` is then empty. Raises
    `Mistake` for an empty question or an allowance that not one sentence fits, `DocumentsError` for an empty index.
    """
    if isinstance(tokens, bool) or not isinstance(tokens, int) or tokens < 1:
        raise Mistake(f"an allowance of {tokens!r} tokens holds nothing; give retrieve() a few hundred")
    count = count_tokens or index.count_tokens
    found = await index.search(question, limit=limit, pay=pay)
    packed = pack(question, found.hits, tokens=tokens, count_tokens=count)
    if found.hits and not packed.passages:
        first = Passage(1, found.hits[0].chunk, found.hits[0].chunk.text, found.hits[0].score)
        raise Mistake(
            f"an allowance of {tokens} tokens holds not one sentence of what was found; the best chunk, "
            f"{first.chunk.title}, takes {count(str(first))}: give retrieve() at least that"
        )
    return Retrieved(question, packed.passages, packed.text, packed.tokens, packed.left_out, found.compute_ns)
