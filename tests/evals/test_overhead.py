"""What the benchmark of a step's overhead says beside its table."""

from __future__ import annotations

import asyncio
import inspect
import sys
from types import FrameType

from evals.overhead.__main__ import Took, measured, of_the_slowest
from evals.overhead.pieces import PIECES, REST, Looks


def test_a_piece_is_what_the_innermost_function_with_a_name_does() -> None:
    looks, places = Looks(), set[str]()

    def seen(frame: FrameType, event: str, _: object) -> None:
        if event == "call":
            places.add(frame.f_code.co_qualname)
            looks.look(0, frame)

    sys.setprofile(seen)
    try:
        asyncio.run(measured("memory", 1, None))
    finally:
        sys.setprofile(None)
    assert set(PIECES) <= places  # a function that was renamed would be counted to the rest
    assert set(PIECES.values()) | {REST} <= set(looks.seen)


def test_what_is_no_part_of_a_step_is_not_counted() -> None:
    looks = Looks()
    looks.look(0, inspect.currentframe())
    assert not looks.seen


def test_the_slowest_hundredth_is_divided_into_waiting_garbage_and_work() -> None:
    fast, slow = Took(0.001, 0.001), Took(0.010, 0.006, 0.002)
    assert of_the_slowest([fast] * 99 + [slow]) == (
        "The slowest 1 steps took 10.00 ms on average: 4.00 waiting for a processor, the disk or another thread, "
        "2.00 looking for garbage, 4.00 at work"
    )
