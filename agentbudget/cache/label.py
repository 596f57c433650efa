"""Whose an entry is and what it was made of: what it can be found by when it has to go."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, NamedTuple

from agentbudget.tenants import DEFAULT_TENANT

Kind = Literal["answer", "plan", "embedding", "retrieval"]
"""What was paid for."""


class Source(NamedTuple):
    """A piece of a document that something was made of: its path in the folder, and the content hash of the chunk."""

    document: str
    chunk: str


@dataclass(frozen=True, slots=True)
class Label:
    """What an entry was bought for. ``model`` is that which made it; ``sources`` are the documents it was made of.

    An empty ``tenant`` means that all tenants share it.
    """

    kind: Kind = "answer"
    tenant: str = DEFAULT_TENANT
    skill: str = ""
    skill_version: str = ""
    model: str = ""
    sources: tuple[Source, ...] = ()


@dataclass(frozen=True, slots=True)
class Which:
    """Which entries: those that fit all that is given. ``document`` is a path as `Source.document` has it.

    What is kept of an earlier version does not say whose it is: it may be anybody's, and fits every tenant, skill and
    document. What tenants share belongs to none of them.
    """

    kind: Kind | None = None
    tenant: str | None = None
    skill: str | None = None
    skill_version: str | None = None
    model: str | None = None
    document: str | None = None
    chunk: str | None = None
    older_than_s: float | None = None
