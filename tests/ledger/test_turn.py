"""Turns at a file: first come, first served, and nobody waits for the dead."""

from __future__ import annotations

import sqlite3
import threading
import time
from collections.abc import Generator
from pathlib import Path

import pytest

from agentbudget.ledger.turn import Turn

pytest.importorskip("fcntl", reason="this system has no advisory locks")


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "ledger.db"


@pytest.fixture
def turns(path: Path) -> Generator[list[Turn]]:
    made = [Turn(path) for _ in range(3)]
    for number, turn in enumerate(made):
        turn._slot = 2 * number  # pyright: ignore[reportPrivateUsage] # no two share a place
    yield made
    for turn in made:
        turn.close()


def soon(seconds: float = 30) -> float:
    return time.monotonic() + seconds


def waiting(turn: Turn) -> int:
    words = turn._waiting.tolist()[:-1]  # pyright: ignore[reportPrivateUsage]
    return sum(since > 0 for since in words[::2])


def test_who_came_first_is_first(turns: list[Turn]) -> None:
    holder, *others = turns
    holder.take(soon())
    order: list[int] = []

    def wait(number: int) -> None:
        others[number].take(soon())
        order.append(number)
        others[number].give()

    threads = [threading.Thread(target=wait, args=(number,)) for number in range(2)]
    for number, thread in enumerate(threads, 1):
        thread.start()
        while waiting(holder) < number:
            time.sleep(0.001)
    holder.give()
    for thread in threads:
        thread.join()
    assert order == [0, 1]
    assert waiting(holder) == 0


def test_a_turn_that_nobody_gives_is_waited_for_no_longer_than_asked(turns: list[Turn]) -> None:
    turns[0].take(soon())
    with pytest.raises(sqlite3.OperationalError, match="locked"):
        turns[1].take(soon(0.05))
    assert waiting(turns[0]) == 0


def test_whoever_was_killed_while_waiting_is_passed_over(turns: list[Turn]) -> None:
    table = turns[0]._waiting  # pyright: ignore[reportPrivateUsage]
    table[0], table[1] = 1, time.monotonic_ns()
    turns[1].take(soon())
    turns[1].give()


def test_a_turn_ends_with_whoever_has_it(path: Path, turns: list[Turn]) -> None:
    other = Turn(path)
    other.take(soon())
    other.close()
    turns[0].take(soon())


def test_a_turn_file_of_an_earlier_version_serves(tmp_path: Path) -> None:
    (tmp_path / "old.db-turn").touch()
    turn = Turn(tmp_path / "old.db")
    assert turn.take(soon())
    turn.give()
    turn.close()


def test_who_goes_on_at_once_need_not_look_what_others_wrote(turns: list[Turn]) -> None:
    assert turns[0].take(soon())
    turns[0].give()
    turns[0]._until += 10**12  # pyright: ignore[reportPrivateUsage] # however slow this machine is
    assert not turns[0].take(soon())
    turns[0].give()
    assert turns[1].take(soon()), "somebody else has to"


def test_who_is_next_looks_ahead_once(turns: list[Turn]) -> None:
    looked: list[float] = []
    table = turns[0]._waiting  # pyright: ignore[reportPrivateUsage]
    table[0], table[1] = 1, time.monotonic_ns() + 10**12  # somebody is before it, and goes on waiting
    with pytest.raises(sqlite3.OperationalError, match="locked"):
        turns[1].take(soon(0.05), lambda: looked.append(time.monotonic()))
    assert len(looked) == 1
