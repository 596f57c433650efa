"""Three skills with long fixed prompts take turns: what a turn costs beside a hot call, and beside llama-cpp-python."""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable

from agentbudget.models.llamacpp import LlamaCppModel
from evals.local.setup import Setup, ask, ask_plain, skill
from evals.local.tables import ms, table, times

SKILLS = [skill(name) for name in ("billing", "travel", "garden")]
TOKENS = 4


async def measure(setup: Setup) -> str:
    """Turns and hot calls alternate, so that whatever else the machine does meets all alike."""
    ours, one, plain = setup.ours(), setup.ours(parallel=1), setup.plain()
    taken: dict[str, list[float]] = {name: [] for name in ("hot", "turn", "one", "plain hot", "plain", "restart")}
    number = iter(range(1_000_000))
    for prompt in SKILLS:  # every skill's prompt is computed once
        await ask(ours, prompt, "Hello", tokens=1)
        await ask(one, prompt, "Hello", tokens=1)

    async def timed(name: str, call: Callable[[], Awaitable[object]]) -> None:
        began = time.perf_counter()
        await call()
        taken[name].append(time.perf_counter() - began)

    async def plainly(prompt: str) -> None:
        ask_plain(plain, prompt, question(next(number)), tokens=TOKENS)

    for _ in range(setup.rounds):
        for prompt in SKILLS:
            await timed("turn", lambda prompt=prompt: ask(ours, prompt, question(next(number)), tokens=TOKENS))
            await timed("hot", lambda prompt=prompt: ask(ours, prompt, question(next(number)), tokens=TOKENS))
            await timed("one", lambda prompt=prompt: ask(one, prompt, question(next(number)), tokens=TOKENS))
        await timed("plain", lambda: plainly(SKILLS[0]))
        await timed("plain hot", lambda: plainly(SKILLS[0]))
        await timed("plain", lambda: plainly(SKILLS[1]))
    tokens = (await ask(ours, SKILLS[0], "Hello", tokens=1)).usage.input_tokens
    await ours.aclose()
    await one.aclose()
    await restart(setup, timed)
    rows = [
        ("a hot call: the same skill again", ms(taken["hot"]), "1.00"),
        ("a turn: another skill's prompt, in its own slot", ms(taken["turn"]), times(taken["turn"], taken["hot"])),
        ("a turn with one slot (`parallel=1`): read from disk", ms(taken["one"]), times(taken["one"], taken["hot"])),
        ("the first call after a restart, read from disk", ms(taken["restart"]), times(taken["restart"], taken["hot"])),
        ("llama-cpp-python, hot", ms(taken["plain hot"]), times(taken["plain hot"], taken["hot"])),
        ("llama-cpp-python, a turn", ms(taken["plain"]), times(taken["plain"], taken["hot"])),
    ]
    title = f"Three skills of about {tokens} tokens take turns; {TOKENS} tokens of output"
    faster = f"A turn is {times(taken['plain'], taken['turn'])} times as fast as llama-cpp-python's."
    return f"{table(title, ['call', 'median ms', '× hot'], rows)}\n\n{faster}"


async def restart(setup: Setup, timed: Callable[[str, Callable[[], Awaitable[object]]], Awaitable[None]]) -> None:
    """The model is loaded and warm, but has nothing in its slots."""
    for prompt in SKILLS:
        model: LlamaCppModel = setup.ours()
        await ask(model, "Be brief.", "Hello", tokens=2)
        await timed("restart", lambda model=model, prompt=prompt: ask(model, prompt, question(0), tokens=TOKENS))
        await model.aclose()


def question(number: int) -> str:
    """What no call before has asked."""
    return f"Message {number}: on which shelf is case {number % 27}?"
