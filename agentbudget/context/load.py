"""Read a folder of documents into text and blocks: what a person sees as paragraphs, tables and functions."""

from __future__ import annotations

import hashlib
import stat
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from agentbudget.context import formats, records
from agentbudget.context import source as sources
from agentbudget.context.document import Document, Unreadable
from agentbudget.errors import DocumentsError

MAX_BYTES: Final = 50_000_000
"""Larger files are skipped: they are data more often than documents."""

Reader = Callable[[bytes], formats.Parsed]

READERS: Final[dict[str, Reader]] = {
    ".md": formats.markdown,
    ".txt": formats.plain,
    ".rst": formats.restructured,
    ".html": formats.html,
    ".py": formats.python,
    ".pdf": formats.pdf,
    ".csv": records.table,
    ".tsv": records.table,
    ".jsonl": records.json_lines,
    ".ndjson": records.json_lines,
    **dict.fromkeys(sources.SUFFIXES, sources.source),
}
"""File name extension (lower case) → how it is read."""

IGNORED_FOLDERS: Final = frozenset({"__pycache__", "node_modules"})


@dataclass(frozen=True, slots=True)
class Skipped:
    """A file or folder that could not be read, and why. ``source`` is relative to the documents folder."""

    source: str
    reason: str


@dataclass(frozen=True, slots=True)
class File:
    """A file that can probably be read: the sha256 of its bytes, how many they are, and when it was last changed."""

    source: str
    path: Path
    digest: str
    size: int
    modified_ns: int


@dataclass(frozen=True, slots=True)
class Scan:
    """What a documents folder holds. ``ignored`` counts files of other kinds, which are passed over in silence."""

    folder: Path
    files: tuple[File, ...]
    skipped: tuple[Skipped, ...]
    ignored: int

    @property
    def digest(self) -> str:
        """Changes when any readable file is added, removed, renamed or edited."""
        lines = (f"{file.source}\0{file.digest}\n" for file in self.files)
        return hashlib.sha256("".join(lines).encode(errors="surrogateescape")).hexdigest()


@dataclass(frozen=True, slots=True)
class Loaded:
    """Every document of a folder that could be read, and what could not."""

    documents: tuple[Document, ...]
    skipped: tuple[Skipped, ...]
    ignored: int


def load(folder: str | Path) -> Loaded:
    """Read a whole folder. Raises `DocumentsError` if it is missing or nothing in it can be read."""
    found = scan(folder)
    read_all = [read(file) for file in found.files]
    documents = tuple(item for item in read_all if isinstance(item, Document))
    skipped = found.skipped + tuple(item for item in read_all if isinstance(item, Skipped))
    if not documents:
        raise nothing_readable(found.folder, skipped)
    return Loaded(documents, skipped, found.ignored)


def scan(folder: str | Path) -> Scan:
    """List and hash the readable files of `folder`, deepest folders included, in a stable order.

    Hidden files and folders are passed over; links are followed, each folder once. Raises `DocumentsError` if the
    folder is missing or holds no file of a kind that can be read.
    """
    root = _existing(folder)
    walk = _Walk(root)
    files = tuple(walk.files())
    if not files:
        raise nothing_readable(root, tuple(walk.skipped))
    return Scan(root, files, tuple(walk.skipped), walk.ignored)


def read(file: File) -> Document | Skipped:
    """Parse one file; what cannot be read comes back as `Skipped` with the reason."""
    try:
        parsed = READERS[file.path.suffix.lower()](file.path.read_bytes())
    except Unreadable as error:
        return Skipped(file.source, str(error))
    except OSError as error:
        return Skipped(file.source, _os_reason(error))
    if not parsed.blocks:
        return Skipped(file.source, "empty")
    return Document(file.source, parsed.text, parsed.blocks, parsed.metadata)


