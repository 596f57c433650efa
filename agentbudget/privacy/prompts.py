"""A request on its way off this machine: what is found in it, and the request without that."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, replace

from agentbudget.models.base import Message, Request, ToolCall
from agentbudget.privacy.patterns import Finder, Finding, Group
from agentbudget.privacy.policy import Privacy


@dataclass(frozen=True, slots=True)
class Cleared:
    """A request that may leave (unless ``refused``), and how much was found in it by kind."""

    request: Request
    found: Mapping[str, int]
    refused: bool = False


def clear(request: Request, privacy: Privacy) -> Cleared:
    """Search every text of `request`, and do with what is found what the rules say.

    The same value is the same placeholder in all of a request's texts, so that a model can still tell two apart.
    Pictures are not searched. Raises `MissingDependency`.
    """
    actions = privacy.actions
    removed: frozenset[Group] = frozenset(group for group, action in actions.items() if action == "redact")
    clearing = _Clearing(Finder.of(privacy.groups), removed)
    messages = tuple(clearing.message(message) for message in request.messages)
    refused = any(actions[group] == "refuse" for group in clearing.groups)
    return Cleared(replace(request, messages=messages) if clearing.changed else request, clearing.counts, refused)


def redacted(text: str, privacy: Privacy) -> str:
    """`text` with placeholders for what must not leave, whatever the rules do with prompts that hold such."""
    return _Clearing(Finder.of(privacy.groups), privacy.groups).text(text)


class _Clearing:
    def __init__(self, finder: Finder, removed: frozenset[Group]) -> None:
        self._finder = finder
        self._removed = removed
        self._places: dict[tuple[str, str], str] = {}
        self._numbers: Counter[str] = Counter()
        self.counts: Counter[str] = Counter()
        self.groups: set[Group] = set()
        self.changed = False

    def message(self, message: Message) -> Message:
        calls = tuple(ToolCall(call.id, call.name, self.text(call.arguments)) for call in message.calls)
        text = self.text(message.text)
        return replace(message, text=text, calls=calls) if (text, calls) != (message.text, message.calls) else message

    def text(self, text: str) -> str:
        parts, end = list[str](), 0
        for finding in self._finder.find(text):
            self.counts[finding.kind] += 1
            self.groups.add(finding.group)
            if finding.group in self._removed:
                parts += [text[end : finding.start], self._place(finding, text)]
                end = finding.end
        if not parts:
            return text
        self.changed = True
        return "".join((*parts, text[end:]))

    def _place(self, finding: Finding, text: str) -> str:
        key = (finding.kind, text[finding.start : finding.end])
        if key not in self._places:
            self._numbers[finding.kind] += 1
            self._places[key] = f"<{finding.kind} {self._numbers[finding.kind]}>"
        return self._places[key]
