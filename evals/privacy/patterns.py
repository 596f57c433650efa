"""Precision and recall of what is found in texts before they leave, false alarms on real text, and what it takes."""

from __future__ import annotations

import gzip
import json
import time
from collections import Counter
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Final

from agentbudget.privacy.patterns import Finder, Finding, Group
from evals.privacy.labelled import Sample, Truth, samples

CORPORA: Final = ("retrieval/xquad_corpus", "retrieval/nq_corpus", "skills/banking77_test", "skills/gsm8k_test")
CHARACTERS_A_TOKEN: Final = 4
GROUPS: Final[tuple[Group, ...]] = ("secret", "personal")


def main(data: Path | None, most: int) -> None:
    """Print all of it."""
    finder = Finder.of(frozenset(GROUPS))
    labelled = list(samples(each=12))
    found = [finder.find(sample.text) for sample in labelled]
    print(f"{len(labelled)} labelled sentences, {sum(not sample.truths for sample in labelled)} with nothing in them\n")
    print("| group | to find | found | recall | found wrongly | precision |\n|---|--:|--:|--:|--:|--:|")
    for group in GROUPS:
        print(_row(group, labelled, found))
    print("\nmissed: " + (_counted(_missed(labelled, found)) or "nothing"))
    print("found wrongly: " + (_counted(_wrong(labelled, found)) or "nothing"))
    print("\n| text | documents | characters | with a finding | kinds | CPU µs a 1,000 tokens |")
    print("|---|--:|--:|--:|---|--:|")
    print(_on("the handbook", _handbook(), finder))
    for name in CORPORA if data is not None else ():
        print(_on(name, _texts(data, name, most), finder))


def _row(group: Group, labelled: list[Sample], found: list[tuple[Finding, ...]]) -> str:
    truths = [(truth, hits) for sample, hits in zip(labelled, found, strict=True) for truth in sample.truths]
    wanted = [(truth, hits) for truth, hits in truths if truth.group == group]
    right = sum(_covered(truth, hits) for truth, hits in wanted)
    pairs = zip(labelled, found, strict=True)
    alarms = [(hit, one) for one, hits in pairs for hit in hits if hit.group == group]
    wrong = sum(not _meets(hit, one) for hit, one in alarms)
    precision = (len(alarms) - wrong) / len(alarms) if alarms else 1.0
    return f"| {group} | {len(wanted)} | {right} | {right / len(wanted):.3f} | {wrong} | {precision:.3f} |"


def _covered(truth: Truth, hits: Iterable[Finding]) -> bool:
    """Whether every character of it would be taken out."""
    left = set(range(truth.start, truth.end))
    for hit in hits:
        left -= set(range(hit.start, hit.end))
    return not left


def _meets(hit: Finding, sample: Sample) -> bool:
    return any(hit.start < truth.end and truth.start < hit.end for truth in sample.truths)


def _missed(labelled: list[Sample], found: list[tuple[Finding, ...]]) -> Counter[str]:
    return Counter(
        truth.kind
        for sample, hits in zip(labelled, found, strict=True)
        for truth in sample.truths
        if not _covered(truth, hits)
    )


def _wrong(labelled: list[Sample], found: list[tuple[Finding, ...]]) -> Counter[str]:
    return Counter(
        f"{hit.kind} in {sample.text!r}"
        for sample, hits in zip(labelled, found, strict=True)
        for hit in hits
        if not _meets(hit, sample)
    )


def _counted(counts: Counter[str]) -> str:
    return ", ".join(f"{name} × {count}" for name, count in counts.most_common())


def _on(name: str, texts: Iterable[str], finder: Finder) -> str:
    everything = list(texts)
    started = time.process_time()
    found = [finder.find(text) for text in everything]
    spent_us = (time.process_time() - started) * 1e6
    characters = sum(map(len, everything))
    kinds = Counter(hit.kind for hits in found for hit in hits)
    tokens = characters / CHARACTERS_A_TOKEN
    return (
        f"| {name} | {len(everything):,} | {characters:,} | {sum(map(bool, found))} | {_counted(kinds) or '–'} "
        f"| {spent_us / tokens * 1000:.0f} |"
    )


def _handbook() -> Iterator[str]:
    folder = Path(__file__).parents[2] / "examples" / "handbook"
    return (path.read_text(encoding="utf-8") for path in sorted(folder.rglob("*.md")))


def _texts(data: Path | None, name: str, most: int) -> Iterator[str]:
    if data is None:
        return
    with gzip.open(data / f"{name}.jsonl.gz", "rt", encoding="utf-8") as lines:
        for number, line in enumerate(lines):
            if number == most:
                return
            yield " ".join(value for value in json.loads(line).values() if isinstance(value, str))
