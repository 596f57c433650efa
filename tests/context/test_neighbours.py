"""The chunks before and after what was found, whatever the engine."""

from __future__ import annotations

from dataclasses import replace

import pytest

from agentbudget.context import retrieve
from agentbudget.context.chunk import Chunk, Place
from agentbudget.context.index import DocumentIndex
from agentbudget.context.neighbours import NEAR, leading, next_to, widened
from agentbudget.context.store import Hit
from agentbudget.errors import Mistake
from tests.context.conftest import Reopen, Write, long_document

PORT = """# Harbour

## Where the ferry to Marram leaves

Pier four, behind the fish market.

## Its last crossing

In winter it is at half past six.

## Dogs

On a lead.
"""


async def _headings(index: DocumentIndex, question: str, *, neighbours: int, limit: int = 1) -> list[str]:
    found = await index.search(question, limit=limit, neighbours=neighbours)
    return [hit.chunk.heading_path[-1] for hit in found.hits]


async def test_the_chunks_before_and_after_the_best_come_along(reopen: Reopen, write: Write) -> None:
    async with reopen() as index:
        await index.update(write(long_document(9)))
        assert await _headings(index, "section number 5", neighbours=0) == ["S5"]
        first, *others = await _headings(index, "section number 5", neighbours=1)
        assert first == "S5"
        assert sorted(others) == ["S4", "S6"]


async def test_the_first_chunk_has_one_neighbour(reopen: Reopen, write: Write) -> None:
    async with reopen() as index:
        await index.update(write(long_document(9)))
        assert await _headings(index, "section number 0", neighbours=1) == ["S0", "S1"]


async def test_a_neighbour_of_another_tenant_is_none(reopen: Reopen, write: Write) -> None:
    async with reopen(tenant="other") as index:
        await index.update(write(long_document(9)))
    write({}).joinpath("long.md").unlink()
    async with reopen(tenant="one") as index:
        await index.update(write({"long.md": "# S5\n\nsection number 5\n"}))
        assert await _headings(index, "section number 5", neighbours=1) == ["S5"]


async def test_neighbours_stand_in_the_file_that_was_asked_for(reopen: Reopen, write: Write) -> None:
    labels = {"a.md": {"team": "a"}, "b.md": {"team": "b"}}
    async with reopen() as index:
        await index.update(write({"a.md": f"{PORT}\n## A\n\nown\n", "b.md": PORT}), metadata=labels)
        found = await index.search("ferry Marram", limit=1, neighbours=1, where={"team": "b"})
        assert {hit.chunk.source for hit in found.hits} == {"b.md"}
        assert len(found.hits) == 2


async def test_a_retrieval_buys_the_answer_that_stands_across_a_border(reopen: Reopen, write: Write) -> None:
    chaff = {f"{n}.md": f"# Ferry {n}\n\nThe last ferry to island {n} leaves at {n} sharp.\n" for n in range(12)}
    question = "When is the last crossing of the ferry to Marram?"
    async with reopen() as index:
        await index.update(write({"port.md": PORT.replace("## Its last crossing", "## Hours"), **chaff}))
        without = await retrieve(index, "Where does the ferry to Marram leave?", tokens=90, limit=1, neighbours=0)
        assert "half past six" not in without.text
        found = await retrieve(index, question, tokens=90, limit=1, neighbours=1)
        assert "half past six" in found.text
        assert found.tokens <= 90


async def test_neighbours_are_not_asked_of_a_diverse_search(reopen: Reopen, write: Write) -> None:
    async with reopen() as index:
        await index.update(write(long_document(2)))
        with pytest.raises(Mistake, match="neighbours must be 0"):
            await index.search("section", neighbours=1, diversity=0.5)
        with pytest.raises(Mistake, match="neighbours must be 0"):
            await index.search("section", neighbours=-1)


def _chunk(name: str, start: int, *, source: str = "a.md", also: tuple[Place, ...] = ()) -> Chunk:
    return Chunk(name, source, (), name, start, start + 10, 1, also=also)


def test_the_nearest_is_the_neighbour_and_what_is_far_is_none() -> None:
    near, far, behind = _chunk("near", 12), _chunk("far", 30), _chunk("behind", 600)
    place = Place("a.md", 0, 10)
    assert next_to(place, [far, near, _chunk("elsewhere", 11, source="b.md")]) == [near]
    assert next_to(place, [behind]) == []
    assert behind.start > place.end + NEAR


def test_a_chunk_that_stands_in_two_files_is_a_neighbour_in_the_one() -> None:
    shared = _chunk("shared", 500, source="b.md", also=(Place("a.md", 12, 22, {"team": "a"}),))
    [neighbour] = next_to(Place("a.md", 0, 10), [shared])
    assert (neighbour.source, neighbour.start, neighbour.metadata) == ("a.md", 12, {"team": "a"})
    assert [place.source for place in neighbour.also] == ["b.md"]


def test_only_short_chunks_lead_to_their_neighbours() -> None:
    short, long = Hit(_chunk("short", 0), 1.0), Hit(replace(_chunk("long", 12), tokens=200), 0.9)
    assert leading([long, short], 1) == []
    assert leading([long, short], 2) == [short]


def test_a_neighbour_counts_by_the_better_of_its_scores() -> None:
    best, next_one, better = _chunk("best", 0), _chunk("next", 12), _chunk("better", 24)
    hits = [Hit(best, 1.0), Hit(better, 0.95), Hit(next_one, 0.1)]
    lifted = widened(hits, hits[:2], [best, next_one, better])
    assert [hit.chunk.id for hit in lifted] == ["best", "better", "next"]
    assert 0.1 < lifted[2].score < 0.95
    assert lifted[1].score == 0.95
