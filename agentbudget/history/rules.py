"""Rules of a system prompt that are shown once the conversation comes to speak of what they are about."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property

from agentbudget.errors import Mistake
from agentbudget.models.base import Message


@dataclass(frozen=True)
class Rule:
    """A part of a system prompt, from the paragraph that begins with ``begins`` to the next rule or heading.

    It is shown from when on a user, the model, or the name of a tool that it called says a word that begins with one of
    ``when``, whatever the case; until then only ``begins`` stands there, followed by ``…``. What must always be known
    is no rule: leave it out.
    """

    begins: str
    when: tuple[str, ...]

    def __post_init__(self) -> None:
        if isinstance(self.when, str):  # else any of its letters would call for the rule
            raise Mistake(f"the words that call for a rule are a list: write when=({self.when!r},)")
        if not self.begins.strip() or not self.when or not all(word.strip() for word in self.when):
            raise Mistake(f"a rule needs the words that it begins with and the words that call for it, not {self!r}")

    @cached_property
    def _called_for(self) -> re.Pattern[str]:
        return re.compile(rf"(?<![a-z])(?:{'|'.join(map(re.escape, self.when))})", re.IGNORECASE)

    def called_for_by(self, text: str) -> bool:
        """Whether `text` speaks of it."""
        return self._called_for.search(text) is not None


def shown(system: str, rules: Sequence[Rule], said: Iterable[Message]) -> str:
    """The system prompt with the rules that were called for by what was `said`. Raises `Mistake` for a rule not in it.

    A rule that was shown stays: what was said stays said.
    """
    told = "\n".join(_told(said))
    missing = [rule.begins for rule in rules if not any(p.startswith(rule.begins) for p in _paragraphs(system))]
    if missing:
        raise Mistake(f"no paragraph of the system prompt begins with {missing[0]!r}; copy its first words as they are")
    kept: list[str] = []
    hidden = False
    for paragraph in _paragraphs(system):
        rule = next((rule for rule in rules if paragraph.startswith(rule.begins)), None)
        if rule is not None:
            hidden = not rule.called_for_by(told)
            kept.append(f"{rule.begins.rstrip()} …" if hidden else paragraph)
        else:
            hidden = hidden and not paragraph.startswith("#")
            kept += [] if hidden else [paragraph]
    return "\n\n".join(kept)


def _paragraphs(system: str) -> list[str]:
    return re.split(r"\n\s*\n", system.strip())


def _told(said: Iterable[Message]) -> Iterator[str]:
    for message in said:
        if message.role in ("user", "assistant"):
            yield message.text
        yield from (call.name for call in message.calls)
