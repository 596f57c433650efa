"""An agent from end to end: documents, graph, ladder, ledger, statement — on scripted models and the real index."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sqlite3
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path
from typing import Any, Literal, TypedDict, cast

import pytest
from langgraph.graph import END, START, StateGraph
from pydantic import BaseModel

from agentbudget import Agent, Budget, BudgetExceeded, Context, Event, Mistake, Run, skill
from agentbudget.errors import SkillError
from agentbudget.graph import TaskState, checkpoints
from agentbudget.ledger import Ledger
from agentbudget.models.base import Request
from agentbudget.reference import research_graph
from agentbudget.runs import RunRecord, Runs
from agentbudget.settings import Settings
from agentbudget.testing import ScriptedModel, ScriptedReply, capture_spans
from tests.conftest import Forked

PLAN = json.dumps({"questions": ["refund window?", "who pays shipping?"]})

CONCLUSION = json.dumps({"statements": ["Within 30 days.", "The customer pays."]})
ANSWER = "Within 30 days. [1] The customer pays. [2]"


def small(request: Request) -> str:
    """The cheap rung: answers with the first passage, and finds everything well supported."""
    if request.schema == {"type": "boolean"}:
        return "true"
    asked = request.messages[-1].text.rpartition("Question:")[2]
    if "who pays" in asked:
        return json.dumps({"quote": "The customer pays the shipping", "answer": "The customer pays."})
    return json.dumps({"quote": "A kettle can be returned within 30 days.", "answer": "Within 30 days."})


def large(request: Request) -> str:
    """The strong rung: plans, and concludes."""
    return PLAN if "Split the task" in request.messages[0].text else CONCLUSION


@pytest.fixture
def docs(tmp_path: Path) -> Path:
    folder = tmp_path / "docs"
    folder.mkdir()
    (folder / "returns.md").write_text("# Returns\n\n## Window\n\nA kettle can be returned within 30 days.\n")
    (folder / "shipping.md").write_text("# Shipping\n\n## Who pays\n\nThe customer pays the shipping of a return.\n")
    return folder


def research_models() -> list[ScriptedModel]:
    return [ScriptedModel(small, name="scripted:small"), ScriptedModel(large, name="scripted:large")]


def research_agent(docs: Path, **given: Any) -> Agent:
    models = given.pop("models", None) or research_models()
    return Agent(graph=research_graph(), models=models, index=docs, name="research", **given)


async def test_a_task_is_answered_from_documents_with_citations_and_a_statement(docs: Path) -> None:
    with capture_spans() as captured:
        async with research_agent(docs) as agent:
            run = await agent.run("refunds and shipping?", budget=Budget(usd="0.05"), user="42", feature="support")
            assert agent.ledger.verify().ok
            for account in (f"run/{run.run_id}", "user/42", "feature/support"):
                assert agent.ledger.balance(account).posted == agent.ledger.balance(f"run/{run.run_id}").posted
                assert agent.ledger.balance(account).held.usd_nano == 0
    assert run.output == ANSWER
    assert [c["source"] for c in run.citations] == ["returns.md", "shipping.md"]
    skills = [line.skill for line in run.statement.lines if line.kind == "step"]
    assert sorted(skills) == ["answer", "answer", "plan", "synthesise", "verify", "verify"]
    asked = {line.about for line in run.statement.lines if line.skill == "answer"}
    assert asked == {"refund window?", "who pays shipping?"}
    names = {span.name.split()[0] for span in captured.spans}
    assert names >= {"invoke_agent", "step", "reserve", "retrieval", "chat", "settle"}
    assert "kettle" not in captured.dump()
    assert "window" not in captured.dump()


async def test_a_run_in_another_ledger_is_not_resumed_beside_it(docs: Path, tmp_path: Path) -> None:
    apart = Settings.from_env().with_ledger(str(tmp_path / "shared" / "ledger.db"))
    async with research_agent(docs, settings=apart) as agent:
        run = await agent.run("refunds and shipping?", budget=Budget(usd="0.05"))
        assert agent.ledger.location == str(tmp_path / "shared" / "ledger.db")
        assert agent.statement(run.run_id).totals.settled == run.statement.totals.settled
    assert not (Settings.from_env().home / "ledger.db").exists()
    async with research_agent(docs) as agent:
        with pytest.raises(Mistake, match="AGENTBUDGET_LEDGER"):
            await agent.resume(run.run_id)
        with pytest.raises(Mistake, match=r"shared/ledger\.db"):
            agent.statement(run.run_id)


async def test_a_lone_question_needs_no_conclusion_and_frees_what_was_held_for_it(docs: Path) -> None:
    def plan_one(request: Request) -> str:
        return json.dumps({"questions": ["refund window?"]})

    models = [ScriptedModel(small, name="scripted:small"), ScriptedModel(plan_one, name="scripted:large")]
    async with research_agent(docs, models=models) as agent:
        run = await agent.run("refund window?", budget=Budget(usd="0.05"))
        assert run.output == "Within 30 days. [1]"
        assert agent.ledger.balance(f"run/{run.run_id}").held.usd_nano == 0


async def test_a_question_that_needs_another_is_asked_after_it(docs: Path) -> None:
    def plan_two(request: Request) -> str:
        if "Split the task" not in request.messages[0].text:
            return CONCLUSION
        return json.dumps({"questions": ["refund window?", "who pays if it is {1}?"]})

    cheap = ScriptedModel(small, name="scripted:small")
    async with research_agent(docs, models=[cheap, ScriptedModel(plan_two, name="scripted:large")]) as agent:
        await agent.run("both?", budget=Budget(usd="0.05"))
    asked = [r.messages[-1].text for r in cheap.requests if r.schema != {"type": "boolean"}]
    assert "who pays if it is Within 30 days.?" in asked[1]


async def test_an_unsupported_answer_climbs_to_the_stronger_model(docs: Path) -> None:
    def careless(request: Request) -> str:
        return json.dumps({"quote": "returned within 30 days", "answer": "Within 99 days."})

    def strong(request: Request) -> str:
        if "Split the task" in request.messages[0].text:
            return json.dumps({"questions": ["refund window?"]})
        return json.dumps({"quote": "returned within 30 days", "answer": "Within 30 days."})

    def cheap(request: Request) -> str:
        return "true" if request.schema == {"type": "boolean"} else careless(request)

    models = [ScriptedModel(cheap, name="scripted:small"), ScriptedModel(strong, name="scripted:large")]
    async with research_agent(docs, models=models) as agent:
        run = await agent.run("refund window?", budget=Budget(usd="0.05"))
    assert run.output == "Within 30 days. [1]"
    (line,) = [line for line in run.statement.lines if line.skill == "answer"]
    assert line.escalated
    assert [r.reason for r in line.rejected] == ["verify: 99 does not stand in the passage that it quotes"]


async def test_an_answer_that_no_model_can_ground_is_not_given(docs: Path) -> None:
    def inventive(request: Request) -> str:
        if "Split the task" in request.messages[0].text:
            return json.dumps({"questions": ["refund window?"]})
        return json.dumps({"quote": "The moon is made of cheese.", "answer": "Of cheese."})

    models = [ScriptedModel(inventive, name="scripted:small"), ScriptedModel(inventive, name="scripted:large")]
    async with research_agent(docs, models=models) as agent:
        run = await agent.run("refund window?", budget=Budget(usd="0.05"))
    assert run.output == "No answer could be grounded in the passages that were found."
    assert run.citations == ()


async def test_a_budget_too_small_for_the_first_step_says_what_is_needed_and_spends_nothing(docs: Path) -> None:
    async with research_agent(docs) as agent:
        with pytest.raises(BudgetExceeded, match="raise the limit by at least"):
            await agent.run("refunds?", budget=Budget(tokens=10), run_id="poor")
        assert agent.runs.load("poor").status == "over budget"
        assert agent.ledger.balance("run/poor").posted.tokens == 0
        assert agent.ledger.balance("run/poor").held.usd_nano == 0


def test_threads_may_make_the_checkpoints_at_once(tmp_path: Path) -> None:
    at_once = threading.Barrier(4)

    async def make(path: Path) -> str:
        async with checkpoints(path) as saver:
            with closing(sqlite3.connect(path)) as other:  # the saver does not wait for others who switch it to that
                (mode,) = other.execute("PRAGMA journal_mode").fetchone()
            await asyncio.to_thread(at_once.wait, 60)
            await saver.setup()
            return mode

    with ThreadPoolExecutor(4) as pool:
        for number in range(20):
            path = tmp_path / f"{number}.db"
            made = [pool.submit(asyncio.run, make(path)) for _ in range(4)]
            assert [one.result() for one in made] == ["wal"] * 4


class Late(Agent):
    """Comes to its run when it is told to, having looked at its documents."""

    async def check_documents(self) -> None:
        await super().check_documents()
        self.looked.set()
        await asyncio.wait_for(self.go.wait(), 60)

    looked: asyncio.Event
    go: asyncio.Event


def late(docs: Path) -> Late:
    agent = Late(graph=research_graph(), models=research_models(), index=docs, name="research")
    agent.looked, agent.go = asyncio.Event(), asyncio.Event()
    return agent


async def test_a_run_of_a_name_that_another_took_in_the_meantime_is_not_begun(docs: Path) -> None:
    async with research_agent(docs) as agent, late(docs) as second:
        waiting = asyncio.create_task(second.run("theirs?", budget=Budget(usd="0.05"), run_id="one"))
        await asyncio.wait_for(second.looked.wait(), 60)
        await agent.run("ours?", budget=Budget(usd="0.05"), run_id="one")
        await agent.aclose()  # one has a folder's index open
        second.go.set()
        with pytest.raises(Mistake, match="there is a run 'one' already"):
            await waiting
        assert second.runs.load("one").task == "ours?"


async def test_a_run_that_another_carried_on_in_the_meantime_is_resumed_as_it_was_left(docs: Path) -> None:
    async with research_agent(docs) as agent, late(docs) as second:
        with pytest.raises(BudgetExceeded):
            await agent.run("refunds?", budget=Budget(tokens=100), run_id="poor")
        waiting = asyncio.create_task(second.resume("poor"))
        await asyncio.wait_for(second.looked.wait(), 60)
        await agent.resume("poor", budget=Budget(tokens=100_000))
        await agent.aclose()
        second.go.set()
        assert (await waiting).output == ANSWER
        assert second.runs.load("poor").budget == Budget(tokens=100_000)


async def test_a_finished_run_is_resumed_without_paying_again(docs: Path) -> None:
    async with research_agent(docs, share_answers=False) as agent:
        run = await agent.run("refunds?", budget=Budget(usd="0.05"))
        paid = agent.ledger.balance(f"run/{run.run_id}").posted.tokens
        again = await agent.resume(run.run_id)
        assert again.output == run.output
        assert agent.ledger.balance(f"run/{run.run_id}").posted.tokens == paid


async def test_cancelling_a_run_leaves_nothing_held_and_it_can_go_on(docs: Path) -> None:
    slow = ScriptedModel(lambda r: ScriptedReply(small(r), delay_s=20), name="scripted:small")
    models = [slow, ScriptedModel(large, name="scripted:large")]
    async with research_agent(docs, models=models) as agent:
        task = asyncio.create_task(agent.run("refunds?", budget=Budget(usd="0.05"), run_id="stopped"))
        while not slow.requests:
            await asyncio.sleep(0.02)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert agent.runs.load("stopped").status == "cancelled"
        assert agent.ledger.balance("run/stopped").held.usd_nano == 0
        assert agent.ledger.verify().ok
        slow.script = small
        run = await agent.resume("stopped")
        assert run.output == ANSWER
        planned = [s for s in run.statement.lines if s.skill == "plan"]
        assert len(planned) == 1  # the plan was kept; it was not bought again


async def test_one_process_at_a_time_works_on_a_run(docs: Path) -> None:
    async with research_agent(docs) as agent:
        record = RunRecord(run_id="busy", task="refunds?", agent="research")
        with agent.runs.begun(record), pytest.raises(Mistake, match="another process"):
            await agent.run("refunds?", budget=Budget(usd="0.05"), run_id="busy")
        agent.runs.save(record)
        with agent.runs.resumed("busy"), pytest.raises(Mistake, match="another process"):
            await agent.resume("busy")


def test_a_forked_process_keeps_nobody_from_its_parents_run(tmp_path: Path, forked: Forked) -> None:
    runs, record = Runs(tmp_path), RunRecord(run_id="r", task="refunds?", agent="research")
    with runs.begun(record):
        runs.save(record)
        assert forked(lambda: None) == 0
        with pytest.raises(Mistake, match="another process"), runs.resumed("r"):
            pass
    with runs.resumed("r") as again:
        assert again == record


async def test_an_empty_task_is_a_mistake(docs: Path) -> None:
    async with research_agent(docs) as agent:
        with pytest.raises(Mistake, match="empty"):
            await agent.run("  ", budget=Budget(usd="0.05"))


@pytest.mark.parametrize(
    ("given", "why"),
    [
        ({"task": {"message": "it crashes"}}, "the task is empty, or not text"),
        ({"task": "it crashes", "user": 42}, r"user must be text, not 42: write user='42'"),
        ({"task": "it crashes", "feature": 7}, r"feature must be text, not 7: write feature='7'"),
        ({"task": "it crashes", "user": "\ud800"}, "user .* has a NUL, a lone surrogate or"),
        ({"task": "it crashes", "feature": "\0"}, "feature .* has a NUL, a lone surrogate or"),
    ],
    ids=str,
)
async def test_a_task_and_payers_that_are_no_text_are_a_mistake(given: dict[str, Any], why: str) -> None:
    async with Agent([triage], models=[ScriptedModel(['"bug"'])]) as agent:
        with pytest.raises(Mistake, match=why):
            await agent.run(**given, budget=Budget(usd="0.05"), run_id="odd")
        assert not agent.runs.has("odd")


async def test_a_run_whose_accounts_cannot_be_opened_is_not_left_as_running() -> None:
    async with Agent([triage], models=[ScriptedModel(['"bug"'])]) as agent:
        with pytest.raises(Mistake, match="account has 515 characters"):
            await agent.run("it crashes", budget=Budget(usd="0.05"), user="u" * 510, run_id="odd")
        assert agent.runs.load("odd").status == "failed"


def test_what_an_agent_cannot_be_made_of_is_refused_when_it_is_made() -> None:
    async def plain(ctx: Context, text: str) -> str:
        """No skill yet."""
        return text

    graph: StateGraph[TaskState, Context, TaskState, TaskState] = StateGraph(TaskState, context_schema=Context)

    async def idle(state: TaskState) -> TaskState:
        return {"output": state.get("task")}

    graph.add_node("idle", idle)
    graph.add_edge(START, "idle")
    compiled = graph.compile()
    mistakes: list[tuple[dict[str, Any], str]] = [
        ({"skills": triage}, r"write Agent\(\[triage\]\)"),
        ({"skills": [plain]}, r"is no skill: write @skill above"),
        ({"skills": [triage], "models": "llamacpp:small"}, r"models=\['llamacpp:small'\]"),
        ({"graph": compiled}, r"without \.compile\(\)"),
    ]
    for given, why in mistakes:
        with pytest.raises(Mistake, match=why):
            Agent(**given)


class Numbered(BaseModel):
    """What a task's text is not."""

    number: int


