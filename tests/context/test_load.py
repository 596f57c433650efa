from __future__ import annotations

import io
import os
import socket
from pathlib import Path

import pytest

from agentbudget.context.load import (
    MAX_BYTES,
    _Walk,  # pyright: ignore[reportPrivateUsage] # to act between two of its files
    load,
    scan,
)
from agentbudget.errors import DocumentsError
from tests.context.conftest import HANDBOOK, Write, pdf_bytes


def _reasons(folder: Path) -> dict[str, str]:
    return {item.source: item.reason for item in load(folder).skipped}


def test_every_kind_of_document_is_read(write: Write) -> None:
    folder = write(
        {
            "a.md": "# A\n\nmarkdown",
            "b.txt": "text",
            "c.rst": "C\n=\n\nrst",
            "d.html": "<p>html</p>",
            "deep/er/e.py": "x = 1\n",
            "f.PDF": pdf_bytes("portable"),
        }
    )
    assert [document.source for document in load(folder).documents] == [
        "a.md", "b.txt", "c.rst", "d.html", "f.PDF", "deep/er/e.py",
    ]  # fmt: skip


def test_files_of_other_kinds_are_only_counted(write: Write) -> None:
    loaded = load(write({"a.md": "text", "b.jpg": b"\xff\xd8", "c": "no extension", "sub/d.xyz": "1,2"}))
    assert (len(loaded.documents), loaded.ignored, loaded.skipped) == (1, 3, ())


@pytest.mark.parametrize(
    ("name", "content", "reason"),
    [
        ("empty.md", "", "empty"),
        ("blank.txt", " \n\t\n", "empty"),
        ("latin.md", "caf\xe9".encode("latin-1"), "not UTF-8 text (byte 3); save it as UTF-8"),
        ("binary.txt", b"PK\x03\x04\x00\x00", "binary data, not text"),
        ("broken.pdf", b"%PDF-1.4 and then nothing", "not a PDF that can be read"),
        ("scanned.pdf", pdf_bytes(""), "a PDF without text (scanned?)"),
        ("cookie.py", "# coding: klingon\n", "not text in the encoding that it states"),
    ],
)
def test_a_file_that_cannot_be_read_is_named_with_the_reason(
    write: Write, name: str, content: str | bytes, reason: str
) -> None:
    folder = write({"good.md": "good", name: content})
    reasons = _reasons(folder)
    assert list(reasons) == [name]
    assert reasons[name].startswith(reason)


def test_an_encrypted_pdf_is_named(write: Write) -> None:
    from pypdf import PdfReader, PdfWriter

    writer = PdfWriter(clone_from=PdfReader(io.BytesIO(pdf_bytes("secret"))))
    writer.encrypt("password", algorithm="RC4-128")
    out = io.BytesIO()
    writer.write(out)
    assert _reasons(write({"good.md": "good", "a.pdf": out.getvalue()})) == {
        "a.pdf": "encrypted; save it without a password"
    }


def test_a_file_that_is_too_large_is_named_and_not_read(write: Write) -> None:
    folder = write({"good.md": "good", "large.txt": ""})
    os.truncate(folder / "large.txt", MAX_BYTES + 1_000_000)
    assert _reasons(folder)["large.txt"] == "51 MB is more than the 50 MB that is read of a file"


