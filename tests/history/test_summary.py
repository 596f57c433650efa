"""A summary stands in the place of lines, with the facts that its writer forgot."""

from __future__ import annotations

from agentbudget.history import Policy, compact
from agentbudget.history.summary import asked, summed_up
from tests.history.talk import TALK

FOUND = compact(TALK, Policy(step_tokens=0))


def test_facts_that_the_summary_lacks_stand_beside_it() -> None:
    told = summed_up(FOUND, FOUND.lines, "Mia Li wants to fly.")[1].text
    assert told.startswith("[Earlier, in short:]\nMia Li wants to fly.\nalso: mia_li_3668, JFK, 2024-05-20")
    assert "HAT110" in told
    assert "Mia Li" not in told.partition("also:")[2]


def test_a_summary_that_is_no_shorter_is_left_out() -> None:
    assert summed_up(FOUND, FOUND.lines, "so " * 1000) == FOUND.messages


def test_the_same_lines_ask_for_the_same_summary() -> None:
    assert asked(FOUND.lines) == asked(FOUND.lines)