async def test_a_task_for_a_skill_that_takes_no_text_is_a_mistake_and_costs_nothing() -> None:
    @skill
    async def look(ctx: Context, ticket: Numbered) -> str:
        """Look at the ticket."""
        ...

    async with Agent([look], models=[ScriptedModel(["fine"])]) as agent:
        with pytest.raises(SkillError, match=r"'look' gives it the task, which is text, as 'ticket'"):
            await agent.run("ticket 7", budget=Budget(usd="0.01"), run_id="odd")
        assert agent.ledger.balance("run/odd").posted.usd_nano == 0


async def test_two_skills_of_one_name_cannot_be_planned() -> None:
    async with Agent([triage, triage], models=[ScriptedModel(["[]"])]) as agent:
        with pytest.raises(SkillError, match="two skills are called 'triage'"):
            await agent.run("it crashes", budget=Budget(usd="0.01"))


@skill(max_output_tokens=8)
async def triage(ctx: Context, message: str) -> Literal["billing", "bug"]:
    """Say which team should handle this message."""
    ...


@skill(max_output_tokens=20)
async def shout(ctx: Context, text: str) -> str:
    """Say it loud."""
    ...


async def test_the_default_graph_plans_calls_of_skills_and_carries_them_out() -> None:
    calls = [
        {"skill": "triage", "arguments": {"message": "it crashes"}},
        {"skill": "shout", "arguments": {"text": "help"}},
    ]
    cheap = ScriptedModel(['"bug"', "HELP"], name="scripted:small")
    planner = ScriptedModel([json.dumps(calls)], name="scripted:large")
    async with Agent([triage, shout], models=[cheap, planner]) as agent:
        run = await agent.run("deal with: it crashes", budget=Budget(usd="0.05"))
    assert run.output == "HELP"
    assert "triage(message)" in planner.requests[0].messages[0].text


