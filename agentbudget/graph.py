"""LangGraph, and the only place in the package that imports it: where a step stands, and the default graph."""

from __future__ import annotations

import asyncio
import logging
import sqlite3
from collections.abc import AsyncGenerator, Collection, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager, closing, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final, Literal, TypedDict, Union, cast

from langgraph.checkpoint.sqlite.aio import AsyncSqliteSaver
from langgraph.config import get_config
from langgraph.graph import END, START, StateGraph
from langgraph.pregel import Pregel
from langgraph.runtime import Runtime
from langgraph.types import Interrupt
from pydantic import Field, ValidationError, create_model

from agentbudget.busy import use_wal
from agentbudget.cache import Exact
from agentbudget.errors import Mistake, SkillError, StoreUnavailable
from agentbudget.skills import Skill
from agentbudget.step import Context
from agentbudget.step.identity import digest

if TYPE_CHECKING:
    from langchain_core.runnables import RunnableConfig
    from langgraph.checkpoint.base import ChannelVersions, Checkpoint, CheckpointMetadata, CheckpointTuple
    from langgraph.graph.state import CompiledStateGraph

_log = logging.getLogger(__name__)

PLAN_LIMIT: Final = 5
"""Skill calls in a plan, at most."""

MAKING_S: Final = 5.0
"""How long others may take who make the file of checkpoints at the same moment."""


class TaskState(TypedDict, total=False):
    """What every graph of an `Agent` takes and gives: a task in, an output and its citations out."""

    task: str
    output: Any
    citations: list[dict[str, Any]]


def position() -> str:
    """Where in the graph the caller stands: node, superstep and path, the same again when a run resumes.

    In a graph within the graph also which task it is of the graph around it: a branch, a turn of a loop. The node's own
    task id is left out: after a crash LangGraph may give a new one.
    """
    try:
        metadata = get_config().get("metadata", {})
    except RuntimeError:
        return ""
    if "langgraph_node" not in metadata:
        return ""
    path = ".".join(
        str(part) for part in metadata.get("langgraph_path", ()) if isinstance(part, int) and not isinstance(part, bool)
    )
    *around, node = str(metadata.get("langgraph_checkpoint_ns", "")).split("|")
    names = [*map(_within, around), node.partition(":")[0]]
    return f"{'|'.join(names)}@{metadata['langgraph_step']}" + (f".{path}" if path else "")


def _within(task: str) -> str:
    """A task of a graph around, by its name and what tells it from others of that name."""
    name, _, task_id = task.partition(":")
    return f"{name}.{digest(task_id)}" if task_id else name


class Checkpoints(AsyncSqliteSaver):
    """LangGraph's checkpoints in the file at ``path``.

    One that cannot be written costs a run that is resumed the way back to it, not what was paid for: the run goes on.
    Only the first has to be there, before which nothing was paid for. Raises `StoreUnavailable`.
    """

    path = ""
    graphs: Mapping[str, Pregel[Any, Any, Any, Any]] = {}
    """Those that go on from here, by where they are within each other."""

    async def aget_tuple(self, config: RunnableConfig) -> CheckpointTuple | None:
        """The run's last checkpoint. Raises `Mistake` if it is about to go on at a node that its graph has no more."""
        try:
            found = await super().aget_tuple(config)
        except (sqlite3.Error, ValueError) as error:
            raise _unusable(self.path, error) from error
        if found is not None:
            place = found.config.get("configurable", {})
            names = [task.partition(":")[0] for task in place["checkpoint_ns"].split("|")]
            if (graph := self.graphs.get("|".join(names))) is not None:
                _require_next(graph, found.checkpoint["channel_values"], run_id=place["thread_id"])
        return found

    async def aput(
        self,
        config: RunnableConfig,
        checkpoint: Checkpoint,
        metadata: CheckpointMetadata,
        new_versions: ChannelVersions,
    ) -> RunnableConfig:
        """Keep a checkpoint."""
        try:
            return await super().aput(config, checkpoint, metadata, new_versions)
        except sqlite3.Error as error:
            place = config.get("configurable", {})
            if place.get("checkpoint_id") is None and not place["checkpoint_ns"]:
                raise _unusable(self.path, error) from error
            await self._left_out(error)
            return {"configurable": {**place, "checkpoint_id": checkpoint["id"]}}

    async def aput_writes(
        self, config: RunnableConfig, writes: Sequence[tuple[str, Any]], task_id: str, task_path: str = ""
    ) -> None:
        """Keep what a node gave before the next checkpoint."""
        try:
            await super().aput_writes(config, writes, task_id, task_path)
        except sqlite3.Error as error:
            await self._left_out(error)

    async def _left_out(self, error: sqlite3.Error) -> None:
        async with self.lock:
            with suppress(sqlite3.Error):  # a full disk has already rolled back
                await self.conn.rollback()
        _log.warning(
            "a checkpoint cannot be kept in %s: %s; the run goes on, and would resume from an earlier one",
            self.path,
            error,
        )


