"""What is particular to the embedded engine: one process at a time, and a folder that may be damaged."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

from agentbudget.context import edge, open_index
from agentbudget.context.edge import EdgeStore
from agentbudget.context.index import DocumentIndex
from agentbudget.errors import IndexBusy, IndexFault, Mistake
from tests.conftest import Disk, Forked
from tests.context.conftest import WordEmbedder, Write, long_document

ROOT = Path(__file__).parents[2]


def _index(folder: Path, words: WordEmbedder) -> DocumentIndex:
    return DocumentIndex(EdgeStore(folder, collection="c", tenant="t"), words, tenant="t")


def _child(code: str, *args: str) -> subprocess.Popen[str]:
    """Another process that runs `code`; it says ``ready`` when the test may go on."""
    return subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(code), *args], stdout=subprocess.PIPE, text=True, cwd=ROOT
    )


HOLD = """
    import sys, time
    from pathlib import Path
    from agentbudget.context.edge import EdgeStore
    store = EdgeStore(Path(sys.argv[1]), collection="c", tenant="t")
    print("ready", flush=True)
    time.sleep(60)
"""

UPDATE = """
    import asyncio, sys, time
    from pathlib import Path
    from agentbudget.context.edge import EdgeStore
    from agentbudget.context.index import DocumentIndex
    from tests.context.conftest import WordEmbedder
    def tell(progress):
        if progress.stage == "embed" and progress.done >= 64:
            print("ready", flush=True)
            time.sleep(60)
    index = DocumentIndex(EdgeStore(Path(sys.argv[1]), collection="c", tenant="t"), WordEmbedder(), tenant="t")
    asyncio.run(index.update(sys.argv[2], progress=tell))