def test_an_agent_of_one_skill_needs_no_plan_and_runs_from_plain_code() -> None:
    agent = Agent([triage], models=[ScriptedModel(['"bug"'])])
    assert agent.run_sync("it crashes", budget=Budget(usd="0.01")).output == "bug"


async def test_run_sync_in_an_event_loop_says_what_to_write_instead() -> None:
    agent = Agent([triage], models=[ScriptedModel(['"bug"'])])
    with pytest.raises(Mistake, match=r"write `await agent\.run\(…\)` instead"):
        agent.run_sync("it crashes", budget=Budget(usd="0.01"))


async def test_a_budget_that_is_none_is_refused_before_the_run_begins(docs: Path) -> None:
    async with research_agent(docs) as agent:
        with pytest.raises(Mistake, match=r"write budget=Budget\(usd='0\.05'\)"):
            await agent.run("refunds?", budget="0.05", run_id="odd")  # pyright: ignore[reportArgumentType] # the mistake
        assert not agent.runs.has("odd")


class Ticket(TypedDict, total=False):
    task: str
    message: str
    triage: str
    output: str


async def test_a_skill_is_a_node_of_any_graph() -> None:
    graph: StateGraph[Ticket, Context, Ticket, Ticket] = StateGraph(Ticket, context_schema=Context)

    async def begin(state: Ticket) -> Ticket:
        return {"message": state.get("task", "")}

    async def done(state: Ticket) -> Ticket:
        return {"output": state.get("triage", "")}

    graph.add_node("begin", begin)
    graph.add_node("triage_node", triage.node())  # pyright: ignore[reportArgumentType] # a node of any state
    graph.add_node("done", done)
    graph.add_edge(START, "begin")
    graph.add_edge("begin", "triage_node")
    graph.add_edge("triage_node", "done")
    graph.add_edge("done", END)
    async with Agent(graph=graph, models=[ScriptedModel(['"billing"'])]) as agent:
        run = await agent.run("my invoice", budget=Budget(usd="0.01"))
    assert run.output == "billing"


