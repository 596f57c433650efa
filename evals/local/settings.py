"""llama.cpp's own settings, by evaluations alone: how many tokens of a prompt at once, and flash attention or not."""

from __future__ import annotations

import time
from statistics import median
from typing import TYPE_CHECKING

from agentbudget.models.llama.library import library, open_model
from agentbudget.models.llama.sequences import Sequences
from evals.local.setup import ALL_LAYERS, Setup
from evals.local.tables import table

if TYPE_CHECKING:
    from collections.abc import Sequence

PROMPT = 1024
SHORT = 64
TOKENS = 16
CHOICES = ((64, False), (128, False), (256, False), (128, True))


async def measure(setup: Setup) -> str:
    """No sampling, no readers, and all processors, whoever else uses them; the choices take turns."""
    model = open_model(setup.path, gpu_layers=ALL_LAYERS if setup.gpu else 0)
    size: int = library().llama_vocab_n_tokens(library().llama_model_get_vocab(model))
    opened = {
        (chunk, flash): Sequences(model, n_ctx=2 * PROMPT, slots=1, chunk=chunk, flash=flash, vocabulary_size=size)
        for chunk, flash in CHOICES
    }
    taken: dict[tuple[int, bool], list[tuple[float, float, float]]] = {choice: [] for choice in CHOICES}
    prompt = [100 + n * 7919 % 40_000 for n in range(PROMPT)]
    for sequences in opened.values():
        written(sequences, prompt[:SHORT])
    for _ in range(setup.rounds):
        for choice, sequences in opened.items():
            _, short = written(sequences, prompt[:SHORT])
            read, long = written(sequences, prompt)
            taken[choice].append((read, short, long))
    for sequences in opened.values():
        sequences.close()
    library().llama_model_free(model)
    rows = [
        (
            f"{chunk} at once" + (", flash attention" if flash else ""),
            *(f"{median(seconds) * 1e3:,.2f}" for seconds in zip(*times, strict=True)),
        )
        for (chunk, flash), times in taken.items()
    ]
    head = ["", f"a token of a prompt of {PROMPT:,}", f"a token behind {SHORT}", f"a token behind {PROMPT:,}"]
    return table("llama.cpp alone, ms", head, rows)


def written(sequences: Sequences, prompt: Sequence[int]) -> tuple[float, float]:
    """Seconds for each token of a prompt, and for each of a few behind it."""
    chunk = sequences.chunk
    slot = sequences.take([-1], [1])  # like nothing that is kept
    began = time.perf_counter()
    for start in range(0, len(prompt), chunk):
        sequences.evaluate(slot, prompt[start : start + chunk], cut=True)
    read = time.perf_counter()
    for n in range(TOKENS):
        sequences.evaluate(slot, [500 + n], cut=False)
    sequences.give_back(slot)
    return (read - began) / len(prompt), (time.perf_counter() - read) / TOKENS
