"""Data classes: how far a text may travel. An ordered, closed set, and the mark that a run carries."""

from __future__ import annotations

import threading
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final, Literal, cast, get_args

from agentbudget.errors import InvalidArgument

DataClass = Literal["public", "internal", "confidential", "restricted"]
"""``public``: anybody may read it. ``internal``: for ourselves and those who work for us. ``confidential``: stays on
this machine, unless a destination is named for it. ``restricted``: confidential, and kept by no cache or memory that
outlives its run."""

CLASSES: Final = cast("tuple[DataClass, ...]", get_args(DataClass))
"""From the widest to the narrowest."""

METADATA_KEY: Final = "data_class"
"""Where a document's metadata, a message of LangChain's or a config says its class."""

MOST_SOURCES: Final = 5
"""Sources that a label names; more would make an error message of a list."""


def rank(data_class: DataClass) -> int:
    """0 for ``public``, 3 for ``restricted``."""
    return CLASSES.index(data_class)


def strictest(classes: Iterable[DataClass], *, least: DataClass = "public") -> DataClass:
    """The narrowest of `classes`, and no wider than `least`."""
    found: DataClass = least
    for data_class in classes:
        if rank(data_class) > rank(found):
            found = data_class
    return found


def within(data_class: DataClass, ceiling: DataClass) -> bool:
    """Whether something of this class may go where `ceiling` is the narrowest that may."""
    return rank(data_class) <= rank(ceiling)


def wider(ceiling: DataClass) -> list[str]:
    """The classes that are no narrower than `ceiling`."""
    return [data_class for data_class in CLASSES if within(data_class, ceiling)]


def narrow(data_class: DataClass) -> bool:
    """Whether it stays on this machine, unless a destination is named for it."""
    return rank(data_class) >= rank("confidential")


def outlives_its_run(data_class: DataClass) -> bool:
    """Whether caches and memories may keep it for other runs."""
    return data_class != "restricted"


def checked(value: object, *, argument: str) -> DataClass:
    """`value` as a data class. Raises `InvalidArgument`, which lists them."""
    for data_class in CLASSES:
        if value == data_class:
            return data_class
    raise InvalidArgument(
        f"{argument} must be one of {', '.join(CLASSES)}, not {value!r}", argument=argument, value=value
    )


def understood(value: object) -> DataClass | None:
    """What a text says of its own class; None for a word that nobody knows."""
    word = str(value).strip().casefold()
    return next((data_class for data_class in CLASSES if data_class == word), None)


def claimed(value: object) -> DataClass:
    """What a text says of its own class. A word that nobody knows is taken for the narrowest."""
    return understood(value) or "restricted"


@dataclass(frozen=True, slots=True)
class Label:
    """The class of a text, and where that comes from: documents, skills, what code said. At most five are named."""

    data_class: DataClass = "public"
    sources: tuple[str, ...] = ()

    def joined(self, other: Label) -> Label:
        """The label of two texts put together: the narrower class, with the sources that ask for it."""
        if self.data_class == other.data_class:
            together = tuple(dict.fromkeys((*self.sources, *other.sources)))
            return Label(self.data_class, together[:MOST_SOURCES])
        return max(self, other, key=lambda label: rank(label.data_class))

    @property
    def told(self) -> str:
        """``confidential (hr/pay.md)``: as messages put it."""
        return f"{self.data_class} ({', '.join(self.sources)})" if self.sources else self.data_class


class Mark:
    """How narrow the narrowest text is that a run has seen: it rises and never falls. Any thread may raise it."""

    def __init__(self, label: Label | None = None) -> None:
        self._label = label or Label("internal")
        self._rising = threading.Lock()

    def __repr__(self) -> str:
        return f"Mark({self._label.told})"

    @property
    def label(self) -> Label:
        """As it stands now."""
        return self._label

    def rise(self, label: Label) -> None:
        """Take in what else was seen."""
        if label is self._label:
            return
        with self._rising:
            self._label = self._label.joined(label)
