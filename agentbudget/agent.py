"""An agent: skills, a ladder of models, documents and a graph; and a run of it within a budget."""

from __future__ import annotations

import asyncio
import json
import logging
import time
from collections.abc import Callable, Coroutine, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self, TypeVar, cast

from agentbudget import telemetry
from agentbudget.cache.semantic import SemanticAnswers
from agentbudget.errors import BudgetExceeded, HoldClosed, Mistake, StoreError
from agentbudget.home import open_answers, open_folder_index, require_documents
from agentbudget.indexing import update_within
from agentbudget.ledger import LEASE_S, Ledger
from agentbudget.memory import open_memories
from agentbudget.models import machine_price, make_ladder
from agentbudget.models.ladder import Ladder
from agentbudget.money import Budget
from agentbudget.privacy import METADATA_KEY, DataClass, Label, Mark, Privacy
from agentbudget.privacy.classes import checked, claimed
from agentbudget.runs import RunRecord, Runs, check_payers, check_task, new_run_id, require_ledger
from agentbudget.settings import Settings
from agentbudget.skills import Skill
from agentbudget.statement import Statement
from agentbudget.step import Context, Engine, Event, Scope
from agentbudget.step.engine import nobody
from agentbudget.tenants import DEFAULT_TENANT

if TYPE_CHECKING:
    from langchain_core.language_models import BaseChatModel
    from langgraph.graph import StateGraph

    from agentbudget.context import Embedder, Index, IndexReport
    from agentbudget.context.report import OnProgress
    from agentbudget.models.base import Model

T = TypeVar("T")

Listener = Callable[[Event], None]

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Run:
    """One task, carried out: its output, where that stands in the documents, and what it cost."""

    run_id: str
    task: str
    output: Any
    citations: tuple[dict[str, Any], ...]
    statement: Statement
    index_report: IndexReport | None = field(default=None, repr=False)

    def to_dict(self) -> dict[str, Any]:
        """The run as JSON-ready data."""
        return {
            "run_id": self.run_id,
            "task": self.task,
            "output": self.output,
            "citations": list(self.citations),
            "statement": self.statement.to_dict(),
        }

    def _repr_html_(self) -> str:
        return self.statement._repr_html_()  # pyright: ignore[reportPrivateUsage]