def _graphs_in(graph: Pregel[Any, Any, Any, Any], within: str = "") -> Iterator[tuple[str, Pregel[Any, Any, Any, Any]]]:
    """A graph, and those that are nodes of it."""
    yield within, graph
    for name, node in graph.nodes.items():
        if isinstance(node.bound, Pregel):
            inner = cast(Pregel[Any, Any, Any, Any], node.bound)
            yield from _graphs_in(inner, f"{within}|{name}".lstrip("|"))


def _require_next(graph: Pregel[Any, Any, Any, Any], waiting: Mapping[str, Any], *, run_id: str) -> None:
    """Raise `Mistake` unless the graph has what is next: LangGraph passes over what it does not know, and ends."""
    sent = {send.node for send in waiting.get("__pregel_tasks", ())}
    due = {name for name in waiting if name.startswith("branch:to:")}
    joins = {name: _arrived(value) for name, value in waiting.items() if name.startswith("join:")}
    due |= {name for name, arrived in joins.items() if len("+".join(arrived)) == len(name.split(":")[1])}
    if sent or due:  # else the run has ended, though a join may have seen some of its nodes
        due |= {name for name, arrived in joins.items() if arrived}
    gone = sent - graph.nodes.keys() | {name.rpartition(":")[2] for name in due - graph.channels.keys()}
    if gone:
        missing = ", ".join(map(repr, sorted(gone)))
        raise Mistake(
            f"run {run_id!r} was to go on at {missing}, which its graph has no more, or reaches by another way: resume "
            "it with the graph that it began with, or begin a new run"
        )


def _arrived(join: set[str] | Sequence[Any]) -> Collection[str]:
    """Which nodes a join has seen; one of a deferred node also keeps whether that may begin."""
    return cast("set[str]", join if isinstance(join, set) else join[0])


@asynccontextmanager
async def checkpoints(path: Path) -> AsyncGenerator[Checkpoints]:
    """The file of checkpoints, which any number of runs may make and use at once. Raises `StoreUnavailable`."""
    try:
        await asyncio.to_thread(_made, path)
    except (OSError, sqlite3.Error) as error:
        raise _unusable(path, error) from error
    async with Checkpoints.from_conn_string(str(path)) as saver:
        assert isinstance(saver, Checkpoints)
        saver.path = str(path)
        yield saver


def _unusable(path: str | Path, error: Exception) -> StoreUnavailable:
    return StoreUnavailable(
        f"the checkpoints {path} cannot be used: {error}; make room on their disk, or move a damaged file away",
        location=str(path),
    )


def _made(path: Path) -> None:
    """Make the file as the saver wants it: the saver does not wait for others who do so at the same moment."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with closing(sqlite3.connect(path)) as db:
        use_wal(db, timeout_s=MAKING_S)


async def execute(
    graph: StateGraph[Any, Any, Any, Any],
    ctx: Context,
    saver: Checkpoints,
    *,
    task: str,
    max_concurrency: int | None,
) -> dict[str, Any]:
    """Run `graph` on `task`, or go on from its last checkpoint. Each step is on disk before the next begins.

    Raises `Mistake` where the graph pauses to ask somebody: it has not ended, and nobody can answer it.
    """
    compiled: CompiledStateGraph[Any, Any, Any, Any] = graph.compile(checkpointer=saver)
    config: RunnableConfig = {"configurable": {"thread_id": ctx.run_id}}
    if max_concurrency is not None:
        config["max_concurrency"] = max_concurrency
    saver.graphs = dict(_graphs_in(compiled))
    begun = (await saver.aget_tuple(config)) is not None
    state = await compiled.ainvoke(None if begun else {"task": task}, config, context=ctx, durability="sync")
    if paused := cast(Sequence[Interrupt], state.get("__interrupt__", ())):
        asked = ", ".join(repr(each.value) for each in paused)
        raise Mistake(
            f"the graph paused at interrupt({asked}), and nobody can answer it in a run of an agent: let it end there, "
            "with the question as its output, and give the answer with the next task"
        )
    return cast(dict[str, Any], state)


# --- the default graph: plan which skills to call, then call them


class PlanState(TaskState, total=False):
    """The default graph's state: the planned calls, and what they gave."""

    calls: list[dict[str, Any]]
    results: list[Any]


