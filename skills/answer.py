"""Answer a question from numbered passages, naming the passage."""

from __future__ import annotations

from pydantic import BaseModel, Field

from agentbudget import Context, skill
from skills.verify import verify


class Finding(BaseModel):
    """An answer and the numbers of the passages it stands in."""

    answer: str = Field(min_length=1, max_length=600)
    passages: list[int] = Field(min_length=1, max_length=3)

    def __str__(self) -> str:
        return f"{self.answer.strip()} {''.join(f'[{n}]' for n in dict.fromkeys(self.passages))}"


@skill(tier="local", escalate="frontier", max_output_tokens=160, accept=verify)
async def answer(ctx: Context, passages: str, question: str) -> Finding:
    """Answer the question from the passages alone, in one or two short sentences with the exact figures.

    "passages" lists the numbers of the passages that state the answer.
    """
    ...
