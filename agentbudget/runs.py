"""What is kept of each run beside its money: the task, the documents, the ladder, how it ended."""

from __future__ import annotations

import fcntl
import os
import re
import secrets
import time
from collections.abc import Generator, Iterator
from contextlib import contextmanager, suppress
from itertools import islice
from pathlib import Path
from typing import Any, Final, Literal

from pydantic import BaseModel, ValidationError

from agentbudget.errors import Mistake, StoreUnavailable, UnknownRun
from agentbudget.forks import Owned
from agentbudget.ledger.store import check_text
from agentbudget.money import Budget
from agentbudget.tenants import DEFAULT_TENANT

_ID: Final = re.compile(r"[A-Za-z0-9_\-][A-Za-z0-9_.\-]{0,99}")

RunStatus = Literal["running", "done", "over budget", "failed", "cancelled"]


class RunRecord(BaseModel):
    """One run, as a JSON file. What it cost is not here: the ledger knows that.

    ``ledger`` is where, if that is not the home's own.
    """

    run_id: str
    task: str
    agent: str
    status: RunStatus = "running"
    budget_usd: str | None = None
    budget_tokens: int | None = None
    budget_calls: int | None = None
    user: str | None = None
    feature: str | None = None
    docs: str | None = None
    ladder: list[str] = []
    ledger: str | None = None
    tenant: str = DEFAULT_TENANT
    data_class: str = "internal"
    output: Any = None
    citations: list[dict[str, Any]] = []
    error: str | None = None
    started_ns: int = 0
    ended_ns: int | None = None

    def limit(self, budget: Budget) -> None:
        """Make `budget` the run's limits. Raises `Mistake` if it is no budget."""
        if not isinstance(budget, Budget):
            raise Mistake(f"a run's budget must be a Budget, not {budget!r}: write budget=Budget(usd='0.05')")
        self.budget_usd = None if budget.usd is None else str(budget.usd)
        self.budget_tokens, self.budget_calls = budget.tokens, budget.calls

    @property
    def budget(self) -> Budget:
        """The run's limits."""
        return Budget(usd=self.budget_usd, tokens=self.budget_tokens, calls=self.budget_calls)


def require_ledger(record: RunRecord, location: str | None) -> None:
    """Raise `Mistake` unless the ledger at `location` (None: the home's own) is the one that knows the run."""
    if record.ledger != location:
        raise Mistake(
            f"run {record.run_id!r} is booked in {record.ledger or 'the ledger of its home'}, not in "
            f"{location or 'that'}: name it with --ledger or AGENTBUDGET_LEDGER"
        )


def new_run_id() -> str:
    """A short id that sorts by time. Those who make one in the same second do not meet."""
    return f"{time.strftime('%Y%m%d-%H%M%S')}-{secrets.token_hex(4)}"


def check_task(task: str) -> None:
    """Raise `Mistake` if a task says nothing."""
    if not isinstance(task, str) or not task.strip() or not _is_text(task):
        raise Mistake("the task is empty, or not text: say what the agent should do")


def check_payers(**names: str | None) -> None:
    """Raise `Mistake` if the name of a user or feature is no text, such as a number, or none that a ledger keeps."""
    for kind, name in names.items():
        if name is not None and not isinstance(name, str):
            raise Mistake(f"{kind} must be text, not {name!r}: write {kind}={str(name)!r}")
        if name is not None:
            check_text(kind, name, least=0)


def _is_text(value: str) -> bool:
    try:
        value.encode()
    except UnicodeEncodeError:
        return False
    return True


