"""Every exam that there is, by the name of its dataset."""

from __future__ import annotations

from pathlib import Path
from typing import assert_never

from agentbudget.evals.banking77 import Banking77
from agentbudget.evals.gsm8k import Gsm8k
from agentbudget.evals.tasks import DatasetName, Exam


def open_exam(name: DatasetName, data: Path, vectors: Path) -> Exam:
    """The exam `name` from the files in `data`. Example vectors are kept in `vectors`. Raises `DocumentsError`."""
    if name == "banking77":
        return Banking77.load(data, vectors)
    if name == "gsm8k":
        return Gsm8k.load(data)
    assert_never(name)
