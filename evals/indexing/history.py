"""What a history of edits costs to index, update by update, beside indexing everything again each time."""

from __future__ import annotations

import subprocess
import sys
import tarfile
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from shutil import copytree, rmtree
from typing import Final

from agentbudget.context import IndexReport, OpenAIEmbedder, open_index
from agentbudget.money import format_usd
from agentbudget.usage import Usage

VERSIONS: Final = "8.1.3,8.1.7,8.2.0,8.2.1,8.3.0,8.3.1,8.4.0,8.5.0,8.5.1"
"""Of click: patches and features, and (8.2.0) a rewrite of many pages."""


@dataclass(frozen=True, slots=True)
class Version:
    """One state of the documents."""

    name: str
    folder: Path


def from_folder(folder: Path) -> list[Version]:
    """A version for each folder in `folder`, in the order of their names."""
    return [Version(path.name, path) for path in sorted(folder.iterdir()) if path.is_dir()]


def from_package(package: str, versions: Sequence[str], cache: Path) -> list[Version]:
    """The ``docs`` folders of source distributions, fetched once into `cache`."""
    return [Version(version, _docs(package, version, cache / package / version)) for version in versions]


def _docs(package: str, version: str, place: Path) -> Path:
    docs = place / "docs"
    if docs.is_dir():
        return docs
    with tempfile.TemporaryDirectory() as temporary:
        command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--no-binary", ":all:"]
        subprocess.run([*command, "--dest", temporary, f"{package}=={version}"], check=True, stdout=sys.stderr)
        [archive] = Path(temporary).glob("*.tar.gz")
        with tarfile.open(archive) as tar:
            tar.extractall(temporary, filter="data")
        [unpacked] = [path for path in Path(temporary).glob("*/docs") if path.is_dir()]
        place.mkdir(parents=True, exist_ok=True)
        rmtree(docs, ignore_errors=True)
        copytree(unpacked, docs)
    return docs


async def measure(versions: Sequence[Version]) -> None:
    """Print a row for each version. Each replaces the one before in one folder, as a checkout would."""
    hosted = OpenAIEmbedder("text-embedding-3-small").price
    print(
        "| version | docs | chunks | kept | of them moved | embedded | deleted | tokens | of all | cost | all again |"
    )
    print("|---|--:|--:|--:|--:|--:|--:|--:|--:|--:|--:|", flush=True)
    reports: list[IndexReport] = []
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary) / "docs"
        async with open_index(Path(temporary) / "index") as index:
            for version in versions:
                rmtree(folder, ignore_errors=True)
                copytree(version.folder, folder)
                report = await index.update(folder)
                reports.append(report)
                print(_row(version.name, report), flush=True)
    later = reports[1:]
    tokens, full = sum(report.tokens for report in later), sum(report.full_tokens for report in later)
    paid, again = sum(report.usd_nano for report in later), sum(report.full_usd_nano or 0 for report in later)
    print(
        f"after the first: {tokens:,} tokens embedded where indexing everything again each time takes {full:,} "
        f"({1 - tokens / full:.1%} saved); {format_usd(paid)} of this machine instead of {format_usd(again)}, or "
        f"{format_usd(hosted.cost(Usage(tokens)))} instead of {format_usd(hosted.cost(Usage(full)))} at the price of "
        "text-embedding-3-small"
    )


def _row(name: str, report: IndexReport) -> str:
    cells = (
        name,
        report.documents,
        report.chunks,
        report.kept,
        report.moved,
        report.embedded,
        report.deleted,
        f"{report.tokens:,}",
        f"{report.tokens / report.full_tokens:.1%}",
        format_usd(report.usd_nano),
        "" if report.full_usd_nano is None else format_usd(report.full_usd_nano),
    )
    return f"| {' | '.join(map(str, cells))} |"
