"""What came of reusing answers for questions near these: evidence that questions of one subject give each other.

Most questions are asked once or twice, so that hardly anything is known of one answer by itself. Of a subject much is
known soon: where many people ask for one thing in many ways, other ways to ask for it are seldom another question.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Sequence

    import numpy as np
    from numpy.typing import NDArray

NEAREST: Final = 10
"""So many of the nearest outcomes count."""

SHARPNESS: Final = 25.0
"""An outcome counts ``exp(-SHARPNESS (1 - cosine))``: a half at 0.97, next to nothing below 0.85."""


@dataclass(frozen=True, slots=True)
class Around:
    """What nearby outcomes say, each by its nearness and by how little it was expected: for and against."""

    right: float = 0.0
    wrong: float = 0.0


@dataclass(frozen=True, slots=True)
class Outcomes:
    """Verified outcomes: where each pair of questions lies (unit vectors, a row each), whether the answer was right,
    and with what chance it was thought to be."""

    middles: NDArray[np.float32]
    same: NDArray[np.bool_]
    expected: NDArray[np.float64]


def middle(one: NDArray[np.float32], other: NDArray[np.float32]) -> NDArray[np.float32]:
    """Where a pair of questions lies: the unit vector halfway between theirs."""
    import numpy as np

    between = one + other
    return between / max(float(np.linalg.norm(between)), 1e-12)


def around(middles: NDArray[np.float32], known: Outcomes) -> Sequence[Around]:
    """What `known` says of pairs of questions that lie there, a row each."""
    if not len(known.same):
        return [Around()] * len(middles)
    return [weigh(cosines, known.same, known.expected) for cosines in middles @ known.middles.T]


def weigh(cosines: NDArray[np.float32], same: NDArray[np.bool_], expected: NDArray[np.float64]) -> Around:
    """The evidence of outcomes that lie so near."""
    import numpy as np

    if len(cosines) > NEAREST:
        nearest = np.argpartition(-cosines, NEAREST)[:NEAREST]
        cosines, same, expected = cosines[nearest], same[nearest], expected[nearest]
    weights = np.exp(SHARPNESS * (cosines - 1))
    return Around(
        float((weights * same * (1 - expected)).sum()),
        float((weights * ~same * expected).sum()),
    )
