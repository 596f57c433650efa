"""What a call will use before it runs: input counted or bounded, output capped and learned."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Final

from agentbudget.errors import ContextTooLong
from agentbudget.ledger import Ledger
from agentbudget.models.base import Finish, InputCount, Model, Request
from agentbudget.money import Amount
from agentbudget.usage import Usage

MEMORY: Final = 200
"""Settled calls of one skill on one model that an estimate looks back on."""

ENOUGH: Final = 20
"""Settled calls from which an output cap may be learned; below it the skill's own cap stands."""


LEVEL: Final = 0.99
"""The share of calls that a learned cap covers, unless a skill says."""


@dataclass(frozen=True, slots=True)
class CallEstimate:
    """What one call is expected to cost, and the most it can: the amount to hold.

    ``request`` carries the caps that make the bound true: output tokens and, where time is what is paid
    for, seconds of compute.
    """

    request: Request
    input: InputCount
    expected: Amount
    bound: Amount

    @property
    def output_cap(self) -> int:
        """The most tokens that the answer may have."""
        return self.request.max_output_tokens


RECENT: Final = 50
"""Calls by which a model's speed on this machine is judged: the load changes."""


LAST_TOKEN: Final = 0.85
"""The share of the bought seconds after which a local model is cut: it ends a chunk or token that it has begun."""


def tag(skill: str, model: str) -> str:
    """The ledger's tag of calls that estimates learn from together."""
    return f"{model}|{skill}"


def conformal_upper(values: Sequence[float], level: float) -> float:
    """The split-conformal upper bound at `level`: the ⌈(n+1)·level⌉-th smallest of n values, or the largest.

    A next, exchangeable value stays below it with probability of at least `level` (Vovk et al., 2005) as
    long as that rank is within n.
    """
    ordered = sorted(values)
    rank = math.ceil((len(ordered) + 1) * level)
    return ordered[min(rank, len(ordered)) - 1]


class Estimator:
    """Estimates calls, and learns from the ledger what calls of a skill on a model really use.

    Output lengths belong to a skill on a model; slowness (compute as a multiple of what was expected) belongs
    to a model on this machine, whatever the skill.
    """

    def __init__(self, ledger: Ledger) -> None:
        self._ledger = ledger
        self._outputs: dict[tuple[str, str], deque[int]] = {}
        self._slowness: dict[str, deque[float]] = {}

    async def call(
        self, skill: str, model: Model, request: Request, *, trust_history: bool = True, level: float = LEVEL
    ) -> CallEstimate:
        """Estimate `request` as a call of `skill` on `model`. Raises `ContextTooLong` before anything is spent.

        With `trust_history` the output cap may be lower than the request's: what `level` of such calls have used.
        """
        count = await model.count_input(request)
        cap = self._cap(skill, model, request.max_output_tokens, level if trust_history else None)
        too_many = count.tokens + cap - model.context_window
        if too_many > 0:
            raise ContextTooLong(
                f"{model.name} takes {model.context_window:,} tokens in all; this call of {skill!r} brings "
                f"{count.tokens:,} and may answer with {cap:,}: {too_many:,} too many. "
                "Retrieve fewer tokens, or lower max_output_tokens",
                input_tokens=count.tokens,
                output_tokens=cap,
                window=model.context_window,
            )
        expected, bound = self._cost(skill, model, count.tokens, cap)
        bought_s = model.price.compute_cap_s(bound.usd_nano)
        compute_s = None if bought_s is None else bought_s * LAST_TOKEN
        request = replace(request, max_output_tokens=cap, max_compute_s=compute_s)
        return CallEstimate(request, count, expected, bound)

    def sized(self, skill: str, model: Model, *, input_tokens: int, output_tokens: int) -> Amount:
        """The most that a call of at most this size may cost: for a step whose prompt is not written yet."""
        return self._cost(skill, model, input_tokens, output_tokens)[1]

    def learn(self, skill: str, model: Model, usage: Usage, finish: Finish) -> None:
        """Remember a settled call."""
        self._remember(self._outputs_of(skill, model), model, usage, finish)

    def upper(self, skill: str, model: Model, *, level: float) -> int | None:
        """Output tokens that a call of `skill` stays below with a probability of `level`; None until that is known."""
        outputs = self._outputs_of(skill, model)
        if len(outputs) < ENOUGH:
            return None
        return math.ceil(conformal_upper(outputs, level) * 1.25) + 8

    def _cap(self, skill: str, model: Model, cap: int, level: float | None) -> int:
        upper = None if level is None else self.upper(skill, model, level=level)
        return cap if upper is None else min(cap, upper)

    def _cost(self, skill: str, model: Model, input_tokens: int, cap: int) -> tuple[Amount, Amount]:
        """What a call should cost, and the most."""
        outputs = self._outputs_of(skill, model)
        likely = min(cap, round(sum(outputs) / len(outputs))) if outputs else cap
        price, slowness = model.price, self._slowness.get(model.name)
        expected = price.expected(input_tokens=input_tokens, output_tokens=likely)
        bound = price.bound(input_tokens=input_tokens, output_tokens=cap)
        if slowness:
            expected = round(expected * sorted(slowness)[len(slowness) // 2])
            bound = self._time_bound(slowness, price.expected(input_tokens=input_tokens, output_tokens=cap), bound)
        return Amount(min(expected, bound), input_tokens + likely, 1), Amount(bound, input_tokens + cap, 1)

    @staticmethod
    def _time_bound(slowness: Sequence[float], expected: int, cold_bound: int) -> int:
        """The bound where time is paid for: a cut-off that the engine keeps, not a forecast.

        Twice what 95 of 100 recent calls took leaves room for a busy machine; until there are enough of them, it
        may only be wider than the cold bound.
        """
        learned = math.ceil(expected * 2 * conformal_upper(slowness, 0.95))
        return max(expected, learned) if len(slowness) >= ENOUGH else max(cold_bound, learned)

    def _outputs_of(self, skill: str, model: Model) -> deque[int]:
        key = (skill, model.name)
        if key not in self._outputs:
            outputs = self._outputs[key] = deque[int](maxlen=MEMORY)
            for record in reversed(self._ledger.history(tag(skill, model.name), MEMORY)):
                used = record.detail.get("usage")
                if used is not None:
                    self._remember(outputs, model, Usage.from_dict(used), record.detail.get("finish", "stop"))
        return self._outputs[key]

    def _remember(self, outputs: deque[int], model: Model, usage: Usage, finish: str) -> None:
        if finish in ("stop", "length"):
            outputs.append(usage.output_tokens)
        if usage.compute_ns:
            fresh = usage.input_tokens - usage.cached_tokens
            expected = model.price.expected(input_tokens=fresh, output_tokens=usage.output_tokens)
            if expected:
                slowness = self._slowness.setdefault(model.name, deque[float](maxlen=RECENT))
                slowness.append(model.price.cost(usage) / expected)
