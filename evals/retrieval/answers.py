"""What the local models answer from 256 packed tokens, beside 1,024 tokens of plain top-k: kept, so that it resumes."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import mean
from typing import Final

from pydantic import BaseModel

from agentbudget.models import make_model
from agentbudget.models.base import Message, Meter, Model, Request
from agentbudget.settings import Settings
from evals.retrieval.corpora import Corpus, Name, Question, Shelf, load
from evals.retrieval.packers import Ours, Packer, TopK, hybrid_chunks, qwen_tokens

PACKED, PLAIN = 256, 1024
SETS: Final[tuple[Name, ...]] = ("nq", "xquad")

_RESAMPLES: Final = 5000
_PROMPT: Final = "Answer the question from the context, in as few words as possible."


class _Kept(BaseModel):
    """One question, answered from both contexts."""

    model: str
    set: str
    question: str
    packed: str
    plain: str
    packed_right: bool
    plain_right: bool
    packed_tokens: int
    plain_tokens: int


@dataclass(frozen=True, slots=True)
class _Ways:
    packed: Packer
    plain: Packer


async def run(data: Path, cache: Path, model_name: str, *, sets: Sequence[Name], limit: int) -> str:
    """Answer `limit` held-out questions of each of `sets` with a model, and compare all that it ever answered."""
    path = cache / f"answers-{model_name.rpartition(':')[2]}.jsonl"
    model = make_model(model_name, Settings.from_env())
    try:
        for name in sets:
            await _answer(load(name, data), cache, path, model, model_name, limit)
    finally:
        await model.aclose()
    return "\n".join(
        [
            "| model | questions | packed 256 | top-k 1,024 | difference, 95 % interval | tokens |",
            "|---|--:|--:|--:|--:|--:|",
            *_lines(_read(path, model_name), model_name),
        ]
    )


async def _answer(corpus: Corpus, cache: Path, path: Path, model: Model, model_name: str, limit: int) -> None:
    held_out = [question for question in corpus.questions if question.half == "held out"]
    questions = random.Random(0).sample(held_out, min(limit, len(held_out)))
    done = {kept.question for kept in _read(path, model_name)}
    waiting = [question for question in questions if question.id not in done]
    if not waiting:
        return
    index = await Shelf(corpus, cache).index()
    try:
        count = qwen_tokens()
        ways = _Ways(Ours(index, count), TopK(await hybrid_chunks(index, waiting), count))
        for question in waiting:
            kept = await _both(question, ways, model, model_name, corpus.name)
            with path.open("a", encoding="utf-8") as stream:
                stream.write(kept.model_dump_json() + "\n")
    finally:
        await index.aclose()


async def _both(question: Question, ways: _Ways, model: Model, model_name: str, name: str) -> _Kept:
    packed, plain = await ways.packed(question, PACKED), await ways.plain(question, PLAIN)
    short, long = await _ask(model, question, packed.text), await _ask(model, question, plain.text)
    return _Kept(
        model=model_name,
        set=name,
        question=question.id,
        packed=short,
        plain=long,
        packed_right=question.answered_in(short),
        plain_right=question.answered_in(long),
        packed_tokens=packed.tokens,
        plain_tokens=plain.tokens,
    )


async def _ask(model: Model, question: Question, context: str) -> str:
    messages = (Message("system", _PROMPT), Message("user", f"{context}\n\nQuestion: {question.text}"))
    return (await model.complete(Request(messages, 32, fixed=1), Meter())).text


def _read(path: Path, model_name: str) -> list[_Kept]:
    if not path.is_file():
        return []
    lines = path.read_text(encoding="utf-8").splitlines()
    return [kept for kept in map(_Kept.model_validate_json, lines) if kept.model == model_name]


def _lines(answers: Sequence[_Kept], model_name: str) -> list[str]:
    groups = [(name, [kept for kept in answers if kept.set == name]) for name in SETS]
    return [_line(f"{model_name}, {name}", kept) for name, kept in (*groups, ("both", list(answers))) if kept]


def _line(title: str, answers: Sequence[_Kept]) -> str:
    low, high = _interval([kept.packed_right - kept.plain_right for kept in answers])
    packed, plain = mean(kept.packed_right for kept in answers), mean(kept.plain_right for kept in answers)
    tokens = f"{mean(kept.packed_tokens for kept in answers):.0f} : {mean(kept.plain_tokens for kept in answers):.0f}"
    return (
        f"| {title} | {len(answers)} | {packed:.1%} | {plain:.1%} | "
        f"{100 * (packed - plain):+.1f} points, {100 * low:+.1f} to {100 * high:+.1f} | {tokens} |"
    )


def _interval(differences: Sequence[int]) -> tuple[float, float]:
    """The middle 95 % of means of resampled pairs (paired bootstrap)."""
    dice = random.Random(0)
    means = sorted(mean(dice.choices(differences, k=len(differences))) for _ in range(_RESAMPLES))
    return means[int(0.025 * _RESAMPLES)], means[int(0.975 * _RESAMPLES) - 1]
