"""Synthesise: one answer from several findings."""

from __future__ import annotations

from agentbudget import Context, cites, skill


@skill(tier="frontier", max_output_tokens=220, max_input_tokens=900, accept=cites)
async def synthesise(ctx: Context, task: str, findings: str) -> str:
    """Answer the task from the findings alone, in a few sentences, with their figures.

    Each finding ends with the marks of its sources, such as [1]. Put the mark behind every statement that you
    take from it. Say so if the findings do not answer a part of the task.
    """
    ...
