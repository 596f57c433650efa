"""Forks: a child inherits what is open, whose locks, files and threads are its parent's."""

from __future__ import annotations

import os
import threading
from typing import IO, Final, Protocol, Self
from weakref import WeakSet


class Forks(Protocol):
    """Something open that a fork must not tear."""

    def before_fork(self) -> None:
        """In the parent, just before: come to rest."""
        ...

    def after_fork(self, *, child: bool) -> None:
        """In the parent: go on. In the child, where nobody else runs yet: let go of what is the parent's."""
        ...


_watched: Final[WeakSet[Forks]] = WeakSet()


def watch(thing: Forks) -> None:
    """Tell `thing` of every fork of this process, for as long as it lives."""
    _watched.add(thing)


class Owned:
    """A file by which this process alone has a lock, for as long as this is kept: a child that is forked closes its own
    end at once. Else the lock would last until the child ends, too."""

    def __init__(self, file: IO[str]) -> None:
        self._file = file
        watch(self)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        """What the lock was for has ended."""

    def before_fork(self) -> None:
        """Nothing to bring to rest."""

    def after_fork(self, *, child: bool) -> None:
        """The parent's end stays open, and its lock with it."""
        if child:
            self._file.close()


_turn = threading.RLock()
"""One fork at a time: two threads that fork at once would each wait for what the other brought to rest."""

_at_rest: Final[list[Forks]] = []
"""What goes on after the fork. Others may be opened while it is under way, which nobody brought to rest."""


def _before() -> None:
    _turn.acquire()
    for thing in list(_watched):
        thing.before_fork()
        _at_rest.append(thing)


def _in_parent() -> None:
    while _at_rest:
        _at_rest.pop().after_fork(child=False)
    _turn.release()


def _in_child() -> None:
    global _turn
    _turn = threading.RLock()
    _at_rest.clear()
    for thing in list(_watched):
        thing.after_fork(child=True)


if hasattr(os, "register_at_fork"):
    os.register_at_fork(before=_before, after_in_parent=_in_parent, after_in_child=_in_child)
