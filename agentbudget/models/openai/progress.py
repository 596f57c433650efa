"""How much a call has used so far at the most, while it runs and when it ends before its end."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from time import monotonic_ns

from agentbudget.models.openai.answers import Piece
from agentbudget.usage import Usage

NS_PER_S = 10**9


@dataclass
class Clock:
    """How long a call has computed: by the server's word where it gives one, else since it left."""

    started_ns: int = field(default_factory=monotonic_ns)
    stated_ns: int | None = None
    stated_at_ns: int = 0

    def state(self, compute_ns: int | None) -> None:
        """Take the server's word."""
        if compute_ns is not None:
            self.stated_ns, self.stated_at_ns = compute_ns, monotonic_ns()

    def computed_ns(self) -> int:
        """Nanoseconds until now."""
        if self.stated_ns is None:
            return monotonic_ns() - self.started_ns
        return self.stated_ns + monotonic_ns() - self.stated_at_ns


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
        return replace(self.stated, output_tokens=max(output, self.stated.output_tokens))

    def at_most(self) -> Usage:
        """What a stream that is left now may be charged for: all of its cap where nobody says that leaving stops it."""
        return self.so_far() if self.lead is not None else Usage(self.input_bound, self.cap)
