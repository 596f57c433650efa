"""How much of a prompt is as the one before it began."""

from __future__ import annotations

from agentbudget.history import kept_prefix
from agentbudget.models.base import Message
from tests.history.talk import says, system, user


def letters(message: Message) -> int:
    return len(message.text)


def test_a_prompt_that_went_on_keeps_all_of_the_one_before() -> None:
    before = [system("abc"), user("de")]
    assert kept_prefix(before, [*before, says("f"), user("g")], count=letters) == 5


def test_a_message_that_grew_keeps_its_beginning() -> None:
    assert kept_prefix([system("abc"), user("de")], [system("abc"), user("dexx")], count=letters) == 5


def test_nothing_counts_behind_a_change() -> None:
    assert (
        kept_prefix([system("abc"), user("de"), says("f")], [system("xbc"), user("de"), says("f")], count=letters) == 0
    )
