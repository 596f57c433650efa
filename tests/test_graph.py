"""Skills in graphs of all shapes: where a step stands, and what a graph may not do."""

from __future__ import annotations

import asyncio
import operator
import sqlite3
from contextlib import closing
from dataclasses import dataclass
from typing import Annotated, Any, TypedDict

import pytest
from langgraph.graph import END, START, StateGraph
from langgraph.runtime import Runtime
from langgraph.types import Send, interrupt
from pydantic import BaseModel

from agentbudget import Agent, Budget, Context, Mistake, skill
from agentbudget.errors import StoreUnavailable
from agentbudget.models.base import Request
from agentbudget.testing import ScriptedModel


@skill(max_output_tokens=8)
async def guess(ctx: Context, message: str) -> str:
    """Guess what comes next."""
    ...


class State(TypedDict, total=False):
    task: str
    message: str
    said: Annotated[list[str], operator.add]
    output: str


class Branch(TypedDict, total=False):
    message: str
    said: Annotated[list[str], operator.add]


class Said(TypedDict):
    said: list[str]


def fanned_out(node: Any, messages: str) -> StateGraph[State, Context, State, State]:
    """A graph that sends each letter of `messages` to a graph of its own, all at once."""
    branch: StateGraph[Branch, Context, Branch, Said] = StateGraph(Branch, Context, output_schema=Said)
    branch.add_node("node", node)
    branch.add_edge(START, "node")
    branch.add_edge("node", END)

    async def begin(state: State) -> State:
        return {}

    async def end(state: State) -> State:
        return {"output": " ".join(state.get("said", []))}

    def each(state: State) -> list[Send]:
        return [Send("branch", {"message": message}) for message in messages]

    graph: StateGraph[State, Context, State, State] = StateGraph(State, Context)
    graph.add_node("begin", begin)
    graph.add_node("branch", branch.compile())
    graph.add_node("end", end)
    graph.add_edge(START, "begin")
    graph.add_conditional_edges("begin", each, ["branch"])
    graph.add_edge("branch", "end")
    graph.add_edge("end", END)
    return graph


async def test_branches_that_are_graphs_set_aside_for_themselves() -> None:
    tickets: set[str] = set()
    all_set = asyncio.Barrier(3)

    async def land(state: Branch, runtime: Runtime[Context]) -> Branch:
        ctx = runtime.context
        ticket = await ctx.set_aside(guess, input_tokens=50)
        tickets.add(ticket)
        await asyncio.wait_for(all_set.wait(), 60)
        return {"said": [await guess(ctx.landing(ticket), message=state.get("message", ""))]}

    async with Agent(graph=fanned_out(land, "abc"), models=[ScriptedModel(lambda _: "so")]) as agent:
        run = await agent.run("what next?", budget=Budget(calls=3))
        assert agent.ledger.verify().ok
    assert len(tickets) == 3
    assert run.output == "so so so"


async def test_branches_that_are_graphs_are_answered_each_for_itself() -> None:
    """As branches that are nodes are, where nothing is to be reused."""

    async def ask(state: Branch, runtime: Runtime[Context]) -> Branch:
        return {"said": [await guess(runtime.context, message=state.get("message", ""))]}

    asked: list[Request] = []

    def count(request: Request) -> str:
        asked.append(request)
        return str(len(asked))

    async with Agent(graph=fanned_out(ask, "aa"), models=[ScriptedModel(count)], share_answers=False) as agent:
        run = await agent.run("what next?", budget=Budget(usd="0.01"), run_id="both")
        assert run.output == "1 2"
        await agent.resume("both")
    assert len(asked) == 2


async def test_a_graph_within_a_graph_that_is_resumed_finds_what_it_paid_for() -> None:
    asked: list[Request] = []
    broken = [True]

    def count(request: Request) -> str:
        asked.append(request)
        return "so"

    async def ask(state: Branch, runtime: Runtime[Context]) -> Branch:
        said = await guess(runtime.context, message=state.get("message", ""))
        if broken:
            raise ValueError(broken.pop())
        return {"said": [said]}

    async with Agent(graph=fanned_out(ask, "a"), models=[ScriptedModel(count)], share_answers=False) as agent:
        with pytest.raises(ValueError, match="True"):
            await agent.run("what next?", budget=Budget(usd="0.01"), run_id="broken")
        run = await agent.resume("broken")
    assert run.output == "so"
    assert len(asked) == 1


