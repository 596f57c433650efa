"""What a prompt is made of: tools, system, history, retrieved, task, and the output, in tokens and money."""

from __future__ import annotations

from collections.abc import Container, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final, Literal, cast

from agentbudget.history.facts import told
from agentbudget.models.base import InputCount, Message, Model, Price, Request
from agentbudget.usage import Usage

PartName = Literal["tools", "system", "history", "retrieved", "task", "output"]

INPUT: Final[tuple[PartName, ...]] = ("tools", "system", "history", "retrieved", "task")
"""The parts of a prompt in the order in which providers put them, and their caches read them."""

ORDER: Final[tuple[PartName, ...]] = (*INPUT, "output")

REMEMBERED: Final = 256
"""System prompts whose tokens are remembered."""


@dataclass(frozen=True, slots=True)
class Part:
    """One part of what a call used; what it cost in nano-dollars."""

    name: PartName
    tokens: int
    usd_nano: int


@dataclass(frozen=True, slots=True)
class Breakdown:
    """What one call, or several together, used: part by part. Parts of no tokens are left out.

    The sums are the truth. How the input is divided is ``exact`` where the model's counter is, else by bytes. Dollars
    follow the price of each part: cached tokens are the first of a prompt, and a local model's time goes by its speeds.
    """

    parts: tuple[Part, ...]
    exact: bool = True

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready data: what the journal keeps."""
        return {"exact": self.exact, "parts": {part.name: [part.tokens, part.usd_nano] for part in self.parts}}

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Breakdown:
        """The inverse of `to_dict`."""
        parts = cast("Mapping[PartName, Sequence[int]]", data["parts"])
        return cls(tuple(Part(name, tokens, usd) for name, (tokens, usd) in parts.items()), bool(data["exact"]))


def total(breakdowns: Iterable[Breakdown]) -> Breakdown:
    """Several calls together."""
    tokens: dict[PartName, int] = {}
    usd: dict[PartName, int] = {}
    exact = True
    for one in breakdowns:
        exact = exact and one.exact
        for part in one.parts:
            tokens[part.name] = tokens.get(part.name, 0) + part.tokens
            usd[part.name] = usd.get(part.name, 0) + part.usd_nano
    return Breakdown(tuple(Part(name, tokens[name], usd[name]) for name in ORDER if name in tokens), exact)


@dataclass(frozen=True, slots=True)
class InputParts:
    """The input of a request that was not sent yet, part by part."""

    tokens: Mapping[PartName, int]
    exact: bool


class SystemCounts:
    """How many tokens system prompts are as a model counts them: a skill's is the same in every call."""

    def __init__(self) -> None:
        self._known: dict[tuple[str, tuple[Message, ...]], tuple[object, int]] = {}

    async def of(self, model: Model, request: Request, messages: tuple[Message, ...]) -> int:
        """The tokens of these messages under the schema of `request`."""
        key = model.name, messages
        schema, tokens = self._known.get(key, (self, 0))
        if schema is not request.schema:
            tokens = (await model.count_input(_stage(request, "system", messages))).tokens
            if len(self._known) >= REMEMBERED:
                del self._known[next(iter(self._known))]
            self._known[key] = request.schema, tokens
        return tokens


async def input_parts(
    model: Model,
    request: Request,
    count: InputCount,
    *,
    retrieved: Sequence[str] = (),
    known: SystemCounts | None = None,
) -> InputParts:
    """Divide the input of `request`, which is `count` tokens. ``retrieved`` are texts that a search has found.

    An exact local counter counts the request as it grows, part after part, system prompts once for all calls that share
    what is ``known``. Others would cost a request or a bound each: there the bytes divide.
    """
    stages = _stages(request, [text for text in retrieved if text])
    if len(stages) == 1:
        return InputParts({stages[0][0]: count.tokens}, exact=True)
    if not (count.exact and model.place == "local"):
        sizes: dict[PartName, int] = {name: _bytes(_stage(request, name, said)) for name, said in stages}
        return InputParts(_divided(count.tokens, _steps(sizes)), exact=False)
    known = known or SystemCounts()
    counts: dict[PartName, int] = {}
    for name, said in stages[:-1]:
        if name == "system":
            counts[name] = await known.of(model, request, said)
        else:
            counts[name] = (await model.count_input(_stage(request, name, said))).tokens
    counts[stages[-1][0]] = count.tokens
    return InputParts(_steps(counts), exact=True)


