from __future__ import annotations

import random

from hypothesis import given
from hypothesis import strategies as st

from agentbudget.context import formats
from agentbudget.context.chunk import Chunk, Sizes, chunk
from agentbudget.context.document import Document
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
