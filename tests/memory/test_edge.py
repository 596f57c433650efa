"""What is particular to memories in this process: files, crashes, other processes."""

from __future__ import annotations

import json
import multiprocessing
import shutil
import threading
from concurrent.futures import ThreadPoolExecutor
from multiprocessing.synchronize import Event
from pathlib import Path

import pytest

from agentbudget.errors import IndexBusy, IndexFault
from agentbudget.memory import Memories, open_memories
from agentbudget.memory import edge as engine
from agentbudget.memory.edge import EdgeStores
from tests.conftest import Disk
from tests.context.conftest import WordEmbedder
from tests.memory.conftest import MIA, said

pytest.importorskip("qdrant_edge")

SECRET = "Her safe opens with X77-Q1 and nothing else."


def opened(folder: Path) -> Memories:
    return Memories(lambda: EdgeStores(folder), WordEmbedder())


def stands_on_disk(folder: Path, words: str) -> bool:
    return any(words.encode() in path.read_bytes() for path in folder.rglob("*") if path.is_file())


async def test_what_is_forgotten_is_gone_from_the_disk(tmp_path: Path) -> None:
    memories = opened(tmp_path)
    kept = await memories.remember(MIA, SECRET, source=said(f"she wrote: {SECRET}"))
    await memories.remember(MIA, "Her dog is called Rex.", source=said())
    assert stands_on_disk(tmp_path, "X77-Q1")
    await memories.forget(MIA, [kept.memory.id])
    assert not stands_on_disk(tmp_path, "X77-Q1")
    assert stands_on_disk(tmp_path, "called Rex")


async def test_words_that_were_replaced_are_gone_from_the_disk_with_the_memory(tmp_path: Path) -> None:
    memories = opened(tmp_path)
    kept = await memories.remember(MIA, SECRET, source=said())
    await memories.remember(MIA, SECRET.upper(), source=said())
    await memories.forget(MIA, [kept.memory.id])
    assert not stands_on_disk(tmp_path, "X77-Q1")


async def test_nothing_of_a_user_stays_on_the_disk(tmp_path: Path) -> None:
    memories = opened(tmp_path)
    await memories.remember(MIA, SECRET, source=said())
    await memories.forget_all(MIA)
    assert not stands_on_disk(tmp_path, "X77-Q1")
    assert not stands_on_disk(tmp_path, "mia")
    assert {path.name for path in tmp_path.rglob("*") if path.is_file()} == {MIA.key}  # the lock


@pytest.mark.parametrize("moved", [False, True])
async def test_a_crash_while_forgetting_leaves_all_or_nothing(tmp_path: Path, moved: bool) -> None:
    memories = opened(tmp_path)
    kept = await memories.remember(MIA, SECRET, source=said())
    await memories.remember(MIA, "Her dog is called Rex.", source=said())
    folder = tmp_path / MIA.key
    if moved:  # between the two moves: the new one is whole
        await memories.forget(MIA, [kept.memory.id])
        (folder / "shard").rename(folder / "shard.new")
        (folder / "shard.old").mkdir()
        (folder / "shard.old" / "rest").write_text(SECRET)
    else:  # before them: it may be half written
        (folder / "shard.new").mkdir()
        (folder / "shard.new" / "rest").write_text("half")
    assert len(await opened(tmp_path).all_of(MIA)) == (1 if moved else 2)
    assert sorted(path.name for path in folder.iterdir()) == ["header.json", "shard"]


async def test_damaged_memories_are_named_and_can_be_forgotten(tmp_path: Path) -> None:
    memories = opened(tmp_path)
    await memories.remember(MIA, SECRET, source=said())
    for path in (tmp_path / MIA.key / "shard").rglob("*"):
        if path.is_file():
            path.write_bytes(b"\0" * 64)
    with pytest.raises(IndexFault, match="memory forget --user mia --all"):
        await memories.all_of(MIA)
    await memories.forget_all(MIA)
    assert await memories.all_of(MIA) == ()


@pytest.mark.parametrize("data", [b"", b'{"format": 1, "ten', b"\xff\xfe", b"[]", b"{}"])
async def test_a_damaged_header_is_named_and_its_memories_can_be_forgotten(tmp_path: Path, data: bytes) -> None:
    memories = opened(tmp_path)
    await memories.remember(MIA, SECRET, source=said())
    (tmp_path / MIA.key / "header.json").write_bytes(data)
    with pytest.raises(IndexFault, match="cannot be read"):
        await memories.recall(MIA, "safe?", tokens=50)
    with pytest.raises(IndexFault, match="delete that folder"):
        await memories.owners()
    await memories.forget_all(MIA)
    assert await memories.owners() == ()


