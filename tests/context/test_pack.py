from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agentbudget.context.chunk import Chunk, chunk_id
from agentbudget.context.pack import CountTokens, pack
from agentbudget.context.store import Hit
from tests.context.conftest import count_words

KETTLES = (
    "Kettles boil water. Some are made of steel and some of glass, as you like. "
    "The warranty of a kettle lasts three years. Tea tastes good in the morning and at night."
)


def _hit(text: str, *, source: str = "a.md", path: tuple[str, ...] = ("T",), score: float = 1.0) -> Hit:
    return Hit(Chunk(chunk_id(path, text), source, path, text, 0, len(text), count_words(text)), score)


def test_the_allowance_holds_headers_and_all_to_the_token() -> None:
    hits = [_hit("Warranty one two.", path=("A",)), _hit("Warranty five six.", path=("B",))]
    needed = count_words("[1] A\nWarranty one two.\n\n[2] B\nWarranty five six.")
    assert len(pack("warranty?", hits, tokens=needed, count_tokens=count_words).passages) == 2
    assert len(pack("warranty?", hits, tokens=needed - 1, count_tokens=count_words).passages) == 1


def test_the_sentence_that_answers_is_bought_first() -> None:
    packed = pack("How long does the warranty last?", [_hit(KETTLES)], tokens=14, count_tokens=count_words)
    [passage] = packed.passages
    assert passage.text == "The warranty of a kettle lasts three years."
    assert not passage.whole
    assert packed.tokens <= 14


def test_what_is_packed_for_less_is_packed_for_more() -> None:
    hits = [_hit(KETTLES), _hit("A warranty claim is easy. The weather is fine today.", path=("U",), score=0.8)]
    packs = [pack("warranty of a kettle", hits, tokens=n, count_tokens=count_words) for n in (20, 40, 80)]
    chances = [packed.chance for packed in packs]
    assert chances == sorted(chances)
    assert chances[0] < chances[-1]


def test_a_row_of_a_table_brings_the_tables_header() -> None:
    rows = ["| zone | price |", "|---|---|", "| Italy | 3 |", *(f"| {n} x y z | none |" for n in range(9))]
    text = "\n".join([*rows, "| France | 7 |"])
    packed = pack("What does it cost in France?", [_hit(text)], tokens=25, count_tokens=count_words)
    assert packed.passages[0].text == "| zone | price |\n|---|---|\n…\n| France | 7 |"


def test_long_code_is_cut_between_lines() -> None:
    code = "\n".join(f"def function_{n}(argument: int) -> int: return argument + {n}" for n in range(12))
    packed = pack("function_7", [_hit(code)], tokens=24, count_tokens=count_words)
    assert packed.passages[0].text.startswith("def function_7(")


def test_the_same_text_under_two_headings_is_packed_once() -> None:
    hits = [_hit("Same  words."), _hit("same words.", path=("Other",)), _hit("Different words.", path=("D",))]
    packed = pack("words", hits, tokens=100, count_tokens=count_words)
    assert {passage.chunk.text for passage in packed.passages} == {"Same  words.", "Different words."}


@pytest.mark.parametrize(
    ("other", "kept"),
    [
        ("The warranty of every steel kettle lasts five whole years.", 1),
        ("The warranty of every steel kettle lasts 5 whole years.", 2),
        ("The warranty of every steel kettle never lasts five whole years.", 2),
        ("The warranty of every steel kettle lasts whole years.", 1),
        ("The warranty of every steel toaster lasts five whole years.", 2),
        ("The warranty before every steel kettle lasts five whole years.", 2),
    ],
)
def test_sentences_that_say_the_same_are_packed_once(other: str, kept: int) -> None:
    hits = [_hit("The warranty of every steel kettle lasts five whole years!"), _hit(other, path=("U",), score=0.9)]
    packed = pack("How long does the warranty of a steel kettle last?", hits, tokens=99, count_tokens=count_words)
    assert len(packed.passages) == kept


def test_what_is_left_out_is_named_the_likeliest_first() -> None:
    hits = [_hit(f"Warranty number {n} of it.", path=(f"H{n}",), score=1 - n / 10) for n in range(5)]
    packed = pack("warranty", hits, tokens=20, count_tokens=count_words)
    assert [left.chunk.heading_path for left in packed.left_out] == [("H2",), ("H3",), ("H4",)]
    assert all(left.sentences == 1 for left in packed.left_out)
    chances = [left.chance for left in packed.left_out]
    assert chances == sorted(chances, reverse=True)


def test_more_is_what_a_greater_allowance_brings() -> None:
    hits = [_hit(f"Warranty number {n} of it.", path=(f"H{n}",), score=1 - n / 10) for n in range(5)]
    packed = pack("warranty", hits, tokens=20, count_tokens=count_words)
    assert packed.more is not None
    assert packed.more.preview.startswith("[1] H2\nWarranty number 2")
    assert packed.more.tokens == count_words(packed.more.preview)
    greater = pack("warranty", hits, tokens=20 + packed.more.tokens, count_tokens=count_words)
    assert packed.chance + packed.more.gain == pytest.approx(greater.chance)
    assert greater.more is None


def test_sentences_that_cannot_answer_are_not_paid_for() -> None:
    chaff = "It rained again all over the old town and nobody went out. " * 3
    hits = [_hit(KETTLES), *(_hit(f"{n} {chaff}", path=(f"H{n}",), score=0.1) for n in range(6))]
    packed = pack("How long does the warranty of a kettle last?", hits, tokens=900, count_tokens=count_words)
    assert packed.tokens < 60
    assert packed.more is None


def test_each_passage_says_what_it_costs_and_brings() -> None:
    hits = [_hit("Warranty one two.", path=("A",)), _hit("Warranty five six.", path=("B",), score=0.9)]
    packed = pack("warranty?", hits, tokens=50, count_tokens=count_words)
    assert sum(passage.tokens for passage in packed.passages) == packed.tokens
    assert sum(passage.chance for passage in packed.passages) == pytest.approx(packed.chance)
    assert packed.passages[0].chance > packed.passages[1].chance > 0


def test_too_small_an_allowance_says_what_the_best_sentence_takes() -> None:
    packed = pack("one", [_hit("One two three four five.")], tokens=5, count_tokens=count_words)
    assert packed.passages == ()
    assert packed.least_tokens == count_words("[1] T\nOne two three four five.")


def test_nothing_found_packs_nothing() -> None:
    packed = pack("one", [], tokens=5, count_tokens=count_words)
    assert (packed.passages, packed.text, packed.tokens, packed.least_tokens) == ((), "", 0, None)


WORDS = st.sampled_from(["a", "b.", "ab", "| a |\n", "|---|\n", "é!\n\n", "ba\n", "| b |"])
TEXTS = st.lists(st.lists(WORDS, min_size=1, max_size=20).map(" ".join), max_size=8)


def _count_bytes(text: str) -> int:
    return len(text.encode()) // 3 + 1


@given(TEXTS, st.integers(1, 200), st.sampled_from([count_words, len, _count_bytes]))
def test_the_allowance_is_never_exceeded(texts: list[str], tokens: int, count: CountTokens) -> None:
    packed = pack("a b", [_hit(text) for text in texts], tokens=tokens, count_tokens=count)
    assert packed.tokens <= tokens
    assert packed.tokens == (count(packed.text) if packed.passages else 0)
    assert packed.text == "\n\n".join(str(passage) for passage in packed.passages)
    assert [passage.number for passage in packed.passages] == list(range(1, len(packed.passages) + 1))
