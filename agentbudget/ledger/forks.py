"""Forks: a child inherits an open ledger whose locks, files and owner are its parent's."""

from __future__ import annotations

import os
from typing import Final, Protocol
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


def _before() -> None:
    for thing in list(_watched):
        thing.before_fork()


def _in_parent() -> None:
    for thing in list(_watched):
        thing.after_fork(child=False)


def _in_child() -> None:
    for thing in list(_watched):
        thing.after_fork(child=True)


if hasattr(os, "register_at_fork"):
    os.register_at_fork(before=_before, after_in_parent=_in_parent, after_in_child=_in_child)
