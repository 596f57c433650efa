"""How fast local models are on this machine, as measured: kept in the home, by weights and machine."""

from __future__ import annotations

import json
import os
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final, cast

from agentbudget.errors import WeightsError
from agentbudget.models import machine

FILE: Final = "speeds.json"

_Table = dict[str, object]


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
    """Keep what was measured: bounds of this machine's calls count on it from now on. Raises `WeightsError`."""
    path = home / FILE
    known = _read(path)
    known.setdefault(sha256, {})[speed.machine] = asdict(speed)
    part = path.with_name(f"{FILE}.{os.getpid()}.part")
    try:
        home.mkdir(parents=True, exist_ok=True)
        part.write_text(json.dumps(known, indent=2), encoding="utf-8")
        part.replace(path)
    except OSError as error:
        with suppress(OSError):
            part.unlink(missing_ok=True)
        raise WeightsError(
            f"{speed.prefill_tokens_per_s:,.0f} tokens/s read and {speed.decode_tokens_per_s:,.0f} written cannot be "
            f"kept in {path} ({error.strerror or error}): make room there, and measure again"
        ) from error


def _read(path: Path) -> dict[str, dict[str, Any]]:
    try:
        known: object = json.loads(path.read_text(encoding="utf-8"))
        if not isinstance(known, dict) or not all(isinstance(each, dict) for each in cast(_Table, known).values()):
            raise ValueError("not a table of weights and machines")
    except FileNotFoundError:
        return {}
    except (OSError, ValueError) as error:
        raise _damaged(path, error) from error
    return cast("dict[str, dict[str, Any]]", known)


def _speed(path: Path, kept: Any) -> Speed:
    try:
        speed = Speed(**kept)
        if not min(speed.prefill_tokens_per_s, speed.decode_tokens_per_s) > 0:
            raise ValueError("a speed that is none")
    except (TypeError, ValueError) as error:
        raise _damaged(path, error) from error
    return speed


def _damaged(path: Path, error: Exception) -> WeightsError:
    return WeightsError(f"{path} is not what `agentbudget models bench` writes ({error}): remove it, and measure again")
