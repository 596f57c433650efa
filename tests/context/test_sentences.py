from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agentbudget.context import sentences
from agentbudget.context.sentences import Split


def _cut(text: str) -> list[str]:
    return [text[start:end] for start, end in sentences.sentences(text)]


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        ("One. Two! Three?", ["One.", "Two!", "Three?"]),
        ("It costs 4.90 EUR. Pay now.", ["It costs 4.90 EUR.", "Pay now."]),
        ("Ask Dr. Weber, e.g. Monday. He knows.", ["Ask Dr. Weber, e.g. Monday.", "He knows."]),
        ('He said "no." Then he left.', ['He said "no."', "Then he left."]),
        ("Wrapped\nline. Next\nline.", ["Wrapped\nline.", "Next\nline."]),
        ("| a |\n| b |", ["| a |", "| b |"]),
        ("- one\n- two", ["- one", "- two"]),
        ("Para\n\npara", ["Para", "para"]),
        ("一。二。", ["一。", "二。"]),
        ("  ", []),
    ],
)
def test_sentences(text: str, parts: list[str]) -> None:
    assert _cut(text) == parts


@given(
    st.text(),
    st.sampled_from([sentences.paragraphs, sentences.lines, sentences.sentences, sentences.words, sentences.halves]),
)
def test_spans_are_in_order_and_leave_out_white_space_only(text: str, split: Split) -> None:
    end = 0
    for start, stop in split(text):
        assert not text[end:start].strip()
        assert start < stop
        end = stop
    assert not text[end:].strip()


@given(st.text(alphabet="aZ1.!?…\"')] \t\n|-*+Drs"))
def test_a_stop_of_a_script_without_spaces_changes_nothing_elsewhere(text: str) -> None:
    assert _cut(f"。\n\n{text.lstrip()}") == ["。", *_cut(text.lstrip())]
