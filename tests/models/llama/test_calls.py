"""Calls of tools, as models write them."""

from __future__ import annotations

import pytest

from agentbudget.errors import SchemaUnsupported
from agentbudget.models.base import Message, Tool, ToolCall
from agentbudget.models.llama import calls

TEXT = """Let me see.
<tool_call>
{"name": "weather", "arguments": {"city": "Köln"}}
</tool_call>
<tool_call>
{"name": "clock", "arguments": {}}
</tool_call>"""


def test_calls_are_read_with_what_is_said_before_them() -> None:
    text, found = calls.parse(TEXT, [])
    assert text == "Let me see.\n"
    assert found == (ToolCall("call_0", "weather", '{"city": "Köln"}'), ToolCall("call_1", "clock", "{}"))


def test_an_argument_may_hold_the_words_that_end_a_call() -> None:
    text = '<tool_call>\n{"name": "say", "arguments": {"text": "</tool_call> or <tool_call>"}}\n</tool_call>'
    assert calls.parse(text, []) == ("", (ToolCall("call_0", "say", '{"text": "</tool_call> or <tool_call>"}'),))


def test_calls_of_a_conversation_have_different_ids() -> None:
    before = [Message("assistant", "", calls=(ToolCall("call_0", "clock", "{}"),))]
    _, found = calls.parse(TEXT, before)
    assert [call.id for call in found] == ["call_1", "call_2"]


@pytest.mark.parametrize(
    "block", ["not JSON", "[" * 100_000, '{"name": "clock"} ?', '{"arguments": {}}', '["clock"]', '{"name": 3}']
)
def test_what_is_no_call_stays_text(block: str) -> None:
    text = f"<tool_call>{block}</tool_call>"
    assert calls.parse(text, []) == (text, ())


def test_a_call_that_was_cut_short_stays_text() -> None:
    text = '<tool_call>\n{"name": "clo'
    assert calls.parse(text, []) == (text, ())


def test_a_tool_that_no_grammar_can_hold_to_is_refused() -> None:
    tool = Tool("t", "", {"type": "object", "properties": {"n": {"type": "integer", "multipleOf": 3}}})
    with pytest.raises(SchemaUnsupported, match="multipleOf"):
        calls.grammar([tool])
