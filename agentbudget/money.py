"""Amounts: exact integers inside, `Decimal` only at the edges, never a float."""

from __future__ import annotations

from dataclasses import dataclass
from decimal import ROUND_CEILING, Decimal, InvalidOperation
from typing import Final, Literal

from agentbudget.errors import InvalidAmount

Unit = Literal["usd", "tokens", "calls"]

NANO: Final = 10**9
"""Nano-dollars in a dollar."""

MAX: Final = 2**62
"""The largest value of one unit: two of them still add up within a signed 64-bit column."""

Money = Decimal | int | str
"""What a person may write for dollars. A float is refused: 0.1 is not a tenth."""


def usd_to_nano(value: Money) -> int:
    """Dollars as nano-dollars, rounded up. Raises `InvalidAmount` on what is not an exact amount."""
    if isinstance(value, bool) or not isinstance(value, Decimal | int | str):
        raise InvalidAmount(
            f"{value!r} is a {type(value).__name__}; "
            f"write dollars as a string, an int or a Decimal: usd={str(value)!r}",
            value=value,
            unit="usd",
        )
    try:
        exact = Decimal(value.strip().removeprefix("$").replace("_", "") if isinstance(value, str) else value)
    except InvalidOperation:
        raise InvalidAmount(
            f"{value!r} is not an amount of dollars; write it as in '0.05'", value=value, unit="usd"
        ) from None
    if not exact.is_finite():
        raise InvalidAmount(f"{value!r} is not a finite amount of dollars", value=value, unit="usd")
    if exact < 0:
        raise InvalidAmount(f"dollars must not be negative, got {_told(value)}", value=value, unit="usd")
    if exact > MAX // NANO:
        raise InvalidAmount(
            f"{_told(value)} dollars is more than the ledger can hold ({MAX // NANO:,} USD)", value=value, unit="usd"
        )
    return check_unit("usd", int((exact * NANO).to_integral_value(ROUND_CEILING)))


def nano_to_usd(nano: int) -> Decimal:
    """Nano-dollars as exact dollars."""
    return Decimal(nano) / NANO


def format_usd(nano: int) -> str:
    """Dollars for a person: two decimals from a dollar up, four significant digits below."""
    usd = nano_to_usd(nano)
    if nano == 0 or abs(usd) >= 1:
        return f"${usd:,.2f}" if nano >= 0 else f"-${-usd:,.2f}"
    decimals = min(9, 3 - abs(usd).adjusted())
    text = f"{abs(usd):.{decimals}f}"
    head, _, tail = text.partition(".")
    tail = tail.rstrip("0").ljust(2, "0")
    return f"{'-' if nano < 0 else ''}${head}.{tail}"


def check_unit(unit: str, value: int) -> int:
    """`value` if it is a whole number from 0 to `MAX`; raises `InvalidAmount` otherwise."""
    if isinstance(value, bool) or not isinstance(value, int):
        raise InvalidAmount(f"{unit} must be an integer, not {value!r}", value=value, unit=unit)
    if value < 0:
        raise InvalidAmount(f"{unit} must not be negative, got {_told(value)}", value=value, unit=unit)
    if value > MAX:
        raise InvalidAmount(
            f"{unit} of {_told(value)} is more than the ledger can hold ({MAX})", value=value, unit=unit
        )
    return value


def _told(value: Money) -> str:
    """A number in a message. Python writes no integer of more than a few thousand digits."""
    if isinstance(value, int) and value.bit_length() > 256:
        return f"an integer of {value.bit_length()} bits"
    return repr(value)


@dataclass(frozen=True, slots=True)
class Amount:
    """What a step costs, in every unit that an account can limit."""

    usd_nano: int = 0
    tokens: int = 0
    calls: int = 0

    def __post_init__(self) -> None:
        usd, tokens, calls = self.usd_nano, self.tokens, self.calls
        # A step makes a dozen of them: what is right is seen at one glance, what is not is looked at one by one.
        integers = type(usd) is type(tokens) is type(calls) is int
        if integers and 0 <= usd <= MAX and 0 <= tokens <= MAX and 0 <= calls <= MAX:
            return
        check_unit("usd_nano", usd)
        check_unit("tokens", tokens)
        check_unit("calls", calls)

    @classmethod
    def of(cls, *, usd: Money = 0, tokens: int = 0, calls: int = 0) -> Amount:
        """An amount from dollars as a person writes them."""
        return cls(usd_to_nano(usd), tokens, calls)

    def __add__(self, other: Amount) -> Amount:
        return Amount(self.usd_nano + other.usd_nano, self.tokens + other.tokens, self.calls + other.calls)

    def minus(self, other: Amount) -> Amount:
        """What is left of this amount after `other`, at least 0 in each unit."""
        return Amount(
            max(0, self.usd_nano - other.usd_nano),
            max(0, self.tokens - other.tokens),
            max(0, self.calls - other.calls),
        )

    def at_least(self, other: Amount) -> Amount:
        """The larger of both in each unit."""
        return Amount(max(self.usd_nano, other.usd_nano), max(self.tokens, other.tokens), max(self.calls, other.calls))

    @property
    def usd(self) -> Decimal:
        """Exact dollars."""
        return nano_to_usd(self.usd_nano)

    def __bool__(self) -> bool:
        return bool(self.usd_nano or self.tokens or self.calls)

    def __str__(self) -> str:
        return f"{format_usd(self.usd_nano)} / {self.tokens:,} tokens"


ZERO: Final = Amount()


@dataclass(frozen=True, slots=True)
class Budget:
    """Limits of an account. None means that the unit is not limited.

    >>> Budget(usd="0.05", tokens=20_000)
    Budget(usd=Decimal('0.05'), tokens=20000, calls=None)
    """

    usd: Money | None = None
    tokens: int | None = None
    calls: int | None = None

    def __post_init__(self) -> None:
        if self.usd is not None:
            object.__setattr__(self, "usd", nano_to_usd(usd_to_nano(self.usd)))
        if self.tokens is not None:
            check_unit("tokens", self.tokens)
        if self.calls is not None:
            check_unit("calls", self.calls)

    @property
    def usd_nano(self) -> int | None:
        """The dollar limit in nano-dollars."""
        return None if self.usd is None else usd_to_nano(self.usd)
