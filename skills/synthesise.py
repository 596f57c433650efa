"""Synthesise: one answer from several findings, each statement with its sources."""

from __future__ import annotations

from pydantic import BaseModel, Field

from agentbudget import Context, skill


class Statement(BaseModel):
    """A sentence of the answer, and the numbers of the sources it stands in."""

    text: str = Field(min_length=1, max_length=200)
    sources: list[int] = Field(min_length=1, max_length=3)

    def __str__(self) -> str:
        return f"{self.text.strip()} {''.join(f'[{n}]' for n in dict.fromkeys(self.sources))}"


class Conclusion(BaseModel):
    """An answer in at most three sentences. Its sources are part of its form, so that none can be left out."""

    statements: list[Statement] = Field(min_length=1, max_length=3)

    def __str__(self) -> str:
        return " ".join(str(statement) for statement in self.statements)


@skill(tier="frontier", max_output_tokens=240, max_input_tokens=900)
async def synthesise(ctx: Context, findings: str, task: str) -> Conclusion:
    """Answer the task from the findings alone: one short statement for each thing that it asks, with the exact figures.

    Each finding ends with the numbers of its sources, such as [1]; "sources" repeats them for each statement.
    """
    ...
