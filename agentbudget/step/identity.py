"""The names of steps: the same again when a run resumes, another for another try."""

from __future__ import annotations

import hashlib
import itertools
import json
import re
from collections.abc import Iterable, Mapping
from dataclasses import asdict, is_dataclass
from typing import Any, cast

from agentbudget.errors import HoldConflict
from agentbudget.ledger import Ledger


def digest(told: str) -> str:
    """Ten letters that stand for a text."""
    return hashlib.blake2b(told.encode("utf-8", "surrogatepass"), digest_size=5).hexdigest()


def stable(value: Any) -> Any:
    """An argument as JSON that is the same in every process: sets in order, objects without their addresses."""
    if isinstance(value, Mapping):
        return {str(k): stable(v) for k, v in cast(Mapping[Any, Any], value).items()}
    if isinstance(value, list | tuple):
        return [stable(item) for item in cast(Iterable[Any], value)]
    if isinstance(value, set | frozenset):
        return sorted(json.dumps(stable(item), sort_keys=True) for item in cast(Iterable[Any], value))
    if value is None or isinstance(value, str | int | float | bool):
        return value
    if hasattr(value, "model_dump"):
        return stable(value.model_dump())
    if is_dataclass(value) and not isinstance(value, type):
        return stable(asdict(value))
    return re.sub(r" at 0x[0-9a-fA-F]+", "", repr(value))


def unused_id(ledger: Ledger, base: str) -> str:
    """`base`, or the next of ``base~2``, ``base~3`` … that is not taken by an earlier try at the same step."""
    for number in itertools.count(1):
        hold_id = base if number == 1 else f"{base}~{number}"
        record = ledger.hold(hold_id)
        if record is None:
            return hold_id
        if record.state == "open" and record.owner != ledger.owner:
            raise HoldConflict(
                f"step {hold_id!r} is being carried out by {record.owner}; wait until it is done",
                hold_id=hold_id,
                known=record.owner,
                asked=ledger.owner,
            )
    raise AssertionError("unreachable: the loop above returns or raises")