class Mute(TypedDict, total=False):
    task: str
    triage: str


@pytest.mark.parametrize(("state", "told"), [(Mute, 1), (Ticket, 0), (dict, 0)])
def test_a_graph_whose_state_has_no_output_is_warned_of(
    state: type[Any], told: int, caplog: pytest.LogCaptureFixture
) -> None:
    Agent(graph=StateGraph(state, context_schema=Context), models=[ScriptedModel(['"billing"'])])
    assert caplog.text.count("write it, as skill.node(output='output') does") == told


CRASHING = """
import asyncio, os, signal, sys
from pathlib import Path
sys.path.insert(0, sys.argv[2])
from agentbudget import Budget
from agentbudget.testing import ScriptedModel, ScriptedReply
from tests.test_agent import large, research_agent, small

def slow(request):
    # The second answer never comes: the parent kills us while it is out.
    first = "refund window" in request.messages[-1].text or request.schema == {"type": "boolean"}
    return ScriptedReply(small(request), delay_s=0 if first else 60)

async def main():
    models = [ScriptedModel(slow, name="scripted:small"), ScriptedModel(large, name="scripted:large")]
    async with research_agent(Path(sys.argv[1]), models=models, share_answers=False) as agent:
        def listen(event):
            print(event.phase, event.skill, flush=True)
        await agent.run("refunds?", budget=Budget(usd="0.05"), run_id="killed", listener=listen)

asyncio.run(main())
"""


