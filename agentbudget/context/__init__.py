"""Precise context: documents → chunks → an index (Qdrant) → the best passages within a token allowance → citations."""

from __future__ import annotations

from agentbudget.context.chunk import Chunk, Place
from agentbudget.context.citations import Citation, Cited, cite
from agentbudget.context.document import Document
from agentbudget.context.embed import Embedder, FastEmbedder
from agentbudget.context.hosted import HostedEmbedder, OpenAIEmbedder, Pay
from agentbudget.context.index import Found, Index
from agentbudget.context.load import Scan, Skipped, scan
from agentbudget.context.metadata import Labels
from agentbudget.context.opening import make_embedder, open_index
from agentbudget.context.pack import LeftOut, More
from agentbudget.context.passages import Passage
from agentbudget.context.report import IndexPlan, IndexReport, Progress, Work
from agentbudget.context.retrieve import Retrieved, retrieve
from agentbudget.context.store import Hit

__all__ = [
    "Chunk",
    "Citation",
    "Cited",
    "Document",
    "Embedder",
    "FastEmbedder",
    "Found",
    "Hit",
    "HostedEmbedder",
    "Index",
    "IndexPlan",
    "IndexReport",
    "Labels",
    "LeftOut",
    "More",
    "OpenAIEmbedder",
    "Passage",
    "Pay",
    "Place",
    "Progress",
    "Retrieved",
    "Scan",
    "Skipped",
    "Work",
    "cite",
    "make_embedder",
    "open_index",
    "retrieve",
    "scan",
]
