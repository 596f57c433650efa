"""Dollars per million tokens, exactly: the rates of one service tier while the input has a certain length."""

from __future__ import annotations

from dataclasses import dataclass, field
from decimal import Decimal, InvalidOperation
from fractions import Fraction
from math import lcm
from typing import Final, Literal

from agentbudget.errors import InvalidAmount
from agentbudget.money import NANO, Money
from agentbudget.usage import Usage

ServiceTier = Literal["standard", "batch", "flex", "priority", "fast"]
"""How a provider was asked to serve a request. Each may have its own price; nobody may assume the standard one."""

NANO_PER_TOKEN: Final = NANO // 10**6
"""Nano-dollars a token, for one dollar per million tokens."""


@dataclass(frozen=True, slots=True)
class Rates:
    """Dollars per million tokens while a request's whole input is more than `above` tokens.

    ``cache_write`` is of tokens that are kept for minutes, ``cache_write_1h`` of those that are kept for an hour;
    ``reasoning`` of output tokens that were thought, ``image`` of input tokens that pictures became.
    """

    input: Fraction
    output: Fraction
    cached: Fraction
    cache_write: Fraction
    cache_write_1h: Fraction
    reasoning: Fraction
    image: Fraction
    above: int = 0
    _units: tuple[int, int, int, int, int, int, int] = field(init=False, repr=False, compare=False)
    _per_nano: int = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        nanos = [NANO_PER_TOKEN * rate for rate in self.by_name().values()]
        per_nano = lcm(*(nano.denominator for nano in nanos))
        object.__setattr__(self, "_units", tuple(int(nano * per_nano) for nano in nanos))
        object.__setattr__(self, "_per_nano", per_nano)

    @classmethod
    def of(
        cls,
        *,
        input: Money,
        output: Money,
        cached: Money | None = None,
        cache_write: Money | None = None,
        cache_write_1h: Money | None = None,
        reasoning: Money | None = None,
        image: Money | None = None,
        above: int = 0,
    ) -> Rates:
        """Rates as a price list states them.

        What is not given costs what it is a part of: cache reads and writes and pictures what input costs, reasoning
        what output costs, a write for an hour what a write costs.
        """
        plain, made = exact(input), exact(output)
        written = plain if cache_write is None else exact(cache_write)
        return cls(
            input=plain,
            output=made,
            cached=plain if cached is None else exact(cached),
            cache_write=written,
            cache_write_1h=written if cache_write_1h is None else exact(cache_write_1h),
            reasoning=made if reasoning is None else exact(reasoning),
            image=plain if image is None else exact(image),
            above=above,
        )

    def by_name(self) -> dict[str, Fraction]:
        """The rates, by the names of a price sheet."""
        return {name: getattr(self, name) for name in NAMES}

    def cost(self, usage: Usage) -> int:
        """Nano-dollars, rounded up."""
        return -(-self._count(usage) // self._per_nano)

    def plain(self, input_tokens: int, output_tokens: int) -> int:
        """Nano-dollars, rounded up, of text without thought: nothing read from or written to a cache."""
        return -(-(input_tokens * self._units[0] + output_tokens * self._units[1]) // self._per_nano)

    def most(self, input_tokens: int, output_tokens: int, *, cache_1h: bool = True) -> int:
        """Nano-dollars, rounded up, if every token is charged at the dearest rate that it may be charged at."""
        read, made, cached, written, kept, thought, seen = self._units
        dearest = max(read, cached, written, seen, kept if cache_1h else 0)
        return -(-(input_tokens * dearest + output_tokens * max(made, thought)) // self._per_nano)

    def _count(self, usage: Usage) -> int:
        """The cost in parts of a nano-dollar of which all rates are multiples: integers are 20 times as fast."""
        read, made, cached, written, kept, thought, seen = self._units
        plain = usage.input_tokens - usage.cached_tokens - usage.cache_write_tokens - usage.image_tokens
        return (
            plain * read
            + usage.image_tokens * seen
            + usage.cached_tokens * cached
            + (usage.cache_write_tokens - usage.cache_write_1h_tokens) * written
            + usage.cache_write_1h_tokens * kept
            + (usage.output_tokens - usage.reasoning_tokens) * made
            + usage.reasoning_tokens * thought
        )


NAMES: Final = ("input", "output", "cached", "cache_write", "cache_write_1h", "reasoning", "image")
"""The rates, as a price sheet names them."""

PART_OF: Final = {"cache_write_1h": "cache_write", "reasoning": "output", "image": "input"}
"""What a rate is where no price list states it."""


def decimal(value: object) -> Decimal:
    """`value` as a finite Decimal of at least 0; a float is refused, for 0.1 is not a tenth."""
    if isinstance(value, bool) or not isinstance(value, Decimal | int | str):
        raise InvalidAmount(
            f"{value!r} is a {type(value).__name__}; write a price as a string, an int or a Decimal", value=value
        )
    try:
        found = Decimal(value)
    except InvalidOperation:
        raise InvalidAmount(f"{value!r} is not a price; write it as in '0.15'", value=value) from None
    if not found.is_finite() or found < 0:
        raise InvalidAmount(f"{value!r} is not a price; it must be finite and at least 0", value=value)
    return found


def exact(value: object) -> Fraction:
    """A price as a person writes it, exactly. Raises `InvalidAmount`."""
    return Fraction(decimal(value))