def in_a_row(first: str, second: str) -> StateGraph[State, Context, State, State]:
    """A graph whose second node, of this name, gives the output."""

    async def ask(state: State, runtime: Runtime[Context]) -> State:
        return {"message": await guess(runtime.context, message=first)}

    async def end(state: State) -> State:
        if second == "broken":
            raise ValueError("not today")
        return {"output": state.get("message", "")}

    graph: StateGraph[State, Context, State, State] = StateGraph(State, Context)
    graph.add_node(first, ask)
    graph.add_node(second, end)
    graph.add_edge(START, first)
    graph.add_edge(first, second)
    graph.add_edge(second, END)
    return graph


def around(inner: StateGraph[State, Context, State, State]) -> StateGraph[State, Context, State, State]:
    """A graph with another as its only node."""
    graph: StateGraph[State, Context, State, State] = StateGraph(State, Context)
    graph.add_node("inner", inner.compile())
    graph.add_edge(START, "inner")
    graph.add_edge("inner", END)
    return graph


def sending(node: str) -> StateGraph[State, Context, State, State]:
    """A graph that sends to a node of this name."""

    async def end(state: State) -> State:
        if node == "broken":
            raise ValueError("not today")
        return {"output": "sent"}

    def each(state: State) -> list[Send]:
        return [Send(node, state)]

    graph: StateGraph[State, Context, State, State] = StateGraph(State, Context)
    graph.add_node(node, end)
    graph.add_conditional_edges(START, each, [node])
    return graph


def joined(
    node: str, *, begins: tuple[str, ...] = ("left", "right"), defer: bool = False
) -> StateGraph[State, Context, State, State]:
    """A graph whose node of this name waits for two others, of which it begins these."""

    async def begin(state: State) -> State:
        return {"said": ["so"]}

    async def end(state: State) -> State:
        if node == "broken":
            raise ValueError("not today")
        return {"said": ["joined"]}

    graph: StateGraph[State, Context, State, State] = StateGraph(State, Context)
    for name in ("left", "right"):
        graph.add_node(name, begin)
    graph.add_node(node, end, defer=defer)
    for name in begins:
        graph.add_edge(START, name)
    graph.add_edge(["left", "right"], node)
    return graph


@pytest.mark.parametrize(
    ("begun", "changed"),
    [
        (in_a_row("first", "broken"), in_a_row("first", "mended")),
        (around(in_a_row("first", "broken")), around(in_a_row("first", "mended"))),
        (sending("broken"), sending("mended")),
        (joined("broken"), joined("mended")),
        (joined("broken", defer=True), joined("mended", defer=True)),
    ],
    ids=["next", "within", "sent", "joined", "deferred"],
)
async def test_a_run_whose_next_node_is_gone_from_its_graph_is_not_taken_for_done(
    begun: StateGraph[State, Context, State, State], changed: StateGraph[State, Context, State, State]
) -> None:
    async with Agent(graph=begun, models=[ScriptedModel(lambda _: "so")]) as agent:
        with pytest.raises(ValueError, match="not today"):
            await agent.run("what next?", budget=Budget(usd="0.01"), run_id="moved")
    async with Agent(graph=changed, models=[ScriptedModel([])]) as agent:
        with pytest.raises(Mistake, match="run 'moved' was to go on at 'broken', which its graph has no more"):
            await agent.resume("moved")
        assert agent.runs.load("moved").status == "failed"


async def test_a_run_goes_on_in_a_graph_that_has_changed_elsewhere() -> None:
    models = [ScriptedModel(["so"])]
    async with Agent(graph=in_a_row("first", "broken"), models=models) as agent:
        with pytest.raises(ValueError, match="not today"):
            await agent.run("what next?", budget=Budget(usd="0.01"), run_id="kept")

    async def end(state: State) -> State:
        return {"output": state.get("message", "")}

    changed = in_a_row("earlier", "other")
    changed.add_node("broken", end)
    async with Agent(graph=changed, models=models) as agent:
        assert (await agent.resume("kept")).output == "so"


