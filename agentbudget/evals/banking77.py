"""BANKING77: which of 77 intents a bank customer's message has, shown the most similar labelled examples.

The examples come from the training part, `SHOTS` of each intent: the dataset's own 10-shot setting (Casanueva et al.,
2020). With all ten thousand the nearest example alone is right nine times in ten, and no model has anything to add.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Literal, Self, cast

from pydantic import BaseModel

from agentbudget.evals.nearest import Example, Nearest
from agentbudget.evals.tasks import DatasetName, Guess, Item, Preparing, read_rows
from agentbudget.skills import Skill

if TYPE_CHECKING:
    from agentbudget.step import Context

SHOTS: Final = 10
"""Labelled examples of each intent."""

NEAREST: Final = 6
"""Examples shown with a message; the answer must be one of their labels."""

THRESHOLD: Final = 0.91


async def intent(ctx: Context, message: str, examples: Sequence[Example]) -> Guess:
    """Which intent has the bank customer's message? Choose as in the examples."""
    labels = tuple(dict.fromkeys(example.label for example in examples))
    shown = "\n".join(f"{example.text} -> {example.label}" for example in reversed(examples))  # the nearest comes last
    label = cast(type[str], Literal[labels])  # pyright: ignore[reportInvalidTypeForm] # known only now
    reply = await ctx.complete(f"{shown}\n{message} ->", output=label)
    return Guess(reply.value, reply.confidence)


@dataclass(frozen=True, slots=True)
class Banking77:
    """The test part of BANKING77, and examples from its training part."""

    items: tuple[Item, ...]
    nearest: Nearest
    name: DatasetName = "banking77"
    threshold: float = THRESHOLD

    @classmethod
    def load(cls, data: Path, vectors: Path) -> Self:
        """Read ``banking77_train.jsonl.gz`` and ``banking77_test.jsonl.gz``. Raises `DocumentsError`."""
        training = read_rows(data, "banking77_train.jsonl.gz", _Labelled)
        rows = read_rows(data, "banking77_test.jsonl.gz", _Row)
        items = tuple(Item(str(row.id), row.text, row.category) for row in rows)
        return cls(items, Nearest(_few_of_each(training), vectors))

    def skill(self, tier: str) -> Skill[..., Guess]:
        """`intent` on one rung."""
        return Skill(intent, tier=tier, max_output_tokens=24, max_input_tokens=500)

    def arguments(self, ctx: Context, item: Item) -> dict[str, Any]:
        """The message and the examples most like it."""
        return {"message": item.question, "examples": self.nearest.search(ctx, item.question, NEAREST)}

    def baseline(self, arguments: Mapping[str, Any]) -> str | None:
        """The label of the most similar example."""
        return cast(Sequence[Example], arguments["examples"])[0].label

    def prepare(self, ctx: Context, progress: Preparing) -> None:
        """Embed the examples, unless that was done before."""
        self.nearest.prepare(ctx, progress)


class _Labelled(BaseModel):
    text: str
    category: str


class _Row(_Labelled):
    id: int


def _few_of_each(rows: Sequence[_Labelled]) -> tuple[Example, ...]:
    """The first `SHOTS` of each label."""
    seen: Counter[str] = Counter()
    few: list[Example] = []
    for row in rows:
        seen[row.category] += 1
        if seen[row.category] <= SHOTS:
            few.append(Example(row.text, row.category))
    return tuple(few)
