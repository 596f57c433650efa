"""Ends of holds that the store did not take, as it was down, locked or full: booked once it takes something again."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from contextlib import suppress
from functools import wraps
from typing import Concatenate, ParamSpec, TypeVar

from agentbudget.errors import Mistake, StoreError

P = ParamSpec("P")
R = TypeVar("R")

End = Callable[[], object]


class Owed:
    """What is still to be booked, in the order in which it was said: what was said first of a hold is booked."""

    def __init__(self) -> None:
        self._ends = deque[End]()

    def __bool__(self) -> bool:
        return bool(self._ends)

    def noting(self, end: Callable[Concatenate[str, P], R], *, last: bool) -> Callable[Concatenate[str, P], R]:
        """An operation that ends a hold, which is noted where the store fails. It raises all the same.

        With ``last`` it comes after what is owed.
        """

        @wraps(end)
        def run(hold_id: str, *args: P.args, **kwargs: P.kwargs) -> R:
            try:
                if last:
                    self.pay()
                return end(hold_id, *args, **kwargs)
            except StoreError:
                self.note(lambda: end(hold_id, *args, **kwargs))
                raise

        return run

    def note(self, end: End) -> None:
        """Book this later."""
        self._ends.append(end)

    def pay(self) -> None:
        """Book what is owed. Raises `StoreError` where the store still takes nothing."""
        while self._ends:
            try:
                end = self._ends.popleft()
            except IndexError:  # another thread books the last
                return
            try:
                with suppress(Mistake):  # the hold was ended otherwise in the meantime
                    end()
            except BaseException:
                self._ends.appendleft(end)
                raise
