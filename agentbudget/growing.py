"""The gate of a stream: its hold grows ahead of what the stream uses, until more is refused."""

from __future__ import annotations

import logging
import math
import threading
from collections.abc import Callable
from typing import Final

from agentbudget.errors import AgentBudgetError, BudgetExceeded
from agentbudget.estimate.estimator import LAST_TOKEN
from agentbudget.models.base import Price
from agentbudget.money import Amount
from agentbudget.usage import Usage

LEAST_TOKENS: Final = 8
"""Output tokens that a hold grows by, at least, while there is room: an extension is a transaction."""

_log = logging.getLogger(__name__)


class Growth:
    """What a stream asks before it goes on (`Meter.gate`).

    ``held`` is what its hold has to begin with, enough for ``tokens`` of output, and ``bound`` the most that the call
    costs with so many output tokens, of which there may be ``cap``. ``extend`` raises the hold to an amount; what it
    raises ends the stream and is kept in ``refusal``. Each time the room for output doubles; when that is refused it
    grows by little, then by what is needed, then not at all.

    What comes next cannot be sent back: the hold always has room for one more piece as large as the largest so far.
    """

    def __init__(
        self,
        held: Amount,
        *,
        tokens: int,
        cap: int,
        input_tokens: int,
        price: Price,
        cache_1h: bool,
        bound: Callable[[int], Amount],
        extend: Callable[[Amount], None],
    ) -> None:
        self.refusal: AgentBudgetError | None = None
        self._held = held
        self._tokens = tokens
        self._cap = cap
        self._input_tokens = input_tokens
        self._price = price
        self._cache_1h = cache_1h
        self._bound = bound
        self._extend = extend
        self._scarce = False
        self._last: int | None = None
        self._largest = 0
        self._asking = threading.Lock()

    def allows(self, so_far: Usage) -> bool:
        """Whether the hold covers this use, after it was raised if need be. Any thread may ask; never raises."""
        with self._asking:
            if self.refusal is not None:
                return False
            output_tokens = min(so_far.output_tokens + self._next_piece(so_far.output_tokens), self._cap)
            need = self._need(so_far, output_tokens)
            return not need.minus(self._held) or self._grow(need, output_tokens)

    def _next_piece(self, output_tokens: int) -> int:
        """How much the stream may grow by before it asks again."""
        if self._last is not None:
            self._largest = max(self._largest, output_tokens - self._last)
        self._last = output_tokens
        return self._largest

    def _need(self, so_far: Usage, output_tokens: int) -> Amount:
        """What the stream has used, in the dearest case; where time is paid for, with the time until it asks again."""
        input_tokens = max(self._input_tokens, so_far.input_tokens)
        if self._price.compute_cap_s(1) is None:
            cost = self._price.bound(input_tokens=input_tokens, output_tokens=output_tokens, cache_1h=self._cache_1h)
        else:
            cost = math.ceil(self._price.cost(so_far) / LAST_TOKEN)
        return Amount(cost, input_tokens + output_tokens, 1)

    def _grow(self, need: Amount, output_tokens: int) -> bool:
        refused: BudgetExceeded | None = None
        for tokens in self._sizes(output_tokens):
            to = self._bound(tokens).at_least(need).at_least(self._held)
            try:
                self._extend(to)
            except BudgetExceeded as error:
                refused, self._scarce = error, True
            except AgentBudgetError as error:  # a frozen account, a store that is gone: no further either
                _log.warning("a stream is cut, for its hold could not grow: %s", error)
                self.refusal = error
                return False
            else:
                self._held, self._tokens = to, tokens
                return True
        self.refusal = refused
        return False

    def _sizes(self, output_tokens: int) -> list[int]:
        """Room for so many output tokens, to be asked for in this order."""
        least = min(self._cap, output_tokens + LEAST_TOKENS)
        sizes = [least, output_tokens] if least > output_tokens else [output_tokens]
        return sizes if self._scarce else [min(self._cap, max(least, 2 * self._tokens)), *sizes]
