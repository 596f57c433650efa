"""Extract facts from a text."""

from __future__ import annotations

from pydantic import BaseModel, Field

from agentbudget import Context, skill


class Fact(BaseModel):
    """A fact as a name and a value, as the text states them."""

    name: str = Field(max_length=60)
    value: str = Field(max_length=120)


class Facts(BaseModel):
    """What a text states, at most eight facts."""

    facts: list[Fact] = Field(max_length=8)


@skill(max_output_tokens=240)
async def extract(ctx: Context, text: str) -> Facts:
    """Extract the facts that the text states: names, amounts, dates, limits, contacts. Copy values exactly."""
    ...
