"""Estimates of calls, and what they learn from the ledger."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Final, cast

from agentbudget.errors import ContextTooLong, InvalidArgument
from agentbudget.estimate.conformal import conformal_upper
from agentbudget.estimate.features import NAMES, features
from agentbudget.estimate.inputs import InputShare
from agentbudget.estimate.lengths import ENOUGH, UNKNOWN, Lengths
from agentbudget.ledger import Ledger
from agentbudget.models.base import InputCount, Model, Price, Request
from agentbudget.money import Amount
from agentbudget.usage import Usage

MEMORY: Final = 600
"""Settled calls of one skill on one model that a new process looks back on: learning from one takes some 0.15 ms."""

RECENT: Final = 50
"""Calls by which a model's speed on this machine is judged: the load changes."""

LAST_TOKEN: Final = 0.85
"""The share of the bought seconds after which a local model is cut: it ends a chunk or token that it has begun."""

CAP_LEVEL: Final = 0.99
"""The level of a learned output cap; a quarter is added to it."""


@dataclass(frozen=True, slots=True)
class CallEstimate:
    """What one call is expected to cost, what to set aside for it, and the most that it can cost.

    ``price`` is what was in force: what the call is settled by, whatever the lists say when it ends.
    ``request`` carries the caps that make ``bound`` true: output tokens and, where time is what is paid for, seconds
    of compute. ``hold`` is what to reserve before it leaves: ``bound``, or less for a call whose hold grows while it
    runs. ``hold_tokens`` are the output tokens that it covers, ``asked_tokens`` the output cap before experience
    lowered it.
    """

    request: Request
    price: Price
    input: InputCount
    expected: Amount
    bound: Amount
    hold: Amount
    hold_tokens: int
    asked_tokens: int
    likely_input_tokens: int
    features: tuple[float, ...] = field(repr=False)

    @property
    def output_cap(self) -> int:
        """The most tokens that the answer may have."""
        return self.request.max_output_tokens

    @property
    def told(self) -> dict[str, Any]:
        """What a hold's meta keeps as ``"estimated"``: for the statement, and for estimates to come."""
        return {
            "usd_nano": self.expected.usd_nano,
            "input_tokens": self.likely_input_tokens,
            "output_tokens": self.expected.tokens - self.likely_input_tokens,
            "input_bound": None if self.input.exact else self.input.tokens,
            "cap": self.output_cap,
            "asked": self.asked_tokens,
            "features": list(self.features),
        }


@dataclass(frozen=True, slots=True)
class _Ended:
    """A call that has ended, as far as estimates learn from it."""

    usage: Usage
    finish: str
    features: tuple[float, ...] = UNKNOWN
    input_bound: int | None = None
    lowered: bool = False

    @classmethod
    def of(cls, estimate: CallEstimate, usage: Usage, finish: str) -> _Ended:
        """A call that this process made."""
        bound = None if estimate.input.exact else estimate.input.tokens
        return cls(usage, finish, estimate.features, bound, estimate.output_cap < estimate.asked_tokens)

    @classmethod
    def from_journal(cls, meta: Mapping[str, Any], detail: Mapping[str, Any]) -> _Ended | None:
        """The call as its hold tells of it; None if that says nothing of usage."""
        used = detail.get("usage")
        if used is None:
            return None
        told = cast("Mapping[str, Any]", meta.get("estimated") or {})
        noted = tuple(float(value) for value in told.get("features", ()))
        return cls(
            Usage.from_dict(used),
            detail.get("finish", "stop"),
            noted if len(noted) == len(NAMES) else UNKNOWN,  # written by a version that knew other features
            told.get("input_bound"),
            told.get("cap", 0) < told.get("asked", 0),
        )


class _Experience:
    """What is known of a skill's calls on a model."""

    def __init__(self) -> None:
        self.lengths = Lengths()
        self.inputs = InputShare(MEMORY)

    def learn(self, call: _Ended) -> None:
        usage = call.usage
        match call.finish:
            case "stop" | "tools":
                self.lengths.learn(call.features, usage.output_tokens)
            case "length" if not call.lowered:  # the skill's own cap is a length that its answers have
                self.lengths.learn(call.features, usage.output_tokens)
            case "length" | "cut":
                self.lengths.cut(call.features, usage.output_tokens)
            case _:
                pass
        if call.input_bound and usage.input_tokens:
            self.inputs.learn(call.features, bound=call.input_bound, tokens=usage.input_tokens)


