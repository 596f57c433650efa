"""What is open while a process forks."""

from __future__ import annotations

import os
from collections.abc import Callable

import pytest

from agentbudget.forks import watch

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="this system does not fork")


class Noted:
    """Something open that notes what it is told. `meanwhile` is done while it comes to rest."""

    def __init__(self, meanwhile: Callable[[], None] = lambda: None) -> None:
        self.told: list[str] = []
        self._meanwhile = meanwhile
        watch(self)

    def before_fork(self) -> None:
        self.told.append("rest")
        self._meanwhile()

    def after_fork(self, *, child: bool) -> None:
        self.told.append("let go" if child else "go on")


def told_in_a_child(thing: Callable[[], Noted]) -> str:
    reader, writer = os.pipe()
    if (child := os.fork()) == 0:
        os.write(writer, ", ".join(thing().told).encode())
        os._exit(0)
    os.close(writer)
    os.waitpid(child, 0)
    with os.fdopen(reader) as said:
        return said.read()


def test_what_is_open_comes_to_rest_and_goes_on_and_the_child_lets_go_of_it() -> None:
    thing = Noted()
    assert told_in_a_child(lambda: thing) == "rest, let go"
    assert thing.told == ["rest", "go on"]


def test_what_another_opens_during_a_fork_is_not_told_to_go_on_as_it_never_stopped() -> None:
    opened: list[Noted] = []
    first = Noted(lambda: opened.append(Noted()))
    assert told_in_a_child(lambda: opened[0]) == "let go"
    assert (first.told, opened[0].told) == (["rest", "go on"], [])
