"""What a local model costs: an hour of the machine, and the energy, by the nanosecond that it computes."""

from __future__ import annotations

from dataclasses import dataclass, field
from decimal import Decimal
from fractions import Fraction
from math import ceil, floor, nextafter
from typing import Any, Final

from agentbudget.errors import InvalidAmount
from agentbudget.prices.rates import decimal
from agentbudget.settings import Settings
from agentbudget.usage import Usage

SECONDS_PER_HOUR: Final = 3600

NS_PER_S: Final = 10**9

WATTS_PER_KW: Final = 1000


@dataclass(frozen=True, slots=True)
class ComputePrice:
    """What an hour of this machine costs, paid by the nanosecond that a local model computes.

    ``watts`` that it draws while it computes and ``usd_per_kwh`` come on top, if both are given. The measured speeds
    turn tokens into seconds for `bound`; `safety` allows for a machine that others use at the same time. Raises
    `InvalidAmount` unless time costs something and the speeds are more than 0: local is cheap, never free.
    """

    usd_per_hour: Decimal
    prefill_tokens_per_s: float
    decode_tokens_per_s: float
    safety: int = 3
    watts: Decimal | None = None
    usd_per_kwh: Decimal | None = None
    _nano_per_ns: Fraction = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        for name in ("usd_per_hour", "watts", "usd_per_kwh"):
            if getattr(self, name) is not None:
                object.__setattr__(self, name, decimal(getattr(self, name)))
        for name in ("prefill_tokens_per_s", "decode_tokens_per_s", "safety"):
            _more_than_nothing(name, getattr(self, name))
        _more_than_nothing("usd_per_hour", self.usd_per_hour_in_use)
        # Dollars an hour are, by 3600, dollars a second, which are nano-dollars a nanosecond.
        object.__setattr__(self, "_nano_per_ns", Fraction(self.usd_per_hour_in_use) / SECONDS_PER_HOUR)

    @classmethod
    def here(
        cls, settings: Settings, *, prefill_tokens_per_s: float, decode_tokens_per_s: float, safety: int = 3
    ) -> ComputePrice:
        """What this machine costs, as the environment says, at these speeds."""
        return cls(
            settings.usd_per_hour,
            prefill_tokens_per_s,
            decode_tokens_per_s,
            safety,
            watts=settings.watts,
            usd_per_kwh=settings.usd_per_kwh,
        )

    @property
    def usd_per_hour_in_use(self) -> Decimal:
        """An hour of computing: the machine's and the energy's."""
        if self.watts is None and self.usd_per_kwh is None:
            return self.usd_per_hour
        if self.watts is None or self.usd_per_kwh is None:
            given = {"watts": self.watts, "usd_per_kwh": self.usd_per_kwh}
            raise InvalidAmount(f"energy needs both watts and usd_per_kwh, not only one: {given}", value=given)
        return self.usd_per_hour + self.watts * self.usd_per_kwh / WATTS_PER_KW

    @property
    def source(self) -> str:
        """``"0.10 USD/h"``, or ``"0.10 USD/h + 65 W × 0.30 USD/kWh"``."""
        energy = f" + {self.watts:f} W × {self.usd_per_kwh:f} USD/kWh" if self.watts is not None else ""
        return f"{self.usd_per_hour:f} USD/h{energy}"

    @property
    def terms(self) -> dict[str, Any]:
        """The source, ``usd_per_hour``, and of energy if it is paid: speeds matter to bounds only."""
        terms: dict[str, Any] = {"source": self.source, "usd_per_hour": f"{self.usd_per_hour:f}"}
        if self.watts is not None:
            terms |= {"watts": f"{self.watts:f}", "usd_per_kwh": f"{self.usd_per_kwh:f}"}
        return terms

    def cost(self, usage: Usage) -> int:
        """What the computing time costs, in nano-dollars, rounded up."""
        rate = self._nano_per_ns
        return -(-usage.compute_ns * rate.numerator // rate.denominator)

    def expected(self, *, input_tokens: int, output_tokens: int) -> int:
        """What these tokens cost at the measured speeds, in nano-dollars."""
        return ceil(self._at_speed(input_tokens, output_tokens))

    def bound(self, *, input_tokens: int, output_tokens: int, images: int = 0, cache_1h: bool = True) -> int:
        """What they cost if everything takes `safety` times as long, in nano-dollars. Nothing else is charged."""
        return ceil(self._at_speed(input_tokens, output_tokens) * self.safety)

    def compute_cap_s(self, usd_nano: int) -> float | None:
        """Seconds that this much buys: never more than was paid for, also when they are made nanoseconds again."""
        bought_ns = floor(usd_nano / self._nano_per_ns)
        seconds = bought_ns / NS_PER_S
        while Fraction(seconds) * NS_PER_S > bought_ns or seconds * NS_PER_S > bought_ns:
            seconds = nextafter(seconds, 0.0)
        return seconds

    def _at_speed(self, input_tokens: int, output_tokens: int) -> Fraction:
        prefill_s = input_tokens / Fraction(self.prefill_tokens_per_s)
        decode_s = output_tokens / Fraction(self.decode_tokens_per_s)
        return self._nano_per_ns * NS_PER_S * (prefill_s + decode_s)


def _more_than_nothing(name: str, value: Decimal | float) -> None:
    if not value > 0:
        raise InvalidAmount(f"{name} must be more than 0, not {value}", value=value, unit=name)
