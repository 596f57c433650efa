"""What is known of a file beside its text: what it states, what the index's owner says, and how searches ask for it."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from fnmatch import fnmatchcase
from typing import Final, cast

from agentbudget.errors import Mistake

Metadata = Mapping[str, str]

Labels = Callable[[str, Metadata], Metadata] | Mapping[str, Metadata]
"""What the owner of an index says of files: patterns of sources → what to add, later patterns overriding earlier ones
(``*`` crosses folders); or a function of a file's source and of what it states, which gives what to add or replace."""

Where = Mapping[str, Sequence[str]]
"""Key → values, one of which a file's metadata must have, for every key."""

MODIFIED: Final = "modified"
"""The key under which every file's time of last change stands: ISO 8601, UTC, in seconds."""

LONGEST: Final = 1_000
"""Characters that are kept of a value that a file states: it is stored with every chunk."""

_KEY: Final = re.compile(r"[A-Za-z0-9_-]+")


def stated(front: Mapping[object, object]) -> dict[str, str]:
    """The metadata in a front matter: strings, and lists of strings joined by commas; what is nested is passed over.

    A character that a key cannot have becomes ``_``.
    """
    found: dict[str, str] = {}
    for key, value in front.items():
        name = re.sub(r"[^A-Za-z0-9_-]", "_", str(key))
        parts = cast("list[object]", value) if isinstance(value, list) else [value]
        if name and all(isinstance(part, str) for part in parts):
            found[name] = ", ".join(map(str, parts))[:LONGEST]
    return found


def labelled(source: str, known: Metadata, modified_ns: int, labels: Labels | None) -> dict[str, str]:
    """All that is known of a file: what it states, when it was changed, and above both what `labels` says.

    Raises `Mistake` if that is no mapping of names to strings.
    """
    modified = datetime.fromtimestamp(modified_ns // 10**9, UTC).isoformat().replace("+00:00", "Z")
    found = {**known, MODIFIED: modified}
    if callable(labels):
        found |= _checked(labels(source, dict(found)), source)
    elif labels is not None:
        for pattern, values in labels.items():
            if fnmatchcase(source, pattern):
                found |= _checked(values, source)
    return found


def asked(where: Mapping[str, str | Sequence[str]] | None) -> dict[str, tuple[str, ...]] | None:
    """`where` as a caller gives it, a value or several for each key. Raises `Mistake` if one can match nothing."""
    if where is None:
        return None
    found: dict[str, tuple[str, ...]] = {}
    for key, value in where.items():
        values = (value,) if isinstance(value, str) else tuple(value)
        if not values or not all(isinstance(one, str) for one in values) or not _is_key(key):
            raise Mistake(
                f"where={{{key!r}: {value!r}}} asks for nothing: give a key of letters, digits, '_' and '-', and a "
                "string or a list of strings that its value may be"
            )
        found[key] = values
    return found


def matches(where: Where | None, metadata: Metadata) -> bool:
    """Whether the metadata have one of the values for every key."""
    return all(metadata.get(key) in values for key, values in (where or {}).items())


def _checked(values: object, source: str) -> dict[str, str]:
    said = cast("Mapping[object, object]", values) if isinstance(values, Mapping) else None
    if said is None or not all(_is_key(key) and isinstance(value, str) for key, value in said.items()):
        raise Mistake(
            f"the metadata for {source} are {values!r}: give a mapping of names (letters, digits, '_', '-') to strings"
        )
    return {str(key): str(value) for key, value in said.items()}


def _is_key(key: object) -> bool:
    return isinstance(key, str) and _KEY.fullmatch(key) is not None
