from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from agentbudget.context.chunk import Chunk, chunk_id
from agentbudget.context.pack import CountTokens, pack
from agentbudget.context.store import Hit
from tests.context.conftest import count_words


def _hit(text: str, *, source: str = "a.md", path: tuple[str, ...] = ("T",), score: float = 1.0) -> Hit:
    return Hit(Chunk(chunk_id(path, text), source, path, text, 0, len(text), count_words(text)), score)


def test_passages_are_numbered_under_their_source_and_headings() -> None:
    hits = [_hit("One.", path=("A", "B")), _hit("Two.", source="dir/b.txt", path=())]
    packed = pack("?", hits, tokens=100, count_tokens=count_words)
    assert packed.text == "[1] a.md › A › B\nOne.\n\n[2] dir/b.txt\nTwo."
    assert packed.tokens == count_words(packed.text)
    assert packed.left_out == 0
    assert all(passage.whole for passage in packed.passages)


def test_the_allowance_holds_headers_and_all_to_the_token() -> None:
    hits = [_hit("One two three."), _hit("Four five six.")]
    needed = count_words("[1] a.md › T\nOne two three.\n\n[2] a.md › T\nFour five six.")
    assert len(pack("?", hits, tokens=needed, count_tokens=count_words).passages) == 2
    assert len(pack("?", hits, tokens=needed - 1, count_tokens=count_words).passages) == 1


def test_a_chunk_that_does_not_fit_gives_the_sentences_that_answer() -> None:
    text = (
        "Kettles boil water. Some are made of steel and some of glass, as you like. "
        "The warranty of a kettle lasts three years. Tea tastes good in the morning and at night."
    )
    packed = pack("How long does the warranty last?", [_hit(text)], tokens=30, count_tokens=count_words)
    [passage] = packed.passages
    assert passage.text == "The warranty of a kettle lasts three years."
    assert not passage.whole
    assert packed.tokens <= 30


def test_an_ellipsis_stands_where_sentences_are_missing() -> None:
    text = "The warranty is long. Nothing to see here at all, just words and more of them. A warranty claim is easy."
    packed = pack("warranty", [_hit(text)], tokens=28, count_tokens=count_words)
    assert packed.passages[0].text == "The warranty is long. … A warranty claim is easy."


def test_rows_of_a_table_stay_on_lines_of_their_own() -> None:
    rows = ["| zone | price |", "| one | 3 |", *(f"| {n} x y z | none |" for n in range(9)), "| France | 7 |"]
    packed = pack("price in France", [_hit("\n".join(rows))], tokens=30, count_tokens=count_words)
    assert packed.passages[0].text == "| zone | price |\n…\n| France | 7 |"


def test_the_same_text_under_two_headings_is_packed_once() -> None:
    hits = [_hit("Same  words."), _hit("same words.", path=("Other",)), _hit("Different.")]
    packed = pack("?", hits, tokens=100, count_tokens=count_words)
    assert [passage.chunk.text for passage in packed.passages] == ["Same  words.", "Different."]
    assert packed.left_out == 0


def test_what_did_not_fit_is_counted() -> None:
    packed = pack("?", [_hit(f"Sentence number {n}.") for n in range(10)], tokens=25, count_tokens=count_words)
    assert (len(packed.passages), packed.left_out) == (2, 8)


def test_nothing_fits_into_too_small_an_allowance() -> None:
    assert pack("one", [_hit("One two three four five.")], tokens=5, count_tokens=count_words).passages == ()


TEXTS = st.lists(st.text("ab .\n|é", min_size=1, max_size=60).filter(str.strip), max_size=8)


def _count_bytes(text: str) -> int:
    return len(text.encode()) // 3 + 1


@given(TEXTS, st.integers(1, 200), st.sampled_from([count_words, len, _count_bytes]))
def test_the_allowance_is_never_exceeded(texts: list[str], tokens: int, count: CountTokens) -> None:
    packed = pack("a b", [_hit(text) for text in texts], tokens=tokens, count_tokens=count)
    assert packed.tokens <= tokens
    assert packed.tokens == (count(packed.text) if packed.passages else 0)
    assert packed.text == "\n\n".join(str(passage) for passage in packed.passages)
    assert [passage.number for passage in packed.passages] == list(range(1, len(packed.passages) + 1))
