"""What one model call used, in the same words for every provider."""

from __future__ import annotations

from dataclasses import dataclass, fields
from operator import add, attrgetter
from typing import Final, Self


@dataclass(frozen=True, slots=True)
class Usage:
    """Tokens and compute of one model call.

    ``input_tokens`` includes cache reads and writes; ``output_tokens`` includes reasoning. Providers that
    count otherwise (Anthropic's input excludes the cache) are converted where they are called.
    ``cache_write_1h_tokens`` are those of ``cache_write_tokens`` that a provider keeps for an hour, at another price.
    ``image_tokens`` are the input tokens of pictures, where a provider tells them apart, that were neither read from
    nor written to a cache.
    ``compute_ns`` is wall time that a local model held its processor, in nanoseconds; 0 for an API.
    """

    input_tokens: int = 0
    output_tokens: int = 0
    cached_tokens: int = 0
    cache_write_tokens: int = 0
    reasoning_tokens: int = 0
    compute_ns: int = 0
    cache_write_1h_tokens: int = 0
    image_tokens: int = 0

    def __post_init__(self) -> None:
        values = self._values()
        if set(map(type, values)) != _INTEGERS or min(values) < 0:
            self._refuse()
        if self.cached_tokens + self.cache_write_tokens + self.image_tokens > self.input_tokens:
            raise ValueError("Usage.input_tokens must include cached_tokens, cache_write_tokens and image_tokens")
        if self.cache_write_1h_tokens > self.cache_write_tokens:
            raise ValueError("Usage.cache_write_tokens must include cache_write_1h_tokens")
        if self.reasoning_tokens > self.output_tokens:
            raise ValueError("Usage.output_tokens must include reasoning_tokens")

    def _refuse(self) -> None:
        """Raise for the first value that is no count; integers of a kind of their own are some."""
        for name, value in zip(_NAMES, self._values(), strict=True):
            if isinstance(value, bool) or not isinstance(value, int) or value < 0:
                raise ValueError(f"Usage.{name} must be an integer of at least 0, not {value!r}")

    def _values(self) -> tuple[int, ...]:
        return _of(self)

    @property
    def total_tokens(self) -> int:
        """Input and output tokens together: what a token budget counts."""
        return self.input_tokens + self.output_tokens

    def __add__(self, other: Usage) -> Usage:
        return Usage(*map(add, self._values(), other._values()))

    def to_dict(self) -> dict[str, int]:
        """The fields as plain integers, for a journal or JSON."""
        return dict(zip(_NAMES, self._values(), strict=True))

    def to_list(self) -> list[int]:
        """The fields in their order, without zeros at the end: `Usage` of them is equal. A new field comes last."""
        values = list(self._values())
        while values and not values[-1]:
            values.pop()
        return values

    @classmethod
    def from_dict(cls, data: dict[str, int]) -> Self:
        """The inverse of `to_dict`."""
        return cls(**data)


_NAMES: Final = tuple(field.name for field in fields(Usage))
_of: Final = attrgetter(*_NAMES)
_INTEGERS: Final = {int}
