from __future__ import annotations

import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from agentbudget.context import formats
from agentbudget.context.chunk import Chunk, Sizes, chunk
from agentbudget.context.document import Document
from agentbudget.context.formats import markdown
from agentbudget.context.records import table
from tests.context.conftest import count_words

SMALL = Sizes(target=20, limit=30, least=8)


def _chunks(text: str, *, sizes: Sizes = SMALL, source: str = "a.md") -> tuple[Chunk, ...]:
    parsed = formats.markdown(text.encode())
    return chunk(Document(source, parsed.text, parsed.blocks), count_words, sizes=sizes)


def test_a_short_section_is_one_chunk_with_its_headings() -> None:
    [only] = _chunks("# Returns\n\n## Window\n\nWithin 30 days.\n\nKettles: 60 days.\n")
    assert only.heading_path == ("Returns", "Window")
    assert only.text == "Within 30 days.\n\nKettles: 60 days."
    assert only.embedded == "Returns › Window\nWithin 30 days.\n\nKettles: 60 days."
    assert only.title == "a.md › Returns › Window"
    assert only.tokens == count_words(only.embedded)


def test_no_chunk_crosses_a_heading() -> None:
    assert [c.text for c in _chunks("# A\n\none\n\n# B\n\ntwo\n")] == ["one", "two"]


def test_a_paragraph_up_to_the_limit_stays_whole_and_a_longer_one_is_cut_between_sentences() -> None:
    fits = "One two three four five six seven eight nine. " * 2
    assert len(_chunks(fits)) == 1
    parts = [c.text for c in _chunks(fits * 3)]
    assert len(parts) == 2
    assert all(part.endswith("nine.") for part in parts)


def test_a_table_and_a_fence_that_fit_the_limit_stay_whole() -> None:
    table = "| a | b |\n|---|---|\n| 1 | 2 |"
    fence = "```sh\nmake\n\nmake test\n```"
    assert [c.text for c in _chunks(f"{table}\n\n{fence}\n", sizes=Sizes(target=20, limit=40, least=8))] == [
        table,
        fence,
    ]


def test_every_part_of_a_long_table_repeats_its_header() -> None:
    head = "| zone | price |\n|---|---|\n"
    rows = "".join(f"| {zone} | {zone * 2} |\n" for zone in range(12))
    first, *others = _chunks(head + rows, sizes=Sizes(target=30, limit=40, least=8))
    assert len(others) >= 2
    assert first.text.startswith(head)
    for part in others:
        assert part.text.startswith(head)
        assert (head + rows)[part.start : part.end] == part.text.removeprefix(head)


def test_one_word_of_base64_is_cut_by_characters() -> None:
    sizes = Sizes(target=20, limit=30, least=8)
    assert max(len(c.text) for c in _chunks("A" * 5000, sizes=sizes)) <= 30 * 8


def test_a_long_line_is_cut_without_counting_it_over_and_over() -> None:
    text = " ".join(f"w{n}" for n in range(20_000))
    counted = 0

    def count(part: str) -> int:
        nonlocal counted
        counted += len(part)
        return count_words(part)

    chunks = chunk(Document("a.txt", text, formats.plain(text.encode()).blocks), count)
    assert sum(one.tokens for one in chunks) == 20_000
    assert counted < 20 * len(text)


def test_the_id_does_not_depend_on_the_place() -> None:
    [before] = _chunks("# A\n\nsame words\n")
    moved = _chunks("# Z\n\nother\n\n# A\n\nsame words\n", source="b.md")[1]
    assert before.id == moved.id
    assert (before.source, before.start) != (moved.source, moved.start)
    assert before.id != _chunks("# B\n\nsame words\n")[0].id


def test_an_edit_leaves_the_ids_of_other_sections_alone() -> None:
    text = "# A\n\nfirst\n\n# B\n\nsecond\n"
    a, b = _chunks(text)
    edited_a, edited_b = _chunks(text.replace("first", "a longer first"))
    assert edited_a.id != a.id
    assert edited_b.id == b.id


