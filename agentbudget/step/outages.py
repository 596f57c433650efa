"""Which models could not be had a moment ago: a step that may ask another does not wait for them again."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Final

from agentbudget.errors import ModelError, ModelUnavailable

ATTEMPTS: Final = 3
"""Billable attempts at one model call: the first, and two more after errors that may pass."""

REST_S: Final = 10.0
"""How long a model that could not be had is passed over."""

LONGEST_REST_S: Final = 600.0
"""The longest that a provider's word is taken for: then one attempt sees whether it still holds."""


class Outages:
    """What the steps of one engine learned of each other's failed calls. ``clock`` gives seconds."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._until: dict[str, float] = {}

    def attempts(self, model: str) -> int:
        """How often a model is asked where another may be asked in its place: while it rests not at all, then once."""
        until = self._until.get(model)
        if until is None:
            return ATTEMPTS
        return 0 if self._clock() < until else 1

    def allowed(self, model: str, *, spare: bool) -> int:
        """How often a call may ask a model; `spare` says that another may be asked in its place.

        Raises `ModelUnavailable` where that is not at all.
        """
        attempts = self.attempts(model) if spare else ATTEMPTS
        if not attempts:
            raise ModelUnavailable("it could not be had a moment ago, and was not asked", model=model, sent=False)
        return attempts

    def began(self, model: str, error: ModelError) -> None:
        """A model could not be had. It rests for a while: as long as its provider asks, within a bound.

        A rest is not prolonged: whoever found it resting has not asked it.
        """
        if not self.attempts(model):
            return
        rest_s = min(max(REST_S, error.retry_after_s or 0.0), LONGEST_REST_S)
        self._until[model] = self._clock() + rest_s

    def over(self, model: str) -> None:
        """It answered."""
        if self._until:
            self._until.pop(model, None)


def absence(error: ModelError) -> str:
    """Why there is no answer of a model, for the statement."""
    return f"{type(error).__name__}: {error}"
