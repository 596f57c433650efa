"""What an update of an index says: while it goes on, and when it has ended."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal, Self

from agentbudget.context.chunk import Chunk
from agentbudget.context.load import Skipped


@dataclass(frozen=True, slots=True)
class Work:
    """What an update embeds: chunks of so many files, with ``characters`` and ``tokens`` in all.

    ``done_tokens`` of them were embedded in ``compute_ns`` nanoseconds of wall time.
    """

    files: int
    characters: int
    tokens: int
    done_tokens: int = 0
    compute_ns: int = 0

    @classmethod
    def of(cls, chunks: Sequence[Chunk]) -> Self:
        """The work of embedding these chunks, before the first."""
        return cls(
            files=len({chunk.source for chunk in chunks}),
            characters=sum(len(chunk.text) for chunk in chunks),
            tokens=sum(chunk.tokens for chunk in chunks),
        )

    @property
    def expected_ns(self) -> int | None:
        """What all of it takes at the speed measured so far; None before anything was embedded."""
        return self.compute_ns * self.tokens // self.done_tokens if self.done_tokens else None


@dataclass(frozen=True, slots=True)
class Progress:
    """How far an update got: files read, then chunks embedded. ``work`` is known from the second stage on."""

    stage: Literal["read", "embed"]
    done: int
    total: int
    work: Work | None = None


OnProgress = Callable[[Progress], None]


@dataclass(frozen=True, slots=True)
class Changes:
    """What stands between an index and its folder, in chunks: ``kept`` as they are (``moved`` of them to another place,
    ``relabelled`` where only their metadata changed), ``embedded`` and ``deleted``; ``skipped`` names files that cannot
    be read and ``ignored`` counts those of other kinds. ``tokens`` are to be embedded, of ``full_tokens`` in all.
    """

    documents: int
    kept: int
    moved: int
    relabelled: int
    embedded: int
    deleted: int
    skipped: tuple[Skipped, ...]
    ignored: int
    tokens: int
    full_tokens: int


@dataclass(frozen=True, slots=True)
class IndexReport(Changes):
    """What an update did. ``tokens`` were embedded, in ``compute_ns`` nanoseconds of wall time, for ``usd_nano``.

    Embedding all of the folder again would have taken ``full_tokens`` and ``full_usd_nano``, which is None where no
    speed is known yet to tell by. The whole update took ``seconds``. Dollars are the hosted model's for tokens, or this
    machine's for seconds.
    """

    compute_ns: int
    usd_nano: int
    full_usd_nano: int | None
    seconds: float

    @property
    def chunks(self) -> int:
        """Chunks in the index now."""
        return self.kept + self.embedded

    @property
    def saved_tokens(self) -> int:
        """Tokens that a full re-index would have embedded, and this update did not."""
        return self.full_tokens - self.tokens

    @property
    def saved_usd_nano(self) -> int | None:
        """What that would have cost; None where it is not known."""
        return None if self.full_usd_nano is None else self.full_usd_nano - self.usd_nano


@dataclass(frozen=True, slots=True)
class IndexPlan(Changes):
    """What an update would do, and what it would cost, as `IndexReport` tells it.

    ``seconds`` of embedding are judged by the speed so far, by a few chunks where there is none; None for a model that
    computes elsewhere, and where no speed is known and nothing is to be embedded.
    """

    seconds: float | None
    usd_nano: int
    full_usd_nano: int | None
