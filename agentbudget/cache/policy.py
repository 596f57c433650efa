"""Whether answers of a skill may be reused: a policy that each skill may choose."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta
from typing import Literal

from agentbudget.cache.label import Kind
from agentbudget.errors import SkillError


@dataclass(frozen=True, slots=True)
class Off:
    """Runs do not reuse each other's answers. A run that is resumed still finds its own: it paid for them."""


@dataclass(frozen=True, slots=True)
class Exact:
    """The same request to the same model, asked again, is answered from the cache, at 0.

    ``ttl_s`` is how old an answer may be, in seconds; None: any age. ``across_tenants`` lets all tenants share these
    answers, which is right only where no prompt holds anything of a tenant's own. ``kind`` is what statements call it.
    """

    ttl_s: float | None = None
    across_tenants: bool = False
    kind: Kind = "answer"

    def __post_init__(self) -> None:
        if isinstance(self.ttl_s, timedelta):
            raise SkillError(f"ttl_s is in seconds, not {self.ttl_s!r}: write ttl_s=span.total_seconds()")
        if self.ttl_s is not None and not self.ttl_s > 0:
            raise SkillError(
                f"an answer may be kept for more than 0 seconds, not {self.ttl_s!r}; cache='off' keeps none"
            )


Caching = Off | Exact
"""What becomes of a skill's answers."""

Cache = Literal["off", "exact"] | timedelta | Caching
"""A `Caching` as a skill may name it; a time is how old an exact answer may be."""


def caching(said: Cache) -> Caching:
    """The policy that was meant. Raises `SkillError`."""
    if isinstance(said, Off | Exact):
        return said
    if isinstance(said, timedelta):
        return Exact(ttl_s=said.total_seconds())
    if said == "off":
        return Off()
    if said == "exact":
        return Exact()
    raise SkillError(f"cache must be 'off', 'exact', a timedelta or a policy of agentbudget.cache, not {said!r}")
