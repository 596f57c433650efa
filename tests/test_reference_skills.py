"""The reference skills' own rules: what code can check, no model needs to."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path

import pytest

from agentbudget.errors import Mistake
from agentbudget.reference import research_graph
from graphs.research import Finding, Question, next_wave, traced
from skills.plan import filled, needs
from skills.verify import quoted, unsupported_numbers

PASSAGE = (
    "[1] returns.md › Window\nKettles have a *longer* window: a kettle can be returned\nwithin 60 days of delivery."
)


@pytest.mark.parametrize(
    ("quote", "stands"),
    [
        ("a kettle can be returned within 60 days of delivery.", True),
        ("Kettles have a longer window … 60 days", True),
        ("Kettle have a longer window: a kettle can be returned within 60 days", True),
        ("A KETTLE can be returned", True),
        ("a kettle can be returned within 6 days of delivery", False),
        ("gift cards cannot be returned", False),
        ("kettle", False),
        ("…", False),
        ("", False),
    ],
)
def test_a_quote_stands_word_for_word_in_its_source(quote: str, stands: bool) -> None:
    assert (quoted(quote, PASSAGE) is not None) is stands


def test_a_citation_has_the_words_of_its_source_where_the_model_changed_one() -> None:
    source = (
        "[1] hours.txt › Opening hours\nOn Saturday, 10:00 to 14:00.\nOn Sundays and public holidays support is closed."
    )
    copied = quoted("On Saturdays and public holidays support is closed.", source)
    assert copied == "On Sundays and public holidays support is closed"
    assert quoted("Kettles have a longer window … 60 days", PASSAGE) == "Kettles have a *longer* window … 60 days"


def test_numbers_that_the_source_does_not_have_are_found() -> None:
    assert unsupported_numbers("within 60 days, for 4.90 EUR", PASSAGE) == {"4.90"}


def test_a_question_needs_only_earlier_answers() -> None:
    assert needs("What does {1} cost in {2} and {3}?", 3) == [1, 2]
    assert needs("Who pays?", 2) == []
    assert filled("What does {1} cost?", {1: "Blue Swift"}) == "What does Blue Swift cost?"


def finding(number: int, answer: str, *, cited: bool = True) -> Finding:
    citation = {"number": number, "source": "x.md", "heading": "", "start": 0, "end": 9, "quote": answer}
    return Finding(number=number, question="", answer=answer, citations=[citation] if cited else [])


def test_a_statement_is_traced_to_the_finding_that_it_repeats() -> None:
    findings = [finding(1, "60 days for a kettle"), finding(2, "open from 10:00 to 14:00 on Saturdays")]
    assert traced("On Saturdays it is open from 10:00.", findings) == "On Saturdays it is open from 10:00. [2]"
    assert traced("A kettle: 60 days.", findings) == "A kettle: 60 days. [1]"


def test_a_statement_without_a_source_gets_no_mark() -> None:
    assert traced("Nothing is known.", [finding(1, "Nothing is known.", cited=False)]) == "Nothing is known."


def test_a_wave_holds_every_question_whose_needs_are_met() -> None:
    questions = [
        Question(number=1, question="a", needs=[]),
        Question(number=2, question="b {1}", needs=[1]),
        Question(number=3, question="c", needs=[]),
    ]
    first = next_wave({"questions": questions, "findings": []})
    assert [send.arg["question"]["number"] for send in first if not isinstance(send, str)] == [1, 3]
    done = [finding(1, "x"), finding(3, "y")]
    second = next_wave({"questions": questions, "findings": done})
    assert [send.arg["question"]["number"] for send in second if not isinstance(send, str)] == [2]


def test_a_module_of_ones_own_that_is_called_like_the_reference_skills_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    own = tmp_path / "skills.py"
    own.write_text("mine = True\n")
    spec = importlib.util.spec_from_file_location("skills", own)
    assert spec is not None
    monkeypatch.setitem(sys.modules, "skills", importlib.util.module_from_spec(spec))
    with pytest.raises(Mistake, match=r"'skills', and Python finds .*skills\.py first: rename that"):
        research_graph()
