"""Embed in several processes at once: the same vectors, in the same order, from as many models as there are cores."""

from __future__ import annotations

import multiprocessing
import pickle
from collections import deque
from collections.abc import Generator, Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from itertools import islice

from agentbudget.context.embed import Embedder, FastEmbedder, Vector
from agentbudget.context.hosted import HostedEmbedder
from agentbudget.errors import IndexFault, Mistake
from agentbudget.models._processors import processors

_embedder: Embedder | None = None
"""In a worker: the model that it has loaded."""


def embed_in_order(
    embedder: Embedder, batches: Sequence[Sequence[str]], *, processes: int = 1
) -> Generator[list[Vector]]:
    """The vectors of each batch, as soon as it and those before it are done.

    ``processes`` workers, but no more than there are processors or batches, share those; one works in this process.
    Raises `Mistake` if the embedder cannot be sent to another process, `IndexFault` if a worker dies.
    """
    workers = min(processes, processors(), len(batches))
    if workers <= 1:
        for batch in batches:
            yield embedder.embed(batch)
        return
    yield from _shared_out(_sendable(embedder, threads=max(1, processors() // workers)), batches, workers)


def _shared_out(packed: bytes, batches: Sequence[Sequence[str]], workers: int) -> Iterator[list[Vector]]:
    # Spawned, for a fork would copy locks of ONNX Runtime that other threads hold.
    pool = ProcessPoolExecutor(
        workers, mp_context=multiprocessing.get_context("spawn"), initializer=_load, initargs=(packed,)
    )
    coming = iter(batches)
    ahead: deque[Future[list[Vector]]] = deque()
    try:
        # A few batches ahead keep every worker busy; more would hold all vectors in memory.
        ahead.extend(pool.submit(_embed, batch) for batch in islice(coming, 2 * workers))
        while ahead:
            done = ahead.popleft().result()
            ahead.extend(pool.submit(_embed, batch) for batch in islice(coming, 1))
            yield done
    except BrokenProcessPool as error:
        raise IndexFault(
            "a process that embeds ended before its work (killed, or out of memory); what was embedded is kept: run "
            "update(folder) again, with fewer processes"
        ) from error
    finally:
        pool.shutdown(wait=True, cancel_futures=True)


def _sendable(embedder: Embedder, *, threads: int) -> bytes:
    if isinstance(embedder, HostedEmbedder):
        raise Mistake("a hosted embedding model computes elsewhere: leave `processes` out")
    try:
        return pickle.dumps(embedder.with_threads(threads) if isinstance(embedder, FastEmbedder) else embedder)
    except (pickle.PicklingError, AttributeError, TypeError) as error:
        raise Mistake(f"this embedder cannot be sent to another process ({error}): leave `processes` out") from error


def _load(packed: bytes) -> None:
    global _embedder
    _embedder = pickle.loads(packed)
    assert _embedder is not None
    _embedder.embed(["ready"])


def _embed(batch: Sequence[str]) -> list[Vector]:
    assert _embedder is not None
    return _embedder.embed(batch)
