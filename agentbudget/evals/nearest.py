"""The labelled examples most like a message: a few hundred vectors in memory, searched by cosine."""

from __future__ import annotations

import hashlib
import logging
import os
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Final, TypeVar

from agentbudget.context.embed import Embedder, FastEmbedder
from agentbudget.evals.tasks import Preparing
from agentbudget.money import Amount
from agentbudget.usage import Usage

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from agentbudget.step import Context

    Matrix = NDArray[np.float32]

T = TypeVar("T")

_log = logging.getLogger(__name__)

BATCH: Final = 64
"""Examples embedded within one hold."""

CAP_NS: Final = 60 * 10**9
"""What one batch, or one search, may take of this machine, in nanoseconds."""


@dataclass(frozen=True, slots=True)
class Example:
    """A text and its label."""

    text: str
    label: str


@dataclass(slots=True)
class Nearest:
    """Finds examples by meaning. Their vectors are made once and kept in the folder ``vectors``."""

    examples: tuple[Example, ...]
    vectors: Path
    embedder: Embedder = field(default_factory=FastEmbedder)
    _matrix: Matrix | None = None

    def prepare(self, ctx: Context, progress: Preparing) -> None:
        """Embed the examples, paid for by the second, or read the vectors that were kept."""
        import numpy as np

        path = self.vectors / f"{self._key()}.npy"
        self._matrix = self._kept(path)
        if self._matrix is not None:
            return
        rows: list[list[float]] = []
        for start in range(0, len(self.examples), BATCH):
            texts = [example.text for example in self.examples[start : start + BATCH]]
            rows += _paid(ctx, f"embed.{path.stem}.{start}", "index", lambda texts=texts: self.embedder.embed(texts))
            progress(len(rows), len(self.examples))
        self._matrix = np.asarray(rows, dtype=np.float32)
        path.parent.mkdir(parents=True, exist_ok=True)
        draft = path.with_suffix(f".{os.getpid()}.npy")  # another eval may be at the same
        np.save(draft, self._matrix)
        draft.replace(path)

    def _kept(self, path: Path) -> Matrix | None:
        """The vectors in this file; None if they are not there, or not whole, and have to be made."""
        import numpy as np

        try:
            matrix: Matrix = np.load(path)
            if matrix.shape == (len(self.examples), self.embedder.dim):
                return matrix
            fault: object = f"their shape is {matrix.shape}"
        except FileNotFoundError:
            return None
        except (OSError, ValueError, EOFError) as error:
            fault = error
        _log.warning("the examples are embedded anew: their vectors in %s cannot be read: %s", path, fault)
        return None

    def search(self, ctx: Context, text: str, count: int) -> tuple[Example, ...]:
        """The `count` examples nearest to `text`, the nearest first."""
        return _paid(ctx, "nearest", "retrieval", lambda: self._search(text, count))

    def _search(self, text: str, count: int) -> tuple[Example, ...]:
        import numpy as np

        assert self._matrix is not None, "prepare comes before search"
        scores = self._matrix @ np.asarray(self.embedder.embed_query(text), dtype=np.float32)
        order: list[int] = np.argsort(-scores, kind="stable")[:count].tolist()
        return tuple(self.examples[n] for n in order)

    def _key(self) -> str:
        parts = [self.embedder.fingerprint, *(example.text for example in self.examples)]
        return hashlib.blake2b("\0".join(parts).encode(), digest_size=12).hexdigest()


def _paid(ctx: Context, name: str, kind: str, work: Callable[[], T]) -> T:
    """Do `work` within a hold on the run of `ctx`, settled by the time that it took."""
    machine = ctx.engine.machine
    cap = Amount(machine.cost(Usage(compute_ns=CAP_NS)))
    meta = {"kind": kind, "source": "examples", "price": machine.source}
    hold = ctx.engine.ledger.reserve(f"{ctx.run_id}/{name}", cap, accounts=ctx.scope.accounts(), tag=kind, meta=meta)
    started = time.perf_counter_ns()
    try:
        return work()
    finally:
        hold.settle(Amount(machine.cost(Usage(compute_ns=time.perf_counter_ns() - started))))
