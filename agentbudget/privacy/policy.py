"""What may go where: the class of a document, the places that texts go to, and the narrowest class each may see."""

from __future__ import annotations

import unicodedata
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field
from fnmatch import fnmatchcase
from ipaddress import IPv4Network, IPv6Network, ip_address, ip_network
from typing import Any, Final, Literal, Self
from urllib.parse import urlsplit

from agentbudget.errors import DataRefused, InvalidArgument, Mistake
from agentbudget.models.base import Model
from agentbudget.models.remote import is_loopback
from agentbudget.privacy.classes import METADATA_KEY, DataClass, Label, checked, claimed, strictest, within
from agentbudget.privacy.patterns import Group

Action = Literal["refuse", "redact", "allow"]
"""What becomes of a prompt that would carry a secret off this machine: it is not sent; it is sent without; it is sent,
and counted."""

InDocuments = Literal["narrow", "mask"]
"""What becomes of a document in which something is found: its class is narrower, or what was found is masked."""

HERE: Final[DataClass] = "restricted"
"""The narrowest class: what stays on this machine may be anything."""


@dataclass(frozen=True, slots=True)
class Destination:
    """Where a text goes: a model, an embedding model, an index. ``address`` is None for what runs in this process.

    ``here`` says that it is on this machine, as far as its owner knows.
    """

    name: str
    address: str | None
    here: bool

    @classmethod
    def of_model(cls, model: Model) -> Destination:
        """A rung of the ladder."""
        address = getattr(model, "address", None)
        return cls(model.name, address if isinstance(address, str) else None, model.place == "local")

    @classmethod
    def at(cls, name: str, address: str) -> Destination:
        """A server."""
        return cls(name, address, is_loopback(address))


@dataclass(frozen=True, slots=True, kw_only=True)
class Privacy:
    """The rules of an agent, or of an index. Code makes them; no text that a model or a document brings can.

    ``default`` is the class of documents that no rule is about, ``task`` that of a run's task. ``rules`` are globs of
    documents' paths and the class of what they match; of several that match the narrowest counts. A document may
    narrow its own class (``data_class:`` in its front matter), never widen it.

    ``leaving`` is the narrowest class that may leave this machine, ``allow`` says it for single destinations by name:
    ``{"anthropic:claude-sonnet-5-5": "confidential"}``. ``private`` are networks (``10.0.0.0/8``) and host names (with
    those below them) that count as this machine; ``forwards`` names destinations at an address of this machine that
    pass on what they get, as a proxy does.

    ``secrets`` and ``personal`` say what becomes of prompts that would carry credentials or personal data off this
    machine; None looks for none. Both need ``pip install 'agentbudget-runtime[privacy]'``. Where they are looked for,
    ``documents`` says what becomes of a document that holds some: it is ``restricted`` if it holds a credential and
    ``confidential`` if it holds personal data (``"narrow"``), or they are masked before anything is indexed
    (``"mask"``).

    Raises `InvalidArgument`.
    """

    default: DataClass = "internal"
    task: DataClass = "internal"
    rules: Mapping[str, DataClass] = field(default_factory=dict[str, DataClass])
    leaving: DataClass = "internal"
    allow: Mapping[str, DataClass] = field(default_factory=dict[str, DataClass])
    private: tuple[str, ...] = ()
    forwards: frozenset[str] = frozenset()
    secrets: Action | None = None
    personal: Action | None = None
    documents: InDocuments = "narrow"

    def __post_init__(self) -> None:
        for name in ("default", "task", "leaving"):
            checked(getattr(self, name), argument=name)
        for pattern, data_class in self.rules.items():
            checked(data_class, argument=f"rules[{pattern!r}]")
        for name, data_class in self.allow.items():
            checked(data_class, argument=f"allow[{name!r}]")
        for name in ("secrets", "personal"):
            _checked_action(name, getattr(self, name))
        if self.documents not in ("narrow", "mask"):
            raise InvalidArgument(
                f"documents must be 'narrow' or 'mask', not {self.documents!r}",
                argument="documents",
                value=self.documents,
            )
        for host in self.private:
            _network(host)

    def to_dict(self) -> dict[str, Any]:
        """The rules as JSON-ready data."""
        return {**asdict(self), "private": list(self.private), "forwards": sorted(self.forwards)}

    @classmethod
    def from_dict(cls, told: Mapping[str, Any]) -> Self:
        """The inverse of `to_dict`."""
        rules: dict[str, Any] = {**told, "private": tuple(told["private"]), "forwards": frozenset(told["forwards"])}
        return cls(**rules)

    def check_names(self, names: Iterable[str]) -> None:
        """Raise `Mistake` if ``forwards`` names what is not among `names`: a slip of the pen there opens a door."""
        if unknown := sorted(self.forwards.difference(names)):
            raise Mistake(f"forwards names {', '.join(unknown)}, which is not on the ladder ({', '.join(names)})")

    # --- documents

    def class_of(self, source: str, metadata: Mapping[str, str] | None = None) -> DataClass:
        """The class of a document: what the rules say (without one: the default), or narrower if it says so itself."""
        ruled: list[DataClass] = [data_class for pattern, data_class in self.rules.items() if _matches(source, pattern)]
        least = strictest(ruled) if ruled else self.default
        said = (metadata or {}).get(METADATA_KEY)
        return least if said is None else strictest([claimed(said)], least=least)

    # --- destinations

    def leaves(self, destination: Destination) -> bool:
        """Whether what is sent there leaves this machine (and what counts as it)."""
        if destination.name in self.forwards:
            return True
        if destination.here:
            return False
        return destination.address is None or not self._is_private(destination.address)

    def ceiling(self, destination: Destination) -> DataClass:
        """The narrowest class that may go there."""
        allowed = self.allow.get(destination.name)
        if allowed is not None:
            return allowed
        return self.leaving if self.leaves(destination) else HERE

    def admits(self, destination: Destination, data_class: DataClass) -> bool:
        """Whether something of this class may go there."""
        return within(data_class, self.ceiling(destination))

    def require(self, destination: Destination, label: Label, *, what: str) -> None:
        """Raise `DataRefused` unless `what`, which carries this label, may go there."""
        if not self.admits(destination, label.data_class):
            raise refusal([destination.name], label, what=what)

    @property
    def actions(self) -> Mapping[Group, Action]:
        """What is looked for, and what becomes of prompts that would carry it off this machine."""
        said: tuple[tuple[Group, Action | None], ...] = (("secret", self.secrets), ("personal", self.personal))
        return {group: action for group, action in said if action is not None}

    @property
    def groups(self) -> frozenset[Group]:
        """What is looked for."""
        return frozenset(self.actions)

    @property
    def looking(self) -> str:
        """What is looked for in documents, and what becomes of it, in words; empty for nothing."""
        return f"{self.documents}:{','.join(sorted(self.groups))}" if self.looks else ""

    @property
    def looks(self) -> bool:
        """Whether prompts that leave are searched for secrets or personal data."""
        return bool(self.actions)

    def _is_private(self, address: str) -> bool:
        host = (urlsplit(address).hostname or "").rstrip(".")
        return any(_covers(_network(known), host) for known in self.private)


