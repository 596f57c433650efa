"""A conversation in fewer tokens: what is old becomes a line each, in steps, so that a prompt's beginning stays.

It is a pure function of the messages: the same conversation gives the same prompt, and one that went on gives a prompt
with the same beginning. What a step has cleared is never written anew, so that caches of prompts keep what they have.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence, Set
from dataclasses import dataclass, field, replace
from math import ceil
from typing import Final

from agentbudget.errors import ContextTooLong, Mistake
from agentbudget.history.digest import Digester
from agentbudget.history.facts import facts, stands_in, told, words
from agentbudget.history.rules import Rule, shown
from agentbudget.history.tables import parsed, rendered, table_of
from agentbudget.models.base import Message

Counter = Callable[[Message], int]
"""Tokens of one message, its frame included."""

HEADER: Final = "[Earlier, in short:]"
LEFT_OUT: Final = "[Earlier, in short; {} lines are left out:]"
SINCE: Final = "[Done since, in short:]"


def approximate(message: Message) -> int:
    """Tokens of a message by its bytes, four to a token: to compare messages with, not to promise anything."""
    return len(told(message).encode("utf-8", "replace")) // 4 + 4 + 8 * len(message.calls)


@dataclass(frozen=True, slots=True)
class Policy:
    """How a conversation is compacted.

    What the model has spoken of to the user is old, except in its last ``keep_turns`` messages to them and whatever
    came after. It is cleared when what stands uncleared has more than ``step_tokens``: a larger step clears less often,
    so that more of a prompt is as it was (and cheap where the provider's cache has it), for more tokens. ``tables``
    writes JSON results as tables. ``rules`` are parts of the system prompt that wait until they are spoken of.
    """

    step_tokens: int = 200
    keep_turns: int = 1
    tables: bool = True
    rules: tuple[Rule, ...] = ()

    def __post_init__(self) -> None:
        if self.step_tokens < 0 or self.keep_turns < 1:
            raise Mistake(
                f"a step of {self.step_tokens} tokens and {self.keep_turns} turns to keep make no sense: "
                "step_tokens is at least 0, and keep_turns at least 1"
            )


@dataclass(frozen=True, slots=True)
class Entry:
    """A message of a compacted prompt. ``of`` is the place in the conversation of the one that it stands for.

    None: it stands for none alone, but carries lines of others. ``changed``: its text is not that message's.
    """

    message: Message
    of: int | None
    changed: bool = False


@dataclass(frozen=True, slots=True)
class Compacted:
    """A conversation in fewer tokens.

    ``lines`` stand for the messages before ``cut``, which are gone; ``done`` for the tool calls after it that are.
    ``left_out`` lines were dropped, too.
    """

    entries: tuple[Entry, ...]
    lines: tuple[str, ...] = ()
    done: tuple[str, ...] = ()
    cut: int = 0
    left_out: int = 0

    @property
    def messages(self) -> tuple[Message, ...]:
        """The prompt."""
        return tuple(entry.message for entry in self.entries)


def compact(messages: Sequence[Message], policy: Policy | None = None, *, count: Counter = approximate) -> Compacted:
    """`messages` as the next call of a model should see them. System messages at the beginning stay.

    Tool calls and their results stay together or go together, and roles alternate as they did. `count` decides when a
    step is due: keep to one, or prompts change where they need not. Raises `Mistake` for what is no `Message`.
    """
    _check(messages)
    return _replayed(messages, policy or Policy(), count).compacted()


def candidates(
    messages: Sequence[Message], policy: Policy | None = None, *, count: Counter = approximate
) -> Iterator[Compacted]:
    """`messages` in fewer and fewer tokens: the whole conversation, `compact`, all cleared that is old, lines dropped.

    Lines that nothing speaks of any more go first, then other lines, the words of users last; a quarter of them each
    time, so that the prompt's beginning changes seldom. The last one is what must stay.
    """
    _check(messages)
    yield Compacted(tuple(Entry(message, n) for n, message in enumerate(messages)))
    policy = policy or Policy()
    yield _replayed(messages, policy, count).compacted()
    replay = _replayed(messages, replace(policy, step_tokens=0, keep_turns=1), count)
    order = replay.droppable()
    for quarter in range(5):
        yield replay.compacted(frozenset(order[: ceil(len(order) * quarter / 4)]))


def fit(
    messages: Sequence[Message], *, tokens: int, policy: Policy | None = None, count: Counter = approximate
) -> Compacted:
    """The first of `candidates` that has no more than `tokens` by `count`. Raises `ContextTooLong` if none has."""
    least = 0
    for found in candidates(messages, policy, count=count):
        least = sum(map(count, found.messages))
        if least <= tokens:
            return found
    raise too_long(least, tokens)


def too_long(least: int, tokens: int) -> ContextTooLong:
    """The error for an allowance in which what must stay does not fit."""
    return ContextTooLong(
        f"an allowance of {tokens} tokens does not hold what must stay of this conversation (instructions, the last "
        f"turn, results that are not read yet): give it at least {least}",
        input_tokens=least,
        output_tokens=0,
        window=tokens,
    )


def _check(messages: Sequence[object]) -> None:
    for message in messages:
        if not isinstance(message, Message):
            raise Mistake(f"a conversation is of messages, not of {message!r:.60}: write Message('user', 'the text')")


def _replayed(messages: Sequence[Message], policy: Policy, count: Counter) -> _Replay:
    replay = _Replay(messages, policy, count)
    for end in _prompts(messages, replay.head):
        replay.step(end)
    return replay


def _prompts(messages: Sequence[Message], head: int) -> Iterator[int]:
    """Where a model was asked, or is now: after each message that is not its own."""
    for end in range(head + 1, len(messages) + 1):
        if messages[end - 1].role != "assistant":
            yield end


@dataclass(slots=True)
class _Replay:
    """A conversation as it went on: at each call, what was old was cleared if there was enough of it."""

    messages: Sequence[Message]
    policy: Policy
    count: Counter
    head: int = field(init=False)
    cut: int = field(init=False)
    shown: list[Message] = field(init=False)
    lines: dict[int, tuple[str, ...]] = field(init=False, default_factory=dict[int, tuple[str, ...]])
    _sizes: list[int] = field(init=False)
    _digester: Digester = field(init=False)

    def __post_init__(self) -> None:
        roles = [message.role for message in self.messages]
        self.head = self.cut = next((n for n, role in enumerate(roles) if role != "system"), len(roles))
        self.shown = [self._shown(message) for message in self.messages]
        self._sizes = [self.count(message) for message in self.shown]
        # A rule may be shown from some call on: what lines say must not change with that.
        self._digester = Digester(self._ruled(message, ()) for message in self.messages[: self.head])

    def _shown(self, message: Message) -> Message:
        if message.role == "system":
            return self._ruled(message, self.messages)
        return _slim(message) if self.policy.tables else message

    def _ruled(self, message: Message, said: Sequence[Message]) -> Message:
        text = shown(message.text, self.policy.rules, said) if self.policy.rules else message.text
        return message if text == message.text else replace(message, text=text)

    def step(self, end: int) -> None:
        """A call with the first `end` messages is about to be made."""
        whole = (self._sizes[n] for n in range(self.cut, end) if n not in self.lines)
        if sum(whole) <= self.policy.step_tokens:
            return
        old = max(self.cut, self._spoken(end))
        for first, last in self._groups(self.cut, old):
            self._clear(first, last, end)
        self.cut = old
        for first, last in self._done(old, end):
            self._clear(first, last, end)

    def _clear(self, first: int, last: int, end: int) -> None:
        if first not in self.lines:
            self.lines[first] = tuple(self._digester.lines(self.messages[first:last], self.messages[last:end]))
            self.lines |= dict.fromkeys(range(first + 1, last), ())

    def _spoken(self, end: int) -> int:
        """Where the last messages to the user begin: all before is old."""
        turns = [n for n in range(self.head, end) if _speaks(self.messages[n])]
        return turns[-self.policy.keep_turns] if len(turns) >= self.policy.keep_turns else self.head

    def _groups(self, first: int, last: int) -> Iterator[tuple[int, int]]:
        """The messages from `first` to `last`, those that go together as one: calls and what came of them."""
        while first < last:
            after = first + 1
            while after < last and self.messages[after].role == "tool":
                after += 1
            yield first, after
            first = after

    def _done(self, first: int, end: int) -> Iterator[tuple[int, int]]:
        """Calls made right after a user spoke, but the last ones: a model went on from their results.

        From a table on they stay, for it may be needed whole yet.
        """
        asked = max((n for n in range(first, end) if self.messages[n].role == "user"), default=end)
        for begin, after in list(self._groups(asked + 1, end))[:-1]:
            group = self.messages[begin:after]
            if not group[0].calls or any(table_of(parsed(message.text)) for message in group[1:]):
                return
            yield begin, after

    def droppable(self) -> list[int]:
        """The old messages that left lines, those first that can best be done without."""
        heard = words(" ".join(told(message) for message in self.messages[self.cut :]))

        def worth(n: int) -> tuple[int, int]:
            if self.messages[n].role == "user":
                return 2, n
            spoken = any(stands_in(fact, heard) for line in self.lines[n] for _, fact in facts(line) if len(fact) > 1)
            return int(spoken), n

        return sorted((n for n in range(self.head, self.cut) if self.lines.get(n)), key=worth)

    def compacted(self, dropped: Set[int] = frozenset()) -> Compacted:
        """What stands now, without the lines of the `dropped` messages."""
        old = tuple(line for n in range(self.head, self.cut) if n not in dropped for line in self.lines.get(n, ()))
        done = tuple(line for n in range(self.cut, len(self.messages)) for line in self.lines.get(n, ()))
        entries = [self._entry(n) for n in range(self.head)]
        left_out = sum(len(self.lines[n]) for n in dropped)
        header = LEFT_OUT.format(left_out) if left_out else HEADER
        notes = "\n".join([header, *old]) if old or left_out else ""
        since: list[str] = []
        for n in range(self.cut, len(self.messages)):
            if n in self.lines:
                since += self.lines[n]
                continue
            _append(entries, since)
            since = []
            entries += self._noted(n, notes)
            notes = ""
        _append(entries, since)
        if notes:
            entries.append(Entry(Message("user", notes), None))
        return Compacted(tuple(entries), old, done, self.cut, left_out)

    def _entry(self, n: int) -> Entry:
        return Entry(self.shown[n], n, self.shown[n] is not self.messages[n])

    def _noted(self, n: int, notes: str) -> list[Entry]:
        """Message `n` with the notes before it: within it if a user speaks, so that roles go on alternating."""
        entry = self._entry(n)
        if not notes:
            return [entry]
        if entry.message.role == "user":
            return [_with(entry, f"{notes}\n\n{entry.message.text}")]
        return [Entry(Message("user", notes), None), entry]


def _append(entries: list[Entry], since: Sequence[str]) -> None:
    """Put the lines of what was done since a user spoke behind their words."""
    if since:
        text = "\n".join([f"{entries[-1].message.text}\n\n{SINCE}", *since])
        entries[-1] = _with(entries[-1], text)


def _with(entry: Entry, text: str) -> Entry:
    return Entry(replace(entry.message, text=text), entry.of, changed=True)


def _speaks(message: Message) -> bool:
    return message.role == "assistant" and not message.calls


def _slim(message: Message) -> Message:
    """A tool's JSON as a table, or as lines."""
    data = parsed(message.text) if message.role == "tool" else None
    if data is None:
        return message
    text = rendered(data)
    return replace(message, text=text) if len(text) < len(message.text) else message
