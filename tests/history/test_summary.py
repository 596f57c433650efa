"""A summary stands in the place of lines, with the facts that its writer forgot."""

from __future__ import annotations

from agentbudget.history import Policy, compact
from agentbudget.history.summary import asked, summed_up
from tests.history.talk import TALK, says, user

FOUND = compact(TALK, Policy(step_tokens=0))


def test_facts_that_the_summary_lacks_stand_beside_it() -> None:
    told = summed_up(FOUND, FOUND.lines, "Mia Li wants to fly.")[1].text
    assert told.startswith("[Earlier, in short:]\nMia Li wants to fly.\nalso: mia_li_3668, JFK, 2024-05-20")
    assert "HAT110" in told
    assert "Mia Li" not in told.partition("also:")[2]


def test_a_summary_that_is_no_shorter_is_left_out() -> None:
    assert summed_up(FOUND, FOUND.lines, "so " * 1000) == FOUND.messages


def test_a_conversation_that_went_on_asks_for_the_same_summary_of_its_oldest_lines() -> None:
    longer = compact([*TALK, says("It is booked."), user("Thanks.")], Policy(step_tokens=0)).lines
    assert len(longer) > len(FOUND.lines)
    request = asked(longer[: len(FOUND.lines)])
    assert request == asked(FOUND.lines)
    assert request.messages[-1].text.splitlines() == list(FOUND.lines)
