"""One stream alone: tokens a second beside ``llama-bench``, and what is spent between two evaluations."""

from __future__ import annotations

import json
import subprocess
import time
from collections.abc import Generator
from contextlib import contextmanager
from itertools import pairwise
from statistics import median
from typing import Any

from agentbudget.models._processors import processors
from agentbudget.models.base import Message, Meter, Request
from agentbudget.models.llama.library import has_broken_amx, library
from agentbudget.models.llamacpp import LlamaCppModel
from evals.local.setup import ALL_LAYERS, Setup
from evals.local.tables import table

TOKENS = 64
PROMPT = 512
MANY = 700
"""About as many tokens stand before an answer where a skill has a fixed prompt and something to go by."""


async def measure(setup: Setup) -> str:
    """Ours is timed from the first token of a stream to the last, which is what llama-bench's figure is of.

    llama-bench takes whichever token comes and tells nobody; ours are sampled, with their probability, and read. Its
    tokens stand behind as many as ours do, few and many. By itself it uses flash attention, which we do on GPUs only:
    on processors that takes the longer the more tokens there are. So it runs a second time, with attention as ours.
    """
    model = setup.ours(parallel=1, kept=False)
    await model.complete(Request((Message("user", "Hello"),), 2), Meter())
    behind: dict[str, int] = {}
    ours, theirs, alike = ({name: list[float]() for name in ("few", "many", "read")} for _ in range(3))
    same = ("-fa", int(setup.gpu))
    between: list[float] = []
    for number in range(setup.rounds):
        task = f"Write the numbers from {number} to 300 in words, one in each line."
        for name, prompt in (("few", task), ("many", f"{' '.join(map(str, range(MANY // 4)))}\n{task}")):
            with evaluations() as times:
                speed, behind[name] = await stream(model, prompt)
            ours[name].append(speed)
            asked = ("-p", 0, "-n", TOKENS, "-d", behind[name])
            theirs[name].append(bench(setup, *asked))
            alike[name].append(bench(setup, *asked, *same))
            between += [start - end for (_, end), (start, _) in pairwise(times[-TOKENS // 2 :])]
        request = Request((Message("user", f"{number} " + "one two three four " * (PROMPT // 4)),), 1)
        answer = await model.complete(request, Meter())
        ours["read"].append(answer.usage.input_tokens / (answer.usage.compute_ns / 1e9))
        theirs["read"].append(bench(setup, "-p", PROMPT, "-n", 0))
        alike["read"].append(bench(setup, "-p", PROMPT, "-n", 0, *same))
    await model.aclose()
    titles = {name: f"{TOKENS} tokens of output behind {count:,} of input" for name, count in behind.items()}
    titles["read"] = f"{PROMPT} tokens of input"
    rows: list[tuple[str, ...]] = []
    for name, title in titles.items():
        here, there, equal = (median(speeds[name]) for speeds in (ours, theirs, alike))
        rows.append(
            (title, f"{here:,.1f}", f"{there:,.1f}", f"{here / there:.2f}", f"{equal:,.1f}", f"{here / equal:.2f}")
        )
    spent, written = median(between), median(ours["few"])
    note = (
        f"Between two evaluations (choosing a token, its probability, telling the reader): {spent * 1e6:,.0f} µs, "
        f"{spent * written:.1%} of a token's time; without it, {1 / (1 / written - spent):,.1f} tokens/s."
    )
    heads = ["", "agentbudget", "llama-bench", "ratio", "the same, attention as ours", "ratio"]
    return f"{table('One stream, tokens a second', heads, rows)}\n\n{note}"


async def stream(model: LlamaCppModel, prompt: str) -> tuple[float, int]:
    """Tokens a second between the first piece of an answer and the last, and how many stood before."""
    meter = Meter()
    came = [
        (time.perf_counter(), meter.usage)
        async for delta in model.stream(Request((Message("user", prompt),), TOKENS), meter)
        if delta.text and meter.usage
    ]
    (begun, first), (ended, last) = came[0], came[-1]
    if last.output_tokens < TOKENS:
        said = f"ended after {last.output_tokens} of {TOKENS} tokens"
        raise SystemExit(f"the answer to {prompt!r} {said}: give weights that say more")
    return (last.output_tokens - first.output_tokens) / (ended - begun), last.input_tokens


@contextmanager
def evaluations() -> Generator[list[tuple[float, float]]]:
    """When each evaluation of llama.cpp began and ended."""
    api, times = library(), list[tuple[float, float]]()
    evaluate = api.llama_decode

    def timed(context: object, batch: object) -> int:
        began = time.perf_counter()
        code: int = evaluate(context, batch)
        times.append((began, time.perf_counter()))
        return code

    api.llama_decode = timed
    try:
        yield times
    finally:
        api.llama_decode = evaluate


def bench(setup: Setup, *arguments: str | int) -> float:
    """Tokens a second by llama-bench, once."""
    program, environment = setup.program("llama-bench")
    command = [str(program), "-m", str(setup.path), *map(str, arguments), "-r", "1", "-o", "json"]
    command += ["-t", str(processors()), "-ngl", str(ALL_LAYERS if setup.gpu else 0)]
    command += ["--repack", "0"] if has_broken_amx() else []  # as ours: nobody has AMX then
    done = subprocess.run(command, capture_output=True, text=True, check=True, env=environment)
    results: list[dict[str, Any]] = json.loads(done.stdout)
    return float(results[0]["avg_ts"])
