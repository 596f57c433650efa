"""How much is held for a call before it runs: a policy that each skill may choose."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, Literal

from agentbudget.errors import SkillError
from agentbudget.money import Budget

START_TOKENS: Final = 64
"""Output tokens for which a stream begins to hold while nothing is learned of its skill."""


@dataclass(frozen=True, slots=True)
class WorstCase:
    """Hold all that a call may use, its whole output cap: nothing is cut by its hold, and most of it lies idle."""


@dataclass(frozen=True, slots=True)
class Quantile:
    """Hold what such calls of the skill on that model use: so large a share of them as `level` says.

    A call is capped there, and made again at the whole cap if that cut it; a stream begins there and grows. Without a
    `level`, a call gets what 99 of 100 use and a quarter more, a stream what 9 of 10 use. Until enough is known of a
    skill, a call holds its whole cap. ``start_tokens`` lets a step that streams begin on so many output tokens instead;
    None means that the room for its whole answer is held before it begins.
    """

    level: float | None = None
    start_tokens: int | None = None

    def __post_init__(self) -> None:
        if self.level is not None and not (isinstance(self.level, float) and 0.5 <= self.level < 1):
            raise SkillError(f"the level of a quantile must be from 0.5 to below 1, not {self.level!r}")
        tokens = self.start_tokens
        if tokens is not None and (isinstance(tokens, bool) or not isinstance(tokens, int) or tokens < 1):
            raise SkillError(f"start_tokens must be a whole number of at least 1, not {tokens!r}")


@dataclass(frozen=True, slots=True)
class Fixed:
    """Hold at most `budget` for each call, and never more: a call is capped, and a stream cut, where that is used."""

    budget: Budget

    def __post_init__(self) -> None:
        if not isinstance(self.budget, Budget):
            raise SkillError(f"a fixed hold is a Budget, as in Fixed(Budget(usd='0.05')), not {self.budget!r}")


Holding = WorstCase | Quantile | Fixed
"""What a skill's calls hold."""

Hold = Literal["worst", "quantile", "grow"] | Budget | Holding
"""A `Holding` as a skill may name it: ``"grow"`` is the quantile of a skill that streams."""


def holding(said: Hold) -> Holding:
    """The policy that was meant. Raises `SkillError`."""
    if isinstance(said, WorstCase | Quantile | Fixed):
        return said
    if isinstance(said, Budget):
        return Fixed(said)
    if said == "worst":
        return WorstCase()
    if said == "quantile":
        return Quantile()
    if said == "grow":
        return Quantile(start_tokens=START_TOKENS)
    raise SkillError(
        f"hold must be 'worst', 'quantile', 'grow', a Budget or a policy of agentbudget.holding, not {said!r}"
    )
