"""Searches that were paid for before: the same question of the same documents finds the same."""

from __future__ import annotations

import logging
from functools import cache
from typing import TYPE_CHECKING

from agentbudget.cache import Label, Source, hashed
from agentbudget.errors import StoreError
from agentbudget.privacy.classes import outlives_its_run

if TYPE_CHECKING:
    from pydantic import TypeAdapter

    from agentbudget.context import Index, Retrieved
    from agentbudget.step.context import Context

_log = logging.getLogger(__name__)


async def search_key(ctx: Context, index: Index, **asked: object) -> str | None:
    """Everything that changes what a search finds, hashed; None while the documents change.

    That is the documents as they are now, what is asked, the tenant, and this version of the package, which chooses
    among what was found.
    """
    version = await index.version()
    if version is None:
        return None
    from agentbudget import __version__

    parts = {"kind": "retrieval", "package": __version__, "index": index.location, "version": version, **asked}
    return hashed(parts | {"tenant": ctx.scope.tenant, "run": None if ctx.engine.share_answers else ctx.run_id})


def found_before(ctx: Context, key: str) -> tuple[Retrieved, int] | None:
    """What such a search found, and what it cost then, in nano-dollars."""
    store = ctx.engine.answers.store
    try:
        for row in store.find((key,)):
            try:
                found = _form().validate_json(row.value)
            except ValueError as error:  # kept by another version
                _log.warning("a search in the cache %s cannot be read, and is made anew: %s", store.location, error)
                return None
            store.touch(row.entry)
            return found, row.cost_usd_nano
    except StoreError as error:
        _log.warning("searches already paid for cannot be read, so this one is made: %s", error)
    return None


def keep_found(ctx: Context, key: str, found: Retrieved, *, cost_usd_nano: int) -> None:
    """Keep what a search found, unless it must not outlive its run. A cache that fails loses a saving, no passages."""
    if not outlives_its_run(found.label(ctx.engine.privacy).data_class):
        return
    found = found.without_narrower(ctx.engine.privacy)  # what was left out may be what must not
    sources = tuple({Source(passage.chunk.source, passage.chunk.id) for passage in found.passages})
    label = Label("retrieval", ctx.scope.tenant, sources=sources)
    try:
        ctx.engine.answers.store.put({key: None}, _form().dump_json(found), label, cost_usd_nano=cost_usd_nano)
    except StoreError as error:
        _log.warning("a search that was paid for cannot be kept: %s", error)


@cache
def _form() -> TypeAdapter[Retrieved]:
    from pydantic import TypeAdapter

    from agentbudget.context import Retrieved

    return TypeAdapter(Retrieved)
