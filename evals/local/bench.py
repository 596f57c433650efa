"""One stream alone: tokens a second beside ``llama-bench``."""

from __future__ import annotations

import json
import subprocess
import time
from statistics import median
from typing import Any

from agentbudget.models._processors import processors
from agentbudget.models.base import Message, Meter, Request
from agentbudget.models.llama.library import has_broken_amx
from evals.local.setup import ALL_LAYERS, Setup
from evals.local.tables import table

TOKENS = 64
PROMPT = 512


async def measure(setup: Setup) -> str:
    """Ours is timed between the first and the last piece of a stream, which is what llama-bench's figure is of."""
    model = setup.ours(parallel=1, kept=False)
    await model.complete(Request((Message("user", "Hello"),), 2), Meter())
    written: list[float] = []
    read: list[float] = []
    theirs: dict[str, list[float]] = {"written": [], "read": []}
    for number in range(setup.rounds):
        request = Request((Message("user", f"Tell the long story of ship {number}."),), TOKENS)
        came = [time.perf_counter() async for delta in model.stream(request, Meter()) if delta.text]
        written.append((len(came) - 1) / (came[-1] - came[0]))
        request = Request((Message("user", f"{number} " + "one two three four " * (PROMPT // 4)),), 1)
        answer = await model.complete(request, Meter())
        read.append(answer.usage.input_tokens / (answer.usage.compute_ns / 1e9))
        for name, speed in bench(setup).items():
            theirs[name].append(speed)
    await model.aclose()
    rows = [
        (title, f"{median(ours):,.1f}", f"{median(theirs[name]):,.1f}", f"{median(ours) / median(theirs[name]):.2f}")
        for title, name, ours in (
            (f"{TOKENS} tokens of output", "written", written),
            (f"{PROMPT} tokens of input", "read", read),
        )
    ]
    return table("One stream, tokens a second", ["", "agentbudget", "llama-bench", "ratio"], rows)


def bench(setup: Setup) -> dict[str, float]:
    """llama-bench, once."""
    program, environment = setup.program("llama-bench")
    command = [str(program), "-m", str(setup.path), "-p", str(PROMPT), "-n", str(TOKENS), "-r", "1", "-o", "json"]
    command += ["-t", str(processors()), "-ngl", str(ALL_LAYERS if setup.gpu else 0)]
    command += ["--repack", "0"] if has_broken_amx() else []  # as ours: nobody has AMX then
    done = subprocess.run(command, capture_output=True, text=True, check=True, env=environment)
    results: list[dict[str, Any]] = json.loads(done.stdout)
    return {"written" if result["n_gen"] else "read": float(result["avg_ts"]) for result in results}