def test_pipes_sockets_and_dead_links_are_named(write: Write, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = write({"good.md": "good"})
    os.mkfifo(folder / "pipe.txt")
    (folder / "dead.md").symlink_to("nowhere.md")
    (folder / "self.md").symlink_to("self.md")
    monkeypatch.chdir(folder)  # a socket's address has room for a hundred bytes
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind("socket.txt")
        assert _reasons(folder) == {
            "dead.md": "a link that leads nowhere",
            "pipe.txt": "not a regular file",
            "self.md": "a link that leads nowhere",
            "socket.txt": "not a regular file",
        }


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_what_may_not_be_read_is_named(write: Write) -> None:
    folder = write({"good.md": "good", "secret.md": "x", "closed/a.md": "x"})
    (folder / "secret.md").chmod(0)
    (folder / "closed").chmod(0)
    try:
        assert set(_reasons(folder)) == {"secret.md", "closed"}
    finally:
        (folder / "closed").chmod(0o700)


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_what_may_be_listed_but_not_looked_at_is_named(write: Write) -> None:
    folder = write({"good.md": "good", "shut/a.md": "x", "shut/b.bin": "x"})
    (folder / "shut").chmod(0o400)
    try:
        found = scan(folder)
        assert [(item.source, item.reason) for item in found.skipped] == [
            ("shut/a.md", "cannot be read: Permission denied")
        ]
        assert ([file.source for file in found.files], found.ignored) == (["good.md"], 1)
    finally:
        (folder / "shut").chmod(0o700)


def test_a_file_that_is_removed_while_its_folder_is_read_is_not_there(write: Write) -> None:
    folder = write({"a.md": "stays", "b.md": "goes"})
    walk = _Walk(folder)
    files = walk.files()
    assert next(files).source == "a.md"
    (folder / "b.md").unlink()
    assert (list(files), walk.skipped) == ([], [])


def test_links_are_followed_and_loops_end(write: Write) -> None:
    folder = write({"sub/a.md": "text"})
    (folder / "sub" / "up").symlink_to("..")
    (folder / "link.md").symlink_to("sub/a.md")
    assert [document.source for document in load(folder).documents] == ["link.md", "sub/a.md"]


def test_a_folder_that_a_link_leads_to_keeps_its_own_name(write: Write) -> None:
    folder = write({"hr/pay.md": "text", "z/deep/b.md": "text"})
    (folder / "current").symlink_to("hr")
    (folder / "a").mkdir()
    (folder / "a" / "link").symlink_to("../z/deep")
    assert [document.source for document in load(folder).documents] == ["hr/pay.md", "z/deep/b.md"]


def test_hidden_and_cache_folders_are_passed_over(write: Write) -> None:
    loaded = load(write({"a.md": "a", ".git/b.md": "b", ".c.md": "c", "x/__pycache__/d.py": "d = 1"}))
    assert [document.source for document in loaded.documents] == ["a.md"]


def test_a_missing_folder_says_what_to_give(tmp_path: Path) -> None:
    with pytest.raises(DocumentsError, match=r"there is no folder .*nowhere"):
        load(tmp_path / "nowhere")


def test_a_file_instead_of_a_folder_says_so(write: Write) -> None:
    with pytest.raises(DocumentsError, match="is a file; give the path of the folder"):
        load(write({"a.md": "a"}) / "a.md")


def test_a_folder_without_documents_names_the_kinds_that_are_read(write: Write) -> None:
    with pytest.raises(DocumentsError, match=r"holds no documents; .*\.md .*\.pdf"):
        load(write({"a.jpg": b"\xff"}))


def test_a_folder_of_which_nothing_can_be_read_names_the_files(write: Write) -> None:
    with pytest.raises(DocumentsError, match=r"could be read \(a.md: empty; b.txt: empty\)"):
        load(write({"a.md": "", "b.txt": ""}))


def test_line_ends_and_byte_order_marks_are_normalised(write: Write) -> None:
    folder = write({"a.txt": b"\xef\xbb\xbfone\r\ntwo\rthree", "b.txt": "ünï".encode("utf-16")})
    assert [document.text for document in load(folder).documents] == ["one\ntwo\nthree", "ünï"]


def test_the_digest_follows_content_and_names_but_not_ignored_files(write: Write) -> None:
    folder = write({"a.md": "one", "b.md": "two"})
    before = scan(folder).digest
    write({"c.jpg": b"\xff"})
    assert scan(folder).digest == before
    write({"b.md": "three"})
    edited = scan(folder).digest
    (folder / "b.md").rename(folder / "c.md")
    assert len({before, edited, scan(folder).digest}) == 3


def test_blocks_are_in_order_and_within_the_text() -> None:
    for document in load(HANDBOOK).documents:
        ends = [0, *(block.end for block in document.blocks)]
        assert all(end <= block.start < block.end for end, block in zip(ends, document.blocks, strict=False))
        assert ends[-1] <= len(document.text)
