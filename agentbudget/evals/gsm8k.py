"""GSM8K: grade-school mathematics, reasoned in a few sentences and answered with a whole number."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Self

from pydantic import BaseModel, Field

from agentbudget.errors import DocumentsError
from agentbudget.evals.tasks import DatasetName, Guess, Item, Preparing, read_rows
from agentbudget.skills import Skill

if TYPE_CHECKING:
    from agentbudget.step import Context

THRESHOLD: Final = 0.9


class Solution(BaseModel):
    """A solution as the model must write it: the steps, then the number that they lead to."""

    reasoning: str = Field(max_length=600)
    answer: int


async def solve(ctx: Context, question: str) -> Guess:
    """Solve the problem. Reason step by step in a few short sentences with the arithmetic written out.

    Then give the final answer as a whole number, without units.
    """
    reply = await ctx.complete(question, output=Solution)
    return Guess(str(reply.value.answer), reply.confidence)


@dataclass(frozen=True, slots=True)
class Gsm8k:
    """The test part of GSM8K."""

    items: tuple[Item, ...]
    name: DatasetName = "gsm8k"
    threshold: float = THRESHOLD

    @classmethod
    def load(cls, data: Path) -> Self:
        """Read ``gsm8k_test.jsonl.gz``. Raises `DocumentsError`."""
        rows = read_rows(data, "gsm8k_test.jsonl.gz", _Row)
        return cls(tuple(Item(row.id, row.question, _final(row)) for row in rows))

    def skill(self, tier: str) -> Skill[..., Guess]:
        """`solve` on one rung."""
        return Skill(solve, tier=tier, max_output_tokens=256, max_input_tokens=500)

    def arguments(self, ctx: Context, item: Item) -> dict[str, Any]:
        """The question is all there is."""
        return {"question": item.question}

    def baseline(self, arguments: Mapping[str, Any]) -> str | None:
        """None: without a model there is no answer."""
        return None

    def prepare(self, ctx: Context, progress: Preparing) -> None:
        """Nothing to prepare."""


class _Row(BaseModel):
    id: str
    question: str
    answer: str


def _final(row: _Row) -> str:
    """The number after ``####``, as the dataset writes its answers."""
    _, mark, number = row.answer.rpartition("####")
    if not mark:
        raise DocumentsError(f"gsm8k item {row.id} has no final answer after '####': fetch the file again")
    return number.strip().replace(",", "")
