"""Open an index: a path is embedded in this process, an address is a Qdrant server."""

from __future__ import annotations

from pathlib import Path

from agentbudget.context.embed import Embedder, FastEmbedder
from agentbudget.context.hosted import OpenAIEmbedder
from agentbudget.context.index import DocumentIndex, Index
from agentbudget.context.metadata import Labels
from agentbudget.errors import Mistake
from agentbudget.privacy import Privacy
from agentbudget.tenants import DEFAULT_TENANT


def make_embedder(name: str) -> Embedder:
    """The embedding model that `name` stands for: ``openai:<model>``, else one that runs here."""
    provider, _, model = name.partition(":")
    return OpenAIEmbedder(model) if provider == "openai" and model else FastEmbedder(name.removeprefix("fastembed:"))


def open_index(
    location: str | Path,
    *,
    embedder: Embedder | str | None = None,
    collection: str = "agentbudget",
    tenant: str = DEFAULT_TENANT,
    metadata: Labels | None = None,
    api_key: str | None = None,
    privacy: Privacy | None = None,
) -> Index:
    """The index at `location`, made when it is first updated. Close it with ``aclose()`` or ``async with``.

    ``embedder`` defaults to all-MiniLM-L6-v2 on this machine; ``"openai:text-embedding-3-small"`` names a hosted one.
    Tenants never see each other's documents. ``metadata`` says what is known of files, for filters and readers:
    ``{"hr/*": {"team": "hr"}}``, or a function of a file's path and of what the file states. ``privacy`` says the
    classes of the documents, and which of them a hosted embedder and a server may have. ``api_key`` is for a server;
    None reads ``QDRANT_API_KEY``. Raises `IndexBusy` if another process has the path open, `UnknownPrice` for a hosted
    embedder that nobody prices.
    """
    if not tenant or not collection:
        raise Mistake("collection and tenant must not be empty; leave them out for the defaults")
    model = make_embedder(embedder) if isinstance(embedder, str) else embedder or FastEmbedder()
    if isinstance(location, str) and location.startswith(("http://", "https://")):
        from agentbudget.context.remote import RemoteStore

        store = RemoteStore.connect(location.rstrip("/"), collection=collection, tenant=tenant, api_key=api_key)
        return DocumentIndex(store, model, tenant=tenant, metadata=metadata, privacy=privacy)
    if isinstance(location, str) and "://" in location:
        raise Mistake(f"{location!r} is neither a folder nor an http(s) address of a Qdrant server")
    from agentbudget.context.edge import EdgeStore

    store = EdgeStore(Path(location), collection=collection, tenant=tenant)
    return DocumentIndex(store, model, tenant=tenant, metadata=metadata, privacy=privacy)
