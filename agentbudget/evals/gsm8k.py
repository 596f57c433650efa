"""GSM8K: grade-school mathematics, reasoned in a few sentences and answered with a whole number."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Self

from pydantic import BaseModel

from agentbudget.errors import DocumentsError, InvalidOutput
from agentbudget.evals.tasks import DatasetName, Guess, Item, Preparing, read_rows
from agentbudget.skills import Skill

if TYPE_CHECKING:
    from agentbudget.step import Context

THRESHOLD: Final = 0.9


_ANSWER: Final = re.compile(r"answer[^\d\n-]*(-?\d[\d,]*(?:\.\d+)?)", re.IGNORECASE)
_NUMBER: Final = re.compile(r"-?\d[\d,]*(?:\.\d+)?")


async def solve(ctx: Context, question: str) -> Guess:
    """Solve the problem as in the examples: one short line for each step, with its arithmetic, then the answer.

    Problem: A baker fills 4 trays with 12 rolls each. He sells 30 rolls at $2 and the rest at half that price. How many
    dollars does he take?
    There are 4 * 12 = 48 rolls.
    The first 30 bring 30 * 2 = 60 dollars.
    The other 48 - 30 = 18 rolls cost 2 / 2 = 1 dollar each and bring 18 * 1 = 18 dollars.
    In all he takes 60 + 18 = 78 dollars.
    Answer: 78

    Problem: Nina is three times as old as her cousin was 2 years ago. Her cousin is 8. How old will Nina be in 5 years?
    Her cousin was 8 - 2 = 6.
    Nina is 3 * 6 = 18.
    In 5 years she will be 18 + 5 = 23.
    Answer: 23

    Problem: A tank holds 200 litres and is 35% full. A tap adds 13 litres a minute. After how many minutes is it full?
    It holds 200 * 35 / 100 = 70 litres.
    It lacks 200 - 70 = 130 litres.
    The tap needs 130 / 13 = 10 minutes.
    Answer: 10
    """
    reply = await ctx.complete(f"Problem: {question}")
    number = final_number(reply.text)
    if number is None:
        raise InvalidOutput(f"'solve': {reply.model} came to no number", model=reply.model)
    return Guess(number, reply.confidence)


def final_number(text: str) -> str | None:
    """The number that a solution comes to: the one after the last "answer", else the last one at all.

    A small model reasons in free text far better than inside of a JSON string.
    """
    found = _ANSWER.findall(text) or _NUMBER.findall(text)
    return f"{float(found[-1].replace(',', '')):.12g}" if found else None


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
        return Skill(solve, tier=tier, max_output_tokens=240, max_input_tokens=800)

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
