"""What a person sees while a run goes on: downloads, indexing, and the step that is at work."""

from __future__ import annotations

import sys
import time
from typing import TYPE_CHECKING, Any, Self

from agentbudget.money import format_usd

if TYPE_CHECKING:
    from rich.status import Status

    from agentbudget.step import Event


class RunView:
    """A status line on standard error; plain lines where that is no terminal, nothing if `quiet`."""

    def __init__(self, *, quiet: bool = False) -> None:
        self._quiet = quiet
        self._status: Status | None = None
        self._spent = 0
        self._last = 0.0

    def __enter__(self) -> Self:
        if not self._quiet and sys.stderr.isatty():
            from rich.console import Console

            self._status = Console(stderr=True).status("starting")
            self._status.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def stop(self) -> None:
        """Clear the status line."""
        if self._status is not None:
            self._status.stop()
            self._status = None

    def event(self, event: Event) -> None:
        """A step started, called a model, hit the cache, escalated or settled."""
        if event.phase == "settled":
            self._spent += event.settled.usd_nano
        model = event.model.rpartition(":")[2]
        words = {
            "started": f"{event.skill}: estimating and reserving",
            "call": f"{event.skill} on {model}",
            "cached": f"{event.skill}: already paid for",
            "escalated": f"{event.skill}: not good enough, escalating to {model}",
            "settled": f"{event.skill} settled at {format_usd(event.settled.usd_nano)}",
            "failed": f"{event.skill} failed",
        }[event.phase]
        self._say(f"{words}", often=True)

    def indexing(self, progress: Any) -> None:
        """Documents read, chunks embedded."""
        words = {"read": "reading documents", "embed": "embedding chunks"}[progress.stage]
        self._say(f"{words} {progress.done}/{progress.total}", often=progress.done == progress.total)

    def pulling(self, done_bytes: int, total_bytes: int, what: str) -> None:
        """Weights on their way."""
        share = 100 * done_bytes // max(1, total_bytes)
        self._say(f"{what}  {done_bytes / 1e6:,.0f} of {total_bytes / 1e6:,.0f} MB ({share} %)")

    def evaluating(self, progress: Any) -> None:
        """Items of an eval, policy by policy."""
        self._say(f"{progress.stage}: {progress.done}/{progress.total}", often=progress.done == progress.total)

    def _say(self, words: str, *, often: bool = False) -> None:
        if self._quiet:
            return
        if self._status is not None:
            self._status.update(words)
        elif often or time.monotonic() - self._last > 2:
            self._last = time.monotonic()
            print(f"· {words}", file=sys.stderr, flush=True)
