"""What a run did not pay for: the holds that a cache ended at 0, each with what it saved and why it was trusted."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from agentbudget.ledger import HoldRecord
from agentbudget.statement.fold import is_hit, mapping, text, whole


@dataclass(frozen=True, slots=True)
class Reuse:
    """One hit of a cache. ``kind`` is what was reused: an answer, a plan, an embedding, a retrieval.

    ``because`` is ``"exact"`` where all that changes it was the same; else ``facts`` are what the trust rests on.
    """

    id: str
    kind: str
    what: str
    saved_usd_nano: int
    because: str
    facts: Mapping[str, str | int | float]


def reuses(records: Iterable[HoldRecord]) -> tuple[Reuse, ...]:
    """The hits among the holds of a run, in their order."""
    return tuple(_reuse(record) for record in records if is_hit(record))


def by_kind(hits: Sequence[Reuse]) -> dict[str, int]:
    """How many there are of each kind, the most first."""
    return dict(Counter(hit.kind for hit in hits).most_common())


def _reuse(record: HoldRecord) -> Reuse:
    told = mapping(record.detail, "cache")
    facts = {name: value for name, value in told.items() if isinstance(value, str | int | float)}
    return Reuse(
        id=record.id,
        kind=text(told, "kind") or "answer",
        what=text(record.meta, "skill") or text(record.meta, "source") or text(record.meta, "model") or record.id,
        saved_usd_nano=whole(record.detail, "saved_usd_nano") or 0,
        because=text(told, "because") or "exact",
        facts={name: value for name, value in facts.items() if name not in ("kind", "because")},
    )
