"""Run policies over a dataset: each item within a budget, each cost from the ledger, each sample logged by Inspect."""

from __future__ import annotations

import asyncio
import secrets
import tempfile
import time
from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, TypedDict, get_args

from agentbudget import telemetry
from agentbudget.agent import Agent, heartbeats, run_blocking
from agentbudget.errors import (
    BudgetExceeded,
    ContextTooLong,
    InvalidOutput,
    MissingDependency,
    Mistake,
    StoreUnavailable,
)
from agentbudget.evals.economics import Outcome
from agentbudget.evals.exams import open_exam
from agentbudget.evals.policies import POLICIES, USUAL, Policy, PolicyName, policy
from agentbudget.evals.report import EvalReport
from agentbudget.evals.tasks import DatasetName, Exam, Item, Split, choose, find_data
from agentbudget.ledger import Ledger
from agentbudget.money import Budget
from agentbudget.settings import Settings
from agentbudget.step import Context, Engine, Scope
from agentbudget.usage import Usage

if TYPE_CHECKING:
    from agentbudget.models.base import Model

BUDGET_PER_ITEM: Final = Budget(usd="0.05")
"""What one item may cost under one policy, where the caller does not say."""


@dataclass(frozen=True, slots=True)
class Progress:
    """How far an eval is: ``stage`` is a policy's name, or ``"prepare"``."""

    stage: str
    done: int
    total: int
    correct: int = 0


OnProgress = Callable[[Progress], None]


async def run_eval(
    dataset: DatasetName,
    *,
    data: str | Path | None = None,
    policies: Sequence[PolicyName] = USUAL,
    limit: int | None = 100,
    seed: int = 0,
    split: Split = "report",
    threshold: float | None = None,
    models: Sequence[str | Model] | None = None,
    budget: Budget | None = None,
    budget_per_item: Budget = BUDGET_PER_ITEM,
    concurrency: int = 1,
    home: str | Path | None = None,
    log_dir: str | Path | None = None,
    on_progress: OnProgress = lambda _progress: None,
) -> EvalReport:
    """Try `policies` on `limit` items of `dataset`, and report what their accuracy cost.

    ``data``: the folder of evaluation data, else ``AGENTBUDGET_DATA``. ``threshold``: the confidence from which a
    cascade keeps the cheap answer, else the dataset's own, which was chosen on ``split="tune"``. ``models``: the
    ladder, cheapest first. ``budget`` limits the whole eval and ``budget_per_item`` each item under each policy: an
    item that does not fit is left unanswered. ``home`` is where ledger and cache are, ``log_dir`` where Inspect's
    logs go.

    An answer is bought once, and counts at its full cost for every policy that uses it: a cascade's draft is the
    all-cheap policy's answer. So an eval that was cut short goes on where it stopped.

    Raises `DocumentsError` without the data, `MissingDependency` without the extra ``evals``, `StoreUnavailable` where
    there can be no logs, and what models and stores raise.
    """
    _check_name("dataset", dataset, get_args(DatasetName))
    _check_name("split", split, get_args(Split))
    _check(policies, limit, concurrency)
    try:
        from agentbudget.evals.samples import Candidate, score_all
    except ImportError as error:
        raise MissingDependency(
            f"evals run on Inspect AI ({error}): pip install 'agentbudget-runtime[evals]'"
        ) from error
    settings = Settings.from_env()
    settings = settings if home is None else settings.at(Path(home))
    kept = settings.home / "evals"
    logs = Path(log_dir) if log_dir is not None else kept / "logs"
    exam = open_exam(dataset, find_data(data), kept / "vectors")
    items = choose(exam.items, split=split, limit=limit, seed=seed)
    if not items:
        raise Mistake(f"{dataset} has no items in the split {split!r}: choose another, or give other data")
    _require_writable(logs)
    threshold = exam.threshold if threshold is None else threshold
    started = time.monotonic()
    async with _opened(dataset, exam, settings, models, budget, budget_per_item) as bench:
        bench.prepare(on_progress)
        scored = await score_all(
            [
                Candidate(
                    f"{dataset}-{name}",
                    bench.answering(name, policy(name, exam, threshold=threshold)),
                    _counter(name, len(items), on_progress),
                )
                for name in policies
            ],
            items,
            log_dir=logs,
            concurrency=concurrency,
            metadata={"eval": bench.name, "ladder": list(bench.engine.ladder.names), "threshold": threshold},
        )
        outcomes = [
            Outcome(policy=name, item=sample.item, correct=sample.correct, **sample.notes)
            for name, (samples, _) in zip(policies, scored, strict=True)
            for sample in samples
        ]
        return EvalReport(
            name=bench.name,
            dataset=dataset,
            split=split,
            seed=seed,
            threshold=threshold,
            prices={model.name: model.price.source for model in bench.engine.ladder.models},
            outcomes=tuple(outcomes),
            paid_usd_nano=bench.paid_usd_nano,
            seconds=time.monotonic() - started,
            logs=tuple(log for _, log in scored),
        )


def run_eval_sync(dataset: DatasetName, **options: Any) -> EvalReport:
    """`run_eval`, for code that is not async; it takes the same options."""
    return run_blocking(lambda: run_eval(dataset, **options), instead="await run_eval(…)")


class Notes(TypedDict):
    """The fields of an `Outcome` that are not the score's: what a sample's log has beside it."""

    answer: str | None
    paid_usd_nano: int
    reused_usd_nano: int
    tokens: int
    compute_ns: int
    calls: dict[str, int]
    confidence: float | None
    problem: str | None
    baseline_correct: bool | None


