"""Research a task in a folder of documents.

    plan ─► explore ─► explore … ─► conclude
            (a wave of independent questions in parallel, then those that needed their answers)

The cost of the conclusion is held before exploring begins. `explore` is retrieve → answer on the cheap tier →
verify → escalate if that fails.
"""

from __future__ import annotations

import operator
import re
from typing import Annotated, Any, TypedDict

from langgraph.graph import END, START, StateGraph
from langgraph.runtime import Runtime
from langgraph.types import Send

from agentbudget import Context, Mistake
from skills import answer, plan, synthesise
from skills.plan import filled, needs
from skills.verify import plain, quoted

_MARK = re.compile(r"\s*\[\d+\]")

PASSAGE_TOKENS = 320
"""What the passages for one question may take of the prompt."""

NOTHING_FOUND = "No answer could be grounded in the passages that were found."

LANDING_TOKENS = 900
"""What the findings may bring to the conclusion: its cost is held before exploring."""


class Question(TypedDict):
    """A planned question; ``needs`` are the numbers of questions to be answered before."""

    number: int
    question: str
    needs: list[int]


class Finding(TypedDict):
    """What was found for a question: an answer, and the citation behind it (none if it could not be grounded)."""

    number: int
    question: str
    answer: str
    citations: list[dict[str, Any]]


class State(TypedDict, total=False):
    """A task in, an output and its citations out."""

    task: str
    landing: str
    questions: list[Question]
    findings: Annotated[list[Finding], operator.add]
    output: str
    citations: list[dict[str, Any]]


class Wave(TypedDict):
    """One question on its way to `explore`, with what earlier ones found."""

    task: str
    question: Question
    known: list[Finding]


async def make_plan(state: State, runtime: Runtime[Context]) -> State:
    """Hold the landing, then let the strongest model split the task."""
    ctx = runtime.context
    task = state.get("task", "")
    landing = await ctx.set_aside(synthesise, input_tokens=LANDING_TOKENS)
    planned = [q for q in (await plan(ctx, task=task)).questions if plain(filled(q, {}))]
    if len(planned) < 2:  # nothing to split: the task's own words are the best question
        planned = [task]
    questions = [
        Question(number=number, question=question, needs=needs(question, number))
        for number, question in enumerate(planned, 1)
    ]
    return {"landing": landing, "questions": questions}


def next_wave(state: State) -> list[Send] | str:
    """Every question whose needs are met and that has no finding yet; the conclusion when none is left."""
    findings = state.get("findings", [])
    done = {finding["number"] for finding in findings}
    ready = [q for q in state.get("questions", []) if q["number"] not in done and done.issuperset(q["needs"])]
    if not ready:
        return "conclude"
    return [
        Send(
            "explore",
            Wave(task=state.get("task", ""), question=q, known=[f for f in findings if f["number"] in q["needs"]]),
        )
        for q in ready
    ]


async def explore(state: Wave, runtime: Runtime[Context]) -> State:
    """Answer one question from the passages found for it."""
    question = filled(state["question"]["question"], {f["number"]: f["answer"] for f in state["known"]})
    ctx = runtime.context.about(question)
    # What the plan left out of a question, the task still says.
    found = await ctx.retrieve(f"{question} {state['task']}", tokens=PASSAGE_TOKENS)
    if not found.passages:
        raise Mistake(f"the documents have nothing on {question!r}: ask about what they contain")
    finding = await answer(ctx, passages=found.text, question=question)
    stands = ((passage, quoted(finding.quote, str(passage))) for passage in found.passages)
    source, words = next((pair for pair in stands if pair[1] is not None), (None, None))
    number = state["question"]["number"]
    if source is None:  # not even the strongest model could ground an answer: none is better than a made-up one
        return {"findings": [Finding(number=number, question=question, answer=NOTHING_FOUND, citations=[])]}
    citation = {
        "number": number,
        "source": source.chunk.source,
        "heading": " › ".join(source.chunk.heading_path),
        "start": source.chunk.start,
        "end": source.chunk.end,
        "quote": words,  # the document's own, which a model may have copied with a mistake
    }
    return {"findings": [Finding(number=number, question=question, answer=finding.answer, citations=[citation])]}


async def gather(state: State) -> State:
    """Wait until the whole wave is done, so that the next one starts once."""
    return {}


async def conclude(state: State, runtime: Runtime[Context]) -> State:
    """One answer from all findings, paid for by what was held at the start; a lone finding is the answer."""
    findings = sorted(state.get("findings", []), key=lambda f: f["number"])
    citations = [citation for finding in findings for citation in finding["citations"]]
    if len(findings) == 1:
        return {"output": traced(findings[0]["answer"], findings), "citations": citations}
    ctx = runtime.context.landing(state.get("landing", ""))
    told = "\n".join(f"- {f['question']} {f['answer']}" for f in findings)
    conclusion = await synthesise(ctx, findings=told, task=state.get("task", ""))
    text = " ".join(traced(statement, findings) for statement in conclusion.statements)
    return {"output": text, "citations": [c for c in citations if f"[{c['number']}]" in text]}


def traced(statement: str, findings: list[Finding]) -> str:
    """A statement with the mark of the finding that it shares most words with: the model need not get it right."""
    statement = _MARK.sub("", statement).strip()  # a model, or a document through it, may write marks of its own
    words = set(plain(statement).split())

    def shared(finding: Finding) -> int:
        quoted = " ".join(citation["quote"] for citation in finding["citations"])
        return len(words & set(plain(f"{finding['question']} {finding['answer']} {quoted}").split()))

    best = max(findings, key=shared)
    return f"{statement} [{best['number']}]" if best["citations"] and shared(best) else statement


def build() -> StateGraph[State, Context, State, State]:
    """The graph, not yet compiled."""
    graph: StateGraph[State, Context, State, State] = StateGraph(State, context_schema=Context)
    graph.add_node("plan", make_plan)
    graph.add_node("explore", explore, input_schema=Wave)
    graph.add_node("gather", gather)
    graph.add_node("conclude", conclude)
    graph.add_edge(START, "plan")
    graph.add_conditional_edges("plan", next_wave, ["explore", "conclude"])
    graph.add_edge("explore", "gather")
    graph.add_conditional_edges("gather", next_wave, ["explore", "conclude"])
    graph.add_edge("conclude", END)
    return graph
