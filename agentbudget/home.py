"""What stands in a home, opened as its settings say: answers that were paid for, and the indexes of folders."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import TYPE_CHECKING

from agentbudget.cache import Answers, Limits
from agentbudget.privacy import Privacy
from agentbudget.settings import Settings
from agentbudget.tenants import DEFAULT_TENANT

if TYPE_CHECKING:
    from agentbudget.context import Embedder, Index


def require_documents(folder: str) -> None:
    """Raise `DocumentsError` if a folder has nothing to read, before a run is opened for it."""
    from agentbudget.context import scan

    scan(folder)


def open_answers(settings: Settings) -> Answers:
    """The home's cache, within the bound that the settings give."""
    megabytes = settings.cache_mb
    return Answers(settings.cache_path, limits=None if megabytes is None else Limits(bytes=megabytes * 10**6))


def open_folder_index(
    settings: Settings,
    folder: Path,
    *,
    embedder: str | Embedder | None = None,
    privacy: Privacy | None = None,
    tenant: str = DEFAULT_TENANT,
) -> Index:
    """The index of a documents folder: embedded under the home, or a collection of the Qdrant server in use."""
    from agentbudget.context import open_index

    whole = folder.resolve()
    name = f"{whole.name}-{hashlib.blake2b(str(whole).encode(), digest_size=4).hexdigest()}"
    if settings.qdrant_url is not None:
        return open_index(
            settings.qdrant_url, collection=f"agentbudget-{name}", embedder=embedder, privacy=privacy, tenant=tenant
        )
    return open_index(settings.indexes_dir / name, embedder=embedder, privacy=privacy, tenant=tenant)
