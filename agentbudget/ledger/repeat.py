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
        for pause_s in PAUSES_S:
            try:
                return operation(*args, **kwargs)
            except StoreInterrupted:
                time.sleep(pause_s * random.random())
        return operation(*args, **kwargs)

    return run
