"""Tables and records as text that a reader understands without the file."""

from __future__ import annotations

import pytest

from agentbudget.context.chunk import chunk
from agentbudget.context.document import Document, Unreadable
from agentbudget.context.formats import Parsed
from agentbudget.context.records import json_lines, table
from tests.context.words import count_words


def _texts(parsed: Parsed) -> list[str]:
    return [parsed.text[block.start : block.end] for block in parsed.blocks]


@pytest.mark.parametrize("delimiter", [",", ";", "\t", "|"])
def test_a_table_is_rows_under_its_header(delimiter: str) -> None:
    rows = [["name", "price"], ["Aurora", "49 EUR"], ["Fjord 2", "79 EUR"]]
    parsed = table("\r\n".join(delimiter.join(row) for row in rows).encode())
    assert _texts(parsed) == ["| name | price |\n| Aurora | 49 EUR |\n| Fjord 2 | 79 EUR |"]
    assert parsed.blocks[0].head == "| name | price |\n"


def test_quoted_cells_may_hold_delimiters_quotes_and_lines() -> None:
    assert _texts(table(b'a,b\n"x, ""y""","two\nlines"\n')) == ['| a | b |\n| x, "y" | two lines |']


def test_every_part_of_a_long_table_repeats_the_header() -> None:
    parsed = table(("name,price\n" + "".join(f"kettle {n},{n} EUR\n" for n in range(300))).encode())
    chunks = chunk(Document("a.csv", parsed.text, parsed.blocks), count_words)
    assert len(chunks) > 3
    assert all(one.text.startswith("| name | price |\n") for one in chunks)


@pytest.mark.parametrize("data", [b"", b"\n\n", b",,\n"])
def test_a_table_of_nothing_is_empty(data: bytes) -> None:
    assert table(data).blocks == ()


def test_a_quotation_that_never_ends_is_a_reason() -> None:
    with pytest.raises(Unreadable, match="not a table of separated values"):
        table(b'a,b\n"never,ends\n')


def test_a_record_is_its_fields_with_their_names() -> None:
    record = b'{"id": 7, "title": "Kettle", "tags": ["a", "b"], "price": {"eur": 49.5, "old": null}, "ok": true}'
    lines = record + b'\n\n"just text"\n'
    assert _texts(json_lines(lines)) == ["id: 7\ntitle: Kettle\ntags: a, b\nprice.eur: 49.5\nok: true", "just text"]


def test_records_within_records_keep_their_names() -> None:
    assert _texts(json_lines(b'{"rows": [{"a": 1}, {"a": 2}]}')) == ["rows.a: 1\nrows.a: 2"]


def test_blocks_are_where_the_text_says() -> None:
    parsed = json_lines(b'{"a": 1}\n{"b": "x"}\n{}\n[]\n')
    assert parsed.text == "a: 1\n\nb: x"
    assert _texts(parsed) == ["a: 1", "b: x"]


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b'{"a": 1}\n{"a": \n', "line 2 is not JSON: Expecting value, at character 7"),
        (b"[" * 100_000, "line 1 is not JSON"),
        (b'{"a": 1}\n[{' + b'"a": [{' * 200 + b"}]" * 200 + b"}]", "line 2 is a record nested more than 100 deep"),
    ],
)
def test_a_line_that_is_broken_is_a_reason(data: bytes, reason: str) -> None:
    with pytest.raises(Unreadable, match=reason):
        json_lines(data)


def test_half_a_character_can_still_be_stored() -> None:
    assert _texts(json_lines(b'{"a": "x\\ud800y\\u0000z"}')) == ["a: x?yz"]
