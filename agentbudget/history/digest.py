"""What stays of a message when it is cleared: a line of the words that stood in it. No model is asked."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence, Set
from typing import Any, Final, cast

from agentbudget.history.facts import facts, stands_in, told, words
from agentbudget.history.tables import Table, cells, inline, parsed, table_of
from agentbudget.models.base import Message, ToolCall

LONG_WORDS: Final = 60
"""A text of more words than this is cleared to its beginning and its facts."""

BEGINNING_WORDS: Final = 12


class Digester:
    """Writes the lines of messages, one after the other, and remembers what it wrote.

    What a person said stays as it was said. A model's own words leave the facts that stand nowhere yet. A tool's
    result leaves what it says and what was not said of the same thing before: of a table the rows that were spoken of
    since, of an object the pairs that differ from those of an earlier result about the same ids.
    """

    def __init__(self, standing: Iterable[Message]) -> None:
        """`standing` are the messages that stay whole before the lines."""
        self._known: set[str] = set()
        self._pairs_of: dict[str, dict[str, str]] = {}
        for message in standing:
            self._known |= words(message.text)

    def lines(self, messages: Sequence[Message], later: Sequence[Message]) -> Iterator[str]:
        """The lines of `messages`, whose tool calls and results stand together. `later` is what was said since."""
        calls = {call.id: call for message in messages for call in message.calls}
        answered = {message.answers for message in messages}
        for number, message in enumerate(messages):
            since = (*messages[number + 1 :], *later)
            for line in self._lines(message, calls, answered, since):
                self._known |= words(line)
                yield line

    def _lines(
        self, message: Message, calls: Mapping[str, ToolCall], answered: Set[str | None], since: Sequence[Message]
    ) -> Iterator[str]:
        match message.role:
            case "user" | "system":
                seen = " [picture]" * len(message.images)
                yield f"{message.role}: {self._shortened(message.text)}{seen}"
            case "assistant":
                new = self._new(message.text)
                if new:
                    yield f"you: {', '.join(new)}"
                yield from (self._call(call) for call in message.calls if call.id not in answered)
            case "tool":
                call = calls.get(message.answers or "")
                yield self._answered(message, call, since).removesuffix(": ")

    def _answered(self, message: Message, call: ToolCall | None, since: Sequence[Message]) -> str:
        head = "result" if call is None else self._call(call)
        return f"{head}: {self._result(message.text, words(head), since)}"

    def _shortened(self, text: str) -> str:
        """`text`, or the beginning of a long one and its new facts."""
        said = text.split()
        if len(said) <= LONG_WORDS:
            return " ".join(said)
        return " ".join([*said[:BEGINNING_WORDS], "…", *self._new(" ".join(said[BEGINNING_WORDS:]))])

    def _new(self, text: str) -> list[str]:
        """The facts of `text` that do not stand in the prompt yet, each once. A single digit is none."""
        found = dict.fromkeys(fact for _, fact in facts(text) if len(fact) > 1)
        return [fact for fact in found if not stands_in(fact, self._known)]

    def _call(self, call: ToolCall) -> str:
        data = parsed(call.arguments)
        if not isinstance(data, dict):
            return f"{call.name}({self._shortened(call.arguments)})"
        values = (inline(value) for value in cast("dict[str, Any]", data).values())
        return f"{call.name}({', '.join(self._argument(value) for value in values)})"

    def _argument(self, value: str) -> str:
        """A value, or the new facts of what a model wrote at length, such as a thought."""
        return value if len(value.split()) <= BEGINNING_WORDS * 2 else " ".join(["…", *self._new(value)])

    def _result(self, text: str, asked: Set[str], since: Sequence[Message]) -> str:
        data = parsed(text)
        if data is None:
            return self._shortened(text)
        table = table_of(data)
        if table is not None:
            return _spoken_of(table, since)
        if isinstance(data, dict):
            return self._changed(cast("dict[str, Any]", data), asked)
        return self._shortened(inline(data))

    def _changed(self, data: Mapping[str, Any], asked: Set[str]) -> str:
        """The pairs of an object that were not said of the same thing before: that which the call's ids name."""
        subject = next((word for word in sorted(asked) if _is_id(word) and _names(data, word)), None)
        before = {} if subject is None else self._pairs_of.setdefault(subject, {})
        all_pairs = {key: _value(value) for key, value in data.items()}
        known = frozenset[str]() if subject is None else frozenset([subject])
        new = {key: text for key, text in all_pairs.items() if before.get(key) != text and words(text) != known}
        before |= all_pairs
        return ", ".join(f"{key} {text}" for key, text in new.items() if text)


def _names(data: Mapping[str, Any], word: str) -> bool:
    """Whether an object is about the thing of this id: one of its own values is."""
    return any(isinstance(value, str) and value.lower() == word for value in data.values())


def _value(value: Any) -> str:
    """A value of an object: the values of objects within it without their keys."""
    if isinstance(value, Mapping):
        return ", ".join(_member(key, part) for key, part in cast("Mapping[str, Any]", value).items())
    if isinstance(value, list) and value and all(isinstance(part, dict) for part in cast("list[Any]", value)):
        return "; ".join(" ".join(cells(part).values()) for part in cast("list[dict[str, Any]]", value))
    return inline(value)


def _member(key: str, value: Any) -> str:
    """A member of an object of objects begins with its key, if that says more than a word does."""
    if not isinstance(value, Mapping):
        return inline(value)
    parts = cells(cast("Mapping[str, Any]", value)).values()
    return " ".join([key, *(text for text in parts if text != key and text not in key.split("_"))])


def _spoken_of(table: Table, since: Sequence[Message]) -> str:
    """The rows that something later named by an id, without the cells that nothing speaks of."""
    heard = frozenset[str]().union(*(words(told(message)) for message in since))
    rows = [row for row in table.rows if any(_is_id(cell) and stands_in(cell, heard) for cell in row)]
    if not rows:
        return f"{len(table.rows)} rows, none spoken of since"
    lines = (" ".join(cell for cell in row if _counts(cell, heard)) for row in rows)
    return "; ".join(dict.fromkeys(lines))


def _counts(cell: str, heard: Set[str]) -> bool:
    kinds = {kind for kind, _ in facts(cell)}
    return "id" in kinds or (bool(kinds) and stands_in(cell, heard))


def _is_id(text: str) -> bool:
    """Whether `text` is one id of letters and digits, as HAT110 is and ATL is not: that tells a row from others."""
    found = list(facts(text))
    return len(found) == 1 and found[0] == ("id", text) and any(letter.isdigit() for letter in text)
