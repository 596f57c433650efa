"""How much a stream has used so far at the most, while it runs and when it ends before its end."""

from __future__ import annotations

from dataclasses import dataclass, replace

from agentbudget.models.base import Meter
from agentbudget.models.openai.answers import Piece
from agentbudget.usage import Usage


@dataclass
class Progress:
    """The most that a stream has used, from what arrived and what the server says of it.

    ``input_bound`` and ``cap`` are the most tokens of the request and of its answer, ``lead`` how many may have been
    made that did not arrive; None if that is not known. A token writes at least one byte.
    """

    input_bound: int
    cap: int
    lead: int | None
    stated: Usage | None = None
    arrived: int = 0
    text: str = ""

    def add(self, piece: Piece) -> None:
        """Take note of what arrived."""
        self.text += piece.text
        self.arrived += len(piece.text.encode()) + piece.hidden
        self.stated = piece.usage or self.stated

    def so_far(self) -> Usage:
        """What may have been used until now, and until the server notices that the stream is closed."""
        made = self.arrived if self.stated is None else self.stated.output_tokens
        output = min(self.cap, made + (self.lead or 0))
        if self.stated is None:
            return Usage(self.input_bound, output)
        return replace(self.stated, output_tokens=max(output, self.stated.reasoning_tokens))

    def presumed(self) -> Usage | None:
        """What is presumed of a stream that was left; None where nobody says that leaving it stops the server."""
        return None if self.lead is None else self.so_far()

    def at_most(self) -> Usage:
        """What it may be charged for, whatever the server does."""
        return self.presumed() or Usage(self.input_bound, self.cap)

    def left(self, meter: Meter, *, compute_ns: int) -> None:
        """Tell `meter` what is presumed of a stream that ended without the server's word."""
        presumed = self.presumed()
        if meter.usage is None and presumed is not None:
            meter.presumed = replace(presumed, compute_ns=compute_ns)