@pytest.mark.parametrize(
    "begun", [joined("end", defer=True), joined("end", begins=("left",))], ids=["past it", "never got there"]
)
async def test_a_run_that_has_ended_is_done_though_a_join_is_gone_from_its_graph(
    begun: StateGraph[State, Context, State, State],
) -> None:
    async with Agent(graph=begun, models=[ScriptedModel([])]) as agent:
        await agent.run("what next?", budget=Budget(usd="0.01"), run_id="ended")
    async with Agent(graph=in_a_row("first", "second"), models=[ScriptedModel([])]) as agent:
        assert (await agent.resume("ended")).statement.status == "done"


async def test_a_graph_that_pauses_is_refused_and_not_taken_for_done() -> None:
    async def ask(state: State, runtime: Runtime[Context]) -> State:
        said = await guess(runtime.context, message="is it?")
        return {"output": f"{said} {interrupt('may I?')}"}

    graph: StateGraph[State, Context, State, State] = StateGraph(State, Context)
    graph.add_node("ask", ask)
    graph.add_edge(START, "ask")
    model = ScriptedModel(["so"])
    async with Agent(graph=graph, models=[model]) as agent:
        with pytest.raises(Mistake, match=r"paused at interrupt\('may I\?'\)"):
            await agent.run("what next?", budget=Budget(usd="0.01"), run_id="pauses")
        assert agent.runs.load("pauses").status == "failed"
        with pytest.raises(Mistake, match="paused"):
            await agent.resume("pauses")
        assert agent.ledger.balance("run/pauses").held.usd_nano == 0
    assert len(model.requests) == 1


def asks_sqlite(node: Any) -> StateGraph[State, Context, State, State]:
    graph: StateGraph[State, Context, State, State] = StateGraph(State, Context)
    graph.add_node("node", node)
    graph.add_edge(START, "node")
    return graph


async def test_an_error_of_a_nodes_own_database_is_not_one_of_the_checkpoints() -> None:
    async def look_up(state: State) -> State:
        with closing(sqlite3.connect(":memory:")) as orders:
            orders.execute("SELECT * FROM orders")
        return {}

    async with Agent(graph=asks_sqlite(look_up), models=[ScriptedModel([])]) as agent:
        with pytest.raises(sqlite3.OperationalError, match="no such table: orders"):
            await agent.run("what next?", budget=Budget(usd="0.01"))


async def test_checkpoints_that_cannot_be_used_are_named() -> None:
    async def say(state: State) -> State:
        return {"output": "so"}

    async with Agent(graph=asks_sqlite(say), models=[ScriptedModel([])]) as agent:
        path = agent.settings.checkpoints_path
        path.parent.mkdir(parents=True)
        path.write_bytes(b"another program's" * 100)
        with pytest.raises(StoreUnavailable, match=rf"{path} cannot be used: .*move a damaged file away"):
            await agent.run("what next?", budget=Budget(usd="0.01"))


async def test_a_run_goes_on_without_checkpoints_that_are_lost_amid_it() -> None:
    async def spoil(state: State) -> State:
        with closing(sqlite3.connect(path)) as other:
            other.execute("DROP TABLE checkpoints")
        return {"output": "so"}

    async with Agent(graph=asks_sqlite(spoil), models=[ScriptedModel([])]) as agent:
        path = agent.settings.checkpoints_path
        run = await agent.run("what next?", budget=Budget(usd="0.01"))
    assert run.output == "so"


class Modelled(BaseModel):
    task: str
    message: str = "from the model"
    output: str = ""


@dataclass(slots=True)
class Record:
    task: str
    message: str = "from the record"
    output: str = ""


@pytest.mark.parametrize(("kind", "message"), [(Modelled, "from the model"), (Record, "from the record")])
async def test_a_skill_is_a_node_of_a_graph_whose_state_is_an_object(kind: Any, message: str) -> None:
    @skill(max_output_tokens=8)
    async def say(ctx: Context, message: str = "by default") -> str:
        """Say it."""
        ...

    graph: StateGraph[Any, Context, Any, Any] = StateGraph(kind, Context)
    graph.add_node("say", say.node(output="output"))  # pyright: ignore[reportArgumentType] # a node of any state
    graph.add_edge(START, "say")
    model = ScriptedModel(["so"])
    async with Agent(graph=graph, models=[model]) as agent:
        run = await agent.run("what next?", budget=Budget(usd="0.01"))
    assert run.output == "so"
    assert message in model.requests[0].messages[-1].text