def nothing_readable(folder: Path, skipped: tuple[Skipped, ...]) -> DocumentsError:
    """The error for a folder without a readable document."""
    kinds = " ".join(READERS)
    if not skipped:
        return DocumentsError(f"{folder} holds no documents; put files of these kinds into it: {kinds}")
    named = "; ".join(f"{item.source}: {item.reason}" for item in skipped[:5])
    more = f" and {len(skipped) - 5} more" if len(skipped) > 5 else ""
    return DocumentsError(f"nothing in {folder} could be read ({named}{more}); it reads {kinds}")


def _existing(folder: str | Path) -> Path:
    root = Path(folder).expanduser()
    if not root.exists():
        raise DocumentsError(f"there is no folder {root}; give the path of a folder of documents")
    if not root.is_dir():
        raise DocumentsError(f"{root} is a file; give the path of the folder that holds it")
    return root.resolve()


def _os_reason(error: OSError) -> str:
    return f"cannot be read: {error.strerror or error}"


@dataclass(slots=True)
class _Walk:
    root: Path
    skipped: list[Skipped] = field(default_factory=list[Skipped])
    ignored: int = 0
    _seen: set[tuple[int, int]] = field(default_factory=set[tuple[int, int]])

    def files(self, folder: Path | None = None) -> Iterator[File]:
        """The readable files below `folder`, sorted; a folder reached twice through links is entered once.

        Links come last, so that a folder is known by its own name, which rules are about, before any other.
        """
        folders, links = [folder or self.root], list[Path]()
        while folders or links:
            here = folders.pop() if folders else links.pop(0)
            below: list[Path] = []
            for path in self._entries(here):
                mode = self._mode(path)
                if stat.S_ISREG(mode):
                    yield from self._file(path)
                elif stat.S_ISDIR(mode):
                    below += [path] if path.name not in IGNORED_FOLDERS else []
                elif mode:
                    self._odd(path, "not a regular file")
            folders.extend(path for path in reversed(below) if not path.is_symlink())
            links.extend(path for path in below if path.is_symlink())

    def _entries(self, folder: Path) -> list[Path]:
        try:
            status = folder.stat()
            if (status.st_dev, status.st_ino) in self._seen:
                return []
            self._seen.add((status.st_dev, status.st_ino))
            return sorted(path for path in folder.iterdir() if not path.name.startswith("."))
        except OSError as error:
            if folder == self.root:
                raise DocumentsError(f"the folder {folder} {_os_reason(error)}") from error
            self._skip(folder, _os_reason(error))
            return []

    def _file(self, path: Path) -> Iterator[File]:
        if path.suffix.lower() not in READERS:
            self.ignored += 1
            return
        try:
            status = path.stat()
            size = status.st_size
            if size > MAX_BYTES:
                self._skip(
                    path, f"{size / 1e6:,.0f} MB is more than the {MAX_BYTES / 1e6:,.0f} MB that is read of a file"
                )
                return
            with path.open("rb") as stream:
                digest = hashlib.file_digest(stream, "sha256").hexdigest()
        except OSError as error:
            self._skip(path, _os_reason(error))
            return
        yield File(self._source(path), path, digest, size, status.st_mtime_ns)

    def _mode(self, path: Path) -> int:
        """What stands at this path, links followed; 0 for nothing, or what cannot be looked at."""
        try:
            return path.stat().st_mode
        except PermissionError as error:
            self._odd(path, _os_reason(error))
        except OSError as error:
            if path.is_symlink():
                self._odd(path, "a link that leads nowhere")
            elif not isinstance(error, FileNotFoundError):  # else it was removed since its folder was listed
                self._odd(path, _os_reason(error))
        return 0

    def _odd(self, path: Path, reason: str) -> None:
        """What is no file that can be read: named if it looks like a document, else only counted."""
        if path.suffix.lower() in READERS:
            self._skip(path, reason)
        else:
            self.ignored += 1

    def _skip(self, path: Path, reason: str) -> None:
        self.skipped.append(Skipped(self._source(path), reason))

    def _source(self, path: Path) -> str:
        # A name that is no valid text would fail wherever it is stored or printed.
        return path.relative_to(self.root).as_posix().encode(errors="surrogateescape").decode(errors="replace")
