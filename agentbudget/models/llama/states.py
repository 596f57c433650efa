"""What llama.cpp computed of fixed prompts, kept in files: read again faster than computed, after a restart too.

A file holds the keys and values of a prompt's tokens, from which the prompt could be guessed. Only what a request calls
fixed (a skill's own words) is kept. Files are written whole or not at all, checked when they are read, and the longest
unused go first when the folder has grown beyond its limit.
"""

from __future__ import annotations

import hashlib
import logging
import os
import struct
import tempfile
import zlib
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Final

_log = logging.getLogger(__name__)
_HEADER: Final = struct.Struct("<8sQII")
_MAGIC: Final = b"agbstate"
DEFAULT_LIMIT_BYTES: Final = 1 << 30


class StateFiles:
    """The states of one model in one arrangement of its memory, by the tokens that they stand for."""

    def __init__(self, folder: Path, *, limit_bytes: int = DEFAULT_LIMIT_BYTES) -> None:
        """`folder` is the model's own: states of another model or version must not be in it. It may not exist yet."""
        self.folder = folder
        self._limit = limit_bytes

    def read(self, tokens: Sequence[int]) -> bytearray | None:
        """The state of `tokens`; None if there is none, or none that is whole."""
        path = self._path(tokens)
        try:
            with path.open("rb") as file:
                magic, size, checksum, count = _HEADER.unpack(file.read(_HEADER.size))
                data = (
                    bytearray(size) if (magic, count) == (_MAGIC, len(tokens)) and size <= self._limit else bytearray()
                )
                whole = file.readinto(data) == size and zlib.crc32(data) == checksum
            if whole:
                with suppress(OSError):  # in a folder that may only be read nothing is removed, and no order is kept
                    os.utime(path)
                return data
        except FileNotFoundError:
            return None
        except (OSError, struct.error) as error:
            _log.warning("the kept state %s cannot be read, so the prompt is computed: %s", path, error)
            return None
        _log.warning("the kept state %s is broken, so the prompt is computed and kept anew", path)
        self._remove(path)
        return None

    def has(self, tokens: Sequence[int]) -> bool:
        """Whether there is a state of `tokens`."""
        return self._path(tokens).is_file()

    def forget(self, tokens: Sequence[int]) -> None:
        """Remove the state of `tokens`, which llama.cpp does not take."""
        _log.warning("llama.cpp does not take a kept state, so the prompt is computed and kept anew")
        self._remove(self._path(tokens))

    def write(self, tokens: Sequence[int], data: memoryview) -> None:
        """Keep a state. A disk that is full or not to be written to is no error: the prompt is then computed."""
        if len(data) > self._limit:
            return
        try:
            self.folder.mkdir(parents=True, exist_ok=True, mode=0o700)
            with tempfile.NamedTemporaryFile(dir=self.folder, prefix="new-", delete=False) as file:
                try:
                    file.write(_HEADER.pack(_MAGIC, len(data), zlib.crc32(data), len(tokens)))
                    file.write(data)
                    file.close()
                    Path(file.name).replace(self._path(tokens))
                except OSError:
                    Path(file.name).unlink(missing_ok=True)
                    raise
            self._make_room()
        except OSError as error:
            _log.warning("a prompt's state cannot be kept in %s: %s", self.folder, error)

    def _remove(self, path: Path) -> None:
        try:
            path.unlink(missing_ok=True)
        except OSError as error:
            _log.warning("the kept state %s cannot be removed: %s", path, error)

    def _make_room(self) -> None:
        """Remove the longest unused files, of any model beside this one too, until the rest is within the limit."""
        found: list[tuple[float, int, Path]] = []
        for path in self.folder.parent.glob("*/*.state"):
            try:
                about = path.stat()
            except FileNotFoundError:  # another process has just removed it
                continue
            found.append((about.st_mtime, about.st_size, path))
        total = sum(size for _, size, _ in found)
        for _, size, path in sorted(found):
            if total <= self._limit:
                break
            path.unlink(missing_ok=True)
            total -= size

    def _path(self, tokens: Sequence[int]) -> Path:
        packed = struct.pack(f"<{len(tokens)}i", *tokens)
        return self.folder / f"{hashlib.sha256(packed).hexdigest()[:32]}.state"
