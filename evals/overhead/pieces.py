"""Where a step's time goes, by looking at it from time to time: nothing is slowed down, as it is by a profiler."""

from __future__ import annotations

import signal
from collections import Counter
from collections.abc import Generator
from contextlib import contextmanager
from types import FrameType
from typing import Final

INTERVAL_S: Final = 0.001
"""Of processor time, between two looks; the system's own clock may make it four times as long."""

PIECES: Final = {
    "Step.__init__": "name the step: its place, its skill, its arguments",
    "Step._estimate": "estimate: count, features, lengths, price",
    "Step._reserve": "hold the step on its accounts",
    "asked_of": "make the key of the answer",
    "Once.__aenter__": "look for an answer that was paid for",
    "Once.__aexit__": "look for an answer that was paid for",
    "parts_of": "divide the prompt into its parts",
    "breakdown": "divide the prompt into its parts",
    "Funds.reserve": "hold the call within the step",
    "Hold.mark_sent": "note that the call leaves",
    "keep": "keep the answer on disk",
    "Hold.settle": "settle the call, and the step",
    "Estimator.learn": "learn from the call",
    "ScriptedModel.complete": "(the model itself)",
}
"""What is told apart, by the function that does it."""
TELEMETRY: Final = "spans and counters"
REST: Final = "all else: the request, the verdict, the reply, what is between"
_WHOLE: Final = "Skill.__call__"


class Looks:
    """How often each piece was seen at work."""

    def __init__(self) -> None:
        self.seen: Counter[str] = Counter()

    def look(self, _signal: int, frame: FrameType | None) -> None:
        """Note what is going on, if it is a part of a step: the innermost function that has a name here."""
        found: str | None = None
        while frame is not None:
            code = frame.f_code
            if code.co_qualname == _WHOLE:
                self.seen[found or REST] += 1
                return
            if found is None:
                found = TELEMETRY if "agentbudget/telemetry/" in code.co_filename else PIECES.get(code.co_qualname)
            frame = frame.f_back

    def told(self, step_us: float) -> Generator[str]:
        """The pieces as lines of a table, in microseconds of a step that takes so many."""
        everything = self.seen.total() or 1
        for piece, times in self.seen.most_common():
            yield f"| {piece} | {step_us * times / everything:.0f} | {times / everything:.0%} |"


@contextmanager
def looking() -> Generator[Looks]:
    """Look at what this thread does, while the block lasts."""
    looks = Looks()
    before = signal.signal(signal.SIGPROF, looks.look)
    signal.setitimer(signal.ITIMER_PROF, INTERVAL_S, INTERVAL_S)
    try:
        yield looks
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0)
        signal.signal(signal.SIGPROF, before)
