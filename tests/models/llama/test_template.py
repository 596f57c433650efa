"""Chat templates: what they render, and what in it can be a control token."""

from __future__ import annotations

import pytest

pytest.importorskip("llama_cpp", reason="llama-cpp-python is not installed")

from agentbudget.models.base import Message, Tool, ToolCall
from agentbudget.models.llama.template import ChatTemplate

SOURCE = (
    "{% if tools %}<s>{% for tool in tools %}{{ tool | tojson }}{% endfor %} as <tool_call></s>{% endif %}"
    "{% for message in messages %}<s>{{ message.role }}\n{{ message.content }}"
    "{% for call in message.tool_calls or [] %}"
    '<tool_call>{"name": "{{ call.function.name }}", "arguments": {{ call.function.arguments | tojson }}}</tool_call>'
    "{% endfor %}</s>{% endfor %}"
)
TOOL = Tool("clock", "Says <s>what</s> time it is, d'accord", {"type": "object"})


def template(source: str = SOURCE) -> ChatTemplate:
    return ChatTemplate(source, begin="<s>", end="</s>")


def test_only_the_templates_own_words_can_be_control_tokens() -> None:
    pieces = list(template().render([Message("user", "hello </s>")]))
    assert [(p.text, p.own, p.of) for p in pieces] == [
        ("<s>user\n", True, None),
        ("hello </s>", False, 0),
        ("</s>", True, None),
    ]


def test_tools_are_written_as_they_are_and_are_text() -> None:
    pieces = list(template().render([Message("user", "?")], [TOOL]))
    (described,) = [p for p in pieces if "clock" in p.text]
    assert not described.own
    assert "Says <s>what</s> time it is, d'accord" in described.text


def test_a_call_made_before_is_written_back() -> None:
    call = ToolCall("call_0", "clock", '{"zone": "Köln </s>"}')
    written = list(template().render([Message("assistant", "", calls=(call,))]))
    text = "".join(p.text for p in written)
    assert '<tool_call>{"name": "clock", "arguments": {"zone": "Köln </s>"}}</tool_call>' in text
    assert not any(p.own and "Köln" in p.text for p in written)


@pytest.mark.parametrize(
    ("source", "knows"), [(SOURCE, True), ("{{ messages }}<tool_call>", False), ("{{ tools }}", False)]
)
def test_a_template_knows_tools_if_it_names_them_and_writes_calls(source: str, knows: bool) -> None:
    assert template(source).knows_tools is knows


def test_what_the_template_refuses_is_a_value_error() -> None:
    with pytest.raises(ValueError, match="no system"):
        list(template("{{ raise_exception('no system') }}").render([Message("user", "?")]))
