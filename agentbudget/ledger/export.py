"""The journal as a file: JSON lines or Parquet, written whole or not at all, and checked without a ledger."""

from __future__ import annotations

import gzip
import importlib
import json
import os
import secrets
import zlib
from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, Final, Protocol, Self, cast

from agentbudget.errors import ExportError, InvalidArgument, MissingDependency
from agentbudget.ledger.records import Entry, Units
from agentbudget.ledger.store import GENESIS, canonical
from agentbudget.ledger.verify import check_link

if TYPE_CHECKING:
    from agentbudget.ledger.core import Ledger

PAGE: Final = 10_000
"""Entries that are read and written at a time."""

MOST_PROBLEMS: Final = 100
"""After so many, `verify_export` reads no further."""

UNITS: Final = ("usd_nano", "tokens", "calls")

_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_SUFFIXES: Final = (".jsonl", ".jsonl.gz", ".parquet")

OnPage = Callable[[int, int], object]
"""Hears how many entries are written, of how many."""


@dataclass(frozen=True, slots=True)
class Export:
    """A journal that was written to ``path``. ``head`` is the hash of its last entry (empty if there is none).

    Keep `head` elsewhere: together with it, `verify_export` also shows that the end of a file was cut off.
    """

    path: Path
    entries: int
    head: str


@dataclass(frozen=True, slots=True)
class ExportVerification:
    """What `verify_export` found: how many entries could be read, the hash of the last, every difference in words."""

    entries: int
    head: str
    problems: tuple[str, ...] = ()

    @property
    def ok(self) -> bool:
        """True if the chain of hashes is whole from the first entry to the last."""
        return not self.problems


def export(ledger: Ledger, path: Path, on_page: OnPage | None = None) -> Export:
    """Write the journal of `ledger` to `path`; see `Ledger.export`."""
    make = _writer(path)
    latest = ledger.entries(last=1)
    total, head = (latest[0].seq, latest[0].hash) if latest else (0, "")
    draft = path.with_name(f".{path.name}.{os.getpid()}.{secrets.token_hex(4)}.tmp")
    try:
        if path.is_dir():
            raise IsADirectoryError("it is a directory")
        with make(draft) as writer:
            # Page by page: a reader that stays in one transaction keeps the store from tidying up behind it.
            for after in range(0, total, PAGE):
                writer.write(ledger.entries(after=after, limit=min(PAGE, total - after)))
                if on_page is not None:
                    on_page(min(after + PAGE, total), total)
        with draft.open("rb") as written:
            os.fsync(written.fileno())
        draft.replace(path)
    except OSError as error:
        raise ExportError(
            f"the journal cannot be written to {path}: {error.strerror or error}", path=str(path)
        ) from error
    finally:
        with suppress(OSError):  # what kept it from being written may keep it from being looked for
            draft.unlink(missing_ok=True)
    return Export(path, total, head)


def read_export(path: str | Path) -> Iterator[Entry]:
    """The entries of an exported journal, one by one. Raises `ExportError` where one cannot be read."""
    for where, entry in _read(Path(path)):
        if isinstance(entry, str):
            raise ExportError(f"{path}, {where}: {entry}", path=str(path))
        yield entry


def verify_export(path: str | Path, *, head: str | None = None) -> ExportVerification:
    """Recompute the chain of hashes of an exported journal; no ledger is needed. Names the line of every difference.

    ``head`` is the last hash as `Export` gave it: without it, nobody can see that whole lines at the end are gone.
    """
    problems: list[str] = []
    count, seq, before = 0, 0, GENESIS
    for where, entry in _read(Path(path)):
        if len(problems) == MOST_PROBLEMS:
            problems.append(f"{where}: there may be more; the rest was not read")
            break
        if isinstance(entry, str):
            problems.append(f"{where}: {entry}")
            continue
        problems += [f"{where}: {problem}" for problem in _check(entry, before, seq + 1)]
        count, seq, before = count + 1, entry.seq, bytes.fromhex(entry.hash)
    last = before.hex() if count else ""
    if head is not None and head != last:
        problems.append(f"the last hash is {last or 'missing'}, not {head}: entries are missing, or more came later")
    return ExportVerification(count, last, tuple(problems))


