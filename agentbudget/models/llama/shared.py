"""One of each in a process: who asks for what is open already gets that, who asks while it opens waits."""

from __future__ import annotations

import threading
from collections.abc import Callable, Hashable
from dataclasses import dataclass, field
from typing import Generic, Protocol, TypeVar


class _Closable(Protocol):
    def close(self) -> None: ...


_T = TypeVar("_T", bound=_Closable)


@dataclass(slots=True)
class _Held(Generic[_T]):
    opening: threading.Lock = field(default_factory=threading.Lock)
    users: int = 0
    value: _T | None = None


class Shared(Generic[_T]):
    """Things by their key. The last user who lets go closes."""

    def __init__(self) -> None:
        self.forked()

    def forked(self) -> None:
        """In a child: what is open is its parent's, whose threads are not here."""
        self._mutex = threading.Lock()
        self._held: dict[Hashable, _Held[_T]] = {}

    def acquire(self, key: Hashable, opened: Callable[[], _T]) -> _T:
        """What is open under `key`, or what `opened` opens; raises what that raises."""
        with self._mutex:
            held = self._held.setdefault(key, _Held())
            held.users += 1
        try:
            with held.opening:
                if held.value is None:
                    held.value = opened()
                return held.value
        except BaseException:
            self.release(key)
            raise

    def release(self, key: Hashable) -> None:
        """Let go of what is open under `key`."""
        with self._mutex:
            held = self._held[key]
            held.users -= 1
            if held.users:
                return
            del self._held[key]
        if held.value is not None:
            held.value.close()