def tag(skill: str, model: str) -> str:
    """The ledger's tag of calls that estimates learn from together."""
    return f"{model}|{skill}"


class Estimator:
    """Estimates calls, and learns from the ledger what calls of a skill on a model really use.

    Output lengths belong to a skill on a model; slowness (compute as a multiple of what was expected) belongs
    to a model on this machine, whatever the skill.
    """

    def __init__(self, ledger: Ledger) -> None:
        self._ledger = ledger
        self._experience: dict[tuple[str, str], _Experience] = {}
        self._slowness: dict[str, deque[float]] = {}

    async def call(
        self,
        skill: str,
        model: Model,
        request: Request,
        *,
        trust_history: bool = True,
        level: float | None = None,
        grows: bool = False,
        drafts: Sequence[int] = (),
    ) -> CallEstimate:
        """Estimate `request` as a call of `skill` on `model`. Raises `ContextTooLong` before anything is spent.

        Without `level` the hold is the bound, and with `trust_history` the output cap may be lower than the request's:
        what such calls have used. With a `level` (such as 0.9) the hold covers what so large a share of such calls
        use: of a call whose hold `grows` while it runs (a stream) the request's cap stays, any other is capped at what
        its hold covers. `drafts` are the output tokens of answers that cheaper models gave to the same question.
        """
        count, price = await model.count_input(request), model.price
        known = self._experience_of(skill, model)
        noted = features(request, drafts)
        asked = request.max_output_tokens
        covered = self._covered(known.lengths, noted, asked, level)
        cap = asked
        if level is not None and not grows:
            cap = covered
        elif level is None and trust_history:
            cap = covered = self._cap(known.lengths, noted, asked)
        _check_window(skill, model, count.tokens, cap)
        likely_input, held_input = count.tokens, count.tokens
        if not count.exact:
            likely_input = known.inputs.likely(count.tokens)
            held_input = count.tokens if level is None else known.inputs.upper(noted, count.tokens)
        likely = known.lengths.likely(noted)
        cache_1h = request.cache_time == "1h"
        bound = hold = self._most(model, price, count.tokens, cap, cache_1h=cache_1h)
        if level is not None:
            hold = _least(self._most(model, price, held_input, covered, cache_1h=cache_1h), bound)
        expected = self._expected(model, price, likely_input, cap if likely is None else min(cap, likely))
        bought_s = price.compute_cap_s(bound.usd_nano)
        compute_s = None if bought_s is None else bought_s * LAST_TOKEN
        if (cap, compute_s) != (asked, request.max_compute_s):
            request = replace(request, max_output_tokens=cap, max_compute_s=compute_s)
        return CallEstimate(
            request=request,
            price=price,
            input=count,
            expected=_least(expected, bound),
            bound=bound,
            hold=hold,
            hold_tokens=covered,
            asked_tokens=asked,
            likely_input_tokens=likely_input,
            features=noted,
        )

    def sized(
        self,
        skill: str,
        model: Model,
        *,
        input_tokens: int,
        output_tokens: int,
        level: float | None = None,
        cache_1h: bool = False,
        price: Price | None = None,
    ) -> Amount:
        """The most that a call of at most this size may cost: for a step whose prompt is not written yet.

        At the price in force now, unless a `price` is given.

        With a `level`, what so large a share of such calls cost, whatever their prompt. ``cache_1h``: it may ask for a
        cache of an hour, as `Request.cache_time` does.
        """
        covered = output_tokens
        if level is not None:
            covered = self._covered(self._experience_of(skill, model).lengths, None, output_tokens, level)
        return self._most(model, price or model.price, input_tokens, covered, cache_1h=cache_1h)

    def learn(
        self, skill: str, model: Model, usage: Usage, finish: str, *, estimate: CallEstimate | None = None
    ) -> None:
        """Remember a settled call, and what was known of it before if its `estimate` is given."""
        ended = _Ended(usage, finish) if estimate is None else _Ended.of(estimate, usage, finish)
        self._experience_of(skill, model).learn(ended)
        self._time(model, usage)

    def _cap(self, lengths: Lengths, noted: Sequence[float], asked: int) -> int:
        upper = lengths.upper(noted, CAP_LEVEL, roomy=True)
        return asked if upper is None else max(1, min(asked, upper))

    def _covered(self, lengths: Lengths, noted: Sequence[float] | None, asked: int, level: float | None) -> int:
        """The output tokens that a hold at `level` covers: all until enough calls were seen.

        Whatever the prompt, where nothing is `noted` of it.
        """
        if level is None:
            return asked
        if not 0 < level < 1:
            message = f"a level is a share of calls between 0 and 1, such as 0.9, not {level!r}"
            raise InvalidArgument(message, argument="level", value=level)
        upper = lengths.upper(noted, level)
        return asked if upper is None else max(1, min(asked, upper))

    def _most(self, model: Model, price: Price, input_tokens: int, output_tokens: int, *, cache_1h: bool) -> Amount:
        """The most that a call with at most these tokens costs."""
        slowness = self._slowness.get(model.name)
        bound = price.bound(input_tokens=input_tokens, output_tokens=output_tokens, cache_1h=cache_1h)
        if slowness:
            expected = price.expected(input_tokens=input_tokens, output_tokens=output_tokens)
            bound = _time_bound(slowness, expected, bound)
        return Amount(bound, input_tokens + output_tokens, 1)

    def _expected(self, model: Model, price: Price, input_tokens: int, output_tokens: int) -> Amount:
        """What a call with these tokens should cost."""
        slowness = self._slowness.get(model.name)
        expected = price.expected(input_tokens=input_tokens, output_tokens=output_tokens)
        if slowness:
            expected = round(expected * sorted(slowness)[len(slowness) // 2])
        return Amount(expected, input_tokens + output_tokens, 1)

    def _experience_of(self, skill: str, model: Model) -> _Experience:
        key = (skill, model.name)
        if key not in self._experience:
            known = self._experience[key] = _Experience()
            for record in reversed(self._ledger.history(tag(skill, model.name), MEMORY)):
                ended = _Ended.from_journal(record.meta, record.detail)
                if ended is not None:
                    known.learn(ended)
                    self._time(model, ended.usage)
        return self._experience[key]

    def _time(self, model: Model, usage: Usage) -> None:
        if not usage.compute_ns:
            return
        fresh = usage.input_tokens - usage.cached_tokens
        expected = model.price.expected(input_tokens=fresh, output_tokens=usage.output_tokens)
        if expected:
            slowness = self._slowness.setdefault(model.name, deque[float](maxlen=RECENT))
            slowness.append(model.price.cost(usage) / expected)


def _check_window(skill: str, model: Model, input_tokens: int, cap: int) -> None:
    too_many = input_tokens + cap - model.context_window
    if too_many > 0:
        raise ContextTooLong(
            f"{model.name} takes {model.context_window:,} tokens in all; this call of {skill!r} brings "
            f"{input_tokens:,} and may answer with {cap:,}: {too_many:,} too many. "
            "Retrieve fewer tokens, or lower max_output_tokens",
            input_tokens=input_tokens,
            output_tokens=cap,
            window=model.context_window,
        )


def _time_bound(slowness: Sequence[float], expected: int, cold_bound: int) -> int:
    """The bound where time is paid for: a cut-off that the engine keeps, not a forecast.

    Twice what 95 of 100 recent calls took leaves room for a busy machine; until there are enough of them, it
    may only be wider than the cold bound.
    """
    learned = math.ceil(expected * 2 * conformal_upper(slowness, 0.95))
    return max(expected, learned) if len(slowness) >= ENOUGH else max(cold_bound, learned)


def _least(a: Amount, b: Amount) -> Amount:
    return Amount(min(a.usd_nano, b.usd_nano), min(a.tokens, b.tokens), min(a.calls, b.calls))
