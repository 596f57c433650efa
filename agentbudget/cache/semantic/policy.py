"""What a skill says of semantic caching: how many reused answers may be wrong, and when two answers are the same."""

from __future__ import annotations

import unicodedata
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from agentbudget.cache.policy import Exact
from agentbudget.errors import SkillError

Same = Callable[[str, str], bool]
"""Whether an answer that is known would have done in place of one that was bought: ``same(known, bought)``."""

AUDITED: Final = 0.05
"""Of the answers that could be reused, the share that is bought all the same."""


def equal_answers(known: str, bought: str) -> bool:
    """Equal but for case, spaces, a last full stop and the form of characters: for labels, numbers, short answers."""
    return _plain(known) == _plain(bought)


def _plain(text: str) -> str:
    return " ".join(unicodedata.normalize("NFKC", text).casefold().split()).rstrip(".")


@dataclass(frozen=True, slots=True, kw_only=True)
class Semantic(Exact):
    """As `Exact`, and questions that mean the same are answered from the cache, too, as long as few are wrong.

    ``wrong`` is the share of such hits that may be wrong, between 0 and 1. ``same`` compares a known answer with one
    that was bought for a similar question: by default they must be equal but for case and spaces, which suits labels
    and numbers; for prose, give a judgement of your own. ``audited`` is the share of hits that are bought all the same,
    so that errors are noticed; it is what certainty costs.

    Raises `SkillError` for what cannot be one of these.
    """

    wrong: float
    same: Same = equal_answers
    audited: float = AUDITED

    def __post_init__(self) -> None:
        Exact.__post_init__(self)
        _share("wrong", self.wrong, "the share of reused answers that may be wrong, such as 0.02")
        _share("audited", self.audited, "the share of reusable answers that are bought to check them, such as 0.05")
        if not callable(self.same):
            raise SkillError(f"same must be a function of two answers that returns a bool, not {self.same!r}")


def _share(name: str, value: float, meaning: str) -> None:
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 < value < 1:
        raise SkillError(f"{name} must be a number between 0 and 1, {meaning}, not {value!r}")
