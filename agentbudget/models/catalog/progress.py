"""How far a fetch has come, for whoever watches."""

from __future__ import annotations

from collections.abc import Callable

Progress = Callable[[int, int, str], None]
"""Called with bytes done, bytes in total, and what is being done."""


class Meter:
    """Adds up the bytes of an entry's files for the caller's progress."""

    def __init__(self, progress: Progress | None, name: str, total_bytes: int) -> None:
        self._progress = progress
        self._name = name
        self._total = total_bytes
        self._before = 0
        self._file = 0

    def at(self, file_bytes: int, what: str) -> None:
        """So many bytes of the file that is being fetched are here."""
        self._file = file_bytes
        self.say(what)

    def done(self, file_bytes: int, what: str) -> None:
        """A file of so many bytes is complete."""
        self._before += file_bytes
        self._file = 0
        self.say(what)

    def say(self, what: str) -> None:
        """Something goes on, with no byte more than before."""
        if self._progress is not None:
            self._progress(self._before + self._file, self._total, f"{self._name}: {what}")
