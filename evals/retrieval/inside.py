"""Whether the answer is inside the context: each way to fill an allowance beside the others, on both halves."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import mean
from typing import Final

from agentbudget.context import Index
from evals.retrieval.corpora import TITLES, Corpus, Half, Name, Question, Shelf, load
from evals.retrieval.packers import Context, Ours, Packer, TopK, by_meaning, by_words, hybrid_chunks, qwen_tokens

SIZES: Final = (128, 256, 512, 1024)
HALVES: Final[tuple[Half, ...]] = ("tuning", "held out")

Measure = Callable[[Question, Context], bool]


@dataclass(frozen=True, slots=True)
class Row:
    """One way on one half: at each size, the share of questions that are satisfied, and the tokens used."""

    way: str
    half: Half
    questions: int
    shares: tuple[float, ...]
    tokens: tuple[float, ...]
    chances: tuple[float | None, ...]


def answer_inside(question: Question, context: Context) -> bool:
    """An answer stands in the context."""
    return question.answered_in(context.text)


def all_inside(question: Question, context: Context) -> bool:
    """A passage of every supporting paragraph is in the context, with that step's answer where the paragraph has it."""
    return all(
        document in context.documents
        and (answer is None or answer.casefold() in context.documents[document].casefold())
        for document, answer in zip(question.documents, question.steps, strict=True)
    )


async def run(name: Name, data: Path, cache: Path, limit: int | None) -> str:
    """The table of one set."""
    corpus = load(name, data)
    shelf = Shelf(corpus, cache)
    index = await shelf.index()
    try:
        questions = corpus.questions[:limit]
        measure = all_inside if name == "musique100" else answer_inside
        ways = await _ways(corpus, shelf, index, questions)
        rows = [row for way, packer in ways for row in await _rows(way, packer, questions, measure)]
    finally:
        await index.aclose()
    return _table(name, rows)


async def _ways(corpus: Corpus, shelf: Shelf, index: Index, questions: Sequence[Question]) -> list[tuple[str, Packer]]:
    count = qwen_tokens()
    ways: list[tuple[str, Packer]] = [
        ("BM25 top-k", TopK(by_words(corpus.documents), count)),
        ("dense top-k", TopK(by_meaning(corpus.documents, shelf.embedder), count)),
        ("hybrid top-k", TopK(await hybrid_chunks(index, questions), count)),
        ("retrieve", Ours(index, count)),
    ]
    if corpus.name == "musique100":
        ways += [(f"retrieve, hops={hops}", Ours(index, count, hops=hops)) for hops in (2, 3)]
    return ways


async def _rows(way: str, packer: Packer, questions: Sequence[Question], measure: Measure) -> list[Row]:
    rows: list[Row] = []
    for half in HALVES:
        asked = [question for question in questions if question.half == half]
        packed = [[await packer(question, size) for question in asked] for size in SIZES]
        rows.append(
            Row(
                way,
                half,
                len(asked),
                tuple(mean(measure(*pair) for pair in zip(asked, each, strict=True)) for each in packed),
                tuple(mean(context.tokens for context in each) for each in packed),
                tuple(
                    mean(c.chance for c in each if c.chance is not None) if each[0].chance is not None else None
                    for each in packed
                ),
            )
        )
    return rows


def _table(name: Name, rows: Sequence[Row]) -> str:
    sizes = " | ".join(f"{size} tokens" for size in SIZES)
    lines = [f"### {TITLES[name]}", "", f"| context | questions | {sizes} | tokens used |", "|---|---|" + "--:|" * 5]
    for row in rows:
        shares = " | ".join(
            f"{share:.3f}" + (f" (said {chance:.2f})" if chance is not None else "")
            for share, chance in zip(row.shares, row.chances, strict=True)
        )
        used = " ".join(f"{tokens:.0f}" for tokens in row.tokens)
        lines.append(f"| {row.way} | {row.questions}, {row.half} | {shares} | {used} |")
    return "\n".join(lines)
