"""What calls, skills and months cost on other models, and from what volume on a machine of one's own costs less."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal
from fractions import Fraction
from math import ceil, floor
from typing import Any, Final

from agentbudget.errors import InvalidAmount
from agentbudget.ledger import HoldRecord
from agentbudget.money import NANO
from agentbudget.prices import ComputePrice, TokenPrice
from agentbudget.usage import Usage

DAYS_A_MONTH: Final = 30
HOURS_A_MONTH: Final = 24 * DAYS_A_MONTH
SECONDS_A_DAY: Final = 86_400
SECONDS_AN_HOUR: Final = 3600
WATT_SECONDS_A_KWH: Final = 3_600_000

LEAST_SPAN_DAYS: Final = 1
"""Calls of less than a day say nothing about a month."""


@dataclass(frozen=True, slots=True)
class Workload:
    """Calls that are priced: what each used, and how many there are in a month of 30 days (None: nobody says)."""

    name: str
    usages: tuple[Usage, ...]
    calls_a_month: Fraction | None = None

    @property
    def mean_tokens(self) -> tuple[float, float, float]:
        """Input, cached and output tokens of a call, on average."""
        count = len(self.usages)
        total = sum(self.usages, Usage())
        return total.input_tokens / count, total.cached_tokens / count, total.output_tokens / count


@dataclass(frozen=True, slots=True)
class Outlook:
    """What a workload costs on one model: a call on average, and a month; nano-dollars."""

    model: str
    source: str
    call_usd_nano: int
    month_usd_nano: int | None


def outlook(model: str, price: TokenPrice | ComputePrice, workload: Workload) -> Outlook:
    """Price `workload` as if `model` had answered every call, each rounded up as it would be booked.

    Another model would count other tokens of the same text: take it as near, not as exact. On a local model every
    call is priced by its tokens at the speeds that its price knows, without those that were cached.
    """
    total = sum(_cost(price, usage) for usage in workload.usages)
    call = Fraction(total, len(workload.usages))
    month = None if workload.calls_a_month is None else ceil(call * workload.calls_a_month)
    return Outlook(model, price.source, ceil(call), month)


def skills(holds: Iterable[HoldRecord]) -> tuple[Workload, ...]:
    """What the calls of each skill in a ledger used, the busiest first; answers that were paid for before left out."""
    calls: dict[str, list[HoldRecord]] = {}
    for hold in holds:
        skill = hold.meta.get("skill")
        if hold.meta.get("kind") == "call" and isinstance(skill, str) and _used(hold) is not None:
            calls.setdefault(skill, []).append(hold)
    found = (_workload(skill, records) for skill, records in calls.items())
    return tuple(sorted(found, key=lambda workload: (-len(workload.usages), workload.name)))


def _workload(skill: str, holds: Sequence[HoldRecord]) -> Workload:
    usages = tuple(used for hold in holds if (used := _used(hold)) is not None)
    first, last = holds[0].created_ns, holds[-1].created_ns
    days = Fraction(last - first, NANO * SECONDS_A_DAY)
    month = len(usages) * DAYS_A_MONTH / days if days >= LEAST_SPAN_DAYS else None
    return Workload(skill, usages, month)


def _used(hold: HoldRecord) -> Usage | None:
    """What a call is known to have used; None if it did not reach a model, or nobody knows."""
    used = hold.detail.get("usage")
    if not isinstance(used, Mapping) or hold.presumed or hold.detail.get("cached") is True:
        return None
    usage = Usage.from_dict({str(name): int(count) for name, count in used.items()})  # pyright: ignore[reportUnknownVariableType, reportUnknownArgumentType] # JSON
    return usage if usage.total_tokens else None


def _cost(price: TokenPrice | ComputePrice, usage: Usage) -> int:
    if isinstance(price, TokenPrice):
        return price.cost(usage)
    fresh = usage.input_tokens - usage.cached_tokens
    return price.expected(input_tokens=fresh, output_tokens=usage.output_tokens)


@dataclass(frozen=True, slots=True)
class Machine:
    """A machine that one pays for by the hour, used or not, with the power that it draws while it computes.

    The speeds are of all its concurrent calls together. ``utilisation`` is the share of the time in which there are
    calls to compute: nights and gaps count against it. Raises `InvalidAmount` for what no machine can have.
    """

    usd_per_hour: Decimal
    prefill_tokens_per_s: Fraction
    decode_tokens_per_s: Fraction
    watts: Decimal = Decimal(0)
    usd_per_kwh: Decimal = Decimal(0)
    utilisation: Fraction = Fraction(1)

    def __post_init__(self) -> None:
        for name in ("prefill_tokens_per_s", "decode_tokens_per_s", "utilisation"):
            if getattr(self, name) <= 0:
                raise InvalidAmount(f"{name} must be more than 0", value=getattr(self, name), unit=name)
        for name in ("usd_per_hour", "watts", "usd_per_kwh"):
            if getattr(self, name) < 0:
                raise InvalidAmount(f"{name} must not be negative", value=getattr(self, name), unit=name)
        if self.utilisation > 1:
            raise InvalidAmount("utilisation is a share of the time, at most 1", value=self.utilisation)

    @property
    def month_usd_nano(self) -> Fraction:
        """What a month of it costs if it computes nothing."""
        return Fraction(self.usd_per_hour) * HOURS_A_MONTH * NANO

    def seconds(self, usage: Usage) -> Fraction:
        """How long a call takes of its time."""
        fresh = usage.input_tokens - usage.cached_tokens
        return fresh / self.prefill_tokens_per_s + usage.output_tokens / self.decode_tokens_per_s

    def energy_usd_nano(self, usage: Usage) -> Fraction:
        """What the power for a call costs."""
        tariff = Fraction(self.watts) * Fraction(self.usd_per_kwh) / WATT_SECONDS_A_KWH
        return self.seconds(usage) * tariff * NANO

    def calls_a_month(self, usage: Usage) -> int:
        """How many such calls it can compute in a month, at its utilisation."""
        return floor(HOURS_A_MONTH * SECONDS_AN_HOUR * self.utilisation / self.seconds(usage))


@dataclass(frozen=True, slots=True)
class Volume:
    """A month of so many calls: what the API charges, how many machines it takes, what these cost; nano-dollars."""

    calls: int
    api_usd_nano: int
    machines: int
    own_usd_nano: int


@dataclass(frozen=True, slots=True)
class BreakEven:
    """From how many calls a month on the machine costs less than the API; ``calls`` is None if it never does.

    Beyond what one machine can compute another has to be had, which costs more than the API until it has enough to do:
    from ``always`` on own machines cost less, however many there are (None: there is no such volume).

    ``capacity`` is what one machine can compute in a month. Nano-dollars.
    """

    calls: int | None
    always: int | None
    capacity: int
    api_call_usd_nano: int
    energy_call_usd_nano: int
    month_usd_nano: int
    full_call_usd_nano: int
    volumes: tuple[Volume, ...]

    def to_dict(self) -> dict[str, Any]:
        """Everything as JSON-ready data."""
        names = ("calls", "capacity", "api_call_usd_nano", "energy_call_usd_nano", "month_usd_nano")
        plain = {f"break_even_{name}" if name == "calls" else name: getattr(self, name) for name in names}
        volumes = [{name: getattr(v, name) for name in Volume.__slots__} for v in self.volumes]
        plain["always_calls"] = self.always
        return {**plain, "full_call_usd_nano": self.full_call_usd_nano, "volumes": volumes}


def break_even(price: TokenPrice, machine: Machine, usage: Usage) -> BreakEven:
    """Compare an API with a machine of one's own for calls that use so much.

    The machine costs ``hours × USD/h`` whatever it does and ``W × s × tariff`` a call; the API its price a call. They
    meet at ``month / (api − energy)`` calls, if a machine can compute as many: one that is dearer at full use than the
    API stays dearer, however many there are. Raises `InvalidAmount` for a call of no tokens.
    """
    if machine.seconds(usage) <= 0:
        raise InvalidAmount("a call needs tokens that are read or written", value=usage.total_tokens)
    api, energy = price.cost(usage), machine.energy_usd_nano(usage)
    capacity = machine.calls_a_month(usage)
    if capacity == 0:
        raise InvalidAmount("this machine cannot compute one such call in a month", value=usage.total_tokens)
    month = machine.month_usd_nano
    meet = month / (api - energy) if api > energy else None
    calls = ceil(meet) if meet is not None and meet <= capacity else None
    return BreakEven(
        calls=calls,
        always=None if meet is None or meet >= capacity else _always(meet, capacity),
        capacity=capacity,
        api_call_usd_nano=api,
        energy_call_usd_nano=ceil(energy),
        month_usd_nano=ceil(month),
        full_call_usd_nano=ceil(month / capacity + energy),
        volumes=tuple(_volume(n, api, energy, month, capacity) for n in _steps(capacity if calls is None else calls)),
    )


def _always(meet: Fraction, capacity: int) -> int:
    """From how many calls on all volumes are past what machines of this capacity, one after the other, cost.

    With k machines that is ``k·meet``; the first call that needs the k-th is number ``(k-1)·capacity + 1``. From the
    first k on of which that call is past it, all are.
    """
    first = ceil((capacity - 1) / (capacity - meet))
    return ceil(max(1, first - 1) * meet)


def _steps(about: int) -> list[int]:
    """Volumes worth a look: tenths and multiples of the one that matters."""
    return sorted({max(1, about * tenths // 10) for tenths in (1, 5, 10, 20, 50, 100)})


def _volume(calls: int, api: int, energy: Fraction, month: Fraction, capacity: int) -> Volume:
    machines = ceil(Fraction(calls, capacity))
    return Volume(calls, calls * api, machines, ceil(machines * month + calls * energy))
