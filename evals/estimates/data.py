"""What the evals of estimates read: questions, lengths of many models' answers, and a log of requests."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Final, Literal

from pydantic import BaseModel

from agentbudget.evals.tasks import read_rows
from agentbudget.models.base import Message, Request

Exercise = Literal["gsm", "math_l5"]

SETS: Final[tuple[Exercise, ...]] = ("gsm", "math_l5")

MAX_OUTPUT_TOKENS: Final = 4096
"""What the models of ZeroEval were allowed: an answer that never ends is one of so many tokens."""

PROMPTS: Final[dict[Exercise, str]] = {
    "gsm": "Solve this exercise of grade-school maths.",
    "math_l5": "Solve this exercise of a maths competition.",
}


class _Question(BaseModel):
    id: str
    question: str


class _Result(BaseModel):
    model: str
    id: str
    out_tokens_cl100k: int


class _Requested(BaseModel):
    t: str
    input_tokens: int
    output_tokens: int


@dataclass(frozen=True, slots=True)
class Answer:
    """A question of one set, and how many tokens each model's answer to it had."""

    exercise: Exercise
    question: str
    tokens: dict[str, int]

    def request(self, *, told: bool = True) -> Request:
        """The question as a skill asks it; `told`: its fixed prompt says which kind of exercise it is."""
        fixed = (Message("system", PROMPTS[self.exercise] if told else "Solve this exercise."),)
        return Request((*fixed, Message("user", self.question)), MAX_OUTPUT_TOKENS, fixed=1)


@dataclass(frozen=True, slots=True)
class Arrival:
    """A request of the log: when it came, in seconds from the first, and what it used."""

    at_s: float
    input_tokens: int
    output_tokens: int


def answers(data: Path) -> list[Answer]:
    """ZeroEval's questions of both sets with the lengths of all models' answers. Raises `DocumentsError`."""
    found: list[Answer] = []
    for exercise in SETS:
        lengths: dict[str, dict[str, int]] = {}
        for result in read_rows(data / "routing", f"zeroeval_{exercise}.results.jsonl.gz", _Result):
            lengths.setdefault(result.id, {})[result.model] = min(result.out_tokens_cl100k, MAX_OUTPUT_TOKENS)
        questions = read_rows(data / "routing", f"zeroeval_{exercise}.questions.jsonl.gz", _Question)
        found.extend(Answer(exercise, row.question, lengths.get(row.id, {})) for row in questions)
    return found


def models_of(found: Sequence[Answer]) -> list[str]:
    """The models that answered most of both sets."""
    counts: dict[str, list[int]] = {}
    for answer in found:
        for model in answer.tokens:
            counts.setdefault(model, [0, 0])[SETS.index(answer.exercise)] += 1
    most = [sum(answer.exercise == exercise for answer in found) for exercise in SETS]
    return sorted(m for m, has in counts.items() if all(n > 0.9 * total for n, total in zip(has, most, strict=True)))


def arrivals(data: Path) -> list[Arrival]:
    """The requests of Azure's conversation service, in order. Raises `DocumentsError`."""
    rows = read_rows(data / "load", "azure_conv.jsonl.gz", _Requested)
    moments = [datetime.fromisoformat(row.t[:26]).timestamp() for row in rows]
    first = min(moments)
    found = [Arrival(at - first, r.input_tokens, r.output_tokens) for at, r in zip(moments, rows, strict=True)]
    return sorted(found, key=lambda arrival: arrival.at_s)