def _check(entry: Entry, before: bytes, seq: int) -> list[str]:
    try:
        return check_link(entry, before, seq)
    except InvalidArgument as error:  # nothing that a ledger could have written
        return [str(error)]


def entry_row(entry: Entry) -> dict[str, Any]:
    """An entry as JSON-ready data: a line of an export."""
    return {
        "seq": entry.seq,
        "at": iso(entry.at_ns),
        "at_ns": entry.at_ns,
        "kind": entry.kind,
        "subject": entry.subject,
        "targets": list(entry.targets),
        "held": dict(zip(UNITS, entry.held, strict=True)),
        "posted": dict(zip(UNITS, entry.posted, strict=True)),
        "detail": dict(entry.detail),
        "hash": entry.hash,
    }


def iso(at_ns: int) -> str:
    """A moment as text, in UTC, to the microsecond."""
    moment = _EPOCH + timedelta(microseconds=at_ns // 1000)
    return moment.isoformat(timespec="microseconds").replace("+00:00", "Z")


# --- writing


class _Writer(Protocol):
    """Takes the journal a page at a time."""

    def write(self, entries: list[Entry]) -> None: ...


def _writer(path: Path) -> Callable[[Path], AbstractContextManager[_Writer]]:
    match _suffix(path):
        case ".jsonl":
            return lambda draft: _Lines(draft.open("wb"))
        case ".jsonl.gz":
            return lambda draft: _Lines(cast("IO[bytes]", gzip.open(draft, "wb", compresslevel=6)))
        case _:
            arrow = _arrow()
            return lambda draft: _Columns(arrow, draft)


def _suffix(path: Path) -> str:
    found = next((suffix for suffix in _SUFFIXES if path.name.endswith(suffix)), None)
    if found is None:
        raise InvalidArgument(
            f"{str(path)!r} names no kind of export: end it with {', '.join(_SUFFIXES)}",
            argument="path",
            value=str(path),
        )
    return found


_encode = json.JSONEncoder(separators=(",", ":"), ensure_ascii=False, allow_nan=False).encode


_BREAKS: Final = {ord(mark): f"\\u{ord(mark):04x}" for mark in "\x85\u2028\u2029"}
"""What JSON lets stand in a text, and some readers take for the end of a line."""


def _line(entry: Entry) -> bytes:
    return (_encode(entry_row(entry)).translate(_BREAKS) + "\n").encode()


class _Lines:
    """JSON, an entry a line."""

    def __init__(self, file: IO[bytes]) -> None:
        self._file = file

    def write(self, entries: list[Entry]) -> None:
        self._file.write(b"".join(map(_line, entries)))

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()


class _Columns:
    """Parquet: a column a unit, the detail as JSON."""

    def __init__(self, arrow: Any, draft: Path) -> None:
        self._arrow = arrow
        self._schema = _schema(arrow)
        self._writer = arrow.parquet.ParquetWriter(str(draft), self._schema, compression="zstd")

    def write(self, entries: list[Entry]) -> None:
        rows = [_columns(entry) for entry in entries]
        self._writer.write_table(self._arrow.Table.from_pylist(rows, schema=self._schema))

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._writer.close()


def _schema(arrow: Any) -> Any:
    amounts = [(f"{side}_{unit}", arrow.int64()) for side in ("held", "posted") for unit in UNITS]
    return arrow.schema(
        [
            ("seq", arrow.int64()),
            ("at", arrow.timestamp("ns", tz="UTC")),
            ("at_ns", arrow.int64()),
            ("kind", arrow.string()),
            ("subject", arrow.string()),
            ("targets", arrow.list_(arrow.string())),
            *amounts,
            ("detail", arrow.string()),
            ("hash", arrow.string()),
        ]
    )


def _columns(entry: Entry) -> dict[str, Any]:
    amounts = {
        f"{side}_{unit}": value
        for side, triple in (("held", entry.held), ("posted", entry.posted))
        for unit, value in zip(UNITS, triple, strict=True)
    }
    return {
        "seq": entry.seq,
        "at": entry.at_ns,
        "at_ns": entry.at_ns,
        "kind": entry.kind,
        "subject": entry.subject,
        "targets": list(entry.targets),
        **amounts,
        "detail": canonical(entry.detail),
        "hash": entry.hash,
    }


def _arrow() -> Any:
    try:
        import pyarrow

        importlib.import_module("pyarrow.parquet")  # a part of it that does not come by itself
    except ImportError as error:
        raise MissingDependency("Parquet needs pyarrow: pip install 'agentbudget-runtime[parquet]'") from error
    return pyarrow


# --- reading

_Found = tuple[str, Entry | str]
"""Where in the file, and the entry there, or why it cannot be read."""


def _read(path: Path) -> Iterator[_Found]:
    suffix = _suffix(path)
    try:
        if suffix == ".parquet":
            yield from _read_columns(_arrow(), path)
        else:
            with gzip.open(path) if suffix == ".jsonl.gz" else path.open("rb") as file:
                yield from _read_lines(cast("Iterable[bytes]", file))
    except OSError as error:
        raise ExportError(f"the export {path} cannot be read: {error.strerror or error}", path=str(path)) from error


def _read_lines(lines: Iterable[bytes]) -> Iterator[_Found]:
    number = 0
    try:
        for number, line in enumerate(lines, 1):
            yield f"line {number}", _parsed(line)
    except (EOFError, gzip.BadGzipFile, zlib.error) as error:
        yield f"line {number + 1}", f"the file is broken from here on: {error}"


def _parsed(line: bytes) -> Entry | str:
    try:
        row: dict[str, Any] = json.loads(line)
        entry = Entry(
            seq=row["seq"],
            at_ns=row["at_ns"],
            kind=row["kind"],
            subject=row["subject"],
            targets=tuple(row["targets"]),
            held=_units(row["held"]),
            posted=_units(row["posted"]),
            detail=row["detail"],
            hash=_hash(row["hash"]),
        )
        # Also what no hash covers: the time as people read it, a key that stands twice.
        return entry if _line(entry) == line else "it is not as it was written"
    except (ValueError, KeyError, TypeError, RecursionError, OverflowError, AttributeError) as error:
        return f"it is no entry: {error!r}"


def _read_columns(arrow: Any, path: Path) -> Iterator[_Found]:
    number = 0
    try:
        with arrow.parquet.ParquetFile(str(path)) as file:
            if not file.schema_arrow.equals(_schema(arrow)):
                yield "its columns", "they are not those of an export"
                return
            for batch in file.iter_batches(batch_size=PAGE):
                times: list[int] = batch["at"].cast(arrow.int64()).to_pylist()
                for at_ns, row in zip(times, batch.drop_columns(["at"]).to_pylist(), strict=True):
                    number += 1
                    yield f"row {number}", _from_columns(row, at_ns)
    except arrow.ArrowException as error:
        yield f"row {number + 1}", f"the file is broken from here on: {error}"


def _from_columns(row: dict[str, Any], at_ns: int) -> Entry | str:
    held, posted = (tuple(row[f"{side}_{unit}"] for unit in UNITS) for side in ("held", "posted"))
    try:
        detail: dict[str, Any] = json.loads(row["detail"])
        entry = Entry(
            seq=row["seq"],
            at_ns=row["at_ns"],
            kind=row["kind"],
            subject=row["subject"],
            targets=tuple(row["targets"]),
            held=(held[0], held[1], held[2]),
            posted=(posted[0], posted[1], posted[2]),
            detail=detail,
            hash=_hash(row["hash"]),
        )
        same = at_ns == entry.at_ns and canonical(detail) == row["detail"]
    except (ValueError, TypeError, RecursionError) as error:
        return f"it is no entry: {error!r}"
    return entry if same else "it is not as it was written"


def _units(row: dict[str, int]) -> Units:
    usd_nano, tokens, calls = (row[unit] for unit in UNITS)
    return (usd_nano, tokens, calls)


def _hash(text: str) -> str:
    bytes.fromhex(text)
    return text