def answer_is_out(ledger: Ledger) -> bool:
    """Whether a call of the skill ``answer`` has left and has not come back."""
    calls = [hold for hold in ledger.holds(prefix="killed/", state="open") if hold.meta.get("kind") == "call"]
    return any(call.meta["skill"] == "answer" and call.sent for call in calls)


async def test_after_kill_9_the_run_resumes_and_pays_only_for_what_was_not_finished(docs: Path, tmp_path: Path) -> None:
    root = str(Path(__file__).parent.parent)
    child = subprocess.Popen([sys.executable, "-c", CRASHING, str(docs), root], stdout=subprocess.PIPE, text=True)
    assert child.stdout is not None
    heard: list[str] = []
    deadline = time.monotonic() + 300
    for line in child.stdout:
        heard.append(line.strip())
        if heard.count("settled answer") == 1 and heard.count("call answer") == 2:
            break
        assert time.monotonic() < deadline
    home = Path(os.environ["AGENTBUDGET_HOME"])
    with Ledger.open(home / "ledger.db") as ledger:
        while not answer_is_out(ledger):  # the call is told before it is marked as sent
            assert time.monotonic() < deadline
            time.sleep(0.01)
    os.kill(child.pid, signal.SIGKILL)
    child.wait()
    assert Runs(home / "runs").load("killed").status == "running"

    async with research_agent(docs, share_answers=False) as agent:
        assert agent.ledger.verify().ok
        run = await agent.resume("killed")
        assert run.output == ANSWER
        verification = agent.ledger.verify()
        assert verification.ok, verification.problems
        holds = agent.ledger.holds(prefix="killed/")
        assert agent.ledger.balance("run/killed").held.usd_nano == 0
    paid = [h for h in holds if h.meta.get("kind") == "call" and h.settled and h.settled.usd_nano]
    presumed = [h for h in holds if h.presumed]
    assert len(presumed) == 1  # the answer that was out when the process died
    drafts = [h for h in paid if h.meta["skill"] == "answer" and not h.presumed]
    assert len(drafts) == 2  # each question's answer was bought once
    assert sum(h.meta["skill"] == "plan" for h in paid) == 1


