"""Synthesise: one answer from several findings."""

from __future__ import annotations

from typing import Annotated

from pydantic import BaseModel, Field

from agentbudget import Context, skill


class Conclusion(BaseModel):
    """An answer, statement by statement, so that each can be traced to the finding that it comes from."""

    statements: list[Annotated[str, Field(min_length=1, max_length=200)]] = Field(min_length=1, max_length=3)


@skill(tier="frontier", max_output_tokens=220, max_input_tokens=900)
async def synthesise(ctx: Context, findings: str, task: str) -> Conclusion:
    """Answer the task from the findings alone.

    Give one short statement for each thing that the task asks, with the exact figures.
    """
    ...
