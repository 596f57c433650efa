"""One of each in a process."""

from __future__ import annotations

import threading

import pytest

from agentbudget.models.llama.shared import Shared


class Thing:
    closed = False

    def close(self) -> None:
        self.closed = True


def test_the_second_gets_what_the_first_opened_and_the_last_closes() -> None:
    shared = Shared[Thing]()
    first, second = shared.acquire("key", Thing), shared.acquire("key", Thing)
    assert first is second
    shared.release("key")
    assert not first.closed
    shared.release("key")
    assert first.closed
    assert shared.acquire("key", Thing) is not first


def test_who_asks_while_it_opens_waits() -> None:
    shared, opening, go = Shared[Thing](), threading.Event(), threading.Event()
    got: list[Thing] = []

    def slowly() -> Thing:
        opening.set()
        assert go.wait(30)
        return Thing()

    def never() -> Thing:
        raise AssertionError("it was opened twice")

    threads = [threading.Thread(target=lambda: got.append(shared.acquire("key", slowly)))]
    threads[0].start()
    assert opening.wait(30)
    threads.append(threading.Thread(target=lambda: got.append(shared.acquire("key", never))))
    threads[1].start()
    go.set()
    for thread in threads:
        thread.join(30)
    assert len(got) == 2
    assert got[0] is got[1]


def test_what_could_not_be_opened_is_tried_anew() -> None:
    def fails() -> Thing:
        raise OSError("no")

    shared = Shared[Thing]()
    with pytest.raises(OSError, match="no"):
        shared.acquire("key", fails)
    assert isinstance(shared.acquire("key", Thing), Thing)
