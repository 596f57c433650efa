"""What differs between Claude's models: how they think, which prompts they cache, how closely they look at pictures.

Read in November 2026 in Anthropic's documents: https://platform.claude.com/docs/en/build-with-claude/thinking,
…/prompt-caching, …/vision and the migration guides under https://platform.claude.com/docs/en/models/.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Final, Literal

Way = Literal["budget", "asked", "usual", "between", "always"]
"""How a model thinks: within a ``budget`` of tokens; where it is ``asked`` to, as much as it likes; ``usual``ly, if it
is not told otherwise; at least ``between`` calls of tools; or ``always``."""

Version = tuple[int, int]

NAMES: Final = re.compile(r"claude-(?P<name>[a-z]+)-(?P<major>\d+)(?:-(?P<minor>\d{1,2}))?(?:-\d{8}|-latest)?$")
LEAST_CACHED: Final = 512
"""Tokens that a prompt must have to be cached; a breakpoint after fewer does nothing, and costs nothing."""

CACHED_FROM: Final[dict[tuple[str, Version], int]] = {
    ("opus", (4, 5)): 4096,
    ("opus", (4, 6)): 4096,
    ("haiku", (4, 5)): 4096,
    ("opus", (4, 7)): 2048,
    ("opus", (4, 8)): 1024,
    ("opus", (4, 1)): 1024,
    ("opus", (4, 0)): 1024,
    ("sonnet", (4, 0)): 1024,
    ("sonnet", (4, 5)): 1024,
    ("sonnet", (4, 6)): 1024,
    ("sonnet", (5, 0)): 1024,
}

SMALL_PICTURE: Final = 1_640
"""Most tokens of a picture for models before Opus 4.7. About 1,600 is documented; 1,596 was the most that
https://huggingface.co/datasets/JOHNISKING/image-token-cost measured."""

LARGE_PICTURE: Final = 4_784
"""The same for later models, which see it in up to 2,576 pixels."""

UNFORCED: Final = frozenset({("opus", (5, 5)), ("sonnet", (5, 5)), ("fable", (5, 1)), ("fable", (5, 2))})
"""Models that refuse to be made to call a tool, besides those that think within a budget while they do."""


@dataclass(frozen=True, slots=True)
class Family:
    """What a request to one of Claude's models has to heed."""

    thinking: Way
    cached_from: int = LEAST_CACHED
    picture: int = LARGE_PICTURE
    forces_tools: bool = True


STRANGER: Final = Family("budget")
"""A model of another name: an open one, behind a server that speaks Anthropic's protocol."""


def family_of(model_id: str) -> Family:
    """What is known of a model by its id. A newer Claude than is known here is taken for the strictest."""
    found = NAMES.match(model_id)
    if found is None:
        return STRANGER
    name, version = found["name"], (int(found["major"]), int(found["minor"] or 0))
    return Family(
        thinking=_thinking(name, version),
        cached_from=CACHED_FROM.get((name, version), LEAST_CACHED),
        picture=LARGE_PICTURE if version >= (4, 7) else SMALL_PICTURE,
        forces_tools=(name, version) not in UNFORCED and not (name == "mythos" and version >= (5, 1)),
    )


def _thinking(name: str, version: Version) -> Way:
    if version < (4, 6):
        return "budget"
    if version < (5, 0):
        return "asked"
    if (name, version) == ("sonnet", (5, 5)):
        return "between"
    if (name, version) in {("opus", (5, 0)), ("sonnet", (5, 0)), ("haiku", (5, 5))}:
        return "usual"
    return "always"
