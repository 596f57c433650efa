"""A dataset as an exam: its items, which of them are for tuning, and the skill that answers them."""

from __future__ import annotations

import gzip
import hashlib
import os
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Literal, Protocol, TypeVar, get_args

from agentbudget.errors import DocumentsError

if TYPE_CHECKING:
    from pydantic import BaseModel

    from agentbudget.skills import Skill
    from agentbudget.step import Context

    Row = TypeVar("Row", bound=BaseModel)

DatasetName = Literal["banking77", "gsm8k"]
Split = Literal["report", "tune"]

DATASETS: Final[tuple[DatasetName, ...]] = get_args(DatasetName)

TUNE_SHARE: Final = 4
"""One item in so many is for choosing thresholds and prompts; results are reported on the others alone."""


@dataclass(frozen=True, slots=True)
class Item:
    """One question and its right answer."""

    id: str
    question: str
    target: str


@dataclass(frozen=True, slots=True)
class Guess:
    """A model's answer to an item, and how sure it was (`Completion.confidence`)."""

    answer: str
    confidence: float | None


class Exam(Protocol):
    """A dataset that policies are tried on."""

    @property
    def name(self) -> DatasetName: ...

    @property
    def items(self) -> tuple[Item, ...]: ...

    @property
    def threshold(self) -> float:
        """The confidence from which a cascade keeps the cheap answer; chosen on the tuning items."""
        ...

    def skill(self, tier: str) -> Skill[..., Guess]:
        """The skill that answers an item, on one rung of the ladder. The same prompt on each."""
        ...

    def arguments(self, ctx: Context, item: Item) -> dict[str, Any]:
        """The skill's arguments for `item`; what it costs to find them is booked on the run of `ctx`."""
        ...

    def baseline(self, arguments: Mapping[str, Any]) -> str | None:
        """What one would answer without a model; None where there is no such thing."""
        ...

    def prepare(self, ctx: Context, progress: Preparing) -> None:
        """What is done once, before the first item; booked on the run of `ctx`."""
        ...


class Preparing(Protocol):
    """Hears how far the preparation of an exam is."""

    def __call__(self, done: int, total: int) -> None: ...


def find_data(given: str | Path | None = None) -> Path:
    """The folder of evaluation data: `given`, else ``AGENTBUDGET_DATA``. Raises `DocumentsError`."""
    chosen = given or os.environ.get("AGENTBUDGET_DATA")
    if not chosen:
        raise DocumentsError("evals need their data: give its folder with --data, or set AGENTBUDGET_DATA")
    folder = Path(chosen).expanduser()
    if not folder.is_dir():
        raise DocumentsError(
            f"there is no folder {str(folder)!r} of evaluation data: give another with --data, or set AGENTBUDGET_DATA"
        )
    return folder


def read_rows(data: Path, name: str, row: type[Row]) -> list[Row]:
    """The lines of the gzipped JSONL file ``skills/<name>`` (or ``<name>``) in `data`. Raises `DocumentsError`."""
    from pydantic import ValidationError

    path = next((p for p in (data / "skills" / name, data / name) if p.is_file()), None)
    if path is None:
        raise DocumentsError(
            f"{str(data)!r} has no {name} (nor skills/{name}): give the folder that has it with --data, "
            "or set AGENTBUDGET_DATA"
        )
    rows: list[Row] = []
    try:
        with gzip.open(path, "rt", encoding="utf-8") as lines:
            rows.extend(row.model_validate_json(line) for line in lines)
    except ValidationError as error:
        problem = error.errors()[0]
        where = ".".join(str(part) for part in problem["loc"])
        raise DocumentsError(f"{path}, line {len(rows) + 1}: {where}: {problem['msg']}") from error
    except (OSError, EOFError, UnicodeDecodeError) as error:
        raise DocumentsError(f"{path} cannot be read after line {len(rows)}: {error}; fetch it again") from error
    return rows


def choose(items: Iterable[Item], *, split: Split, limit: int | None, seed: int) -> tuple[Item, ...]:
    """The first `limit` items of `split` in the order that `seed` shuffles them into.

    Which split an item belongs to depends on its id alone, and a smaller limit takes the beginning of a larger one.
    Raises `DocumentsError` where two items have one id, by which each is paid for and scored.
    """
    items = tuple(items)
    twice = [item_id for item_id, count in Counter(item.id for item in items).items() if count > 1]
    if twice:
        raise DocumentsError(
            f"{len(twice)} ids of items stand for more than one each, such as {twice[0]!r}: number them anew"
        )
    mine = [item for item in items if (_digest(item.id) % TUNE_SHARE == 0) == (split == "tune")]
    return tuple(sorted(mine, key=lambda item: _digest(f"{seed}/{item.id}"))[:limit])


def _digest(text: str) -> int:
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest())
