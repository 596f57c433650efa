"""Questions and documents: written as Markdown files, indexed once into a cache folder, and read back from there."""

from __future__ import annotations

import hashlib
import sqlite3
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Final, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict

from agentbudget.context import FastEmbedder, Index, open_index
from agentbudget.context.embed import Embedder, Vector
from agentbudget.errors import DocumentsError, IndexMismatch
from agentbudget.evals.tasks import read_rows

Name = Literal["nq", "xquad", "musique100"]

TITLES: Final[dict[Name, str]] = {"nq": "NQ + 2Wiki", "xquad": "XQuAD", "musique100": "MuSiQue-100"}

Half = Literal["tuning", "held out"]

_BATCH: Final = 32


class _Document(BaseModel):
    id: str = ""
    title: str
    text: str


class _Question(BaseModel):
    id: str
    question: str
    answers: list[str]
    gold_doc: str


class _Paragraph(BaseModel):
    idx: int
    title: str
    paragraph_text: str


class _Step(BaseModel):
    model_config = ConfigDict(extra="ignore")
    answer: str
    paragraph_support_idx: int


class _Chain(BaseModel):
    id: str
    question: str
    answer: str
    answer_aliases: list[str]
    paragraphs: list[_Paragraph]
    question_decomposition: list[_Step]


@dataclass(frozen=True, slots=True)
class Text:
    """A document: its id, which is its file's name, its title and its text."""

    id: str
    title: str
    text: str

    @property
    def whole(self) -> str:
        """Title and text, as the baselines pack and count it."""
        return f"{self.title}\n{self.text}"


@dataclass(frozen=True, slots=True)
class Question:
    """A question, what counts as its answer, and the documents that hold it: one, or one for each step of a chain.

    ``steps`` has the answer of each step, or None where the document does not say it in these words.
    """

    id: str
    text: str
    answers: tuple[str, ...]
    documents: tuple[str, ...]
    steps: tuple[str | None, ...] = ()

    @property
    def half(self) -> Half:
        """Weights and choices were made on one half of the questions; the other was not looked at."""
        return "held out" if hashlib.sha256(self.id.encode()).digest()[0] % 2 else "tuning"

    def answered_in(self, text: str) -> bool:
        """Whether one of the answers stands in `text`."""
        lower = text.casefold()
        return any(answer.casefold() in lower for answer in self.answers)


@dataclass(frozen=True, slots=True)
class Corpus:
    """A set: its documents and its questions."""

    name: Name
    documents: tuple[Text, ...]
    questions: tuple[Question, ...]


def load(name: Name, data: Path) -> Corpus:
    """Read a set from the folder of evaluation data."""
    rows = read_rows(data, f"retrieval/{name}_corpus.jsonl.gz", _Document)
    documents = tuple(
        Text(row.id or f"{name}-{number}", row.title.replace("_", " "), row.text) for number, row in enumerate(rows)
    )
    if name == "musique100":
        by_text = {(text.title, text.text): text.id for text in documents}
        chains = read_rows(data, f"retrieval/{name}_questions.jsonl.gz", _Chain)
        return Corpus(name, documents, tuple(_of_chain(chain, by_text) for chain in chains))
    asked = read_rows(data, f"retrieval/{name}_questions.jsonl.gz", _Question)
    return Corpus(
        name,
        documents,
        tuple(Question(row.id, row.question, tuple(row.answers), (row.gold_doc,)) for row in asked),
    )


def _of_chain(chain: _Chain, by_text: dict[tuple[str, str], str]) -> Question:
    paragraphs = {paragraph.idx: paragraph for paragraph in chain.paragraphs}
    held = [paragraphs[step.paragraph_support_idx] for step in chain.question_decomposition]
    return Question(
        chain.id,
        chain.question,
        (chain.answer, *chain.answer_aliases),
        tuple(by_text[paragraph.title.replace("_", " "), paragraph.paragraph_text] for paragraph in held),
        tuple(
            step.answer if step.answer.casefold() in paragraph.paragraph_text.casefold() else None
            for step, paragraph in zip(chain.question_decomposition, held, strict=True)
        ),
    )


class KeptEmbedder:
    """The default embedding model on one thread, each text embedded once and kept in a file."""

    def __init__(self, path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        self._model: Embedder = FastEmbedder(threads=1)
        self._kept = sqlite3.connect(path, timeout=60, check_same_thread=False)
        self._kept.execute("PRAGMA journal_mode = WAL")
        self._kept.execute("CREATE TABLE IF NOT EXISTS v (h BLOB PRIMARY KEY, v BLOB) WITHOUT ROWID")

    @property
    def fingerprint(self) -> str:
        """The model's."""
        return self._model.fingerprint

    @property
    def dim(self) -> int:
        """Numbers in a vector."""
        return self._model.dim

    def embed(self, texts: Sequence[str]) -> list[Vector]:
        """A vector for each text; new ones are embedded a batch at a time, each batch kept."""
        return [vector.tolist() for vector in self.vectors(texts)]

    def embed_query(self, question: str) -> Vector:
        """The vector of a question; this model makes no difference between questions and passages."""
        return self.embed([question])[0]

    def count_tokens(self, text: str) -> int:
        """The model's count."""
        return self._model.count_tokens(text)

    def vectors(self, texts: Sequence[str]) -> list[NDArray[np.float32]]:
        """The same as arrays."""
        new = [text for text in dict.fromkeys(texts) if self._look_up(text) is None]
        for first in range(0, len(new), _BATCH):
            batch = new[first : first + _BATCH]
            rows = [
                (_key(text), np.array(v, np.float32).tobytes())
                for text, v in zip(batch, self._model.embed(batch), strict=True)
            ]
            with self._kept:
                self._kept.executemany("INSERT OR REPLACE INTO v VALUES (?, ?)", rows)
        found = [self._look_up(text) for text in texts]
        return [vector for vector in found if vector is not None]

    def _look_up(self, text: str) -> NDArray[np.float32] | None:
        row: tuple[bytes] | None = self._kept.execute("SELECT v FROM v WHERE h = ?", (_key(text),)).fetchone()
        return np.frombuffer(row[0], np.float32) if row else None


def _key(text: str) -> bytes:
    return hashlib.sha256(text.encode()).digest()[:16]


@dataclass(frozen=True)
class Shelf:
    """A corpus on disk: Markdown files, and an index of them."""

    corpus: Corpus
    cache: Path

    @cached_property
    def embedder(self) -> KeptEmbedder:
        """Shared by all corpora of a cache."""
        return KeptEmbedder(self.cache / "vectors.db")

    async def index(self) -> Index:
        """The index, made at first use, and anew where chunks are cut otherwise since."""
        index = open_index(self.cache / self.corpus.name / "index", embedder=self.embedder)
        try:
            await index.search("ready")
        except (DocumentsError, IndexMismatch):
            await index.update(self._written(), rebuild="changed")
        return index

    def _written(self) -> Path:
        folder = self.cache / self.corpus.name / "documents"
        folder.mkdir(parents=True, exist_ok=True)
        for text in self.corpus.documents:
            (folder / f"{text.id}.md").write_text(f"# {text.title}\n\n{text.text}\n", encoding="utf-8")
        return folder


def id_of(source: str) -> str:
    """The document that a chunk's source is."""
    return source.removesuffix(".md")