def breakdown(parts: InputParts, usage: Usage, price: Price, usd_nano: int) -> Breakdown:
    """What a call used that has ended, and cost `usd_nano`."""
    exact = parts.exact and sum(parts.tokens.values()) == usage.input_tokens
    tokens = dict(parts.tokens) if exact else _divided(usage.input_tokens, parts.tokens)
    cached, weights = usage.cached_tokens, dict[PartName, int]()
    for name in INPUT:
        if name in tokens:
            read = min(cached, tokens[name])
            cached -= read
            weights[name] = _worth(price, tokens[name], read)
    if usage.output_tokens:
        tokens["output"] = usage.output_tokens
        weights["output"] = price.expected(input_tokens=0, output_tokens=usage.output_tokens)
    usd = _divided(usd_nano, weights)
    return Breakdown(tuple(Part(name, tokens[name], usd[name]) for name in ORDER if tokens.get(name)), exact)


def _stages(request: Request, retrieved: Sequence[str]) -> list[tuple[PartName, tuple[Message, ...]]]:
    """The messages as they grow, part after part; the last is the whole.

    What frames a prompt counts to its first part. The system prompt comes first: without one, a chat template may put
    in its own.
    """
    messages = request.messages
    plain = len(messages) == 2 and messages[0].role == "system" and messages[1].role == "user"
    if plain and not (retrieved or request.tools):  # as most are: what follows takes three times as long
        return [("system", (messages[0], _silent(messages[1]))), ("task", messages)]
    task = max((n for n, message in enumerate(messages) if message.role == "user"), default=len(messages) - 1)
    bare = tuple(_without(message, retrieved) for message in messages) if retrieved else messages
    system = [n for n, message in enumerate(messages) if message.role == "system" and n != task]
    grown: list[tuple[PartName, tuple[Message, ...]]] = []
    if system:
        silent = (_silent(message) if n == task else message for n, message in enumerate(bare))
        grown.append(("system", _only(silent, {task, *system})))
    grown.append(("task", _only(bare, {task, *system})))
    if len(system) + 1 < len(messages):
        grown.append(("history", bare))
    if request.tools:
        grown.append(("tools", bare))
    if any(one is not other for one, other in zip(bare, messages, strict=True)):
        grown.append(("retrieved", messages))
    return grown


def _only(messages: Iterable[Message], chosen: Container[int]) -> tuple[Message, ...]:
    return tuple(message for n, message in enumerate(messages) if n in chosen)


def _stage(request: Request, name: PartName, messages: tuple[Message, ...]) -> Request:
    """The request as it is when that part has come to it."""
    if name in ("tools", "retrieved"):
        return replace(request, messages=messages)
    return replace(request, messages=messages, tools=(), fixed=0)


def _silent(message: Message) -> Message:
    """The message without its text."""
    return Message(message.role, "", message.images, message.calls, message.answers, message.echo)


def _without(message: Message, retrieved: Sequence[str]) -> Message:
    """The message without the passages in it."""
    text = message.text
    for passage in retrieved:
        text = text.replace(passage, "")
    return message if text == message.text else replace(message, text=text)


def _bytes(request: Request) -> int:
    texts = [told(message) for message in request.messages]
    texts += [f"{tool.name}{tool.description}{tool.parameters}" for tool in request.tools]
    texts += [str(request.schema)] if request.schema is not None else []
    return sum(len(text.encode("utf-8", "replace")) + 8 for text in texts)


def _steps(sizes: Mapping[PartName, int]) -> dict[PartName, int]:
    """What each stage added to the one before it."""
    added: dict[PartName, int] = {}
    before = 0
    for name, size in sizes.items():
        added[name] = max(0, size - before)
        before = max(before, size)
    return added


def _divided(whole: int, weights: Mapping[PartName, int]) -> dict[PartName, int]:
    """`whole` in shares as the weights are, in integers that add up to it: the last takes what rounding left."""
    everything, left = sum(weights.values()), whole
    shares: dict[PartName, int] = {}
    for number, (name, weight) in enumerate(weights.items(), start=1):
        share = left if number == len(weights) else whole * weight // (everything or 1)
        shares[name] = share
        left -= share
    return shares


def _worth(price: Price, tokens: int, cached: int) -> int:
    """What tokens of input are worth beside each other, `cached` of them read from a cache."""
    fresh = price.expected(input_tokens=tokens - cached, output_tokens=0) if tokens > cached else 0
    return fresh + price.cost(Usage(input_tokens=cached, cached_tokens=cached)) if cached else fresh
