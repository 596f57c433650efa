"""The weights on this machine: fetched whole, verified, used by many processes, removed."""

from __future__ import annotations

import errno
import fcntl
import json
import shutil
import time
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from agentbudget.errors import WeightsError
from agentbudget.models.catalog.entries import Entry, WeightsFile, entry
from agentbudget.models.catalog.progress import Meter, Progress
from agentbudget.models.catalog.sources import NO_ROOM, fetch, file_sha256
from agentbudget.settings import weights_dir

STAMP: Final = "verified.json"

UNWRITABLE: Final = (errno.EROFS, errno.EACCES, errno.EPERM, *NO_ROOM)
"""How a folder refuses to be written: weights in an image of a container, or of another user, or on a full disk."""


def is_present(name: str | Entry) -> bool:
    """Whether every file of `name` is in place with its full size. `ensure` also checks what is in them.

    Raises `WeightsError` where that may not be looked at.
    """
    wanted = _entry_of(name)
    return all(_size(wanted.folder / file.name) == file.size_bytes for file in wanted.files)


def remove(name: str | Entry) -> bool:
    """Delete the files of `name`, finished or not; whether there were any. Of a folder that is a link, only the link.

    Raises `WeightsError` where that may not be done.
    """
    wanted = _entry_of(name)
    try:
        with _locked(wanted, None):
            return _remove(wanted)
    except OSError as error:
        raise _unwritable(error) from error


def ensure(name: str | Entry, *, progress: Progress | None = None, force: bool = False) -> Path:
    """The verified weights of `name`: the file of a GGUF, the folder of an embedder. Fetches what is missing.

    An `Entry` of one's own works as well as a name of the catalog. A fetch that was interrupted goes on where it
    stopped; ``force`` fetches anew. Where nothing may be written, what is there is verified and used. Raises
    `WeightsError` when a file cannot be had or is not what the catalog states; what is wrong never takes its place.
    """
    wanted = _entry_of(name)
    if not force and _stamped(wanted):
        return wanted.path
    meter = Meter(progress, wanted.name, wanted.size_bytes)
    try:
        with _locked(wanted, progress):
            if force:
                _remove(wanted)
            for file in wanted.files:
                _ensure_file(wanted, file, meter)
            _write_stamp(wanted)
    except OSError as error:
        if force or error.errno not in UNWRITABLE or not is_present(wanted):
            raise _unwritable(error) from error
        for file in wanted.files:
            _verify(wanted, file, wanted.folder / file.name)
    return wanted.path


def _unwritable(error: OSError) -> WeightsError:
    return WeightsError(
        f"the weights below {weights_dir()} cannot be changed ({error}): set AGENTBUDGET_WEIGHTS to a folder that can"
    )


def _entry_of(name: str | Entry) -> Entry:
    return name if isinstance(name, Entry) else entry(name)


def _ensure_file(wanted: Entry, file: WeightsFile, meter: Meter) -> None:
    """Verify `file` where it is, or fetch it."""
    path = wanted.folder / file.name
    if path.exists():
        _verify(wanted, file, path)
        meter.done(file.size_bytes, f"verified {file.name}")
        return
    wanted.folder.mkdir(parents=True, exist_ok=True)
    partial = path.with_suffix(path.suffix + ".part")
    if file.text is not None:
        partial.write_text(file.text, encoding="utf-8")
    else:
        fetch(wanted, file, partial, meter)
    try:
        _verify(wanted, file, partial)
    except WeightsError:
        partial.unlink()
        raise
    partial.replace(path)
    meter.done(file.size_bytes, f"{file.name} is complete")


def _verify(wanted: Entry, file: WeightsFile, path: Path) -> None:
    """Raise unless `path` has the size and the checksum of `file`; the size is looked at first."""
    size = _size(path)
    if size != file.size_bytes:
        raise WeightsError(
            f"{path} has {size or 0:,} bytes, the catalog states {file.size_bytes:,}: it was cut short or changed. "
            f"Fetch it anew: agentbudget models pull {wanted.name} --force"
        )
    with _readable():
        found = file_sha256(path)
    if found != file.sha256:
        raise WeightsError(
            f"{path} has sha256 {found}, the catalog states {file.sha256}. "
            f"Fetch it anew: agentbudget models pull {wanted.name} --force"
        )


def _size(path: Path) -> int | None:
    with _readable():
        return path.stat().st_size if path.is_file() else None


@contextmanager
def _readable() -> Generator[None]:
    try:
        yield
    except PermissionError as error:
        raise WeightsError(
            f"weights may not be read ({error}): let this user read them, or set AGENTBUDGET_WEIGHTS to another folder"
        ) from error


def _marks(wanted: Entry) -> dict[str, list[int | str]]:
    """What tells whether a verified file was touched since: its checksum, size and time of change."""
    marks: dict[str, list[int | str]] = {}
    for file in wanted.files:
        status = (wanted.folder / file.name).stat()
        marks[file.name] = [file.sha256, status.st_size, status.st_mtime_ns]
    return marks


def _stamped(wanted: Entry) -> bool:
    """Whether all files are as they were when they were verified, so that a gigabyte need not be hashed again."""
    if not is_present(wanted):
        return False
    try:
        return json.loads((wanted.folder / STAMP).read_text(encoding="utf-8")) == _marks(wanted)
    except (OSError, ValueError):
        return False


def _write_stamp(wanted: Entry) -> None:
    partial = wanted.folder / f"{STAMP}.part"
    partial.write_text(json.dumps(_marks(wanted)), encoding="utf-8")
    partial.replace(wanted.folder / STAMP)


def _remove(wanted: Entry) -> bool:
    if wanted.folder.is_symlink():
        wanted.folder.unlink()
        return True
    if not wanted.folder.exists():
        return False
    shutil.rmtree(wanted.folder)
    return True


@contextmanager
def _locked(wanted: Entry, progress: Progress | None) -> Generator[None]:
    """Let one process at a time write the files of `wanted`; the others wait and say so."""
    weights_dir().mkdir(parents=True, exist_ok=True)
    with (weights_dir() / f".{wanted.name}.lock").open("w") as lock:
        while True:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if progress is not None:
                    progress(0, wanted.size_bytes, f"{wanted.name}: another process is fetching it, waiting")
                time.sleep(0.2)
        yield
