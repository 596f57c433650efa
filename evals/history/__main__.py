"""An agent's conversations, shortened in several ways: `python -m evals.history --data DIR`.

At each call of the model, the conversation until then is shortened without a look at what comes. Counted are the tokens
that are sent, what they cost at gpt-4o's prices with and without its cache of prompts, and which of the values that the
call's tools use stood in the whole conversation and still stand in the shortened one. Nothing is sent anywhere.
"""

from __future__ import annotations

import argparse
import time
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Final

from agentbudget.evals.tasks import find_data
from agentbudget.history import kept_prefix, stands_in, words
from agentbudget.history.facts import told
from agentbudget.models.base import Message
from agentbudget.prices.tokens import TokenPrice
from agentbudget.usage import Usage
from evals.history.conversations import GOVERNED, Episode, Half, count, episodes, values
from evals.history.ways import WAYS, Way

CACHED_FROM: Final = 1024
CACHED_STEP: Final = 128
"""OpenAI's cache has prompts of at least 1,024 tokens, and then each further 128, that begin as an earlier one did."""


@dataclass(slots=True)
class Score:
    """What one way did over some conversations."""

    calls: int = 0
    tokens: int = 0
    system: int = 0
    cached: int = 0
    kept_prefix: int = 0
    seconds: float = 0.0
    used: Counter[str] = field(default_factory=Counter[str])
    kept: Counter[str] = field(default_factory=Counter[str])
    governed: int = 0
    ruled: int = 0
    lost: list[str] = field(default_factory=list[str])

    def cost(self, price: TokenPrice, *, cached: bool) -> float:
        """Dollars for the input of all calls."""
        return price.cost(Usage(self.tokens, cached_tokens=self.cached if cached else 0)) / 1e9


def replay(way: Way, found: Iterable[Episode]) -> Score:
    """Every call of every conversation, with what `way` would have sent."""
    score = Score()
    for episode in found:
        before: Sequence[Message] = ()
        for n in episode.calls():
            history = episode.messages[:n]
            started = time.process_time()
            sent = way(history)
            score.seconds += time.process_time() - started
            _count_tokens(score, before, sent)
            _count_values(score, history, sent, episode, n)
            before = sent
    return score


def _count_tokens(score: Score, before: Sequence[Message], sent: Sequence[Message]) -> None:
    tokens = sum(map(count, sent))
    same = kept_prefix(before, sent, count=count)
    score.calls += 1
    score.tokens += tokens
    score.system += count(sent[0])
    score.kept_prefix += same
    score.cached += same - same % CACHED_STEP if same >= CACHED_FROM else 0


def _count_values(score: Score, history: Sequence[Message], sent: Sequence[Message], episode: Episode, n: int) -> None:
    calls = episode.messages[n].calls
    if not calls:
        return
    there, still = _words(history), _words(sent)
    rules = {text.split(" …")[0] for text in sent[0].text.split("\n\n") if text.endswith(" …")}
    for call in calls:
        wanted = GOVERNED.get(call.name, ())
        score.governed += len(wanted)
        score.ruled += sum(rule not in rules for rule in wanted)
        for kind, value in values(call):
            if stands_in(value, there):
                score.used[kind] += 1
                score.kept[kind] += stands_in(value, still)
                if not stands_in(value, still):
                    score.lost.append(f"task {episode.task}, message {n}: {call.name} {kind} {value!r}")


def _words(messages: Sequence[Message]) -> frozenset[str]:
    return words("\n".join(map(told, messages)))


def table(half: Half, found: Sequence[Episode], ways: Sequence[str], price: TokenPrice) -> Iterator[str]:
    """The scores of one half as Markdown."""
    scores = {name: replay(WAYS[name], found) for name in ways}
    whole = replay(WAYS["full history"], found)
    yield f"\n### {len(found)} conversations {half}, {whole.calls / len(found):.1f} calls each\n"
    yield (
        "| way | input tokens | saved | saved of what is no system prompt | values kept | rules in place "
        "| as the prompt before | USD | USD with the cache | ms a call |"
    )
    yield "| --- | --: | --: | --: | --: | --: | --: | --: | --: | --: |"
    for name, score in scores.items():
        n = len(found)
        history = (score.tokens - score.system) / (whole.tokens - whole.system)
        yield (
            f"| {name} | {score.tokens / n:,.0f} | {1 - score.tokens / whole.tokens:.1%} | {1 - history:.1%} "
            f"| {score.kept.total() / score.used.total():.2%} | {score.ruled / score.governed:.1%} "
            f"| {score.kept_prefix / score.tokens:.0%} | {score.cost(price, cached=False) / n:.4f} "
            f"| {score.cost(price, cached=True) / n:.4f} | {score.seconds / score.calls * 1000:.1f} |"
        )
    last = scores[ways[-1]]
    kinds = (f"{kind} {last.kept[kind]:,} of {used:,}" for kind, used in sorted(last.used.items()))
    yield f"\nValues kept by the last way: {', '.join(kinds)}."
    yield from (f"- lost: {lost}" for lost in last.lost)


def main() -> None:
    """Read, replay, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", help="the folder of evaluation data (or AGENTBUDGET_DATA)")
    parser.add_argument("--half", choices=["tuned on", "held out"], help="only this half of the tasks")
    parser.add_argument("--ways", nargs="+", choices=list(WAYS), default=list(WAYS), help="only these ways")
    given = parser.parse_args()
    found = episodes(find_data(given.data))
    price = TokenPrice.known("openai", "gpt-4o")
    print(f"Per conversation. Prices: gpt-4o, {price.source}. CPU time of this process.")
    halves: tuple[Half, ...] = ("tuned on", "held out")
    for half in halves if given.half is None else (given.half,):
        chosen = [episode for episode in found if episode.half == half]
        print("\n".join(table(half, chosen, given.ways, price)), flush=True)


if __name__ == "__main__":
    main()
