"""What every index does, whatever its engine."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest

from agentbudget.context import Progress, retrieve
from agentbudget.context.index import DocumentIndex
from agentbudget.errors import BudgetExceeded, DocumentsError, IndexMismatch, Mistake
from agentbudget.money import ZERO
from tests.context.conftest import Reopen, WordEmbedder, Write, long_document

DOCS = {
    "returns.md": "# Returns\n\n## Window\n\nWithin 30 days.\n\n## Postage\n\nThe customer pays the postage.\n",
    "shipping.md": "# Shipping\n\nExpress parcels travel with Blue Swift.\n",
}


async def _sources(index: DocumentIndex, question: str) -> list[str]:
    return [hit.chunk.source for hit in (await index.search(question)).hits]


async def test_the_first_update_embeds_everything(reopen: Reopen, write: Write, words: WordEmbedder) -> None:
    async with reopen() as index:
        report = await index.update(write(DOCS))
        assert (report.documents, report.embedded, report.kept, report.deleted) == (2, 3, 0, 0)
        assert report.chunks == await index.count() == 3
        assert report.tokens == sum(words.count_tokens(text) for text in words.embedded if text != "ready")
        assert report.compute_ns > 0


async def test_an_unchanged_folder_embeds_nothing_even_after_opening_again(
    reopen: Reopen, write: Write, words: WordEmbedder
) -> None:
    folder = write({**DOCS, "empty.md": ""})
    async with reopen() as index:
        first = await index.update(folder)
    words.embedded.clear()
    async with reopen() as index:
        report = await index.update(folder)
    assert words.embedded == []
    assert (report.documents, report.kept, report.embedded, report.compute_ns) == (2, 3, 0, 0)
    assert report.skipped == first.skipped
    assert [item.source for item in report.skipped] == ["empty.md"]


async def test_only_what_changed_is_embedded_and_what_left_is_deleted(
    reopen: Reopen, write: Write, words: WordEmbedder
) -> None:
    async with reopen() as index:
        await index.update(write(DOCS))
        words.embedded.clear()
        (write({}) / "shipping.md").unlink()
        report = await index.update(write({"returns.md": DOCS["returns.md"].replace("30 days", "45 days")}))
        assert (report.kept, report.embedded, report.deleted) == (1, 1, 2)
        assert words.embedded == ["ready", "Returns › Window\nWithin 45 days."]
        assert set(await _sources(index, "Blue Swift")) == {"returns.md"}


async def test_content_that_moved_is_found_at_its_new_place_without_embedding(
    reopen: Reopen, write: Write, words: WordEmbedder
) -> None:
    folder = write(DOCS)
    async with reopen() as index:
        await index.update(folder)
        words.embedded.clear()
        (folder / "shipping.md").rename(folder / "parcels.md")
        report = await index.update(folder)
        assert (report.kept, report.moved, report.embedded, report.deleted) == (3, 1, 0, 0)
        assert words.embedded == []
        assert (await _sources(index, "Blue Swift"))[0] == "parcels.md"


async def test_content_in_two_files_is_embedded_once_and_survives_the_loss_of_one(reopen: Reopen, write: Write) -> None:
    folder = write({"a.md": "# T\n\nthe same words\n", "b.md": "# T\n\nthe same words\n"})
    async with reopen() as index:
        assert (await index.update(folder)).embedded == 1
        (folder / "a.md").unlink()
        report = await index.update(folder)
        assert (report.kept, report.moved, report.embedded) == (1, 1, 0)
        assert await _sources(index, "same words") == ["b.md"]


async def test_a_search_joins_meaning_and_words_and_is_repeatable(reopen: Reopen, write: Write) -> None:
    async with reopen() as index:
        await index.update(write(DOCS))
        found = await index.search("who pays the postage", limit=2)
        assert len(found.hits) == 2
        assert found.hits[0].chunk.heading_path == ("Returns", "Postage")
        assert found.hits[0].score > found.hits[1].score
        assert found.compute_ns > 0
        assert all([(await index.search("who pays the postage", limit=2)).hits == found.hits for _ in range(5)])


async def test_chunks_come_back_as_they_were_cut(reopen: Reopen, write: Write) -> None:
    folder = write(DOCS)
    async with reopen() as index:
        await index.update(folder)
        chunk = (await index.search("Express Blue Swift")).hits[0].chunk
    text = (folder / chunk.source).read_text()
    assert text[chunk.start : chunk.end] == chunk.text == "Express parcels travel with Blue Swift."
    assert (chunk.heading_path, len(chunk.id), chunk.tokens) == (("Shipping",), 32, 8)


async def test_tenants_do_not_see_or_delete_each_others_documents(reopen: Reopen, write: Write) -> None:
    folder = write(DOCS)
    async with reopen(tenant="a") as index:
        await index.update(folder)
    (folder / "shipping.md").unlink()
    async with reopen(tenant="b") as index:
        with pytest.raises(DocumentsError, match="is empty"):
            await index.search("Blue Swift")
        await index.update(folder)
        assert await index.count() == 2
        assert set(await _sources(index, "Blue Swift")) == {"returns.md"}
    async with reopen(tenant="a") as index:
        assert await index.count() == 3
        assert (await _sources(index, "Blue Swift"))[0] == "shipping.md"


async def test_an_empty_index_says_to_update_it(reopen: Reopen) -> None:
    async with reopen() as index:
        assert await index.count() == 0
        with pytest.raises(DocumentsError, match=r"run update\(folder\)"):
            await index.search("anything")


@pytest.mark.parametrize("question", [" \n\u00a0", "half a \ud800 character", None])
async def test_a_question_that_says_nothing_is_a_mistake(reopen: Reopen, question: Any) -> None:
    async with reopen() as index:
        with pytest.raises(Mistake, match="is no question; ask for something"):
            await index.search(question)


@pytest.mark.parametrize("tokens", [0, "300", True])
async def test_an_allowance_that_is_no_number_of_tokens_is_a_mistake(reopen: Reopen, tokens: Any) -> None:
    async with reopen() as index:
        with pytest.raises(Mistake, match=f"an allowance of {tokens!r} tokens holds nothing"):
            await retrieve(index, "anything", tokens=tokens)


async def test_another_embedding_model_is_refused_and_rebuild_mends_it(reopen: Reopen, write: Write) -> None:
    folder = write(DOCS)
    async with reopen() as index:
        await index.update(folder)
    other = WordEmbedder(name="other")
    async with reopen(embedder=other) as index:
        with pytest.raises(IndexMismatch, match=r"embedded by words:64, not by other:64; .*rebuild=True") as caught:
            await index.update(folder)
        assert (caught.value.chunks, caught.value.tokens) == (3, 24)
        assert "3 chunks, 24 tokens, about 0.0 s, $" in str(caught.value)
        assert (caught.value.usd_nano or 0) > 0
        with pytest.raises(IndexMismatch):
            await index.search("Blue Swift")
        report = await index.update(folder, rebuild=True)
        assert (report.embedded, report.kept) == (3, 0)
        assert (await _sources(index, "Blue Swift"))[0] == "shipping.md"


async def test_another_folder_is_refused_rather_than_replacing_the_first(
    reopen: Reopen, write: Write, tmp_path: Path
) -> None:
    async with reopen() as index:
        await index.update(write(DOCS))
        (tmp_path / "other").mkdir()
        (tmp_path / "other" / "a.md").write_text("other")
        with pytest.raises(IndexMismatch, match="an index of its own"):
            await index.update(tmp_path / "other")
        assert await index.count() == 3
        assert (await index.update(tmp_path / "other", rebuild=True)).chunks == await index.count() == 1


async def test_a_folder_that_vanished_leaves_the_index_as_it_was(reopen: Reopen, write: Write, tmp_path: Path) -> None:
    async with reopen() as index:
        await index.update(write(DOCS))
        with pytest.raises(DocumentsError):
            await index.update(tmp_path / "nowhere", rebuild=True)
        assert await index.count() == 3


async def test_progress_tells_of_files_then_chunks(reopen: Reopen, write: Write) -> None:
    told: list[Progress] = []
    async with reopen() as index:
        await index.update(write(DOCS), progress=told.append)
    assert told[:3] == [Progress("read", 0, 2), Progress("read", 1, 2), Progress("read", 2, 2)]
    assert [(p.stage, p.done, p.total) for p in told[3:]] == [("embed", 0, 3), ("embed", 3, 3)]


async def test_progress_tells_what_there_is_to_embed_and_how_long_the_first_of_it_took(
    reopen: Reopen, write: Write
) -> None:
    told: list[Progress] = []
    async with reopen() as index:
        report = await index.update(write(DOCS | long_document(40)), progress=told.append)
    first, second, last = (progress.work for progress in told if progress.work is not None)
    assert (first.files, first.tokens, first.done_tokens, first.expected_ns) == (3, report.tokens, 0, None)
    assert 0 < second.done_tokens < second.tokens == last.done_tokens
    assert second.expected_ns == second.compute_ns * second.tokens // second.done_tokens
    assert last.expected_ns == last.compute_ns == report.compute_ns


async def test_what_progress_raises_ends_the_update_and_the_next_one_goes_on(
    reopen: Reopen, write: Write, words: WordEmbedder
) -> None:
    folder = write(long_document(100))

    def out_of_budget(progress: Progress) -> None:
        if progress.stage == "embed" and progress.done >= 64:
            raise BudgetExceeded("no more", account="run/1", unit="usd", needed=1, available=0, requested=ZERO)

    async with reopen() as index:
        with pytest.raises(BudgetExceeded):
            await index.update(folder, progress=out_of_budget)
        with pytest.raises(DocumentsError, match="cut short"):
            await index.search("section 7")
        report = await index.update(folder)
        assert (report.kept, report.embedded) == (64, 36)
        assert (await _sources(index, "section number 7")) != []


async def test_a_cancelled_update_stops_soon_and_lets_the_index_be_closed(reopen: Reopen, write: Write) -> None:
    folder = write(long_document(200))
    loop = asyncio.get_running_loop()
    begun = asyncio.Event()

    def tell(progress: Progress) -> None:
        if progress.stage == "embed":
            loop.call_soon_threadsafe(begun.set)

    index = reopen()
    update = asyncio.create_task(index.update(folder, progress=tell))
    await begun.wait()
    update.cancel()
    with pytest.raises(asyncio.CancelledError):
        await update
    await index.aclose()
    async with reopen() as index:
        report = await index.update(folder)
        assert (report.chunks, report.kept + report.embedded) == (200, 200)


async def test_searches_run_while_an_update_does(reopen: Reopen, write: Write) -> None:
    async with reopen() as index:
        await index.update(write(long_document(50)))
        update = asyncio.create_task(index.update(write(long_document(300))))
        while not update.done():
            assert len((await index.search("section number 7", limit=5)).hits) == 5
        assert (await update).embedded == 250


async def test_a_closed_index_says_so(reopen: Reopen, write: Write) -> None:
    index = reopen()
    await index.update(write(DOCS))
    await index.aclose()
    await index.aclose()
    with pytest.raises(Mistake, match="is closed; open it again"):
        await index.search("anything")


ALIKE = {
    **{f"window{n}.md": f"# Returns\n\nA parcel may be returned within 30 days, version {n}.\n" for n in range(4)},
    "postage.md": "# Postage\n\nA late parcel may be returned, and its postage be paid, many days on.\n",
    "lunch.md": "# Lunch\n\nOn Fridays there is soup.\n",
}


async def test_a_diverse_search_prefers_another_document_to_one_more_like_the_best(
    reopen: Reopen, write: Write
) -> None:
    question = "May a parcel be returned within 30 days?"
    async with reopen() as index:
        await index.update(write(ALIKE))
        best = (await index.search(question, limit=2)).hits
        assert [hit.chunk.source[:6] for hit in best] == ["window", "window"]
        first, second = (await index.search(question, limit=2, diversity=0.4)).hits
        assert first.chunk.source.startswith("window")
        assert second.chunk.source == "postage.md"


async def test_a_diverse_search_looks_only_where_it_is_told_to(reopen: Reopen, write: Write) -> None:
    labels = {"window*": {"team": "desk"}, "[pl]*": {"team": "other"}}
    async with reopen() as index:
        await index.update(write(ALIKE), metadata=labels)
        found = await index.search("a parcel that is returned", limit=3, diversity=1.0, where={"team": "desk"})
        assert len(found.hits) == 3
        assert {hit.chunk.metadata["team"] for hit in found.hits} == {"desk"}


@pytest.mark.parametrize("diversity", [-0.1, 1.5])
async def test_diversity_has_bounds(reopen: Reopen, write: Write, diversity: float) -> None:
    async with reopen() as index:
        await index.update(write(DOCS))
        with pytest.raises(Mistake, match="between 0"):
            await index.search("postage", diversity=diversity)
