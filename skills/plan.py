"""Plan a task: the questions that the documents must answer."""

from __future__ import annotations

from pydantic import BaseModel, Field

from agentbudget import Context, skill


class Question(BaseModel):
    """One question, and the numbers of earlier questions whose answers it needs (counted from 1)."""

    question: str = Field(max_length=200)
    needs: list[int] = Field(default_factory=list[int], max_length=2)


class Plan(BaseModel):
    """The questions of a task, at most three."""

    questions: list[Question] = Field(min_length=1, max_length=3)


@skill(tier="frontier", max_output_tokens=260)
async def plan(ctx: Context, task: str) -> Plan:
    """Split the task into the questions that must be looked up in a collection of documents to carry it out.

    Use one question if one is enough; a task that asks two things needs two. Keep names, numbers and dates of
    the task. Each question stands alone; only where one cannot be asked before another is answered, list that
    one's number in "needs".
    """
    ...
