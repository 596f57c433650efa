"""The windows of time within which a limit holds: calendar hours, days and months in a time zone, or a rolling time.

What a hold costs counts in the window in which it was reserved, whenever it is settled.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from datetime import UTC, datetime, tzinfo
from functools import lru_cache
from typing import Final, Literal
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from agentbudget.errors import InvalidArgument

NS: Final = 10**9
STEPS: Final = 1000
"""A rolling window moves in steps of a thousandth of its length: what was spent leaves it at most a step late."""

_SECONDS: Final = {"s": 1, "m": 60, "h": 3600, "d": 86400}
_ROLLING: Final = re.compile(r"([1-9][0-9]{0,8})\s*([smhd])")
_LONGEST_S: Final = 999_999_999
_KINDS: Final = ("hour", "day", "month")

Kind = Literal["hour", "day", "month", "rolling"]

_GRAIN_S: Final = 30
"""Since 1970 hours have begun at a full half minute in every zone, so that a calendar is asked once for each."""
_GRAIN_NS: Final = _GRAIN_S * NS
_AHEAD_S: Final[dict[Kind, int]] = {"hour": 3600, "day": 36 * 3600, "month": 40 * 86_400}
"""From the beginning of a period to a moment in the next one."""


@dataclass(frozen=True, slots=True)
class Window:
    """A window, as `Window.parse` reads it. ``seconds`` is the length of a rolling one, else 0."""

    kind: Kind
    zone: str = "UTC"
    seconds: int = 0
    text: str = field(init=False, compare=False)
    _tz: tzinfo = field(init=False, compare=False, repr=False)

    def __post_init__(self) -> None:
        text = f"{self.seconds}s" if self.kind == "rolling" else f"{self.kind}@{self.zone}"
        object.__setattr__(self, "text", text)
        object.__setattr__(self, "_tz", UTC if self.zone == "UTC" else ZoneInfo(self.zone))

    @classmethod
    @lru_cache(maxsize=256)
    def parse(cls, text: str) -> Window:
        """``"hour"``, ``"day"``, ``"month"`` (UTC), ``"day@Europe/Berlin"``, or a rolling ``"90s"``, ``"15m"``,
        ``"24h"``, ``"7d"``. Raises `InvalidArgument`."""
        if not isinstance(text, str):
            raise InvalidArgument(f"a window is text such as 'day', not {text!r}", argument="window", value=text)
        rolling = _ROLLING.fullmatch(text.strip())
        if rolling:
            seconds = int(rolling[1]) * _SECONDS[rolling[2]]
            if seconds > _LONGEST_S:
                raise InvalidArgument(
                    f"{text!r} is longer than a window can be: {_LONGEST_S} seconds, some 31 years",
                    argument="window",
                    value=text,
                )
            return cls("rolling", seconds=seconds)
        kind, _, zone = text.strip().partition("@")
        if kind not in _KINDS:
            raise InvalidArgument(
                f"{text!r} is not a window: write hour, day or month, with a zone as in day@Europe/Berlin, "
                "or a rolling time such as 90s, 15m, 24h, 7d",
                argument="window",
                value=text,
            )
        try:
            return cls(kind, zone or "UTC")
        except (ZoneInfoNotFoundError, ValueError, OSError):
            raise InvalidArgument(
                f"{zone!r} is not a time zone; write one as in day@Europe/Berlin", argument="window", value=text
            ) from None

    def __str__(self) -> str:
        return self.text

    def start(self, at_ns: int) -> int:
        """The beginning of the period (a step, where it rolls) to which the moment belongs, in ns."""
        if self.kind == "rolling":
            step = self.seconds * NS // STEPS
            return at_ns // step * step
        return _calendar_start(self.kind, self._tz, at_ns // _GRAIN_NS * _GRAIN_S) * NS

    def since(self, now_ns: int) -> int:
        """The first `start` that counts at this moment."""
        if self.kind == "rolling":
            step = self.seconds * NS // STEPS
            return (now_ns - self.seconds * NS) // step * step
        return self.start(now_ns)

    def ends(self, start_ns: int) -> int:
        """When what was reserved in the period from `start_ns` on counts no more."""
        if self.kind == "rolling":
            return start_ns + self.seconds * NS + self.seconds * NS // STEPS
        later = start_ns // NS + _AHEAD_S[self.kind]
        return (later if self.kind == "hour" else _calendar_start(self.kind, self._tz, later)) * NS


@lru_cache(maxsize=4096)
def _calendar_start(kind: Kind, zone: tzinfo, at_s: int) -> int:
    moment = datetime.fromtimestamp(at_s, zone)
    start = moment.replace(minute=0, second=0, microsecond=0)
    if kind != "hour":
        start = start.replace(hour=0, fold=0)
    if kind == "month":
        start = start.replace(day=1)
    return int(start.timestamp())