@dataclass(frozen=True, slots=True)
class Bench:
    """An eval's engine, and the accounts that its items weigh on: one run per item and policy, one feature in all."""

    name: str
    exam: Exam
    engine: Engine
    budget_per_item: Budget
    _turns: dict[str, asyncio.Lock] = field(default_factory=dict[str, asyncio.Lock])

    @property
    def paid_usd_nano(self) -> int:
        """What the ledger settled for the whole eval."""
        return self.engine.ledger.balance(f"feature/{self.name}").posted.usd_nano

    def prepare(self, on_progress: OnProgress) -> None:
        """Do what the exam does once."""
        self.exam.prepare(
            self._context("prepare", Budget()), lambda done, total: on_progress(Progress("prepare", done, total))
        )

    def answering(self, name: PolicyName, policy: Policy) -> Callable[[Item], Any]:
        """What carries out an item under `policy`."""

        async def answer(item: Item) -> tuple[str | None, Notes]:
            # One policy at a time for each item: what the first one buys, the next one finds.
            async with self._turns.setdefault(item.id, asyncio.Lock()):
                # A slash would make the holds of item a/b some of those of item a.
                run = f"{name}.{item.id.replace('%', '%25').replace('/', '%2F')}"
                return await self._answer(self._context(run, self.budget_per_item), policy, item)

        return answer

    async def _answer(self, ctx: Context, policy: Policy, item: Item) -> tuple[str | None, Notes]:
        guess, problem, baseline = None, None, None
        with telemetry.run(ctx.run_id, agent="eval", budget=self.budget_per_item):
            try:
                arguments = self.exam.arguments(ctx, item)
                baseline = self.exam.baseline(arguments)
                guess = await policy(ctx, arguments)
            except (
                BudgetExceeded,
                InvalidOutput,
                ContextTooLong,
            ) as error:  # this item's, and no fault: it has no answer
                problem = f"{type(error).__name__}: {error}"
        answer = None if guess is None else guess.answer
        return answer, {
            **_spent(self.engine.ledger, ctx.run_id),
            "answer": answer,
            "confidence": None if guess is None else guess.confidence,
            "problem": problem,
            "baseline_correct": None if baseline is None else baseline == item.target,
        }

    def _context(self, run: str, limit: Budget) -> Context:
        scope = Scope(f"{self.name}.{run}", feature=self.name)
        self.engine.ledger.account(f"run/{scope.run_id}", limit=limit)
        return Context(self.engine, scope)


class _Spent(TypedDict):
    paid_usd_nano: int
    reused_usd_nano: int
    tokens: int
    compute_ns: int
    calls: dict[str, int]


def _spent(ledger: Ledger, run_id: str) -> _Spent:
    """What the ledger says of a run: what it paid, and what it used, answers paid for before included."""
    spent: _Spent = {
        "paid_usd_nano": ledger.balance(f"run/{run_id}").posted.usd_nano,
        "reused_usd_nano": 0,
        "tokens": 0,
        "compute_ns": 0,
        "calls": {},
    }
    for record in ledger.holds(prefix=f"{run_id}/"):
        if record.meta.get("kind") != "call" or record.state == "voided":
            continue
        usage = Usage.from_dict(record.detail.get("usage", {}))
        model = str(record.meta["model"])
        spent["reused_usd_nano"] += record.detail.get("saved_usd_nano", 0)
        spent["tokens"] += usage.total_tokens
        spent["compute_ns"] += usage.compute_ns
        spent["calls"][model] = spent["calls"].get(model, 0) + 1
    return spent


@asynccontextmanager
async def _opened(
    dataset: str,
    exam: Exam,
    settings: Settings,
    models: Sequence[str | Model] | None,
    budget: Budget | None,
    budget_per_item: Budget,
) -> AsyncGenerator[Bench]:
    """An engine with the eval's account, closed at the end."""
    name = f"eval-{dataset}-{time.strftime('%Y%m%d-%H%M%S')}-{secrets.token_hex(2)}"
    async with Agent(models=models, settings=settings, name="eval") as agent:
        agent.ledger.account(f"feature/{name}", limit=budget)
        beat = asyncio.create_task(heartbeats(agent.ledger))  # a call may take longer than a lease
        try:
            yield Bench(name, exam, agent.engine, budget_per_item)
        finally:
            beat.cancel()
            with suppress(asyncio.CancelledError):
                await beat


def _require_writable(logs: Path) -> None:
    """Raise `StoreUnavailable`, before anything is paid for, unless logs can be written into this folder."""
    try:
        logs.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=logs):
            pass
    except OSError as error:
        raise StoreUnavailable(
            f"the logs of the eval cannot be written to {logs} ({error.strerror or error}): name another folder",
            location=str(logs),
        ) from error


def _counter(stage: str, total: int, on_progress: OnProgress) -> Callable[[bool], None]:
    done, right = 0, 0

    def scored(correct: bool) -> None:
        nonlocal done, right
        done, right = done + 1, right + correct
        on_progress(Progress(stage, done, total, right))

    return scored


def _check_name(what: str, name: str, known: Sequence[str]) -> None:
    if name not in known:
        raise Mistake(f"{what} must be {' or '.join(known)}, not {name!r}")


def _check(policies: Sequence[PolicyName], limit: int | None, concurrency: int) -> None:
    unknown = [name for name in policies if name not in POLICIES]
    if unknown or not policies or len(set(policies)) != len(policies):
        raise Mistake(f"policies must be some of {', '.join(POLICIES)}, each once; not {', '.join(policies) or 'none'}")
    if limit is not None and limit < 1:
        raise Mistake(f"limit must be at least 1, not {limit}")
    if concurrency < 1:
        raise Mistake(f"concurrency must be at least 1, not {concurrency}")
