"""How many requests a semantic cache answers at a bounded share of wrong hits: `python -m evals.cache qqp --data DIR`.

Quora's question pairs in random order. The answer to a pair's first question is known, its second is asked; whether
the known answer would do is the pair's label. A method reuses it, or has an answer bought and then learns the label.
"""

from __future__ import annotations

import argparse
import random
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from math import exp
from pathlib import Path
from statistics import mean
from typing import Final

import numpy as np

from agentbudget import settings
from agentbudget.cache.semantic.around import NEAREST, weigh
from agentbudget.cache.semantic.features import Record, told_of
from agentbudget.cache.semantic.learn import Fit, Trials, learn
from agentbudget.cache.semantic.policy import AUDITED
from agentbudget.cache.semantic.store import TRIALS
from agentbudget.evals.tasks import find_data
from evals.cache.qqp_data import HALVES, Requests, disputed, pairs_of, requests_of, vectors_of
from evals.cache.qqp_rivals import GPTCACHE, Played, fixed, hindsight, learned_threshold, vcache

WRONG: Final = (0.01, 0.02, 0.05)


class Stream:
    """The semantic cache, without files and vectors: what it knows of each request, and what it learns.

    Requests are named by their places in `order`.
    """

    def __init__(self, requests: Requests, order: list[int], fit: Fit) -> None:
        count = len(order)
        self.fit, self.outcomes = fit, 0
        self.told, self.entries, self.same = requests.features[order], requests.entry[order], requests.same[order]
        self.tried = ~requests.differ[order]
        self.verified, self.hit = np.zeros(count, np.bool_), np.zeros(count, np.bool_)
        place = np.empty(count, np.int64)
        place[order] = np.arange(count)
        self._near, self._nearness = place[requests.near[order]], requests.nearness[order]
        self._expected = np.zeros(count)
        self._records: dict[int, Record] = {}

    def record(self, place: int) -> Record:
        """How often the answer that is known was right and wrong so far."""
        return self._records.get(int(self.entries[place]), Record())

    def score(self, place: int) -> float:
        """The log-odds that the answer would do, by what is known now."""
        near = self._near[place]
        known = self.verified[near]
        near, cosines = near[known][:NEAREST], self._nearness[place][known][:NEAREST]
        row = self.told[place]
        row[-4:] = told_of(self.record(place), weigh(cosines, self.same[near], self._expected[near]))
        return self.fit.score(row.tolist())

    def buy(self, place: int, score: float, wrong: float) -> None:
        """Have the answer bought, compare it, and learn if it is time to."""
        right, record = bool(self.same[place]), self.record(place)
        self.verified[place] = True
        self.outcomes += 1
        self._expected[place] = 1 / (1 + exp(-score))
        self._records[int(self.entries[place])] = Record(record.right + right, record.wrong + (not right))
        if self.outcomes >= self.fit.due_at:
            self.fit = learn(self.trials(place), wrong=wrong, verified=self.outcomes, last=self.fit)

    def trials(self, place: int) -> Trials:
        """What is known after this request."""
        past = np.flatnonzero(self.tried[: place + 1])[-TRIALS:]
        return Trials(self.told[past], self.entries[past], self.verified[past], self.same[past], self.hit[past])


def ours(requests: Requests, order: list[int], wrong: float, chance: random.Random) -> Played:
    """The semantic cache: its features, its learning and its decisions."""
    stream = Stream(requests, order, Fit())
    for place in np.flatnonzero(stream.tried).tolist():
        score = stream.score(place)
        decision = stream.fit.decide(score, stream.record(place), (), audited=AUDITED, draw=chance.random())
        if decision == "reuse":
            stream.hit[place] = True
        else:
            stream.buy(place, score, wrong)
    return Played(len(order), int(stream.hit.sum()), int((stream.hit & ~stream.same).sum()))


@dataclass(frozen=True, slots=True)
class Row:
    """A line of the table: one method at one bound, over all shuffles."""

    name: str
    bound: float | None
    played: Sequence[Played]

    def text(self) -> str:
        """As Markdown."""
        share = mean(played.hits / played.requests for played in self.played)
        per_hit = sum(p.wrong for p in self.played) / max(1, sum(p.hits for p in self.played))
        per_request = mean(played.wrong / played.requests for played in self.played)
        worst = max(played.wrong_per_hit for played in self.played)
        held = "" if self.bound is None else sum(p.wrong_per_hit <= self.bound for p in self.played)
        bound = "" if self.bound is None else f"{self.bound:.0%}"
        kept = "" if self.bound is None else f"{held} of {len(self.played)}"
        return f"| {bound} | {self.name} | {share:.2%} | {per_hit:.2%} | {worst:.2%} | {per_request:.3%} | {kept} |"


Online = Callable[[Requests, list[int], float, random.Random], Played]

METHODS: Final[dict[str, Online]] = {
    "semantic cache": ours,
    "one cosine for all, learned": learned_threshold,
    "vCache": vcache,
    "vCache, pooled": lambda requests, order, wrong, chance: vcache(requests, order, wrong, chance, pooled=True),
}


def rows(
    requests: Requests, *, shuffles: int, methods: Sequence[str], bounds: Sequence[float] = WRONG
) -> Iterator[Row]:
    """Every method at every bound; those that depend on the order, on `shuffles` of them."""
    orders = [random.Random(seed).sample(range(len(requests)), len(requests)) for seed in range(shuffles)]
    for bound in bounds:
        for name in methods:
            played = [METHODS[name](requests, order, bound, random.Random(n)) for n, order in enumerate(orders)]
            yield Row(name, bound, played)
        yield Row("one cosine for all, in hindsight", bound, [hindsight(requests, bound)])
    yield Row(f"GPTCache's default, cosine ≥ {GPTCACHE}", None, [fixed(requests, GPTCACHE)])
    yield Row("cosine ≥ 0.8", None, [fixed(requests, 0.8)])


def main(arguments: Sequence[str] | None = None) -> None:
    """Read, embed, play, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", help="the folder of evaluation data (or AGENTBUDGET_DATA)")
    parser.add_argument("--shuffles", type=int, default=100, help="orders of the stream [100]")
    parser.add_argument("--half", choices=(*HALVES, "all"), default="report", help="which pairs [report]")
    parser.add_argument("--methods", nargs="+", choices=tuple(METHODS), default=tuple(METHODS))
    parser.add_argument("--vectors", type=Path, help="where vectors are kept [evals/qqp in the home folder]")
    given = parser.parse_args(arguments)
    data, folder = find_data(given.data), given.vectors or settings.home() / "evals" / "qqp"
    both = {half: pairs_of(data, half) for half in HALVES}
    texts = [text for pairs in both.values() for pair in pairs for text in (pair.text_a, pair.text_b)]
    chosen = [pair for half, pairs in both.items() if given.half in (half, "all") for pair in pairs]
    requests = requests_of(chosen, vectors_of(texts, folder))
    started = time.process_time()
    print(f"{len(requests):,} requests ({given.half}), {requests.same.mean():.1%} with an answer that would do.")
    alike, different = disputed(chosen)
    print(f"Of {alike} whose words are those of the known question, {different} are labelled as different.\n")
    print("| bound | method | hits | wrong per hit | in the worst order | wrong per request | bound kept in |")
    print("| --: | --- | --: | --: | --: | --: | --: |")
    for row in rows(requests, shuffles=given.shuffles, methods=given.methods):
        print(row.text(), flush=True)
    print(f"\n{given.shuffles} orders, {time.process_time() - started:.0f} s of processor time")