class Agent:
    """Skills that models carry out within a budget.

    ``models`` is the ladder, cheapest first, by name, as `Model`s or as LangChain's chat models; without it the
    environment decides.
    ``index`` is a folder of documents (indexed before the run, only what changed) or an open `Index`; ``embedder`` is
    what a folder is embedded with, if not the model of this machine: ``"openai:text-embedding-3-small"``.
    ``graph`` is a LangGraph ``StateGraph`` with ``context_schema=Context`` that takes ``task`` and gives
    ``output``, without a pause (``interrupt``); without it the strongest model plans calls of ``skills``. ``home`` is
    where ledger, cache, checkpoints and indexes live; ``share_answers=False`` lets runs reuse only answers of their
    own. ``privacy`` are the rules of what may go where. An agent works for one ``tenant``: runs, answers and documents
    of others in the same home are not there for it.

    An agent holds models and files open: use it as ``async with``, or call `aclose`.
    """

    def __init__(
        self,
        skills: Sequence[Skill[..., Any]] = (),
        *,
        models: Sequence[str | Model | BaseChatModel] | None = None,
        index: str | Path | Index | None = None,
        embedder: str | Embedder | None = None,
        graph: StateGraph[Any, Any, Any, Any] | None = None,
        name: str = "agent",
        home: str | Path | None = None,
        share_answers: bool = True,
        max_concurrency: int | None = 8,
        settings: Settings | None = None,
        privacy: Privacy | None = None,
        tenant: str = DEFAULT_TENANT,
    ) -> None:
        if not tenant.strip():
            raise Mistake("an agent's tenant must have a name; leave it out if there is only one")
        self.skills = _checked_skills(skills)
        _check_parts(models, graph)
        self.name = name
        self.settings = settings or Settings.from_env()
        if home is not None:
            self.settings = self.settings.at(Path(home))
        self._models = models
        self._index = index
        self._embedder = embedder
        self._graph = graph
        self._share_answers = share_answers
        self._max_concurrency = max_concurrency
        self.privacy = privacy or Privacy()
        self.tenant = tenant
        self._engine: Engine | None = None
        self._opened: Index | None = None
        self._updated: IndexReport | None = None
        self._opening = asyncio.Lock()
        self._left_open: set[str] = set()
        """Runs that ended while their ledger was away: what they had set aside is freed with the next one."""
        self.runs = Runs(self.settings.runs_dir, tenant=tenant)

    @property
    def _documents(self) -> str | None:
        return str(Path(self._index).resolve()) if isinstance(self._index, str | Path) else None

    @property
    def _ledger_apart(self) -> str | None:
        """Where the ledger is, if it is not the home's own."""
        return None if self.settings.ledger is None else self.ledger.location

    # --- life

    @property
    def engine(self) -> Engine:
        """Ledger, ladder and cache, opened when first needed."""
        if self._engine is None:
            telemetry.setup()
            answers = open_answers(self.settings)
            self._engine = Engine(
                ledger=Ledger.open(self.settings.ledger_location),
                ladder=make_ladder(self._models, self.settings),
                answers=answers,
                similar=SemanticAnswers(self.settings.semantic_path, answers),
                machine=machine_price(self.settings),
                memories=open_memories(self.settings.memories_location, embedder=self._embedder),
                share_answers=self._share_answers,
                privacy=self.privacy,
            )
            self.privacy.check_names(self._engine.ladder.names)
        return self._engine

    @property
    def ladder(self) -> Ladder:
        """The models, cheapest first."""
        return self.engine.ladder

    @property
    def ledger(self) -> Ledger:
        """The ledger that this agent's runs are booked in."""
        return self.engine.ledger

    async def aclose(self) -> None:
        """Free models, index and files. A later run opens them again."""
        engine, self._engine = self._engine, None
        opened, self._opened, self._updated = self._opened, None, None
        self._opening = asyncio.Lock()
        if opened is not None:
            await opened.aclose()
        if engine is not None:
            await engine.ladder.aclose()
            if engine.similar is not None:
                engine.similar.close()
            if engine.memories is not None:
                await engine.memories.aclose()
            engine.answers.close()
            engine.ledger.close()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.aclose()

    def found_wrong(self, hit: int) -> None:
        """Say that an answer given to a similar question was wrong: it is not given again.

        The number of the `hit` stands in the run's statement. Raises `UnknownHit`.
        """
        assert self.engine.similar is not None, "an agent's engine has one"
        self.engine.similar.found_wrong(hit)

    # --- runs

    async def run(
        self,
        task: str,
        *,
        budget: Budget,
        user: str | None = None,
        feature: str | None = None,
        run_id: str | None = None,
        data_class: DataClass | None = None,
        listener: Listener | None = None,
        on_index: OnProgress | None = None,
    ) -> Run:
        """Carry out `task` within `budget`. ``user`` and ``feature`` are accounts that pay along.

        ``data_class`` is that of the task itself (None: what the agent's privacy says of tasks).
        Raises `BudgetExceeded` when a step does not fit what is left (nothing is sent for it), `DataRefused` when no
        model may see what a step would send, and what models and stores raise; what was spent until then is booked:
        see `statement`.
        """
        check_task(task)
        check_payers(user=user, feature=feature)
        record = RunRecord(
            run_id=run_id or new_run_id(),
            task=task,
            agent=self.name,
            user=user,
            feature=feature,
            docs=self._documents,
            ladder=list(self.ladder.names),
            ledger=self._ledger_apart,
            tenant=self.tenant,
            data_class=checked(self.privacy.task if data_class is None else data_class, argument="data_class"),
            started_ns=time.time_ns(),
        )
        record.limit(budget)
        await self.check_documents()
        with self.runs.begun(record):
            return await self._carry_out(record, listener, on_index)

    async def check_documents(self) -> None:
        """Raise `DocumentsError` if the documents folder is missing or has nothing to read. Nothing is spent."""
        if self._documents is not None:
            await asyncio.to_thread(require_documents, self._documents)

    def run_sync(self, task: str, *, budget: Budget, user: str | None = None, feature: str | None = None) -> Run:
        """`run`, for code that is not async. Closes the agent afterwards: its models belong to that event loop.

        Raises `Mistake` where an event loop runs already, as in a notebook.
        """

        async def once() -> Run:
            async with self:
                return await self.run(task, budget=budget, user=user, feature=feature)

        return run_blocking(once, instead="await agent.run(…)")

    async def resume(
        self,
        run_id: str,
        *,
        budget: Budget | None = None,
        listener: Listener | None = None,
        on_index: OnProgress | None = None,
    ) -> Run:
        """Go on with a run that was cut short: finished nodes stay, and what was paid for is not bought again.

        ``budget`` becomes the run's limit, what it has spent included; None leaves it as it was.
        """
        await self.check_documents()
        with self.runs.resumed(run_id) as record:
            require_ledger(record, self._ledger_apart)
            if budget is not None:
                record.limit(budget)
            return await self._carry_out(record, listener, on_index)

    def statement(self, run_id: str) -> Statement:
        """What a run cost until now."""
        record = self.runs.load(run_id)
        require_ledger(record, self._ledger_apart)
        return self._statement(record)

    def _statement(self, record: RunRecord) -> Statement:
        return Statement.of(
            self.ledger,
            record.run_id,
            task=record.task,
            user=record.user,
            ladder=tuple(record.ladder),
            status=record.status,
        )

    async def _carry_out(self, record: RunRecord, listener: Listener | None, on_index: OnProgress | None) -> Run:
        """Go on with a run that nobody else works on."""
        engine = self.engine
        engine.ledger.sweep()  # the run may have broken off in a process that died after we opened the ledger
        for run_id in self._left_open | {record.run_id}:  # or where its ledger could not be written
            _close_open_steps(engine.ledger, run_id)
            self._left_open.discard(run_id)
        finished = record.status == "done"
        record.status, record.error, record.ended_ns = "running", None, None
        self.runs.save(record)
        mark = Mark(_carried(engine.ledger, record))
        scope = Scope(record.run_id, record.user, record.feature, self.tenant, age_from_ns=record.started_ns, mark=mark)
        beat = asyncio.create_task(heartbeats(engine.ledger))
        try:
            engine.ledger.account(f"run/{record.run_id}", limit=record.budget)
            engine.open_accounts(scope.accounts())
            if not finished:
                engine.renew_landings(record.run_id)
            state = await self._traced(record, Context(engine, scope, listener=listener or nobody), on_index)
        except BaseException as error:
            _note_failure(record, error)
            raise
        else:
            record.status = "done"
            record.output = _jsonable(state.get("output"))
            record.citations = _jsonable(list(state.get("citations") or []))
        finally:
            beat.cancel()
            record.ended_ns = time.time_ns()
            self._leave(record)
        return Run(
            run_id=record.run_id,
            task=record.task,
            output=record.output,
            citations=tuple(record.citations),
            statement=self._statement(record),
            index_report=self._updated,
        )

    def _leave(self, record: RunRecord) -> None:
        """Free what a run had set aside, and note how it ended. Where that fails, its answer is not lost with it."""
        for act in (partial(_close_open_steps, self.ledger, record.run_id), partial(self.runs.save, record)):
            try:
                act()
            except StoreError as error:
                self._left_open.add(record.run_id)
                _log.warning("not all is noted of how run %s ended (%s): %s", record.run_id, record.status, error)

    async def _traced(self, record: RunRecord, ctx: Context, on_index: OnProgress | None) -> dict[str, Any]:
        with telemetry.run(record.run_id, agent=self.name, user=record.user, budget=record.budget) as span:
            status = "failed"
            try:
                async with self._opening:
                    await self._open_index(ctx.scope, on_index)
                state = await self._execute(ctx, record.task)
                status = "done"
                return state
            finally:
                account = self.engine.ledger.balance(f"run/{record.run_id}")
                span.finished(status=status, settled=account.posted, remaining=account.available)

    async def _execute(self, ctx: Context, task: str) -> dict[str, Any]:
        from agentbudget import graph  # langgraph takes 1.3 s to import: only a run needs it

        ctx.engine.position = graph.position
        chosen = self._graph or graph.planner_executor(self.skills)
        async with graph.checkpoints(self.settings.checkpoints_path) as saver:
            return await graph.execute(chosen, ctx, saver, task=task, max_concurrency=self._max_concurrency)

    # --- documents

    async def _open_index(self, scope: Scope, on_index: OnProgress | None) -> None:
        """Open the documents' index and bring it up to date, once while this agent is open."""
        if self._index is None or self._opened is not None:
            return
        if not isinstance(self._index, str | Path):
            self.engine.index = self._index
            return
        folder = Path(self._index)
        index = open_folder_index(
            self.settings, folder, embedder=self._kept_embedder(), privacy=self.privacy, tenant=self.tenant
        )
        try:
            self._updated = await update_within(
                index,
                folder,
                ledger=self.engine.ledger,
                accounts=scope.accounts(),
                base=scope.run_id,
                machine=self.engine.machine,
                progress=on_index,
            )
        except BaseException:
            await index.aclose()
            raise
        self._opened = self.engine.index = index
        self.engine.documents = folder.name or "documents"

    def _kept_embedder(self) -> str | Embedder | None:
        """What documents are embedded with; a hosted model is asked for no text twice, unless runs share nothing."""
        if self._embedder is None or not self._share_answers:
            return self._embedder
        from agentbudget.cache.vectors import KeptEmbedder
        from agentbudget.context import HostedEmbedder, make_embedder

        known = make_embedder(self._embedder) if isinstance(self._embedder, str) else self._embedder
        if not isinstance(known, HostedEmbedder):
            return known
        return KeptEmbedder(known, self.engine.answers.store, tenant=self.tenant)


