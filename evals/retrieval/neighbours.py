"""What the chunks before and after the best bring: long documents, cut into small chunks and into the usual ones."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path
from statistics import mean
from typing import Final

from agentbudget.context.chunk import Chunk, Sizes, chunk, chunk_id
from agentbudget.context.document import Block, Document
from agentbudget.context.edge import EdgeStore
from agentbudget.context.neighbours import NEAR, leading, widened
from agentbudget.context.pack import pack
from agentbudget.context.store import Hit, Point, Words, point_id
from evals.retrieval.corpora import Corpus, KeptEmbedder, Question, Text, load
from evals.retrieval.inside import HALVES
from evals.retrieval.packers import CountTokens, qwen_tokens

CUTS: Final = {
    "64 to 80": Sizes(target=64, limit=80, least=30),
    "120 to 160": Sizes(target=120, limit=160, least=60),
    "200 to 254": Sizes(),
}
ALLOWANCES: Final = (128, 256)

_LIMIT: Final = 24
_BATCH: Final = 1000
_REMEMBERED: Final = 1 << 16


def run(data: Path, cache: Path) -> str:
    """The table. XQuAD's paragraphs make one document an article, which stands among NQ's."""
    corpus, chaff = load("xquad", data), load("nq", data).documents
    embedder = KeptEmbedder(cache / "vectors.db")
    count = lru_cache(maxsize=_REMEMBERED)(qwen_tokens())
    lines = ["| tokens of a chunk | neighbours of | questions | 128 tokens | 256 tokens |", "|---|--:|---|--:|--:|"]
    for told, sizes in CUTS.items():
        chunks = [
            each for document in _articles(corpus) for each in chunk(document, embedder.count_tokens, sizes=sizes)
        ]
        chunks += [_whole(text, embedder) for text in chaff]
        store = _store(cache / "neighbours" / told.split()[0], chunks, embedder)
        try:
            lines += _rows(told, store, corpus, embedder, count)
        finally:
            store.close()
    return "\n".join(lines)


def _rows(told: str, store: EdgeStore, corpus: Corpus, embedder: KeptEmbedder, count_tokens: CountTokens) -> list[str]:
    words, lines = Words(), list[str]()
    found = {
        question.id: store.search(embedder.embed_query(question.text), words.query(question.text), _LIMIT)
        for question in corpus.questions
    }
    for neighbours in (0, 1):
        for half in HALVES:
            asked = [question for question in corpus.questions if question.half == half]
            hits = [beside(store, found[question.id], neighbours) for question in asked]
            shares = (_share(asked, hits, tokens, count_tokens) for tokens in ALLOWANCES)
            told_shares = " | ".join(f"{share:.3f}" for share in shares)
            lines.append(f"| {told} | {neighbours} | {len(asked)}, {half} | {told_shares} |")
    return lines


def beside(store: EdgeStore, hits: Sequence[Hit], neighbours: int) -> Sequence[Hit]:
    """`hits`, and what stands before and after the best of them, as an index finds it."""
    around = leading(hits, neighbours)
    return widened(hits, around, store.beside([hit.chunk.places[0] for hit in around], NEAR)) if around else hits


def _share(
    questions: Sequence[Question], found: Sequence[Sequence[Hit]], tokens: int, count_tokens: CountTokens
) -> float:
    return mean(
        question.answered_in(pack(question.text, hits, tokens=tokens, count_tokens=count_tokens).text)
        for question, hits in zip(questions, found, strict=True)
    )


def _articles(corpus: Corpus) -> list[Document]:
    paragraphs: dict[str, list[str]] = defaultdict(list)
    for text in corpus.documents:
        paragraphs[text.title].append(text.text)
    return [_article(title, texts) for title, texts in paragraphs.items()]


def _article(title: str, texts: Sequence[str]) -> Document:
    blocks: list[Block] = []
    start = 0
    for text in texts:
        blocks.append(Block(start, start + len(text), (title,)))
        start += len(text) + 2
    return Document(f"{title}.md", "\n\n".join(texts), tuple(blocks))


def _whole(text: Text, embedder: KeptEmbedder) -> Chunk:
    path = (text.title,)
    tokens = embedder.count_tokens(text.text)
    return Chunk(chunk_id(path, text.text), text.id, path, text.text, 0, len(text.text), tokens)


def _store(folder: Path, chunks: Sequence[Chunk], embedder: KeptEmbedder) -> EdgeStore:
    """An index of `chunks`, made at first use."""
    distinct = list({each.id: each for each in chunks}.values())
    store, words = EdgeStore(folder, collection="neighbours", tenant="default"), Words()
    if store.count() == len(distinct):
        return store
    store.create(embedder.dim)
    store.filterable([])
    for first in range(0, len(distinct), _BATCH):
        batch = distinct[first : first + _BATCH]
        vectors = embedder.embed([each.embedded for each in batch])
        store.add(
            [
                Point(point_id("default", each.id), each, dense, words.document(each.embedded))
                for each, dense in zip(batch, vectors, strict=True)
            ]
        )
    return store
