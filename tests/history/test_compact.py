"""A conversation in fewer tokens, in steps."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agentbudget.errors import ContextTooLong, Mistake
from agentbudget.history import Policy, Rule, approximate, candidates, compact, fit, kept_prefix
from agentbudget.history.compact import HEADER, SINCE
from agentbudget.models.base import Image, Message
from tests.history.talk import FLIGHTS, POLICY, TALK, says, system, user, uses

AT_ONCE = Policy(step_tokens=0)


def text_of(messages: Sequence[Message]) -> str:
    return "\n".join(message.text for message in messages)


def test_what_is_old_becomes_a_line_each() -> None:
    found = compact(TALK, AT_ONCE)
    assert found.lines[0] == "user: Hi, I am mia_li_3668 and want to fly from JFK on 2024-05-20."
    assert found.lines[1].startswith("find_booking(M05KNL): cabin business, passenger Mia Li, 1990-04-05")
    assert found.messages[1].text.startswith(f"{HEADER}\nuser: Hi")


def test_of_a_table_the_rows_stay_that_were_spoken_of() -> None:
    line = next(line for line in compact(TALK, AT_ONCE).lines if line.startswith("search("))
    assert "HAT110 JFK 105" in line
    assert "HAT172 JFK 211" in line
    assert "HAT173" not in line
    assert "496" not in line


@pytest.mark.parametrize("talk", [[{"role": "user", "content": "hi"}], [*TALK, ("user", "hi")], "hi"], ids=str)
def test_what_is_no_message_is_named(talk: Any) -> None:
    for reduce in (compact, partial(fit, tokens=100)):
        with pytest.raises(Mistake, match=r"of messages, not of .*: write Message\("):
            reduce(talk)


def test_system_and_last_turns_stay_as_they_were() -> None:
    found = compact(TALK, AT_ONCE).messages
    assert found[0] == TALK[0]
    assert found[-2:] == TALK[-2:]


def test_results_that_nobody_has_read_stay_whole() -> None:
    found = compact(TALK[:6], AT_ONCE).messages
    assert found[-1].text.splitlines()[-1] == "HAT173|JFK|311|760|03:00:00"


def test_results_that_a_model_went_on_from_are_cleared_before_it_speaks() -> None:
    talk = [*TALK[:4], *uses("find_user", {"id": "mia_li_3668", "level": "gold"}, id="mia_li_3668")]
    found = compact(talk, AT_ONCE)
    assert found.done == ("find_booking(M05KNL): cabin business, passenger Mia Li, 1990-04-05",)
    assert SINCE in found.messages[1].text
    assert found.messages[-1].text == "id: mia_li_3668\nlevel: gold"


def test_a_result_says_only_what_an_earlier_one_of_the_same_thing_did_not() -> None:
    changed = {"id": "M05KNL", "cabin": "economy", "passenger": {"name": "Mia Li", "born": "1990-04-05"}}
    talk = [
        *TALK[:4],
        *uses("rebook", changed, id="M05KNL"),
        says("Done."),
        user("Thanks."),
        says("Bye."),
        user("Bye."),
    ]
    assert "rebook(M05KNL): cabin economy" in compact(talk, AT_ONCE).lines


def test_a_small_conversation_is_not_cleared() -> None:
    assert compact(TALK, Policy(step_tokens=10_000)).lines == ()


def test_a_long_thought_leaves_its_facts() -> None:
    thought = "The customer wants to pay the difference of 152 with the gift card, so " * 3
    talk = [
        TALK[0],
        user("Hi"),
        *uses("think", "", thought=thought),
        says("Well."),
        user("Yes?"),
        says("So."),
        user("?"),
    ]
    assert "think(… 152)" in compact(talk, AT_ONCE).lines


def test_a_call_without_a_result_is_not_forgotten() -> None:
    lone = uses("search", "", origin="JFK")[0]
    talk = [TALK[0], user("Hi"), lone, user("stop"), says("Stopped."), user("ok"), says("ok"), user("ok")]
    assert "search(JFK)" in compact(talk, AT_ONCE).lines


def test_a_picture_that_is_cleared_is_named() -> None:
    shown = Message("user", "Look.", images=(Image(b"x", "image/png"),))
    talk = [TALK[0], shown, says("Nice."), user("Yes."), says("Well."), user("?")]
    assert compact(talk, AT_ONCE).lines[0] == "user: Look. [picture]"


def test_rules_wait_until_they_are_spoken_of() -> None:
    policy = Policy(rules=(Rule("## Cancel", ("cancel",)), Rule("## Book", ("book",))))
    before = compact([system(), user("Hello")], policy).messages[0].text
    after = compact([system(), user("Hello"), says("Hi"), user("Cancelled it?")], policy).messages[0].text
    assert before == "# Policy\n\nBe brief.\n\n## Cancel …\n\n## Book …"
    assert after == POLICY.replace("## Book\n\nBook what is free.", "## Book …")


def test_a_rule_that_is_not_there_is_refused() -> None:
    with pytest.raises(Mistake, match="'## Pay'"):
        compact(TALK, Policy(rules=(Rule("## Pay", ("pay",)),)))


def test_a_lone_word_that_calls_for_a_rule_is_refused_as_such() -> None:
    with pytest.raises(Mistake, match=r"write when=\('refund',\)"):
        Rule("## Refunds", when="refund")  # pyright: ignore[reportArgumentType] # the mistake


def test_an_allowance_that_holds_everything_changes_nothing() -> None:
    assert fit(TALK, tokens=10_000).messages == TALK


def test_an_allowance_is_kept() -> None:
    whole, least = sum(map(approximate, TALK)), sum(map(approximate, list(candidates(TALK))[-1].messages))
    for tokens in range(least, whole, 7):
        assert sum(map(approximate, fit(TALK, tokens=tokens).messages)) <= tokens


def test_lines_that_nothing_speaks_of_go_first() -> None:
    talk = [*TALK[:2], *uses("find_other", "the case QX9 is closed", id="QX9"), *TALK[2:]]
    hardest = [found for found in candidates(talk, AT_ONCE) if found.left_out]
    assert "QX9" not in text_of(hardest[0].messages)
    assert "gift_card_8887175" in text_of(hardest[0].messages)
    assert f"{hardest[0].left_out} lines are left out" in hardest[0].messages[1].text


def test_an_allowance_for_less_than_what_must_stay_is_refused() -> None:
    with pytest.raises(ContextTooLong, match="give it at least") as refused:
        fit(TALK, tokens=10)
    assert refused.value.window == 10


def test_a_step_of_less_than_nothing_is_refused() -> None:
    with pytest.raises(Mistake, match="step_tokens"):
        Policy(step_tokens=-1)


# --- what holds for every conversation

_turns = st.lists(
    st.one_of(
        st.sampled_from(["Hi", "I want order-1182", "May 20, 2024 please", "Yes, HAT110"]).map(
            lambda text: [user(text)]
        ),
        st.sampled_from(["Which one?", "It is $105.", "HAT110 or HAT172?"]).map(lambda text: [says(text)]),
        st.integers(0, 3).map(lambda n: list(uses("find", {"id": f"order-{n}", "total": n}, id=f"order-{n}", n=n))),
        st.integers(0, 3).map(lambda n: list(uses("search", FLIGHTS[: n or 1], n=n))),
    ),
    max_size=12,
)
conversations = _turns.map(lambda turns: [system(), user("Hello"), *(message for turn in turns for message in turn)])
policies = st.builds(
    Policy,
    step_tokens=st.sampled_from([0, 40, 120]),
    keep_turns=st.integers(1, 3),
    rules=st.sampled_from([(), (Rule("## Cancel", ("which",)),)]),
)


@given(conversations, policies)
def test_calls_and_their_results_stay_together(talk: list[Message], policy: Policy) -> None:
    for found in candidates(talk, policy):
        asked: set[str] = set()
        for message in found.messages:
            assert message.answers is None or message.answers in asked
            asked |= {call.id for call in message.calls}
        answered = {message.answers for message in found.messages}
        assert asked <= answered


@given(conversations, policies)
def test_every_kept_message_stands_in_its_order(talk: list[Message], policy: Policy) -> None:
    for found in candidates(talk, policy):
        places = [entry.of for entry in found.entries if entry.of is not None]
        assert places == sorted(set(places))
        assert talk[-1].text in found.messages[-1].text or talk[-1].role == "tool"


@given(conversations, policies)
def test_what_a_step_has_cleared_is_never_written_anew(talk: list[Message], policy: Policy) -> None:
    before: tuple[str, ...] = ()
    for end in range(2, len(talk) + 1):
        lines = compact(talk[:end], policy).lines
        assert lines[: len(before)] == before
        before = lines


def test_between_two_steps_the_whole_prompt_is_the_beginning_of_the_next() -> None:
    before, after = (compact(TALK[:end], Policy(step_tokens=60)).messages for end in (8, 10))
    assert kept_prefix(before, after, count=approximate) == sum(map(approximate, before))
