"""The journal as a file: it comes back as it was, tampering shows, and there is never half of it."""

from __future__ import annotations

import gzip
import importlib.util
import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from agentbudget.errors import ExportError, InvalidArgument, MissingDependency
from agentbudget.ledger import Ledger, read_export, verify_export
from agentbudget.money import Amount, Budget

ARROW = pytest.mark.skipif(importlib.util.find_spec("pyarrow") is None, reason="pyarrow is in the extra 'parquet'")
SUFFIXES = ["jsonl", "jsonl.gz", pytest.param("parquet", marks=ARROW)]


@pytest.fixture
def kept(ledger: Ledger) -> Ledger:
    """A journal with every kind of entry, and text from everywhere."""
    ledger.account("org", limit=Budget(usd="10"), windows={"day@Europe/Berlin": Budget(calls=9)})
    ledger.account("user/ß", parent="org")
    ledger.top_up("org", Budget(usd="5"), topup_id="invoice-1")
    ledger.freeze("user/ß", reason='"quoted", 日本')
    ledger.unfreeze("user/ß")
    meta = {"model": "m", "nested": {"z": [1, 1.5e-7, None, True, -0.0], "a": "\u2028\x85|\n"}}
    step = ledger.reserve("step", Amount(500, 50, 5), accounts=["user/ß"], tag="t", meta=meta)
    call = ledger.reserve("step/1", Amount(100, 10, 1), within="step")
    call.mark_sent()
    call.extend(Amount(200, 10, 1))
    call.reduce(Amount(150, 10, 1))
    call.presume(detail={"error": "timeout"})
    step.settle()
    call.settle(Amount(40, 4, 1), detail={"usage": {"input_tokens": 4}})
    ledger.reserve("unused", Amount(1), accounts=["org"]).void()
    return ledger


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_what_is_exported_comes_back(kept: Ledger, tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"journal.{suffix}"
    done = kept.export(path)
    entries = kept.entries()
    assert list(read_export(path)) == entries
    assert (done.path, done.entries, done.head) == (path, len(entries), entries[-1].hash)
    found = verify_export(path, head=done.head)
    assert found.ok, found.problems
    assert (found.entries, found.head) == (done.entries, done.head)
    assert [p.name for p in tmp_path.iterdir() if "ledger" not in p.name] == [path.name]


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_an_empty_journal_is_an_empty_file(ledger: Ledger, tmp_path: Path, suffix: str) -> None:
    done = ledger.export(tmp_path / f"journal.{suffix}")
    assert (done.entries, done.head) == (0, "")
    assert list(read_export(done.path)) == []
    assert verify_export(done.path, head="").ok


def test_a_line_says_when_what_and_how_much_in_each_unit(kept: Ledger, tmp_path: Path) -> None:
    path = tmp_path / "journal.jsonl"
    kept.export(path)
    lines = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    line = next(line for line in lines if line["kind"] == "reserve")
    assert line["at"].endswith("Z")
    assert int(line["at"][-7:-1]) == line["at_ns"] // 1000 % 1_000_000
    assert (line["subject"], line["targets"]) == ("step", ["user/ß", "org"])
    assert line["held"] == {"usd_nano": 500, "tokens": 50, "calls": 5}
    assert line["posted"] == {"usd_nano": 0, "tokens": 0, "calls": 0}
    assert line["detail"]["meta"]["model"] == "m"
    assert line["hash"] == kept.entries(after=line["seq"] - 1, limit=1)[0].hash


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_a_long_journal_is_written_page_by_page(
    ledger: Ledger, tmp_path: Path, suffix: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(importlib.import_module("agentbudget.ledger.export"), "PAGE", 7)
    for n in range(20):
        ledger.account(f"user/{n}")
    heard: list[tuple[int, int]] = []
    done = ledger.export(tmp_path / f"journal.{suffix}", on_page=lambda done, total: heard.append((done, total)))
    assert heard == [(7, 20), (14, 20), (20, 20)]
    assert [e.subject for e in read_export(done.path)] == [f"user/{n}" for n in range(20)]
    assert verify_export(done.path).ok


def test_what_is_written_meanwhile_is_not_half_in_it(
    ledger: Ledger, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(importlib.import_module("agentbudget.ledger.export"), "PAGE", 2)
    for n in range(5):
        ledger.account(f"user/{n}")
    done = ledger.export(tmp_path / "journal.jsonl", on_page=lambda done, _: ledger.account(f"new/{done}"))
    assert done.entries == 5
    assert verify_export(done.path, head=done.head).entries == 5


# --- tampering


def lines_of(ledger: Ledger, path: Path) -> list[str]:
    ledger.export(path)
    return path.read_text(encoding="utf-8").splitlines(keepends=True)


TAMPERINGS: list[tuple[str, Callable[[str], str]]] = [
    ("does not match its hash", lambda line: line.replace('"usd_nano":500', '"usd_nano":499')),
    ("does not match its hash", lambda line: line.replace('"subject":"step"', '"subject":"stop"')),
    ("does not match its hash", lambda line: line.replace('"model":"m"', '"model":"n"')),
    ("does not match its hash", lambda line: line.replace('"user/ß"', '"user/s"')),
    ("not as it was written", lambda line: line.replace('"at":"2', '"at":"1')),
    ("not as it was written", lambda line: line.replace('{"seq":', '{ "seq":')),
    ("not as it was written", lambda line: line.replace('"subject"', '"subject":"other","subject"')),
    ("not as it was written", lambda line: line.replace('"hash"', '"paid":true,"hash"')),
    ("not as it was written", lambda line: line.rstrip("\n")),
    ("no entry", lambda line: line.replace('"kind"', '"king"')),
    ("no entry", lambda line: line[:50] + "\n"),
    ("no entry", lambda line: line.replace('"m"', '"\\ud800"')),
    ("no entry", lambda line: line.replace("1.5e-07", "NaN")),
    ("no entry", lambda line: "[" * 100_000 + "\n"),
]


@pytest.mark.parametrize(("message", "tamper"), TAMPERINGS)
def test_a_line_that_was_changed_is_named(
    kept: Ledger, tmp_path: Path, message: str, tamper: Callable[[str], str]
) -> None:
    path = tmp_path / "journal.jsonl"
    lines = lines_of(kept, path)
    number = next(n for n, line in enumerate(lines) if '"kind":"reserve"' in line)
    changed = tamper(lines[number])
    assert changed != lines[number]
    if message == "not as it was written" and not changed.endswith("\n"):
        del lines[number + 1 :]
    lines[number] = changed
    path.write_text("".join(lines), encoding="utf-8")
    problems = verify_export(path).problems
    assert any(p.startswith(f"line {number + 1}: ") and message in p for p in problems), problems


def test_a_line_that_is_missing_is_named(kept: Ledger, tmp_path: Path) -> None:
    path = tmp_path / "journal.jsonl"
    lines = lines_of(kept, path)
    path.write_text("".join(lines[:4] + lines[5:]), encoding="utf-8")
    assert verify_export(path).problems == ("line 5: entry 6 stands where 5 should: one is missing",)


def test_an_end_that_was_cut_off_shows_beside_the_last_hash(kept: Ledger, tmp_path: Path) -> None:
    path = tmp_path / "journal.jsonl"
    lines = lines_of(kept, path)
    head = kept.entries()[-1].hash
    path.write_text("".join(lines[:-1]), encoding="utf-8")
    assert verify_export(path).ok  # nobody can see it from the file alone
    (problem,) = verify_export(path, head=head).problems
    assert head in problem


def test_a_zipped_file_that_was_cut_off_is_named(kept: Ledger, tmp_path: Path) -> None:
    path = tmp_path / "journal.jsonl.gz"
    kept.export(path)
    path.write_bytes(path.read_bytes()[:-20])
    assert any("broken from here on" in p for p in verify_export(path).problems)
    path.write_bytes(b"no gzip at all")
    assert any("broken from here on" in p for p in verify_export(path).problems)


def test_a_row_of_parquet_that_was_changed_is_named(kept: Ledger, tmp_path: Path) -> None:
    pyarrow = pytest.importorskip("pyarrow")
    parquet = pytest.importorskip("pyarrow.parquet")
    path = tmp_path / "journal.parquet"
    kept.export(path)
    table: Any = parquet.read_table(path)
    rows: list[dict[str, Any]] = table.drop_columns(["at"]).to_pylist()
    for row in rows:
        row["at"] = row["at_ns"]
    rows[3]["subject"] = "somebody else"
    rows[4]["at"] += 1
    rows[5]["detail"] = ' {"reason":null}'
    parquet.write_table(pyarrow.Table.from_pylist(rows, schema=table.schema), path)
    problems = verify_export(path).problems
    assert [p.partition(":")[0] for p in problems] == ["row 4", "row 5", "row 6", "row 7"]
    assert "does not match its hash" in problems[0]
    assert "not as it was written" in problems[1]
    parquet.write_table(table.drop_columns(["at"]), path)
    assert verify_export(path).problems == ("its columns: they are not those of an export",)
    path.write_bytes(b"PAR1 no parquet PAR1")
    assert any("broken" in p for p in verify_export(path).problems)


def test_a_file_full_of_errors_is_not_read_to_its_end(tmp_path: Path) -> None:
    path = tmp_path / "journal.jsonl"
    path.write_text("nonsense\n" * 1000)
    problems = verify_export(path).problems
    assert len(problems) == 101
    assert "the rest was not read" in problems[-1]
    with pytest.raises(ExportError, match="line 1: it is no entry"):
        list(read_export(path))


# --- where it cannot be written


@pytest.mark.parametrize("name", ["journal", "journal.csv", "journal.jsonl.zip", ".jsonl~"])
def test_another_suffix_is_refused(kept: Ledger, tmp_path: Path, name: str) -> None:
    with pytest.raises(InvalidArgument, match="parquet") as refused:
        kept.export(tmp_path / name)
    assert refused.value.argument == "path"
    with pytest.raises(InvalidArgument):
        verify_export(tmp_path / name)


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_a_path_that_cannot_be_written_is_named(kept: Ledger, tmp_path: Path, suffix: str) -> None:
    (tmp_path / f"folder.{suffix}").mkdir()
    (tmp_path / "ledger.txt").write_text("no folder")
    places = (f"nowhere/journal.{suffix}", f"folder.{suffix}", f"ledger.txt/journal.{suffix}", f"{'x' * 245}.{suffix}")
    for path in (tmp_path / place for place in places):
        with pytest.raises(ExportError) as refused:
            kept.export(path)
        assert refused.value.path == str(path)
    assert [p.name for p in tmp_path.iterdir() if "ledger" not in p.name] == [f"folder.{suffix}"]
    with pytest.raises(ExportError, match="cannot be read"):
        verify_export(tmp_path / f"nothing.{suffix}")


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_an_export_that_breaks_off_leaves_the_old_file(kept: Ledger, tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"journal.{suffix}"
    path.write_text("the old one")

    def interrupt(_done: int, _total: int) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        kept.export(path, on_page=interrupt)
    assert path.read_text() == "the old one"
    assert [p.name for p in tmp_path.iterdir() if "ledger" not in p.name] == [path.name]
    kept.export(path)
    assert verify_export(path).ok


FULL = """
import resource, sys
from agentbudget.errors import ExportError
from agentbudget.ledger import Ledger
from agentbudget.money import Amount
ledger = Ledger.open("memory:")
for n in range(2000):
    ledger.account(f"user/{n}")
resource.setrlimit(resource.RLIMIT_FSIZE, (50_000, 50_000))
try:
    ledger.export(sys.argv[1])
except ExportError as error:
    print(error.path)
"""


def test_a_disk_that_is_full_leaves_no_half_file(tmp_path: Path) -> None:
    path = tmp_path / "journal.jsonl"
    done = subprocess.run([sys.executable, "-c", FULL, str(path)], capture_output=True, text=True, check=False)
    assert done.stdout.strip() == str(path), done.stderr
    assert list(tmp_path.iterdir()) == []


def test_without_pyarrow_the_extra_is_named(kept: Ledger, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    monkeypatch.setitem(sys.modules, "pyarrow.parquet", None)
    with pytest.raises(MissingDependency, match=r"agentbudget-runtime\[parquet\]"):
        kept.export(tmp_path / "journal.parquet")


def test_a_zipped_export_is_the_same_lines(kept: Ledger, tmp_path: Path) -> None:
    kept.export(tmp_path / "a.jsonl")
    kept.export(tmp_path / "b.jsonl.gz")
    assert gzip.decompress((tmp_path / "b.jsonl.gz").read_bytes()) == (tmp_path / "a.jsonl").read_bytes()