def _checked_skills(skills: Sequence[Skill[..., Any]]) -> tuple[Skill[..., Any], ...]:
    """Skills as a tuple. Raises `Mistake` for a lone one, and for functions that are none yet."""
    if isinstance(skills, Skill):
        raise Mistake(f"an agent takes a list of skills: write Agent([{skills.name}])")
    for one in skills:
        if not isinstance(one, Skill):
            raise Mistake(f"{getattr(one, '__name__', one)!r} is no skill: write @skill above its async def")
    return tuple(skills)


def _check_parts(models: object, graph: object) -> None:
    """Raise `Mistake` for a ladder that is one name, and for a graph that was compiled; warn of one that is mute."""
    if isinstance(models, str):
        raise Mistake(f"a ladder is a list of models, cheapest first: write models=[{models!r}]")
    if graph is not None and not hasattr(graph, "compile"):
        raise Mistake(
            "an agent compiles its graph itself, with its checkpoints: give it the StateGraph without .compile()"
        )
    if graph is not None and not {"output", "__root__"} & getattr(graph, "channels", {"output": None}).keys():
        _log.warning(
            "the graph's state has no 'output', so that runs will have none: give it one, and let a node write it, "
            "as skill.node(output='output') does"
        )


def run_blocking(work: Callable[[], Coroutine[Any, Any, T]], *, instead: str) -> T:
    """Carry out `work` in an event loop of its own. Raises `Mistake`, which names `instead`, where one runs already."""
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return asyncio.run(work())
    raise Mistake(f"an event loop is running here, as in a notebook or an async function: write `{instead}` instead")


