from __future__ import annotations

import pytest

from agentbudget.context import Chunk, Passage, Retrieved, cite


def _retrieved(count: int) -> Retrieved:
    passages = tuple(
        Passage(n, Chunk(f"id{n}", f"{n}.md", ("T",), "some text", n, n + 9, 2), "text", 1.0, spans=((n + 5, n + 9),))
        for n in range(1, count + 1)
    )
    return Retrieved("?", passages, "", 0, 0)


@pytest.mark.parametrize(
    ("answer", "valid", "invalid"),
    [
        ("Within 30 days [1].", [1], []),
        ("Within 30 days[2] and 60 days [1][2].", [2, 1], []),
        ("Both [1, 3]; all [1-3] or [1–3]; note [^2].", [1, 3, 2], []),
        ("Made up [4] and [0], but also [1].", [1], [4, 0]),
        ("A huge range [1-9999].", [1], [9999]),
        ("No marks, [text], [a1], (1), 1.", [], []),
        ("In code `a[1]` and\n```\nb[2]\n```\nonly [3].", [3], []),
    ],
)
def test_marks(answer: str, valid: list[int], invalid: list[int]) -> None:
    cited = cite(answer, _retrieved(3))
    assert [citation.number for citation in cited.citations] == valid
    assert list(cited.invalid) == invalid
    assert cited.valid == (bool(valid) and not invalid)


def test_a_citation_says_where_to_look() -> None:
    [citation] = cite("[2]", _retrieved(3)).citations
    assert (citation.source, citation.heading_path) == ("2.md", ("T",))
    assert (citation.start, citation.end, citation.chunk_id) == (7, 11, "id2")
    assert citation.spans == ((7, 11),)