def test_an_edit_within_a_long_section_moves_only_the_boundaries_near_it() -> None:
    draw = random.Random(7)
    paragraphs = [f"Paragraph {n}: " + " ".join(draw.choices("abcdefgh", k=6)) for n in range(200)]
    before = {c.id for c in _chunks("\n\n".join(paragraphs))}
    after = {c.id for c in _chunks("\n\n".join(["A new beginning of six words here.", *paragraphs]))}
    assert len(before) > 80
    assert len(after - before) <= 12


@given(st.lists(st.text(max_size=120), max_size=12), st.integers(1, 40))
def test_chunks_hold_all_of_the_text_and_fit(pieces: list[str], limit: int) -> None:
    text = "\n\n".join(pieces).replace("\0", "").encode(errors="replace").decode()
    parsed = formats.plain(text.encode())
    sizes = Sizes(target=max(1, limit * 3 // 4), limit=limit, least=max(1, limit // 3))
    chunks = chunk(Document("a.txt", parsed.text, parsed.blocks), count_words, sizes=sizes)
    assert all(c.text == parsed.text[c.start : c.end] for c in chunks)
    assert all(count_words(c.text) <= limit or len(c.text) == 1 for c in chunks)
    kept = "".join("".join(c.text.split()) for c in chunks)
    wanted = "".join("".join(parsed.text[block.start : block.end].split()) for block in parsed.blocks)
    assert kept == wanted


# --- stability: an edit in one place leaves the ids of chunks elsewhere alone

_WORDS = st.sampled_from(["kettle", "lid", "boils", "cold", "returns", "parcel", "window", "thirty", "days"])
_SENTENCE = st.lists(_WORDS, min_size=3, max_size=30).map(lambda words: " ".join(words).capitalize() + ".")
_PARAGRAPH = st.lists(_SENTENCE, min_size=1, max_size=12).map(" ".join)
_SECTIONS = st.lists(st.lists(_PARAGRAPH, min_size=1, max_size=10), min_size=2, max_size=5)


def _ids(sections: list[list[str]]) -> list[list[str]]:
    """Ids of the chunks of each section."""
    text = "".join(f"# Part {n}\n\n" + "\n\n".join(paragraphs) + "\n\n" for n, paragraphs in enumerate(sections))
    parsed = markdown(text.encode())
    chunks = chunk(Document("a.md", parsed.text, parsed.blocks), count_words)
    return [[one.id for one in chunks if one.heading_path == (f"Part {n}",)] for n in range(len(sections))]


@settings(max_examples=20, deadline=None)
@given(sections=_SECTIONS, new=_PARAGRAPH, data=st.data())
def test_whatever_is_edited_other_sections_keep_their_ids(
    sections: list[list[str]], new: str, data: st.DataObject
) -> None:
    where = data.draw(st.integers(0, len(sections) - 1))
    place = data.draw(st.integers(0, len(sections[where]) - 1))
    before = _ids(sections)
    sections[where][place] = new
    after = _ids(sections)
    assert before[:where] + before[where + 1 :] == after[:where] + after[where + 1 :]


def _rows(seed: int, rows: int) -> list[str]:
    chance = random.Random(seed)
    return [f"{chance.randrange(10**6)},{chance.choice(['red', 'green', 'blue'])},kettle" for _ in range(rows)]


@pytest.mark.parametrize("kind", ["table", "code", "prose", "paragraphs"])
def test_an_edit_in_a_long_block_changes_only_the_chunks_near_it(kind: str) -> None:
    """In a block that is cut many times, an insertion moves boundaries until a marked line, and no further."""

    def ids(rows: list[str]) -> set[str]:
        text = {
            "table": "\n".join(["id,colour,thing", *rows]),
            "code": "```\n" + "\n".join(rows) + "\n```\n",
            "prose": " ".join(f"The number is {row}." for row in rows) + "\n",
            "paragraphs": "\n\n".join(f"The number is {row}." for row in rows) + "\n",
        }[kind]
        parsed = table(text.encode()) if kind == "table" else markdown(text.encode())
        return {one.id for one in chunk(Document("a", parsed.text, parsed.blocks), count_words)}

    changed: list[int] = []
    for seed in range(8):
        rows = _rows(seed, 600)
        before = ids(rows)
        rows.insert(30, "777,black,teapot")
        changed.append(len(ids(rows) - before))
        assert len(before) > 15
    assert max(changed) <= 12
    assert sum(changed) / len(changed) < 3.5