def planner_executor(skills: Sequence[Skill[..., Any]]) -> StateGraph[PlanState, Context, PlanState, PlanState]:
    """A graph in which the strongest model plans calls of `skills`; each call is a step. One skill needs no plan."""
    if not skills:
        raise SkillError("an agent needs at least one skill, or a graph")
    by_name = {skill.name: skill for skill in skills}
    if len(by_name) < len(skills):
        names = [skill.name for skill in skills]
        twice = next(name for name in names if names.count(name) > 1)
        raise SkillError(f"two skills are called {twice!r}, and a plan calls them by name: rename one")

    async def plan(state: PlanState, runtime: Runtime[Context]) -> PlanState:
        task = state.get("task", "")
        if len(skills) == 1:
            return {"calls": [{"skill": skills[0].name, "arguments": _sole_argument(skills[0], task)}]}
        planner = _planner(skills)
        calls = await runtime.context.call(planner, {"task": task})
        return {"calls": [call.model_dump(mode="json") for call in calls]}

    async def work(state: PlanState, runtime: Runtime[Context]) -> PlanState:
        results: list[Any] = []
        for number, call in enumerate(state.get("calls", [])):
            chosen = by_name[call["skill"]]
            given = chosen.arguments_model.model_validate(call["arguments"])
            arguments = {name: getattr(given, name) for name in chosen.signature.parameters}
            value = await runtime.context.call(chosen, arguments, key=str(number))
            results.append(chosen.output.dump(value))
        return {"results": results, "output": results[-1] if results else None}

    graph: StateGraph[PlanState, Context, PlanState, PlanState] = StateGraph(PlanState, context_schema=Context)
    graph.add_node("plan", plan)
    graph.add_node("work", work)
    graph.add_edge(START, "plan")
    graph.add_edge("plan", "work")
    graph.add_edge("work", END)
    return graph


def _sole_argument(skill: Skill[..., Any], task: str) -> dict[str, Any]:
    required = [n for n, p in skill.signature.parameters.items() if p.default is p.empty]
    if len(required) != 1:
        raise SkillError(
            f"an agent of the one skill {skill.name!r} gives it the task as its only required argument; it has "
            f"{len(required)}: give the agent a graph"
        )
    arguments = {required[0]: task}
    try:
        skill.arguments_model.model_validate(arguments)
    except ValidationError:
        raise SkillError(
            f"an agent of the one skill {skill.name!r} gives it the task, which is text, as {required[0]!r}, whose "
            "type takes no such text: give the agent a graph, or a skill with a body that calls this one"
        ) from None
    return arguments


def _planner(skills: Sequence[Skill[..., Any]]) -> Skill[..., Any]:
    """A skill whose output type is: a list of calls of `skills`, each with arguments of the right types."""
    variants = [
        create_model(skill.name, skill=(cast(Any, Literal[skill.name]), ...), arguments=(skill.arguments_model, ...))
        for skill in skills
    ]

    async def plan(ctx: Context, task: str) -> Any: ...

    offered = "\n".join(f"- {s.name}({', '.join(s.signature.parameters)}): {s.prompt}" for s in skills)
    plan.__doc__ = (
        "Plan how to do the task with these skills, in as few calls as possible, each at most once. "
        f"The last call gives the answer.\n\n{offered}"
    )
    plan.__annotations__["return"] = Annotated[
        list[Union[tuple(variants)]],  # noqa: UP007 # a union of types that exist only now
        Field(min_length=1, max_length=PLAN_LIMIT),
    ]
    return Skill(plan, tier="frontier", max_output_tokens=400, cache=Exact(kind="plan"))