async def test_a_run_over_budget_goes_on_with_a_larger_one(docs: Path) -> None:
    async with research_agent(docs) as agent:
        with pytest.raises(BudgetExceeded):
            await agent.run("refunds?", budget=Budget(tokens=10), run_id="poor")
        run = await agent.resume("poor", budget=Budget(tokens=100_000))
        assert run.output == ANSWER
        assert agent.ledger.balance("run/poor").limit.tokens == 100_000


async def test_a_run_that_goes_on_burns_over_all_of_its_age(docs: Path) -> None:
    async with research_agent(docs) as agent:
        with pytest.raises(BudgetExceeded):
            await agent.run("refunds?", budget=Budget(tokens=10), run_id="old")
        record = agent.runs.load("old")
        record.started_ns -= 3600 * 10**9
        agent.runs.save(record)
        with capture_spans() as captured:
            await agent.resume("old", budget=Budget(tokens=100_000))
        spent = float(agent.ledger.balance("run/old").posted.usd)
    rates = [span.attributes["agentbudget.burn_rate.usd_per_minute"] for span in captured.spans if "step" in span.name]
    assert max(cast("list[float]", rates)) <= spent / 60


async def test_a_run_id_is_used_once(docs: Path) -> None:
    async with research_agent(docs) as agent:
        await agent.run("refunds?", budget=Budget(usd="0.05"), run_id="once")
        with pytest.raises(Mistake, match="resume it"):
            await agent.run("something else?", budget=Budget(usd="0.05"), run_id="once")


async def test_runs_side_by_side_share_an_agent(docs: Path) -> None:
    heard: list[list[str]] = [[], []]
    async with research_agent(docs) as agent:

        async def ask(number: int) -> Run:
            def listen(event: Event) -> None:
                heard[number].append(event.step_id)

            return await agent.run(f"refunds {number}?", budget=Budget(usd="0.05"), listener=listen)

        runs = await asyncio.gather(ask(0), ask(1))
    for run, steps in zip(runs, heard, strict=True):
        assert steps
        assert all(step.startswith(run.run_id) for step in steps)
