"""Output as it grows, and what is shown of it."""

from __future__ import annotations

import pytest

from agentbudget.models.base import Message, Request
from agentbudget.models.llama.job import Job, OutputText
from agentbudget.models.llama.vocabulary import Prompt


def shown(text: OutputText) -> str:
    return text.value[: text.shown]


def test_a_character_is_shown_when_it_is_whole() -> None:
    text = OutputText([])
    text.add("ü".encode()[:1])
    assert text.value == ""
    text.add("ü".encode()[1:])
    assert (text.value, text.shown) == ("ü", 1)


def test_nothing_from_a_stop_string_on_is_kept() -> None:
    text = OutputText(["END"])
    for piece in (b"one ", b"EN", b"D two"):
        text.add(piece)
    assert (text.value, text.stopped, shown(text)) == ("one ", True, "one ")


def test_what_may_become_a_stop_string_is_held_back() -> None:
    text = OutputText(["END"])
    text.add(b"one EN")
    assert shown(text) == "one "
    text.add(b"V")
    assert shown(text) == "one ENV"


def test_nothing_from_a_call_on_is_shown() -> None:
    text = OutputText([], "<tool_call>")
    text.add(b"Well. <tool_")
    assert shown(text) == "Well. "
    text.add(b"call>{}")
    assert (shown(text), text.value) == ("Well. ", "Well. <tool_call>{}")


@pytest.mark.parametrize(("granted", "room"), [(None, 10), (4, 4), (20, 10)])
def test_no_more_is_put_out_than_cap_and_reader_allow(granted: int | None, room: int) -> None:
    job = Job(Prompt((1,)), Request((Message("user", "?"),), 10), granted_tokens=granted)
    assert job.room == room
    job.put_out(b"x")
    assert job.room == room - 1


def test_a_compute_cap_is_for_the_share_of_the_job() -> None:
    job = Job(Prompt((1,)), Request((Message("user", "?"),), 10, max_compute_s=1.0))
    job.compute_ns = 600_000_000
    assert job.may_compute(0.3)
    assert not job.may_compute(0.5)
    job.stop.set()
    assert not job.may_compute(0.0)