"""


async def test_a_second_process_is_told_who_has_the_index_and_what_to_do(tmp_path: Path, words: WordEmbedder) -> None:
    child = _child(HOLD, str(tmp_path))
    try:
        assert child.stdout is not None
        assert child.stdout.readline() == "ready\n"
        with pytest.raises(IndexBusy, match=rf"is open in process {child.pid}; wait until it ends"):
            _index(tmp_path, words)
    finally:
        child.kill()
        child.wait()
    await _index(tmp_path, words).aclose()


async def test_the_same_process_cannot_open_it_twice_either(tmp_path: Path, words: WordEmbedder) -> None:
    async with _index(tmp_path, words):
        with pytest.raises(IndexBusy, match=f"process {os.getpid()}"):
            _index(tmp_path, words)
    await _index(tmp_path, words).aclose()


async def test_an_update_that_was_killed_goes_on_where_it_stopped(
    tmp_path: Path, write: Write, words: WordEmbedder
) -> None:
    folder, place = write(long_document(200)), tmp_path / "index"
    child = _child(UPDATE, str(place), str(folder))
    assert child.stdout is not None
    assert child.stdout.readline() == "ready\n"
    child.send_signal(signal.SIGKILL)
    child.wait()
    async with _index(place, words) as index:
        report = await index.update(folder)
        assert (report.kept, report.embedded, report.deleted) == (64, 136, 0)
        assert await index.count() == 200
        assert (await index.update(folder)).kept == 200
        found = await index.search("section number 150", limit=1)
        assert found.hits[0].chunk.heading_path == ("S150",)


async def test_after_a_killed_second_update_the_old_documents_are_still_found(
    tmp_path: Path, write: Write, words: WordEmbedder
) -> None:
    folder, place = write({"a.md": "# Old\n\nblue swift\n"}), tmp_path / "index"
    async with _index(place, words) as index:
        await index.update(folder)
    write(long_document(200))
    child = _child(UPDATE, str(place), str(folder))
    assert child.stdout is not None
    assert child.stdout.readline() == "ready\n"
    child.kill()
    child.wait()
    async with _index(place, words) as index:
        assert (await index.search("blue swift", limit=1)).hits[0].chunk.source == "a.md"
        report = await index.update(folder)
        assert (report.kept, report.embedded) == (65, 136)


@pytest.mark.parametrize("damage", ["edge_config.json", "wal/first-index", "header.json"])
async def test_a_damaged_index_says_so_and_rebuild_mends_it(
    tmp_path: Path, write: Write, words: WordEmbedder, damage: str
) -> None:
    folder, place = write(long_document(3)), tmp_path / "index"
    async with _index(place, words) as index:
        await index.update(folder)
    [broken] = [path for path in place.rglob("*") if path.as_posix().endswith(damage)]
    broken.write_bytes(b"\x93garbage")
    async with _index(place, words) as index:
        with pytest.raises(IndexFault, match=r"cannot be .* update\(folder, rebuild=True\)"):
            await index.search("section")
        with pytest.raises(IndexFault):
            await index.update(folder)
        assert (await index.update(folder, rebuild=True)).embedded == 3
        assert len((await index.search("section")).hits) == 3


async def test_an_index_whose_engine_panics_on_it_says_so(tmp_path: Path, write: Write, words: WordEmbedder) -> None:
    folder, place = write(long_document(3)), tmp_path / "index"
    async with _index(place, words) as index:
        await index.update(folder)
    [status] = place.rglob("vector_storage-dense/vectors/status.dat")
    os.truncate(status, 0)
    async with _index(place, words) as index:
        with pytest.raises(IndexFault, match="index out of bounds"):
            await index.search("section")


async def test_chunks_that_were_lost_are_noticed_and_embedded_again(
    tmp_path: Path, write: Write, words: WordEmbedder
) -> None:
    folder, place = write(long_document(3)), tmp_path / "index"
    async with _index(place, words) as index:
        await index.update(folder)
    store = EdgeStore(place, collection="c", tenant="t")
    store.delete(list(store.held())[:2])
    store.close()
    async with _index(place, words) as index:
        with pytest.raises(IndexFault, match=r"lost 2 chunks; run update\(folder\)"):
            await index.search("section")
        report = await index.update(folder)
        assert (report.kept, report.embedded) == (1, 2)
        assert len((await index.search("section")).hits) == 3


async def test_a_tenants_name_cannot_lead_out_of_the_folder(tmp_path: Path, words: WordEmbedder) -> None:
    for tenant in ("../../evil", "..", "/etc", "a" * 500, "ünï"):
        async with open_index(tmp_path / "index", embedder=words, collection="../x", tenant=tenant):
            pass
    assert _children(tmp_path) == ["index"]
    assert len(_children(tmp_path / "index")) == 5


def _children(folder: Path) -> list[str]:
    return [path.name for path in folder.iterdir()]


async def test_a_big_index_is_optimized_in_a_child_and_searched_on(
    tmp_path: Path, write: Write, words: WordEmbedder, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(edge, "BIG", 100)
    async with _index(tmp_path / "index", words) as index:
        await index.update(write(long_document(300)))
        found = await index.search("section number 150", limit=1)
        assert found.hits[0].chunk.heading_path == ("S150",)
        assert await index.count() == 300


async def test_the_event_loop_goes_on_while_a_big_index_is_optimized(
    tmp_path: Path, write: Write, words: WordEmbedder, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(edge, "BIG", 100)
    beats = 0
    optimizing: list[int] = []
    tidy = EdgeStore.tidy

    def counted(store: EdgeStore, changed: int) -> None:
        before = beats
        tidy(store, changed)
        optimizing.append(beats - before)

    async def heart() -> None:
        nonlocal beats
        while True:
            await asyncio.sleep(0.001)
            beats += 1

    monkeypatch.setattr(EdgeStore, "tidy", counted)
    async with _index(tmp_path / "index", words) as index:
        beating = asyncio.create_task(heart())
        await index.update(write(long_document(300)))
        beating.cancel()
    # A child process takes at least some tens of milliseconds to start; a stalled loop would not have beaten once.
    assert optimizing[0] > 3


async def test_a_place_that_cannot_be_written_says_so(tmp_path: Path, words: WordEmbedder) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(IndexFault, match="cannot be opened"):
        open_index(tmp_path / "file" / "index", embedder=words)


def test_an_address_of_another_kind_is_a_mistake(words: WordEmbedder) -> None:
    with pytest.raises(Mistake, match="neither a folder nor an http"):
        open_index("grpc://localhost:6334", embedder=words)
    with pytest.raises(Mistake, match="must not be empty"):
        open_index("somewhere", embedder=words, tenant="")


def test_a_forked_process_keeps_nobody_from_the_index(tmp_path: Path, forked: Forked) -> None:
    store = EdgeStore(tmp_path, collection="c", tenant="t")
    store.create(8)
    assert forked(lambda: None) == 0
    with pytest.raises(IndexBusy):
        EdgeStore(tmp_path, collection="c", tenant="t")
    store.close()
    EdgeStore(tmp_path, collection="c", tenant="t").close()


def test_a_forked_process_is_told_that_the_open_index_is_its_parents(tmp_path: Path, forked: Forked) -> None:
    store = EdgeStore(tmp_path, collection="c", tenant="t")
    store.create(8)

    def use() -> None:
        for act in (store.count, lambda: store.create(8)):
            with pytest.raises(IndexFault, match="open it again here"):
                act()
        store.close()

    assert forked(use) == 0
    assert store.count() == 0
    store.close()


async def test_where_the_disk_has_no_room_nothing_is_written_and_the_process_lives(
    words: WordEmbedder, write: Write, small_disk: Disk
) -> None:
    docs = write({"a.md": "# A\n\nA kettle can be returned.\n"})
    async with _index(small_disk.path / "index", words) as index:
        with pytest.raises(IndexFault, match=r"cannot be created: .* MB are free .*; make room"):
            await index.update(docs)


async def test_an_index_is_opened_where_the_disk_is_full(words: WordEmbedder, small_disk: Disk) -> None:
    (small_disk.path / "index").mkdir()
    small_disk.fill()
    async with _index(small_disk.path / "index", words) as index:
        assert await index.count() == 0
