"""Shipped fakes for tests of code that uses agentbudget: a clock that stands still, a model with a script."""

from __future__ import annotations


class ManualClock:
    """Nanoseconds that pass only when told to."""

    def __init__(self, start_ns: int = 1_700_000_000_000_000_000) -> None:
        self.now_ns = start_ns

    def __call__(self) -> int:
        return self.now_ns

    def advance(self, seconds: float) -> None:
        """Let time pass."""
        self.now_ns += int(seconds * 1e9)
