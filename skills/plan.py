"""Plan a task: the questions that the documents must answer."""

from __future__ import annotations

import re
from typing import Annotated

from pydantic import BaseModel, Field

from agentbudget import Context, skill

_ANSWER_OF = re.compile(r"\{(\d)\}")


class Plan(BaseModel):
    """The questions of a task, at most three. ``{1}`` in a question stands for the answer of the first."""

    questions: list[Annotated[str, Field(min_length=1, max_length=200)]] = Field(min_length=1, max_length=3)


def needs(question: str, number: int) -> list[int]:
    """The numbers of the earlier questions whose answers the question of this number contains."""
    return sorted({int(n) for n in _ANSWER_OF.findall(question) if 0 < int(n) < number})


def filled(question: str, answers: dict[int, str]) -> str:
    """The question with the answers it needs in their places."""
    return _ANSWER_OF.sub(lambda match: answers.get(int(match[1]), ""), question)


@skill(tier="frontier", max_output_tokens=200)
async def plan(ctx: Context, task: str) -> Plan:
    """Split the task into the questions that it asks, so that each can be looked up by itself.

    Copy the task's own words, with its names, numbers and dates; add no words of your own. One thing asked is one
    question; three are the most. Only if a question needs the answer of the first one, write {1} in its place.
    """
    ...
