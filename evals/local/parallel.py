"""Eight requests at once: tokens a second of all together, beside ``llama-server -np 8``."""

from __future__ import annotations

import asyncio
import json
import subprocess
import threading
import time
import urllib.request
from collections.abc import Generator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from statistics import median
from typing import Any

from agentbudget.models._processors import processors
from agentbudget.models.llama.library import has_broken_amx
from evals.local.setup import ALL_LAYERS, WINDOW, Setup, ask
from evals.local.tables import table

AT_ONCE = 8
TOKENS = 64
SYSTEM = "You write what you are asked for, all of it, and nothing else."
ASKED = "Write the numbers from {} to 300 in words, one in each line."
"""Answers that do not end early: else it would be told who says more, not who is faster."""


async def measure(setup: Setup) -> str:
    """Ours and the server's turns alternate; one rests while the other works."""
    model = setup.ours(parallel=AT_ONCE, kept=False)
    taken: dict[str, list[float]] = {"ours": [], "server": [], "alone": []}
    widest: list[float] = []
    with server(setup) as address, ThreadPoolExecutor(AT_ONCE) as pool:
        await ask(model, SYSTEM, "Hello", tokens=2)
        complete(address, "Hello")
        for number in range(setup.rounds):
            questions = [ASKED.format(AT_ONCE * number + n) for n in range(AT_ONCE)]
            with longest_gap(widest):
                began = time.perf_counter()
                answers = await asyncio.gather(*(ask(model, SYSTEM, q, tokens=TOKENS) for q in questions))
                taken["ours"].append(said([a.usage.output_tokens for a in answers]) / (time.perf_counter() - began))
            began = time.perf_counter()
            loop = asyncio.get_running_loop()
            tokens = said(await asyncio.gather(*(loop.run_in_executor(pool, complete, address, q) for q in questions)))
            taken["server"].append(tokens / (time.perf_counter() - began))
            began = time.perf_counter()
            answer = await ask(model, SYSTEM, ASKED.format(100 + number), tokens=TOKENS)
            taken["alone"].append(said([answer.usage.output_tokens]) / (time.perf_counter() - began))
    await model.aclose()
    ours, theirs, alone = (median(taken[name]) for name in ("ours", "server", "alone"))
    rows = [
        (f"agentbudget, {AT_ONCE} at once", f"{ours:,.1f}", f"{ours / theirs:.2f}"),
        (f"llama-server -np {AT_ONCE}", f"{theirs:,.1f}", "1.00"),
        ("agentbudget, one alone", f"{alone:,.1f}", f"{alone / theirs:.2f}"),
    ]
    title = f"{AT_ONCE} requests at once, {TOKENS} tokens of output each, prompts included"
    note = f"Longest time for which the event loop did not turn: {max(widest) * 1e3:.0f} ms."
    return f"{table(title, ['', 'tokens/s', '× llama-server'], rows)}\n\n{note}"


def said(tokens: Sequence[int]) -> int:
    """Tokens of all answers, none of which may have ended early."""
    if min(tokens) < TOKENS:
        raise SystemExit(f"an answer ended after {min(tokens)} of {TOKENS} tokens: give weights that say more")
    return sum(tokens)


@contextmanager
def longest_gap(found: list[float]) -> Generator[None]:
    """How long the event loop stood still at most, seen from a task that would turn it every few milliseconds."""
    loop, done, gaps = asyncio.get_running_loop(), threading.Event(), [0.0]

    def turn(last: float) -> None:
        now = time.perf_counter()
        gaps.append(now - last - 0.005)
        if not done.is_set():
            loop.call_later(0.005, turn, now)

    turn(time.perf_counter())
    try:
        yield
    finally:
        done.set()
        found.append(max(gaps))


@contextmanager
def server(setup: Setup) -> Generator[str]:
    """A llama-server with as many slots and as large a window as ours; its address."""
    program, environment = setup.program("llama-server")
    log = setup.states / "server.log"
    command = [str(program), "-m", str(setup.path), "-np", str(AT_ONCE), "-c", str(WINDOW * AT_ONCE), "--port", "0"]
    command += ["-t", str(processors()), "-ngl", str(ALL_LAYERS if setup.gpu else 0), "--host", "127.0.0.1"]
    command += ["--no-repack"] if has_broken_amx() else []  # as ours: nobody has AMX then
    with log.open("wb") as output:
        process = subprocess.Popen(command, stdout=output, stderr=subprocess.STDOUT, env=environment)
    try:
        yield listening(log, process)
    finally:
        process.terminate()
        process.wait()


def listening(log: Path, process: subprocess.Popen[bytes], *, timeout_s: float = 120.0) -> str:
    """Wait until the server says where it listens."""
    limit = time.monotonic() + timeout_s
    while time.monotonic() < limit and process.poll() is None:
        for line in log.read_text("utf-8", "replace").splitlines():
            if "listening on" in line and "http://" in line:
                return "http://" + line.split("http://")[1].split()[0].strip("',")
        time.sleep(0.1)
    raise SystemExit(f"llama-server did not start:\n{log.read_text('utf-8', 'replace')[-2000:]}")


def complete(address: str, question: str) -> int:
    """One request to the server, as ours are; how many tokens it put out."""
    body: dict[str, Any] = {
        "messages": [{"role": "system", "content": SYSTEM}, {"role": "user", "content": question}],
        "max_tokens": TOKENS,
        "temperature": 0,
    }
    request = urllib.request.Request(
        f"{address}/v1/chat/completions", json.dumps(body).encode(), {"Content-Type": "application/json"}
    )
    with urllib.request.urlopen(request, timeout=300) as answer:
        return int(json.load(answer)["usage"]["completion_tokens"])
