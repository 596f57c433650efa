"""What the store gave up half-way, and kept nothing of, is asked of it again."""

from __future__ import annotations

import random
import time
from collections.abc import Callable
from functools import wraps
from typing import Final, ParamSpec, TypeVar

from agentbudget.errors import StoreInterrupted

PAUSES_S: Final = (0.0, 0.01, 0.05, 0.25)
"""The longest pause before each repetition; the true one is drawn from 0 up, so that rivals part."""

P = ParamSpec("P")
R = TypeVar("R")


def repeated(operation: Callable[P, R]) -> Callable[P, R]:
    """An operation of one transaction that a store may give up (`StoreInterrupted`): a distributed database whose
    writers crossed, or one whose connection was lost. Nothing of it remained, so that the repetition is the first."""

    @wraps(operation)
    def run(*args: P.args, **kwargs: P.kwargs) -> R:
        try:
            return operation(*args, **kwargs)
        except StoreInterrupted:
            return again(operation, *args, **kwargs)

    return run


def again(operation: Callable[P, R], *args: P.args, **kwargs: P.kwargs) -> R:
    """Ask anew for an operation that was given up once, and a few times more."""
    for pause_s in PAUSES_S[:-1]:
        time.sleep(pause_s * random.random())
        try:
            return operation(*args, **kwargs)
        except StoreInterrupted:
            continue
    time.sleep(PAUSES_S[-1] * random.random())
    return operation(*args, **kwargs)
