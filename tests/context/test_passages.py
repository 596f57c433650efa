from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from agentbudget.context.chunk import Chunk, Sizes, chunk
from agentbudget.context.document import Block, Document
from agentbudget.context.pack import pack
from agentbudget.context.passages import Kept, lay_out, shown
from agentbudget.context.store import Hit
from tests.context.conftest import count_words


def _kept(
    text: str, *spans: tuple[int, int], path: tuple[str, ...] = ("T",), source: str = "a.md", start: int = 0
) -> Kept:
    chunk = Chunk(text, source, path, text, start, start + len(text), count_words(text))
    return Kept(chunk, 1.0, spans or ((0, len(text)),))


def test_passages_are_numbered_under_their_headings() -> None:
    passages = lay_out([_kept("One.", path=("A", "B")), _kept("Two.", path=("C",))])
    assert shown(passages) == "[1] A › B\nOne.\n\n[2] C\nTwo."


def test_a_document_without_headings_is_titled_by_its_file() -> None:
    assert shown(lay_out([_kept("One.", path=(), source="dir/b.txt")])) == "[1] dir/b.txt\nOne."


def test_headings_between_the_outermost_and_the_innermost_are_left_out() -> None:
    assert shown(lay_out([_kept("One.", path=("A", "B", "C", "D"))])) == "[1] A › D\nOne."


def test_the_same_headings_in_two_files_are_told_apart() -> None:
    passages = lay_out([_kept("One.", source="a.md"), _kept("Two.", source="b.md")])
    assert shown(passages) == "[1] a.md › T\nOne.\n\n[2] b.md › T\nTwo."


def test_what_follows_under_the_same_title_is_not_titled_again() -> None:
    passages = lay_out([_kept("One."), _kept("Two.", start=9), _kept("Three.", path=("U",)), _kept("Four.", start=20)])
    assert shown(passages) == "[1] T\nOne.\n\n[2]\nTwo.\n\n[3] U\nThree.\n\n[4] T\nFour."


def test_an_ellipsis_stands_where_sentences_are_missing() -> None:
    [passage] = lay_out([_kept("One. Two. Three.\nFour.\nFive.", (0, 4), (10, 16), (23, 28))])
    assert passage.text == "One. … Three.\n…\nFive."
    assert passage.spans == ((0, 4), (10, 16), (23, 28))
    assert not passage.whole


def test_sentences_that_follow_each_other_are_one_span() -> None:
    [passage] = lay_out([_kept("One.  Two. Three.", (0, 4), (6, 10), start=100)])
    assert passage.text == "One.  Two."
    assert passage.spans == ((100, 110),)


def test_the_repeated_header_of_a_table_is_in_no_span() -> None:
    text = "| a |\n|---|\n| x |\n| y |"
    [passage] = lay_out([Kept(Chunk("id", "a.md", (), text, 50, 61, 9), 1.0, ((0, 11), (18, 23)))])
    assert passage.text == "| a |\n|---|\n…\n| y |"
    assert passage.spans == ((56, 61),)


WORDS = st.sampled_from(["kettle", "Oslo", "1999", "is", "a", "b.", "c!", "d?\n", "e\n\n", "| f |\n", "- g", "é。"])
TEXTS = st.lists(WORDS, min_size=1, max_size=60).map(" ".join)


@given(TEXTS, TEXTS, st.integers(8, 120))
def test_every_span_is_what_the_document_says_there(text: str, question: str, tokens: int) -> None:
    document = Document("a.md", text, (Block(0, len(text), ("T",)),))
    chunks = chunk(document, count_words, sizes=Sizes(target=20, limit=30, least=5))
    hits = [Hit(each, 1 / (1 + n)) for n, each in enumerate(chunks)]
    for passage in pack(question, hits, tokens=tokens, count_tokens=count_words).passages:
        quoted = [text[start:end] for start, end in passage.spans]
        assert [run for part in passage.text.split("\n…\n") for run in part.split(" … ")] == quoted
        assert all(passage.chunk.start <= start < end <= passage.chunk.end for start, end in passage.spans)
