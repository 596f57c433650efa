"""What is known of files: stated in them, said by the index's owner, stored without embedding, and asked for."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest

from agentbudget.context import formats
from agentbudget.context.document import Unreadable
from agentbudget.context.edge import EdgeStore
from agentbudget.context.index import DocumentIndex
from agentbudget.context.metadata import LONGEST, asked, labelled, matches
from agentbudget.errors import IndexMismatch, Mistake
from tests.context.conftest import Reopen, WordEmbedder, Write

DOCS = {
    "hr/leave.md": "---\nteam: hr\ntags: [leave, policy]\n---\n# Leave\n\nFive weeks a year.\n",
    "it/vpn.md": "---\nteam: it\ndata class: internal\n---\n# VPN\n\nAsk the desk for a token.\n",
    "note.txt": "A year has weeks.\n",
}


def test_front_matter_is_metadata_and_no_text() -> None:
    parsed = formats.markdown(b"---\nteam: hr\nowner.name: Ada\ntags: [a, b]\nfrom: 2026-11-27\n---\n# T\n\nbody\n")
    assert parsed.metadata == {"team": "hr", "owner_name": "Ada", "tags": "a, b", "from": "2026-11-27"}
    assert [parsed.text[block.start : block.end] for block in parsed.blocks] == ["body"]


def test_values_that_are_nested_are_passed_over_and_long_ones_cut() -> None:
    parsed = formats.markdown(f"---\na: {{b: c}}\nlong: {'x' * 5000}\n---\nbody\n".encode())
    assert parsed.metadata == {"long": "x" * LONGEST}


def test_text_between_two_rules_is_no_front_matter() -> None:
    parsed = formats.markdown(b"---\nOnly text.\n---\n\nMore.\n")
    assert parsed.metadata == {}
    assert [block.heading_path for block in parsed.blocks] == [("Only text.",)]


def test_front_matter_that_is_not_yaml_is_a_reason_not_to_read_the_file() -> None:
    with pytest.raises(Unreadable, match="front matter that is not YAML"):
        formats.markdown(b"---\ndata_class: [secret\n---\nbody\n")


def test_the_owners_word_stands_above_what_a_file_states() -> None:
    labels = {"*": {"team": "all", "site": "oslo"}, "hr/*": {"team": "hr"}}
    assert labelled("hr/deep/a.md", {"team": "mine", "x": "1"}, 0, labels) == {
        "team": "hr",
        "x": "1",
        "site": "oslo",
        "modified": "1970-01-01T00:00:00Z",
    }


def test_a_function_sees_what_the_file_states() -> None:
    found = labelled("a.md", {"level": "2"}, 0, lambda source, known: {"level": known["level"] + source})
    assert found["level"] == "2a.md"


@pytest.mark.parametrize("values", [{"a b": "x"}, {"a": 1}, "a", None])
def test_metadata_that_cannot_be_kept_are_a_mistake(values: Any) -> None:
    with pytest.raises(Mistake, match=r"the metadata for a\.md are"):
        labelled("a.md", {}, 0, lambda _source, _known: values)


@pytest.mark.parametrize("where", [{"a": []}, {"a.b": "x"}, {"a": [1]}, {"": "x"}])
def test_a_filter_that_can_match_nothing_is_a_mistake(where: Any) -> None:
    with pytest.raises(Mistake, match="asks for nothing"):
        asked(where)


def test_every_key_of_a_filter_must_match() -> None:
    where = asked({"team": ["hr", "it"], "site": "oslo"})
    assert matches(where, {"team": "it", "site": "oslo"})
    assert not matches(where, {"team": "it"})
    assert matches(None, {})


async def _found(index: DocumentIndex, question: str, **where: str | list[str]) -> set[str]:
    return {hit.chunk.source for hit in (await index.search(question, where=where or None)).hits}


async def test_results_carry_what_is_known_of_their_files(reopen: Reopen, write: Write) -> None:
    folder = write(DOCS)
    os.utime(folder / "it" / "vpn.md", ns=(0, 86_400 * 10**9))
    async with reopen() as index:
        await index.update(folder, metadata={"it/*": {"site": "oslo"}})
        hit = (await index.search("token desk")).hits[0]
    assert hit.chunk.metadata == {
        "team": "it",
        "data_class": "internal",
        "site": "oslo",
        "modified": "1970-01-02T00:00:00Z",
    }


async def test_a_search_can_be_kept_to_files_of_some_metadata(reopen: Reopen, write: Write) -> None:
    async with reopen() as index:
        await index.update(write(DOCS))
        assert await _found(index, "weeks a year") == set(DOCS)
        assert await _found(index, "weeks a year", team="it") == {"it/vpn.md"}
        assert await _found(index, "weeks a year", team=["hr", "it"]) == {"hr/leave.md", "it/vpn.md"}
        assert await _found(index, "weeks a year", team="it", data_class="public") == set()
        assert await _found(index, "weeks a year", nowhere="x") == set()


async def test_new_metadata_are_stored_without_embedding(reopen: Reopen, write: Write, words: WordEmbedder) -> None:
    folder = write(DOCS)
    async with reopen() as index:
        await index.update(folder)
        words.embedded.clear()
        report = await index.update(folder, metadata={"note.txt": {"team": "it"}})
        assert (report.kept, report.relabelled, report.moved, report.embedded) == (3, 1, 0, 0)
        assert words.embedded == []
        assert await _found(index, "weeks", team="it") == {"it/vpn.md", "note.txt"}
        assert (await index.update(folder)).relabelled == 1
        assert await _found(index, "weeks", team="it") == {"it/vpn.md"}


async def test_the_metadata_that_an_index_is_opened_with_hold_for_every_update(
    write: Write, words: WordEmbedder, tmp_path: Path
) -> None:
    store = EdgeStore(tmp_path / "index", collection="c", tenant="t")
    async with DocumentIndex(store, words, tenant="t", metadata={"*": {"team": "all"}}) as index:
        await index.update(write(DOCS))
        assert await _found(index, "weeks", team="all") == set(DOCS)


async def test_content_in_two_files_is_found_by_the_metadata_of_either_but_not_of_both_mixed(
    reopen: Reopen, write: Write
) -> None:
    same = "# Rule\n\nThe same words.\n"
    folder = write({"a.md": f"---\nteam: a\nlang: en\n---\n{same}", "b.md": f"---\nteam: b\nlang: de\n---\n{same}"})
    async with reopen() as index:
        assert (await index.update(folder)).embedded == 1
        assert await _found(index, "same words", team="b") == {"b.md"}
        assert await _found(index, "same words", team="a", lang="de") == set()
        chunk = (await index.search("same words")).hits[0].chunk
        assert [place.source for place in chunk.places] == ["a.md", "b.md"]
        assert [place.metadata["team"] for place in chunk.places] == ["a", "b"]


async def test_an_index_of_the_first_format_is_lifted_without_embedding(
    write: Write, words: WordEmbedder, tmp_path: Path
) -> None:
    from qdrant_edge import EdgeShard, ScrollRequest, UpdateOperation

    folder = write(DOCS)
    async with _edge(tmp_path, words) as index:
        await index.update(folder)
    [path] = (tmp_path / "index").rglob("header.json")
    header = json.loads(path.read_text())
    old = {"embedder": header["embedder"], "folder": header["folder"], "format": 1, "chunker": header["chunker"]}
    path.write_text(json.dumps({**old, "digest": "d", "chunks": 3, "documents": 3, "skipped": []}))
    shard = EdgeShard.load(str(path.parent / "shard"))
    for record in shard.scroll(ScrollRequest(limit=10, with_payload=True))[0]:
        payload = dict(record.payload or {})
        place = payload.pop("places")[0]
        place.pop("metadata")
        shard.update(UpdateOperation.clear_payload([record.id]))
        shard.update(UpdateOperation.set_payload([record.id], {**payload, **place}))
    shard.flush()
    shard.close()
    words.embedded.clear()
    async with _edge(tmp_path, words) as index:
        with pytest.raises(IndexMismatch, match=r"has format 1, not 2; run update\(folder\), .* embeds nothing"):
            await index.search("weeks")
        report = await index.update(folder)
        assert (report.kept, report.relabelled, report.embedded, report.deleted) == (3, 3, 0, 0)
        assert words.embedded == []
        assert await _found(index, "weeks", team="hr") == {"hr/leave.md"}


def _edge(path: Path, words: WordEmbedder) -> DocumentIndex:
    return DocumentIndex(EdgeStore(path / "index", collection="c", tenant="t"), words, tenant="t")
