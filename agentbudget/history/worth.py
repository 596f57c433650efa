"""Whether a summary pays for itself: its price against the tokens that the turns to come need not read."""

from __future__ import annotations

from dataclasses import dataclass

from agentbudget.models.base import Price
from agentbudget.usage import Usage


@dataclass(frozen=True, slots=True)
class Worth:
    """What a summary costs, once, and what it saves over the turns to come, in nano-dollars."""

    cost_usd_nano: int
    saved_usd_nano: int

    @property
    def pays(self) -> bool:
        """Whether it saves more than it costs."""
        return self.saved_usd_nano > self.cost_usd_nano


def worth_of_summary(
    *,
    reader: Price,
    writer: Price,
    old_tokens: int,
    summary_tokens: int,
    behind_tokens: int,
    turns: int,
    cached: bool,
) -> Worth:
    """What it is worth to put `summary_tokens` in the place of `old_tokens` of a prompt.

    ``writer`` is the price of the model that writes the summary, having read what it sums up; ``reader`` of the one
    that reads the prompt, ``turns`` times more. Where its cache of prompts has what did not change (``cached``), a
    token that is dropped saves only the price of a cached one, and the summary and the `behind_tokens` that follow it
    must be read anew once: so a summary may cost more than it saves, however short it is.
    """
    anew = summary_tokens + behind_tokens
    again = _read(reader, anew, cached=False) - _read(reader, anew, cached=cached)
    written = writer.expected(input_tokens=old_tokens, output_tokens=summary_tokens)
    each = _read(reader, old_tokens, cached=cached) - _read(reader, summary_tokens, cached=cached)
    return Worth(written + again, turns * each)


def _read(price: Price, tokens: int, *, cached: bool) -> int:
    """What it costs to read so many tokens; from a local model's cache nothing, since it computes nothing."""
    if cached:
        return price.cost(Usage(input_tokens=tokens, cached_tokens=tokens))
    return price.expected(input_tokens=tokens, output_tokens=0)
