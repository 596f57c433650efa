"""A label out of a few: what it takes beside the same choice by llama-cpp-python's grammar, token by token."""

from __future__ import annotations

import json
import time

from agentbudget.models.grammar import to_gbnf
from evals.local.setup import Setup, ask, ask_plain, skill
from evals.local.tables import ms, table, times

LABELS = {"enum": ["refund_request", "technical_problem", "change_of_address", "general_question"]}
ANSWER = {
    "type": "object",
    "properties": {"category": LABELS, "urgent": {"type": "boolean"}, "department": {"enum": ["north", "south"]}},
    "required": ["category", "urgent", "department"],
}
SYSTEM = skill("incoming mail")


async def measure(setup: Setup) -> str:
    """The prompt is in the cache of both, so that what differs is the output."""
    from llama_cpp import LlamaGrammar

    model, plain = setup.ours(kept=False), setup.plain()
    rows: list[tuple[str, str, str, str]] = []
    for title, schema in (("a label", LABELS), ("an object with three", ANSWER)):
        grammar = LlamaGrammar.from_string(to_gbnf(schema), verbose=False)
        mine: list[float] = []
        theirs: list[float] = []
        one: list[float] = []
        tokens = 0
        for number in range(setup.rounds + 1):
            question = f"Mail {number}: my invoice of last month was charged twice."
            began = time.perf_counter()
            answer = await ask(model, SYSTEM, question, tokens=60, schema=schema)
            mine.append(time.perf_counter() - began)
            tokens = answer.usage.output_tokens
            began = time.perf_counter()
            json.loads(ask_plain(plain, SYSTEM, question, tokens=60, grammar=grammar))
            theirs.append(time.perf_counter() - began)
            began = time.perf_counter()
            await ask(model, SYSTEM, question + " And?", tokens=1)
            one.append(time.perf_counter() - began)
        rows.append((title, ms(mine[1:]), str(tokens), times(mine[1:], one[1:])))
        rows.append((f"{title}, llama-cpp-python", ms(theirs[1:]), "", times(theirs[1:], one[1:])))
    await model.aclose()
    title = "Constrained output; the floor is a call with one token of output"
    return table(title, ["", "median ms", "tokens of output", "× floor"], rows)
