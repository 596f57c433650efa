"""The seam to the engines that hold memories: those of one user, and nobody else's."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any, Protocol

from agentbudget.context.embed import Vector
from agentbudget.context.store import Sparse
from agentbudget.memory.record import Memory, Owner
from agentbudget.privacy import Destination

FORMAT = 1
"""Version of what is stored with each memory."""


@dataclass(frozen=True, slots=True)
class Point:
    """A memory with what it is found by."""

    memory: Memory
    dense: Vector
    sparse: Sparse


class Store(Protocol):
    """One user's memories in an engine. Blocking; calls come one at a time. Raises `IndexFault`.

    An id of another user's memory is an id that is not there.
    """

    def put(self, points: Sequence[Point]) -> None:
        """Add memories, or replace those of the same id. They are durable when it returns."""
        ...

    def get(self, ids: Sequence[str]) -> list[Memory]:
        """Those of these ids that are there."""
        ...

    def every(self) -> list[Memory]:
        """All of them."""
        ...

    def nearest(self, dense: Vector, limit: int) -> list[tuple[Memory, float]]:
        """The memories most alike in meaning, with the cosine of their vectors."""
        ...

    def search(self, dense: Vector, sparse: Sparse, limit: int) -> list[Memory]:
        """By meaning and by words, fused by the engine, best first."""
        ...

    def delete(self, ids: Sequence[str]) -> None:
        """Remove memories, and what the engine still has of them on disk, as far as it lets go of it."""
        ...

    def destroy(self) -> None:
        """Remove everything of this user."""
        ...


class Stores(Protocol):
    """Opens the memories of users."""

    @property
    def location(self) -> str:
        """Where they are, for messages; never with a key."""
        ...

    @property
    def destination(self) -> Destination | None:
        """Where memories go; None for this process."""
        ...

    def open(self, owner: Owner, *, fingerprint: str, dim: int) -> AbstractContextManager[Store]:
        """The memories of `owner`, for vectors of the embedding model `fingerprint`, while the block lasts.

        Raises `IndexMismatch` if there are vectors of another model, `IndexBusy` if another process has them open for
        long.
        """
        ...

    def owners(self) -> list[Owner]:
        """Who has memories here, in the order of their names."""
        ...

    def destroy(self, owner: Owner) -> None:
        """Remove everything of `owner`, also what cannot be read. Raises `IndexFault` if something is left."""
        ...

    def close(self) -> None:
        """Let go of connections."""
        ...


def payload(owner: Owner, memory: Memory, fingerprint: str) -> dict[str, Any]:
    """What is stored beside a memory's vectors."""
    told = {"format": FORMAT, "tenant": owner.tenant, "user": owner.user, "embedder": fingerprint}
    return told | {"memory": memory.to_dict()}