async def test_a_crash_before_the_header_stands_leaves_no_memory_without_an_owner(tmp_path: Path) -> None:
    memories = opened(tmp_path)
    await memories.remember(MIA, SECRET, source=said())
    (tmp_path / MIA.key / "header.json").unlink()
    await memories.remember(MIA, "Her dog is called Rex.", source=said())
    assert await memories.owners() == (MIA,)
    assert await memories.forget_everyone() == 1
    assert not stands_on_disk(tmp_path, SECRET)


async def test_a_crash_while_everything_is_forgotten_leaves_its_owner_known(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    memories = opened(tmp_path)
    await memories.remember(MIA, SECRET, source=said())
    remove, removed = shutil.rmtree, list[Path]()

    def killed(path: Path) -> None:
        if removed:
            raise KeyboardInterrupt
        removed.append(path)
        remove(path)

    with monkeypatch.context() as patched:
        patched.setattr(engine.shutil, "rmtree", killed)
        with pytest.raises(KeyboardInterrupt):
            await memories.forget_all(MIA)
    assert not stands_on_disk(tmp_path, SECRET)
    assert await memories.owners() == (MIA,)
    await memories.forget_all(MIA)
    assert await memories.owners() == ()


def _hold(folder: Path, ready: Event, done: Event) -> None:
    with EdgeStores(folder).open(MIA, fingerprint="words:64", dim=64):
        ready.set()
        done.wait(60)


async def test_another_process_is_waited_for_but_not_for_ever(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(engine, "WAIT_S", 0.1)
    context = multiprocessing.get_context("spawn")
    ready, done = context.Event(), context.Event()
    other = context.Process(target=_hold, args=(tmp_path, ready, done))
    other.start()
    try:
        assert ready.wait(60)
        with pytest.raises(IndexBusy, match="another process"):
            await opened(tmp_path).recall(MIA, "safe?", tokens=50)
    finally:
        done.set()
        other.join(60)
    assert (await opened(tmp_path).recall(MIA, "safe?", tokens=50)).memories == ()


def test_users_are_listed_while_another_process_forgets_one(tmp_path: Path) -> None:
    stores = EdgeStores(tmp_path)
    header, draft, done = tmp_path / "one" / "header.json", tmp_path / "draft", threading.Event()

    def come_and_go() -> int:
        times = 0
        while not done.is_set() or not times:
            header.parent.mkdir()
            draft.write_text(json.dumps({"tenant": MIA.tenant, "user": MIA.user, "embedder": "words"}))
            draft.replace(header)
            shutil.rmtree(header.parent)
            times += 1
        return times

    with ThreadPoolExecutor(1) as pool:
        going = pool.submit(come_and_go)
        try:
            seen = [stores.owners() for _ in range(2_000)]
        finally:
            done.set()
        assert going.result() > 0
    assert all(owners in ([], [MIA]) for owners in seen)


def test_opening_reads_and_writes_nothing(tmp_path: Path) -> None:
    open_memories(tmp_path / "memories", embedder=WordEmbedder())
    assert not (tmp_path / "memories").exists()


async def test_memories_that_were_closed_open_again(tmp_path: Path) -> None:
    memories = opened(tmp_path)
    await memories.remember(MIA, SECRET, source=said())
    await memories.aclose()
    await memories.aclose()
    assert len(await memories.all_of(MIA)) == 1


@pytest.mark.parametrize("part", ["shard", "shard.old"])
async def test_what_cannot_be_deleted_is_not_taken_for_forgotten(tmp_path: Path, part: str) -> None:
    memories = opened(tmp_path / "memories")
    await memories.remember(MIA, SECRET, source=said())
    folder = tmp_path / "memories" / MIA.key
    (folder / "shard").rename(tmp_path / "elsewhere")
    (folder / part).symlink_to(tmp_path / "elsewhere")  # which nobody may delete through
    if part == "shard.old":
        (tmp_path / "elsewhere").rename(folder / "shard")
        (tmp_path / "elsewhere").mkdir()
        with pytest.raises(IndexFault, match="cannot be deleted"):
            await memories.recall(MIA, "safe?", tokens=50)
    with pytest.raises(IndexFault, match=r"cannot be deleted .*not forgotten yet"):
        await memories.forget_all(MIA)
    (folder / part).unlink()
    await memories.forget_all(MIA)
    assert not folder.exists()


async def test_where_the_disk_has_no_room_nothing_is_remembered_and_the_process_lives(small_disk: Disk) -> None:
    memories = opened(small_disk.path / "memories")
    with pytest.raises(IndexFault, match=r"the memories of 'mia' cannot be written: .* are free .*; make room"):
        await memories.remember(MIA, SECRET, source=said())
    assert await memories.all_of(MIA) == ()
