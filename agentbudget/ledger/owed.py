"""Ends of holds that the store did not take, as it was down, locked or full: booked once it takes something again."""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Callable
from functools import wraps
from typing import Concatenate, ParamSpec, TypeVar

from agentbudget.errors import Mistake, StoreError

P = ParamSpec("P")
R = TypeVar("R")

End = Callable[[], object]

_log = logging.getLogger(__name__)


class Owed:
    """What is still to be booked, in the order in which it was said: what was said first of a hold is booked."""

    def __init__(self) -> None:
        self._ends = deque[End]()

    def __bool__(self) -> bool:
        return bool(self._ends)

    def noting(self, end: Callable[Concatenate[str, P], R], *, after_owed: bool) -> Callable[Concatenate[str, P], R]:
        """An operation that ends a hold, which is noted where the store fails. It raises all the same.

        With ``after_owed`` it comes after what is owed so far.
        """

        @wraps(end)
        def run(hold_id: str, *args: P.args, **kwargs: P.kwargs) -> R:
            try:
                if after_owed:
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
                end()
            except Mistake as known:  # the hold was ended otherwise in the meantime
                _log.warning("the end of a hold, owed since its store did not take it, is passed over: %s", known)
            except BaseException:
                self._ends.appendleft(end)
                raise
