"""Inspect AI, and the only place in the package that imports it: samples, their scores, and the logs of both."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from inspect_ai import (
    Task,
    eval_async,  # pyright: ignore[reportUnknownVariableType] # it names types of an optional package
)
from inspect_ai.dataset import MemoryDataset, Sample
from inspect_ai.log import EvalLog
from inspect_ai.model import ModelOutput
from inspect_ai.scorer import CORRECT, INCORRECT, NOANSWER, Score, Scorer, Target, accuracy, scorer, stderr
from inspect_ai.solver import Generate, Solver, TaskState, solver
from inspect_ai.util import display_type

from agentbudget.errors import StoreUnavailable
from agentbudget.evals.tasks import Item

NOTES: Final = "agentbudget"
"""Under this name a sample's metadata say what its answer cost."""

Notes = dict[str, Any]
Answer = Callable[[Item], Awaitable[tuple[str | None, Notes]]]
"""Carries out an item: its answer (None: there is none), and what to note beside it."""


@dataclass(frozen=True, slots=True)
class Candidate:
    """What is scored on every item: a name, what answers, and who hears of each score."""

    name: str
    answer: Answer
    on_scored: Callable[[bool], None]


@dataclass(frozen=True, slots=True)
class Scored:
    """A sample as Inspect logged it."""

    item: str
    correct: bool
    notes: Notes


async def score_all(
    candidates: Sequence[Candidate],
    items: Sequence[Item],
    *,
    log_dir: Path,
    concurrency: int,
    metadata: Mapping[str, Any],
) -> list[tuple[list[Scored], Path]]:
    """Let Inspect run `items` through each candidate, score exact matches and log both. Returns, for each
    candidate, its samples and where their log is.

    The candidates go through the items side by side, so that none has the machine to itself while another has not.
    What an answer raises stops the eval, and is raised.
    """
    faults: list[BaseException] = []
    dataset = MemoryDataset([Sample(id=item.id, input=item.question, target=item.target) for item in items])
    tasks = [
        Task(
            name=candidate.name,
            dataset=dataset,
            solver=_solver(candidate.answer, faults),
            scorer=_exact(candidate.on_scored),
            metadata=dict(metadata),
        )
        for candidate in candidates
    ]
    _be_quiet()
    # Inspect's own model is none: ours answer, so that what they cost is in the ledger.
    logs = await eval_async(
        tasks,
        model=None,
        log_dir=str(log_dir),
        max_tasks=len(tasks),
        max_samples=concurrency,
        fail_on_error=True,
        log_realtime=False,
        ctl_server=False,
    )
    _require_success(logs, faults)
    return [(_scored(log), Path(log.location)) for log in logs]


def _be_quiet() -> None:
    """Inspect prints nothing, unless the caller has chosen a display of it: progress is told by ours."""
    os.environ.setdefault("INSPECT_DISPLAY", "none")
    display_type()


def _solver(answer: Answer, faults: list[BaseException]) -> Solver:
    @solver(name="within_budget")
    def within_budget() -> Solver:
        async def solve(state: TaskState, generate: Generate) -> TaskState:
            if faults:
                raise faults[0]
            try:
                text, notes = await answer(Item(str(state.sample_id), state.input_text, state.target.text))
            except BaseException as fault:
                faults.append(fault)
                raise
            state.metadata[NOTES] = notes
            state.output = ModelOutput.from_content("agentbudget", text or "")
            return state

        return solve

    return within_budget()


def _exact(on_scored: Callable[[bool], None]) -> Scorer:
    @scorer(name="exact", metrics=[accuracy(), stderr()])
    def exact() -> Scorer:
        async def score(state: TaskState, target: Target) -> Score:
            text, problem = state.output.completion, state.metadata[NOTES].get("problem")
            correct = problem is None and text == target.text
            on_scored(correct)
            value = CORRECT if correct else INCORRECT if problem is None else NOANSWER
            return Score(value=value, answer=text, explanation=problem)

        return score

    return exact()


def _require_success(logs: Sequence[EvalLog], faults: Sequence[BaseException]) -> None:
    """Raise what ended the eval: an answer's fault, else Inspect's own. Other answers are cancelled for either."""
    for fault in faults:
        if not isinstance(fault, asyncio.CancelledError):
            raise fault
    for log in logs:
        if log.status not in ("success", "cancelled"):
            why = log.error.message if log.error else "no reason given"
            raise StoreUnavailable(f"the eval ended as {log.status!r}: {why}; its log is {log.location}")
    if faults or any(log.status == "cancelled" for log in logs):
        raise asyncio.CancelledError


def _scored(log: EvalLog) -> list[Scored]:
    return [
        Scored(str(sample.id), (sample.scores or {})["exact"].value == CORRECT, sample.metadata[NOTES])
        for sample in log.samples or ()
    ]
