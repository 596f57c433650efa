"""Files of what was computed of fixed prompts."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from agentbudget.models.llama.states import StateFiles
from tests.conftest import Disk


def kept(folder: Path, *tokens: int, data: bytes = b"state", limit_bytes: int = 1 << 20) -> StateFiles:
    files = StateFiles(folder, limit_bytes=limit_bytes)
    files.write(tokens, memoryview(data))
    return files


def test_a_state_is_read_as_it_was_written(tmp_path: Path) -> None:
    files = kept(tmp_path / "model", 1, 2, 3)
    assert files.read([1, 2, 3]) == b"state"
    assert files.has([1, 2, 3])


def test_other_tokens_have_another_state_or_none(tmp_path: Path) -> None:
    files = kept(tmp_path / "model", 1, 2, 3)
    assert (files.read([1, 2]), files.read([1, 2, 4]), files.has([1, 2])) == (None, None, False)


@pytest.mark.parametrize(("whole", "after"), [(-1, b""), (10, b""), (0, b""), (-1, b"!")])
def test_a_broken_file_is_no_state_and_is_written_anew(tmp_path: Path, whole: int, after: bytes) -> None:
    files = kept(tmp_path / "model", 1, 2, 3)
    (path,) = tmp_path.rglob("*.state")
    path.write_bytes(path.read_bytes()[:whole] + after)
    assert files.read([1, 2, 3]) is None
    files.write([1, 2, 3], memoryview(b"anew"))
    assert files.read([1, 2, 3]) == b"anew"


def test_a_state_that_is_not_taken_is_forgotten(tmp_path: Path) -> None:
    files = kept(tmp_path / "model", 1, 2, 3)
    files.forget([1, 2, 3])
    assert not files.has([1, 2, 3])


def test_the_longest_unused_goes_first(tmp_path: Path) -> None:
    files = kept(tmp_path / "model", 1, data=b"x" * 400, limit_bytes=1000)
    files.write([2], memoryview(b"y" * 400))
    for age, path in enumerate(sorted(tmp_path.rglob("*.state"))):
        os.utime(path, (1000 + age, 1000 + age))
    assert files.read([1]) is not None  # used just now
    files.write([3], memoryview(b"z" * 400))
    assert [files.has([n]) for n in (1, 2, 3)] == [True, False, True]


def test_the_limit_is_for_all_models_together(tmp_path: Path) -> None:
    first = kept(tmp_path / "one", 1, data=b"x" * 700, limit_bytes=1000)
    (path,) = tmp_path.rglob("*.state")
    os.utime(path, (1000, 1000))
    second = kept(tmp_path / "two", 1, data=b"x" * 700, limit_bytes=1000)
    assert (first.has([1]), second.has([1])) == (False, True)


def test_what_is_larger_than_the_limit_is_not_kept(tmp_path: Path) -> None:
    assert not kept(tmp_path / "model", 1, data=b"x" * 2000, limit_bytes=1000).has([1])


def test_a_folder_that_cannot_be_written_is_no_error(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    (tmp_path / "model").write_text("a file where the folder should be")
    assert kept(tmp_path / "model", 1).read([1]) is None
    assert "cannot be kept" in caplog.text


def test_in_a_folder_that_may_only_be_read_what_is_whole_is_used(
    small_disk: Disk, caplog: pytest.LogCaptureFixture
) -> None:
    files = kept(small_disk.path / "model", 1)
    kept(small_disk.path / "model", 2)
    whole, broken = files._path([1]), files._path([2])  # pyright: ignore[reportPrivateUsage] # to damage one of them
    broken.write_bytes(whole.read_bytes()[:-1])
    small_disk.forbid_writing()
    assert files.read([1]) == b"state"
    assert files.read([2]) is None
    files.forget([1])
    assert "cannot be removed" in caplog.text


def test_only_the_owner_may_open_the_folder(tmp_path: Path) -> None:
    kept(tmp_path / "model", 1)
    assert (tmp_path / "model").stat().st_mode & 0o077 == 0
