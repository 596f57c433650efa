"""Open the memories: a path is embedded in this process, an address is a Qdrant server."""

from __future__ import annotations

from functools import partial
from pathlib import Path

from agentbudget.context import Embedder, FastEmbedder
from agentbudget.context.opening import make_embedder
from agentbudget.memory.memories import Memories
from agentbudget.memory.store import Stores


def open_memories(
    location: str | Path, *, embedder: Embedder | str | None = None, api_key: str | None = None
) -> Memories:
    """The memories at `location`: a folder, or the ``http(s)://`` address of a Qdrant server. Nothing is read yet.

    ``embedder`` defaults to all-MiniLM-L6-v2 on this machine.
    """
    model = make_embedder(embedder) if isinstance(embedder, str) else embedder or FastEmbedder()
    return Memories(partial(_stores, location, api_key), model)


def _stores(location: str | Path, api_key: str | None) -> Stores:
    if isinstance(location, str) and location.startswith(("http://", "https://")):
        from agentbudget.memory.remote import RemoteStores

        return RemoteStores.connect(location.rstrip("/"), api_key=api_key)
    from agentbudget.memory.edge import EdgeStores

    return EdgeStores(Path(location))
