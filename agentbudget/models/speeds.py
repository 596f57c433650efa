"""How fast local models are on this machine, as measured: kept in the home, by weights and machine."""

from __future__ import annotations

import json
import os
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final, cast

from agentbudget.errors import WeightsError
from agentbudget.models import machine

FILE: Final = "speeds.json"


@dataclass(frozen=True, slots=True)
class Speed:
    """Tokens a second with nothing cached, when that was measured (ISO 8601), and on which machine."""

    prefill_tokens_per_s: float
    decode_tokens_per_s: float
    measured_at: str
    machine: str


def measured(home: Path, sha256: str) -> Speed | None:
    """What was measured of these weights on this machine; None if nothing was."""
    kept = _read(home / FILE).get(sha256, {}).get(machine.name())
    return None if kept is None else _speed(home / FILE, kept)


def keep(home: Path, sha256: str, speed: Speed) -> None:
    """Keep what was measured: bounds of this machine's calls count on it from now on."""
    path = home / FILE
    known = _read(path)
    known.setdefault(sha256, {})[speed.machine] = asdict(speed)
    home.mkdir(parents=True, exist_ok=True)
    part = path.with_name(f"{FILE}.{os.getpid()}.part")
    part.write_text(json.dumps(known, indent=2), encoding="utf-8")
    part.replace(path)


def _read(path: Path) -> dict[str, dict[str, Any]]:
    if not path.exists():
        return {}
    try:
        return cast("dict[str, dict[str, Any]]", json.loads(path.read_text(encoding="utf-8")))
    except ValueError as error:
        raise _damaged(path, error) from error


def _speed(path: Path, kept: dict[str, Any]) -> Speed:
    try:
        return Speed(**kept)
    except TypeError as error:
        raise _damaged(path, error) from error


def _damaged(path: Path, error: Exception) -> WeightsError:
    return WeightsError(f"{path} is not what `agentbudget models bench` writes ({error}): remove it, and measure again")