def _carried(ledger: Ledger, record: RunRecord) -> Label:
    """What a run carries when it begins; one that goes on, what it had seen when it broke off."""
    label = Label(checked(record.data_class, argument="data_class"), ("task",))
    for hold in ledger.holds(prefix=f"{record.run_id}/"):
        for told in (hold.meta, hold.detail):
            if (said := told.get(METADATA_KEY)) is not None:
                named = cast("Sequence[object]", told.get("sources") or ())
                label = label.joined(Label(claimed(said), tuple(map(str, named))))
    return label


async def heartbeats(ledger: Ledger, *, every_s: float = LEASE_S / 3) -> None:
    """Keep this process's holds alive. A store that is busy for once is tried again before any lease runs out."""
    while True:
        await asyncio.sleep(every_s)
        try:
            await asyncio.to_thread(ledger.heartbeat)
        except StoreError as error:
            _log.warning("the leases of what is held could not be renewed: %s", error)


def _jsonable(value: Any) -> Any:
    """What a run gave, as data that its file can hold: what has no JSON form is told as Python tells it."""
    from pydantic_core import to_jsonable_python

    data = to_jsonable_python(value, fallback=repr, bytes_mode="base64", inf_nan_mode="strings")
    return json.loads(json.dumps(data).encode("utf-8", "replace").decode())


def _close_open_steps(ledger: Ledger, run_id: str) -> None:
    """Free what was set aside and not used, and resolve what was left open.

    What others hold is theirs: another host may work on a run that it gave the same id in the same ledger.
    """
    for record in ledger.holds(prefix=f"{run_id}/", state="open"):
        current = ledger.hold(record.id)
        if current is None or current.owner != ledger.owner:
            continue
        if current.state == "open" and current.parent is None:
            if current.sent or current.spent or current.reserved:
                ledger.settle(current.id, detail={"status": "cancelled"})
            else:
                with suppress(HoldClosed):  # by an end that its store had not taken then
                    ledger.void(current.id, reason="set aside and not needed")


def _note_failure(record: RunRecord, error: BaseException) -> None:
    record.error = f"{type(error).__name__}: {error}" if str(error) else type(error).__name__
    if isinstance(error, BudgetExceeded):
        record.status = "over budget"
    elif isinstance(error, asyncio.CancelledError | KeyboardInterrupt):
        record.status = "cancelled"
    else:
        record.status = "failed"
