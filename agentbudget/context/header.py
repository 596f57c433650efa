"""What an index says of itself: which model and chunker made it, from which files, and whether it is whole."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from agentbudget.context import chunk as chunking
from agentbudget.context import store as storing
from agentbudget.context.embed import Embedder
from agentbudget.errors import IndexMismatch

if TYPE_CHECKING:
    from pydantic import TypeAdapter

_REBUILD: Final = "embed everything again with agentbudget index --rebuild, or update(folder, rebuild=True)"


@dataclass(frozen=True, slots=True)
class FileState:
    """A file as it was when it was last read: its bytes' sha256, their number, when it was changed, what it stated.

    ``metadata`` is all that its chunks carry, ``chunks`` how many places in it hold one; ``unreadable`` is the reason
    why it was skipped.
    """

    digest: str
    size: int
    modified_ns: int
    stated: Mapping[str, str] = field(default_factory=dict[str, str], hash=False)
    metadata: Mapping[str, str] = field(default_factory=dict[str, str], hash=False)
    chunks: int = 0
    unreadable: str | None = None


@dataclass(frozen=True, slots=True)
class Header:
    """What an index was built with, and from what.

    ``whole`` is False while an update is under way, and ``chunks`` None until the first is complete. So whoever is
    killed in between leaves a mark, and the next update looks at everything. ``files`` are those of the last complete
    update, by source; ``tokens`` are those of all chunks, and ``ns_per_token`` is how long one took to embed.
    """

    embedder: str
    folder: str
    format: int = storing.FORMAT
    chunker: str = chunking.VERSION
    whole: bool = False
    chunks: int | None = None
    files: Mapping[str, FileState] = field(default_factory=dict[str, FileState], hash=False)
    tokens: int = 0
    ns_per_token: float | None = None

    @classmethod
    def load(cls, stored: storing.Header, location: str) -> Header:
        """From what `Store.header` gave. Raises `IndexMismatch` if a version wrote it that this one cannot read.

        The first format's header has no files, and is not whole: searching it would find payloads without metadata.
        """
        from pydantic import ValidationError

        version = stored.get("format")
        if version not in (1, storing.FORMAT):
            raise IndexMismatch(f"the index {location} has format {version!r}, not {storing.FORMAT}; {_REBUILD}")
        known = {key: value for key, value in stored.items() if key in cls.__dataclass_fields__}
        try:
            return _form().validate_python(known)
        except ValidationError as error:
            raise IndexMismatch(f"the index {location} was written by another version; {_REBUILD}") from error

    def dump(self) -> dict[str, Any]:
        """The inverse of `load`: plain JSON values."""
        return asdict(self)

    def is_stale(self, source: str) -> bool:
        """Whether the file is no longer as it was when it was read, by its size and time of change; or is gone."""
        state = self.files.get(source)
        try:
            status = (Path(self.folder) / source).stat()
        except OSError:
            return True
        return state is None or (state.size, state.modified_ns) != (status.st_size, status.st_mtime_ns)

    def mismatch(self, embedder: Embedder, location: str) -> str | None:
        """Why vectors or chunks made now would not fit those that are there, and what to do; None if they would."""
        if self.embedder != embedder.fingerprint:
            return (
                f"the index {location} was embedded by {self.embedder}, not by {embedder.fingerprint}; "
                f"open it with that model, or {_REBUILD}"
            )
        if self.chunker != chunking.VERSION:
            return (
                f"the index {location} was cut by chunker {self.chunker}, this is {chunking.VERSION}; embed what it "
                "cuts otherwise with agentbudget index --recut, or update(folder, rebuild='changed')"
            )
        return None

    def check(self, embedder: Embedder, location: str) -> None:
        """Raises `IndexMismatch` where there is a `mismatch`."""
        if (reason := self.mismatch(embedder, location)) is not None:
            raise IndexMismatch(reason)

    def check_format(self, location: str) -> None:
        """Raises `IndexMismatch` if the chunks are stored as an earlier version did it."""
        if self.format != storing.FORMAT:
            raise IndexMismatch(
                f"the index {location} has format {self.format}, not {storing.FORMAT}; run update(folder), which "
                "writes it anew and embeds nothing again"
            )

    def check_folder(self, folder: Path, location: str) -> None:
        """Raises `IndexMismatch` if the index mirrors another folder, whose chunks would all be dropped."""
        if self.folder != str(folder):
            raise IndexMismatch(
                f"the index {location} holds {self.folder}, not {folder}; give each folder an index of its own "
                f"(another path, collection or tenant), or {_REBUILD}"
            )


@cache
def _form() -> TypeAdapter[Header]:
    """Made once, for it takes milliseconds, and the version of a server's index is asked for at every search."""
    from pydantic import TypeAdapter

    return TypeAdapter(Header)
