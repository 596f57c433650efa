"""Summarise a text."""

from __future__ import annotations

from agentbudget import Context, skill


@skill(max_output_tokens=120)
async def summarise(ctx: Context, text: str) -> str:
    """Summarise the text in at most three sentences. Keep figures, names and conditions; add nothing."""
    ...