def refusal(names: Iterable[str], label: Label, *, what: str, found: Mapping[str, int] | None = None) -> DataRefused:
    """The error for a text that none of these destinations may have. Its message says what to change."""
    listed = tuple(names)
    if found:
        message = (
            f"{what} holds {_counted(found)} and may not go to {' or '.join(listed)}, which is not on this machine: "
            "take it out, use a model of this machine, or send it without by "
            "Privacy(secrets='redact', personal='redact')"
        )
    else:
        message = (
            f"{what} is {label.told} and may not go to {' or '.join(listed)}, which is not on this machine: use a "
            f"model of this machine, or allow it by code with Privacy(allow={{{listed[0]!r}: {label.data_class!r}}})"
        )
    return DataRefused(message, data_class=label.data_class, sources=label.sources, destinations=listed, found=found)


def kept_from(destination: str, label: Label, found: Mapping[str, int]) -> str:
    """Why a text did not go there, as the journal puts it: what was found in it, or its class."""
    return f"{_counted(found) or label.told} may not go to {destination}"


def _counted(found: Mapping[str, int]) -> str:
    return ", ".join(f"{count} {kind}" for kind, count in sorted(found.items()))


def _checked_action(name: str, action: object) -> None:
    if action not in (None, "refuse", "redact", "allow"):
        raise InvalidArgument(
            f"{name} must be 'refuse', 'redact', 'allow' or None, not {action!r}", argument=name, value=action
        )


def _matches(source: str, pattern: str) -> bool:
    """A glob, in which ``*`` crosses folders, without regard to case: a rule that matches too much errs on the safe
    side. ``hr`` and ``hr/`` mean all below; a leading ``**/`` may be nothing."""
    path, glob = _plain(source), _plain(pattern)
    folder = glob.rstrip("/")
    globs = [glob, f"{folder}/*", *([glob[3:]] if glob.startswith("**/") else [])]
    return any(fnmatchcase(path, each) for each in globs)


def _plain(path: str) -> str:
    return unicodedata.normalize("NFC", path).casefold().removeprefix("./")


def _network(host: str) -> IPv4Network | IPv6Network | str:
    """A network, an address of one host, or a name."""
    try:
        return ip_network(host)
    except ValueError as error:
        if "/" in host or ":" in host or not host.strip("."):
            raise InvalidArgument(
                f"private must hold networks such as '10.0.0.0/8' or host names, not {host!r}: {error}",
                argument="private",
                value=host,
            ) from None
        return host.casefold().strip(".")


def _covers(known: IPv4Network | IPv6Network | str, host: str) -> bool:
    if isinstance(known, str):
        return host.casefold() == known or host.casefold().endswith(f".{known}")
    try:
        return ip_address(host) in known
    except ValueError:  # a name: only those that are listed by name count
        return False
