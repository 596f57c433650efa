from __future__ import annotations

import pytest

from agentbudget.cache.codec import decode_completion, encode_completion
from agentbudget.models.base import Completion, ToolCall
from agentbudget.usage import Usage

ANSWER = Completion(
    'two lines\nand "quotes", ümlauts and half a character: \ud800',
    "tools",
    Usage(20, 5, reasoning_tokens=2),
    "served",
    0.5,
    (ToolCall("c1", "look", '{"at": "x\\n"}'),),
    echo="sealed\n",
)


def test_an_answer_comes_back_as_it_was() -> None:
    assert decode_completion(encode_completion(ANSWER)) == ANSWER


def test_an_answer_that_an_earlier_version_kept_is_read() -> None:
    kept = b'{"text": "old", "finish": "stop", "usage": {"input_tokens": 2}, "served_by": "m", "confidence": null}'
    assert decode_completion(kept) == Completion("old", "stop", Usage(2), "m")


def test_an_answer_whose_usage_was_kept_by_name_is_read() -> None:
    kept = b'["stop", {"input_tokens": 2, "output_tokens": 1}, "m", null, [], ""]\nold'
    assert decode_completion(kept) == Completion("old", "stop", Usage(2, 1), "m")


@pytest.mark.parametrize("usage", [Usage(), Usage(7), Usage(7, 0, 3), Usage(9, 5, 1, 4, 2, 8, 3, 1)])
def test_usage_comes_back_whatever_is_zero(usage: Usage) -> None:
    answer = Completion("", "stop", usage, "m")
    assert decode_completion(encode_completion(answer)).usage == usage


@pytest.mark.parametrize("value", [b"", b"{", b"[]", b"{}", b"5", b'["stop"]\ntext', encode_completion(ANSWER)[:60]])
def test_bytes_that_are_no_answer_are_refused(value: bytes) -> None:
    with pytest.raises((ValueError, KeyError, TypeError)):
        decode_completion(value)