class Runs:
    """The runs of one home folder. With a ``tenant``, only that one's: others' are not there."""

    def __init__(self, folder: Path, *, tenant: str | None = None) -> None:
        self._folder = folder
        self._tenant = tenant

    def save(self, record: RunRecord) -> None:
        """Write a run's file, whole or not at all. Raises `StoreUnavailable`."""
        path = self._path(record.run_id)
        draft = path.with_suffix(f".{os.getpid()}.tmp")
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            draft.write_text(record.model_dump_json(indent=1), encoding="utf-8")
            draft.replace(path)
        except OSError as error:
            with suppress(OSError):
                draft.unlink(missing_ok=True)
            raise self._unwritable(record.run_id, error) from error

    def load(self, run_id: str) -> RunRecord:
        """The run of this id. Raises `UnknownRun`."""
        path = self._path(run_id)
        try:
            record = RunRecord.model_validate_json(path.read_bytes())
        except FileNotFoundError:
            raise self._unknown(run_id) from None
        except (OSError, ValidationError) as error:
            why = error.errors()[0]["msg"] if isinstance(error, ValidationError) else error.strerror or str(error)
            raise UnknownRun(
                f"the file of run {run_id!r} cannot be read ({why}): remove {path}; what the run cost is in the ledger"
            ) from None
        if record.run_id != run_id:
            raise UnknownRun(f"the file of run {run_id!r} is that of run {record.run_id!r}: rename it")
        if self._tenant is not None and record.tenant != self._tenant:
            raise self._unknown(run_id)
        return record

    def _unknown(self, run_id: str) -> UnknownRun:
        """The same whether there is none or it is another tenant's. Others' ids are not told."""
        latest = list(islice(self._latest(), 3))[::-1]
        return UnknownRun(f"no run {run_id!r}; the latest are: {', '.join(latest) or 'none yet'}")

    def _latest(self) -> Iterator[str]:
        """Ids, the latest first. With a tenant, a file that cannot be read is nobody's."""
        files = [path for path in self._folder.glob("*.json") if _ID.fullmatch(path.stem) and path.is_file()]
        ids = (path.stem for path in sorted(files, key=lambda path: path.stat().st_mtime_ns, reverse=True))
        return ids if self._tenant is None else filter(self._is_ours, ids)

    def _is_ours(self, run_id: str) -> bool:
        try:
            return RunRecord.model_validate_json(self._path(run_id).read_bytes()).tenant == self._tenant
        except (OSError, ValidationError):
            return False

    def has(self, run_id: str) -> bool:
        """Whether this id is taken in the home, by whichever tenant."""
        return self._path(run_id).exists()

    def ids(self) -> list[str]:
        """The ids of the runs, oldest first."""
        return list(self._latest())[::-1]

    @contextmanager
    def begun(self, record: RunRecord) -> Generator[None]:
        """Work on a new run, as the only one who does. Raises `Mistake` if its id is taken."""
        with self._alone(record.run_id):
            if self.has(record.run_id):
                raise Mistake(f"there is a run {record.run_id!r} already: resume it, or name another id")
            yield

    @contextmanager
    def resumed(self, run_id: str) -> Generator[RunRecord]:
        """Go on with a run, as the only one who works on it. Raises `UnknownRun`, or `Mistake` if another does."""
        self.load(run_id)  # one that is not there leaves no lock behind
        with self._alone(run_id):
            yield self.load(run_id)  # as whoever had it until now left it

    @contextmanager
    def _alone(self, run_id: str) -> Generator[None]:
        try:
            self._folder.mkdir(parents=True, exist_ok=True)
            opened = self._path(run_id).with_suffix(".lock").open("w")
        except OSError as error:
            raise self._unwritable(run_id, error) from error
        with opened as lock:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                raise Mistake(f"another process is working on run {run_id!r}; wait until it is done") from None
            with Owned(lock):
                yield

    def _unwritable(self, run_id: str, error: OSError) -> StoreUnavailable:
        return StoreUnavailable(
            f"what is kept of run {run_id!r} cannot be written to {self._folder} ({error.strerror or error}): "
            "make room there, or name another home (AGENTBUDGET_HOME)",
            location=str(self._folder),
        )

    def _path(self, run_id: str) -> Path:
        if not _ID.fullmatch(run_id):
            raise Mistake(f"{run_id!r} cannot be a run's id: use letters, digits, '.', '-' and '_'")
        return self._folder / f"{run_id}.json"
