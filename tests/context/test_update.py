"""Delta updates: what is read, kept, moved, embedded and dropped, what that costs, and what it saves."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from agentbudget.context import chunk as chunking
from agentbudget.context import open_index, pool
from agentbudget.context.edge import EdgeStore
from agentbudget.context.hosted import OpenAIEmbedder
from agentbudget.context.index import DocumentIndex
from agentbudget.context.metadata import MODIFIED
from agentbudget.errors import IndexMismatch, Mistake
from agentbudget.prices import ComputePrice, TokenPrice
from tests.context.conftest import Reopen, WordEmbedder, Write, long_document

DOCS = {
    "returns.md": "# Returns\n\n## Window\n\nWithin 30 days.\n\n## Postage\n\nThe customer pays the postage.\n",
    "shipping.md": "# Shipping\n\nExpress parcels travel with Blue Swift.\n",
}
HOUR = ComputePrice(usd_per_hour="3600", prefill_tokens_per_s=1, decode_tokens_per_s=1)  # pyright: ignore[reportArgumentType] it converts


async def test_files_that_are_as_they_were_are_not_even_cut(reopen: Reopen, write: Write, words: WordEmbedder) -> None:
    async with reopen() as index:
        await index.update(write(DOCS))
        counted = words.counted
        report = await index.update(write({"new.md": "# New\n\nOne line.\n"}))
        assert (report.kept, report.embedded) == (3, 1)
        assert words.counted - counted < counted / 2
        counted = words.counted
        (write({}) / "new.md").unlink()
        assert (await index.update(write({}))).deleted == 1
        assert words.counted == counted


async def test_white_space_costs_nothing(reopen: Reopen, write: Write, words: WordEmbedder) -> None:
    async with reopen() as index:
        await index.update(write(DOCS))
        words.embedded.clear()
        spaced = DOCS["returns.md"].replace("\n\n", "\n\n\n\n").replace("days.", "days.  ")
        report = await index.update(write({"returns.md": spaced}))
        assert (report.kept, report.moved, report.embedded, report.deleted) == (3, 2, 0, 0)
        assert words.embedded == []


async def test_lines_that_are_broken_otherwise_cost_nothing_and_are_cited_as_they_stand_now(
    reopen: Reopen, write: Write, words: WordEmbedder
) -> None:
    text = "# Returns\n\nThe customer pays the postage\nof what comes back.\n"
    async with reopen() as index:
        await index.update(write({**DOCS, "wrapped.md": text}))
        words.embedded.clear()
        folder = write({"wrapped.md": text.replace("the postage\nof", "the\npostage of")})
        report = await index.update(folder)
        assert (report.kept, report.moved, report.embedded, report.deleted) == (4, 1, 0, 0)
        assert words.embedded == []
        chunk = next(h.chunk for h in (await index.search("what comes back")).hits if h.chunk.source == "wrapped.md")
        assert (folder / "wrapped.md").read_text()[chunk.start : chunk.end] == chunk.text
        assert "pays the\npostage of" in chunk.text
        assert await index.count() == report.chunks
        assert (await index.update(folder)).moved == 0


async def test_a_report_compares_with_embedding_everything_again(reopen: Reopen, write: Write) -> None:
    async with reopen() as index:
        first = await index.update(write(DOCS), machine=HOUR)
        assert first.tokens == first.full_tokens > 0
        assert first.usd_nano == first.full_usd_nano == pytest.approx(first.compute_ns, abs=2)
        edited = DOCS["returns.md"].replace("30", "45")
        second = await index.update(write({"returns.md": edited}), machine=HOUR)
        assert second.full_tokens == first.full_tokens
        assert second.saved_tokens == first.full_tokens - second.tokens > 0
        assert second.saved_usd_nano is not None
        assert second.saved_usd_nano > 0
        unchanged = await index.update(write({}), machine=HOUR)
        assert (unchanged.tokens, unchanged.usd_nano, unchanged.saved_tokens) == (0, 0, first.full_tokens)
        assert unchanged.full_usd_nano == second.full_usd_nano


async def test_a_plan_says_what_an_update_would_do_and_does_nothing(
    reopen: Reopen, write: Write, words: WordEmbedder
) -> None:
    folder = write(DOCS)
    async with reopen() as index:
        plan = await index.plan(folder)
        assert (plan.embedded, plan.kept, plan.tokens) == (3, 0, plan.full_tokens)
        assert plan.seconds is not None
        assert plan.usd_nano > 0
        assert await index.count() == 0
        await index.update(folder)
        (folder / "shipping.md").rename(folder / "parcels.md")
        write({"returns.md": DOCS["returns.md"].replace("30", "45")})
        words.embedded.clear()
        plan = await index.plan(folder)
        assert (plan.kept, plan.moved, plan.embedded, plan.deleted) == (2, 1, 1, 1)
        assert words.embedded == []
        report = await index.update(folder)
        assert (report.kept, report.moved, report.embedded, report.deleted, report.tokens) == (2, 1, 1, 1, plan.tokens)


async def test_where_no_speed_is_known_a_plan_does_not_call_all_of_it_free(
    write: Write, words: WordEmbedder, tmp_path: Path
) -> None:
    """As in an index of the first format, which was lifted without embedding."""
    folder = write(DOCS)
    async with open_index(tmp_path / "index", embedder=words) as index:
        await index.update(folder)
    store = EdgeStore(tmp_path / "index", collection="agentbudget", tenant="default")
    store.write_header({**(store.header() or {}), "ns_per_token": None})
    store.close()
    async with open_index(tmp_path / "index", embedder=words) as index:
        plan = await index.plan(folder)
        assert (plan.tokens, plan.usd_nano, plan.full_usd_nano) == (0, 0, None)
        assert (await index.update(folder)).saved_usd_nano is None


async def test_a_plan_for_a_hosted_model_costs_its_price_and_no_call(write: Write, reopen: Reopen) -> None:
    price = TokenPrice.custom(input_usd_per_mtok="1", output_usd_per_mtok="0")
    embedder = OpenAIEmbedder(base_url="http://127.0.0.1:1/v1", price=price, dim=4)
    async with reopen(embedder=embedder) as index:
        plan = await index.plan(write(DOCS))
        assert plan.usd_nano == plan.tokens * 1000 > 0
        assert plan.seconds is None


async def test_another_chunker_says_what_it_costs_and_embeds_only_what_it_cuts_otherwise(
    reopen: Reopen, write: Write, words: WordEmbedder, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = write(DOCS)
    async with reopen() as index:
        await index.update(folder)
        words.embedded.clear()
        monkeypatch.setattr(chunking, "VERSION", "next")
        with pytest.raises(IndexMismatch, match=r"cut by chunker \S+, this is next; .*'changed'\): 0 chunks") as caught:
            await index.update(folder)
        assert (caught.value.tokens, caught.value.usd_nano) == (0, 0)
        report = await index.update(folder, rebuild="changed")
        assert (report.kept, report.embedded) == (3, 0)
        assert words.embedded == []
        assert (await index.update(folder)).kept == 3


async def test_another_model_is_not_asked_for_by_changed(reopen: Reopen, write: Write) -> None:
    folder = write(DOCS)
    async with reopen() as index:
        await index.update(folder)
    async with reopen(embedder=WordEmbedder(name="other")) as index:
        with pytest.raises(IndexMismatch, match="3 chunks"):
            await index.update(folder, rebuild="changed")


async def test_a_file_that_could_not_be_read_is_named_again_and_read_once_it_changes(
    reopen: Reopen, write: Write
) -> None:
    folder = write({**DOCS, "latin.md": b"caf\xe9"})
    async with reopen() as index:
        for _ in range(2):
            report = await index.update(folder)
            assert [item.source for item in report.skipped] == ["latin.md"]
        report = await index.update(write({"latin.md": "café"}))
        assert (report.skipped, report.embedded, report.documents) == ((), 1, 3)


@pytest.mark.parametrize(
    "line", ["x" * 100_000, "aGVsbG8=" * 10_000, "a word and " * 2_000], ids=["x", "base64", "prose"]
)
async def test_a_document_of_one_long_line_is_cut_into_chunks_that_fit(
    reopen: Reopen, write: Write, words: WordEmbedder, line: str
) -> None:
    async with reopen() as index:
        report = await index.update(write({"line.txt": line}))
        assert report.embedded == await index.count() > 0
        assert max(words.count_tokens(text) for text in words.embedded) <= 254
        assert max(map(len, words.embedded)) <= 254 * 8


# --- stale chunks


async def _stale(index: DocumentIndex) -> dict[str, bool]:
    return {hit.chunk.source: hit.stale for hit in (await index.search("parcels days postage")).hits}


async def test_chunks_of_a_file_that_changed_since_are_marked_stale(reopen: Reopen, write: Write) -> None:
    folder = write(DOCS)
    async with reopen() as index:
        await index.update(folder)
        assert await _stale(index) == {"returns.md": False, "shipping.md": False}
        write({"returns.md": "# Returns\n\nNever, alas.\n"})
        assert await _stale(index) == {"returns.md": True, "shipping.md": False}
        (folder / "shipping.md").unlink()
        assert await _stale(index) == {"returns.md": True, "shipping.md": True}
        write({"shipping.md": DOCS["shipping.md"]})
        await index.update(folder)
        assert await _stale(index) == {"returns.md": False, "shipping.md": False}


async def test_where_the_folder_is_elsewhere_nothing_is_called_stale(reopen: Reopen, write: Write) -> None:
    folder = write(DOCS)
    async with reopen() as index:
        await index.update(folder)
        folder.rename(folder.with_name("elsewhere"))
        assert not any((await _stale(index)).values())


async def test_a_touched_file_is_relabelled_and_no_longer_stale(reopen: Reopen, write: Write) -> None:
    folder = write(DOCS)
    async with reopen() as index:
        await index.update(folder)
        os.utime(folder / "shipping.md", ns=(0, 10**9))
        assert (await _stale(index))["shipping.md"]
        report = await index.update(folder)
        assert (report.kept, report.relabelled, report.embedded) == (3, 1, 0)
        hit = next(h for h in (await index.search("Blue Swift")).hits if h.chunk.source == "shipping.md")
        assert (hit.stale, hit.chunk.metadata[MODIFIED]) == (False, "1970-01-01T00:00:01Z")


# --- several processes


async def test_several_processes_give_the_same_index(
    write: Write, words: WordEmbedder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pool, "processors", lambda: 2)
    folder = write(long_document(100))
    found: list[list[tuple[str, float]]] = []
    for processes in (1, 2):
        words.embedded.clear()
        async with open_index(tmp_path / str(processes), embedder=words) as index:
            report = await index.update(folder, processes=processes)
            assert (report.embedded, len(words.embedded)) == (100, 101 if processes == 1 else 0)
            found.append([(hit.chunk.id, hit.score) for hit in (await index.search("section number 7")).hits])
    assert found[0] == found[1]


async def test_no_processes_are_a_mistake(reopen: Reopen, write: Write) -> None:
    async with reopen() as index:
        with pytest.raises(Mistake, match="processes must be at least 1"):
            await index.update(write(DOCS), processes=0)
