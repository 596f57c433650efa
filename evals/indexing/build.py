"""What indexing takes beside fastembed alone: the same passages, in turns, by the clock and by the processor."""

from __future__ import annotations

import resource
import statistics
import sysconfig
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from shutil import copyfile
from typing import Final

from fastembed import TextEmbedding

from agentbudget.context import FastEmbedder, open_index
from agentbudget.context.chunk import chunk
from agentbudget.context.document import Document
from agentbudget.context.load import File, read
from agentbudget.models import catalog

NAME: Final = "agentbudget/all-minilm-l6-v2"
"""What the default model is called once `FastEmbedder` has told fastembed of it."""


@dataclass(frozen=True, slots=True)
class Took:
    """Seconds on the clock and of the processors, children included."""

    wall_s: float
    cpu_s: float


class _Stopwatch:
    def __init__(self) -> None:
        self._wall, self._cpu = time.perf_counter(), _cpu_s()

    def read(self) -> Took:
        return Took(time.perf_counter() - self._wall, _cpu_s() - self._cpu)


def _cpu_s() -> float:
    used = (resource.getrusage(resource.RUSAGE_SELF), resource.getrusage(resource.RUSAGE_CHILDREN))
    return sum(one.ru_utime + one.ru_stime for one in used)


async def measure(passages: int, *, rounds: int, processes: int) -> None:
    """Index the standard library's source, some files a round; embed the same texts by fastembed alone before."""
    embedder = FastEmbedder()
    embedder.embed(["ready"])
    alone = TextEmbedding(
        NAME, specific_model_path=str(catalog.ensure("all-minilm-l6-v2")), providers=["CPUExecutionProvider"]
    )
    parts = _parts(embedder, passages, rounds)
    by_itself: list[Took] = []
    indexed: list[Took] = []
    with tempfile.TemporaryDirectory() as temporary:
        for number, (files, texts) in enumerate(parts):
            watch = _Stopwatch()
            list(alone.embed(texts, batch_size=1))
            by_itself.append(watch.read())
            folder = Path(temporary) / f"docs-{number}"
            folder.mkdir()
            for file in files:
                copyfile(file, folder / file.name)
            watch = _Stopwatch()
            async with open_index(Path(temporary) / f"index-{number}", embedder=embedder) as index:
                report = await index.update(folder, processes=processes)
            indexed.append(watch.read())
            assert report.embedded == len(texts)
    total = sum(len(texts) for _, texts in parts)
    _print(total, by_itself, indexed, processes)


def _print(total: int, alone: Sequence[Took], indexed: Sequence[Took], processes: int) -> None:
    print(f"{total:,} passages of the standard library's source, in {len(alone)} turns")
    print("| | wall, s | processor, s | passages/s |\n|---|--:|--:|--:|")
    for name, took in (("fastembed alone", alone), (f"index, {processes} process(es)", indexed)):
        wall, cpu = sum(one.wall_s for one in took), sum(one.cpu_s for one in took)
        print(f"| {name} | {wall:.1f} | {cpu:.1f} | {total / wall:.1f} |")
    ratios = [after.cpu_s / before.cpu_s for before, after in zip(alone, indexed, strict=True)]
    walls = [after.wall_s / before.wall_s for before, after in zip(alone, indexed, strict=True)]
    print(
        f"index / fastembed alone, median of the turns: {statistics.median(ratios):.3f} by the processor "
        f"({min(ratios):.3f} to {max(ratios):.3f}), {statistics.median(walls):.3f} by the clock"
    )


def _parts(embedder: FastEmbedder, passages: int, rounds: int) -> list[tuple[list[Path], list[str]]]:
    """Files and the distinct texts that their chunks embed, about `passages` in all, in `rounds` parts."""
    parts: list[tuple[list[Path], list[str]]] = []
    files = iter(sorted(Path(sysconfig.get_path("stdlib")).glob("*.py")))
    for _ in range(rounds):
        chosen: list[Path] = []
        texts: dict[str, str] = {}
        for path in files:
            document = read(File(path.name, path, "", 0, 0))
            if not isinstance(document, Document):
                continue
            chosen.append(path)
            texts |= {one.id: one.embedded for one in chunk(document, embedder.count_tokens)}
            if len(texts) >= passages // rounds:
                break
        parts.append((chosen, list(texts.values())))
    return parts
