"""How much of a prompt is as the one before it began: what a cache of prompts can serve."""

from __future__ import annotations

from collections.abc import Sequence

from agentbudget.history.compact import Counter
from agentbudget.models.base import Message


def kept_prefix(before: Sequence[Message], now: Sequence[Message], *, count: Counter) -> int:
    """The tokens at the beginning of `now` that `before` begins with too, the last message perhaps in part."""
    kept = 0
    for old, new in zip(before, now, strict=False):
        if old == new:
            kept += count(new)
            continue
        if old.role == new.role and not new.calls and new.text:
            same = _alike(old.text, new.text)
            kept += count(new) * same // len(new.text)
        break
    return kept


def _alike(one: str, other: str) -> int:
    """How many characters two texts have in common at their beginning."""
    pairs = enumerate(zip(one, other, strict=False))
    return next((n for n, (a, b) in pairs if a != b), min(len(one), len(other)))
