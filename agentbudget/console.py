"""What a person sees while a run goes on: downloads, indexing, and the step that is at work."""

from __future__ import annotations

import sys
import time
from typing import TYPE_CHECKING, Any, Final, Self

from agentbudget.money import NANO, format_usd
from agentbudget.statement.fold import bare_name
from agentbudget.usage import Usage

if TYPE_CHECKING:
    from rich.status import Status

    from agentbudget.context import Progress, Work
    from agentbudget.models.base import Price
    from agentbudget.step import Event

MUCH_FILES: Final = 200
MUCH_TEXT: Final = 2_000_000
"""Files, or characters, from which on embedding takes long enough to be announced."""


class RunView:
    """A status line on standard error; plain lines where that is no terminal, nothing if `quiet`.

    `machine` prices the seconds of this machine, where work that takes many of them is to be announced.
    """

    def __init__(self, *, quiet: bool = False, machine: Price | None = None) -> None:
        self._quiet = quiet
        self._machine = machine
        self._announced = False
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
        model = bare_name(event.model)
        words = {
            "started": f"{event.skill}: estimating and reserving",
            "call": f"{event.skill} on {model}",
            "cached": f"{event.skill}: already paid for",
            "escalated": f"{event.skill}: not good enough, escalating to {model}",
            "settled": f"{event.skill} settled at {format_usd(event.settled.usd_nano)}",
            "failed": f"{event.skill} failed",
        }[event.phase]
        self._say(f"{words}", often=True)

    def indexing(self, progress: Progress) -> None:
        """Documents read, chunks embedded. Much work is announced as soon as its first batch has shown its speed."""
        if progress.work is not None and not self._announced:
            self._announce(progress.work, progress.total)
        words = {"read": "reading documents", "embed": "embedding chunks"}[progress.stage]
        self._say(f"{words} {progress.done}/{progress.total}", often=progress.done == progress.total)

    def pulling(self, done_bytes: int, total_bytes: int, what: str) -> None:
        """Weights on their way."""
        share = 100 * done_bytes // max(1, total_bytes)
        self._say(f"{what}  {done_bytes / 1e6:,.0f} of {total_bytes / 1e6:,.0f} MB ({share} %)")

    def exporting(self, done: int, total: int) -> None:
        """Entries of a journal on their way into a file."""
        self._say(f"{done:,} of {total:,} entries")

    def measuring(self, done: int, total: int, what: str) -> None:
        """Calls of a benchmark."""
        self._say(f"{what}, call {min(done + 1, total)} of {total}", often=done == total)

    def evaluating(self, progress: Any) -> None:
        """Items of an eval, policy by policy."""
        self._say(f"{progress.stage}: {progress.done}/{progress.total}", often=progress.done == progress.total)

    def _announce(self, work: Work, chunks: int) -> None:
        expected_ns = work.expected_ns
        much = work.files > MUCH_FILES or work.characters > MUCH_TEXT
        if self._quiet or self._machine is None or expected_ns is None or not much:
            return
        self._announced = True
        cost = format_usd(self._machine.cost(Usage(compute_ns=expected_ns)))
        words = (
            f"to embed: {work.files:,} files, {chunks:,} chunks, {work.tokens:,} tokens; "
            f"by the first of them about {_duration(expected_ns / NANO)} and {cost} of this machine"
        )
        if self._status is not None:
            self._status.console.print(f"· {words}", markup=False, highlight=False)
        else:
            print(f"· {words}", file=sys.stderr, flush=True)

    def _say(self, words: str, *, often: bool = False) -> None:
        if self._quiet:
            return
        if self._status is not None:
            self._status.update(words)
        elif often or time.monotonic() - self._last > 2:
            self._last = time.monotonic()
            print(f"· {words}", file=sys.stderr, flush=True)


def _duration(seconds: float) -> str:
    """A time that is only about right: seconds up to two minutes, then minutes."""
    return f"{seconds:,.0f} s" if seconds < 120 else f"{seconds / 60:,.0f} min"
