"""Find an answer to a question that means the same, decide whether it may be reused, and learn what came of it."""

from __future__ import annotations

import random
import threading
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from math import exp
from pathlib import Path
from typing import TYPE_CHECKING, Final, Self

from agentbudget.cache.key import hashed
from agentbudget.cache.semantic.around import Around, around, middle
from agentbudget.cache.semantic.features import FORMAT, features
from agentbudget.cache.semantic.learn import Decision, Fit, learn
from agentbudget.cache.semantic.nearby import CANDIDATES, Nearby, signs_of
from agentbudget.cache.semantic.policy import Semantic
from agentbudget.cache.semantic.store import Entry, SemanticStore
from agentbudget.cache.semantic.words import Difference, Reading, differences, read
from agentbudget.context.embed import Embedder
from agentbudget.errors import InvalidArgument

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from agentbudget.cache.semantic.around import Outcomes

MOST_ENTRIES: Final = 100_000
"""Questions that are kept in a space, where nothing else is said."""

_JUDGED: Final = 8
"""So many of the nearest by cosine are judged by all their features."""

_SPACES: Final = 64
"""Spaces whose vectors are held in memory: the others are read again when they are asked for."""

OUTCOMES: Final = 64
"""So many of the verified outcomes nearest to a question are looked at."""

LEAST_COSINE: Final = 0.5
"""What is less alike is no candidate, and nothing is learned from it."""


@dataclass(frozen=True, slots=True)
class Place:
    """Where a question belongs. Only what was asked in the same place may answer it.

    ``form`` is all that changes an answer but the question: model, instructions, schema, sampling (their hash).
    An empty ``tenant`` is a place that all share.
    """

    tenant: str
    skill: str
    form: str


@dataclass(frozen=True, slots=True)
class Look:
    """What was found for a question: the best candidate, and the decision. Without a candidate it is to be bought.

    ``similarity`` is the cosine, ``probability`` what the model of outcomes says of the answer being right, ``differ``
    in what the questions differ that no likeness makes good.
    """

    question: str
    vector: NDArray[np.float32]
    space: int
    fit: Fit
    decision: Decision = "buy"
    entry: Entry | None = None
    features: tuple[float, ...] = ()
    similarity: float = 0.0
    probability: float = 0.0
    differ: tuple[Difference, ...] = ()


@dataclass(frozen=True, slots=True)
class _Held:
    """What is held of a space in memory: where its questions lie and where verified pairs of them do, until any of
    them is ``dropped``."""

    dropped: int
    entries: Nearby = field(default_factory=Nearby)
    outcomes: Nearby = field(default_factory=Nearby)


class SemanticCache:
    """Questions that were paid for, in a file (None: in memory), and what is known of reusing their answers.

    The answers themselves stand elsewhere, under the keys that `Entry.key` gives back: what is invalid or too old
    there is so here. Calls block, for a few milliseconds, and once in a while for the tenths of a second that learning
    takes; they may come from any thread. ``draw`` gives a random number from 0 to 1.

    Raises what `SemanticStore` does, and `InvalidArgument` for an empty question.
    """

    def __init__(
        self,
        path: Path | None,
        embedder: Embedder,
        *,
        most_entries: int = MOST_ENTRIES,
        draw: Callable[[], float] = random.random,
    ) -> None:
        self.store = SemanticStore(path)
        self._embedder = embedder
        self._most_entries = most_entries
        self._draw = draw
        self._lock = threading.Lock()
        self._held: OrderedDict[int, _Held] = OrderedDict()

    def look(self, place: Place, question: str, policy: Semantic) -> Look:
        """Search for an answer that may be reused. What was decided is only noted by `reused` and `bought`."""
        import numpy as np

        if not question.strip():
            raise InvalidArgument(
                "an empty question means nothing: there is none like it", argument="question", value=question
            )
        vector = np.asarray(self._embedder.embed_query(question), np.float32)
        vector /= max(float(np.linalg.norm(vector)), 1e-12)
        space = self._space(place)
        fit = self.store.fit(space, policy.wrong)
        look = Look(question, vector, space, fit)
        try:
            near, outcomes = self._nearest(space, vector)
        except ValueError as error:
            raise self.store.damaged(f"a vector is none ({error})") from error
        if not near:
            return look
        asked = read(question)
        evidence = around(np.stack([middle(vector, entry.vector) for entry, _ in near]), outcomes)
        judged = (
            self._judged(look, asked, entry, cosine, nearby, policy)
            for (entry, cosine), nearby in zip(near, evidence, strict=True)
        )
        return max(judged, key=_promise)

    def _space(self, place: Place) -> int:
        parts = {"tenant": place.tenant, "form": place.form, "embedder": self._embedder.fingerprint, "format": FORMAT}
        return self.store.space(hashed(parts), tenant=place.tenant, skill=place.skill)

    def _nearest(self, space: int, vector: NDArray[np.float32]) -> tuple[list[tuple[Entry, float]], Outcomes]:
        """Entries with their cosines, the nearest first, and verified outcomes, in no order."""
        signs = signs_of(vector)
        with self._lock:
            held = self._up_to_date(space)
            ids, tried = held.entries.search(signs, CANDIDATES), held.outcomes.search(signs, OUTCOMES)
        entries = self.store.entries(ids)
        near = [(entry, float(entry.vector @ vector)) for entry in entries]
        near.sort(key=lambda pair: pair[1], reverse=True)
        return [pair for pair in near[:_JUDGED] if pair[1] >= LEAST_COSINE], self.store.outcomes(tried)

    def _up_to_date(self, space: int) -> _Held:
        """The vectors of a space, with what other threads and processes have added and dropped."""
        dropped = self.store.dropped(space)
        held = self._held.get(space)
        if held is None or held.dropped != dropped:
            held = self._held[space] = _Held(dropped)
        held.entries.add_all(self.store.signs(space, held.entries.last_id))
        held.outcomes.add_all(self.store.outcome_signs(space, held.outcomes.last_id))
        self._held.move_to_end(space)
        if len(self._held) > _SPACES:
            self._held.popitem(last=False)
        return held

    def _judged(
        self, look: Look, asked: Reading, entry: Entry, cosine: float, nearby: Around, policy: Semantic
    ) -> Look:
        known = read(entry.question)
        told, differ = features(asked, known, cosine, entry.record, nearby), differences(asked, known)
        score = look.fit.score(told)
        decision = look.fit.decide(score, entry.record, differ, audited=policy.audited, draw=self._draw())
        return replace(
            look,
            decision=decision,
            entry=entry,
            features=tuple(told),
            similarity=cosine,
            probability=1 / (1 + exp(-min(max(score, -500.0), 500.0))),
            differ=differ,
        )

    def reused(self, look: Look) -> int:
        """Note that the candidate's answer was given; returns the hit's id, which `found_wrong` takes."""
        assert look.entry is not None, "there is a candidate where something is reused"
        return self.store.reused(look.space, look.entry.id, look.features)

    def bought(self, look: Look, *, key: str, same: bool | None, policy: Semantic) -> None:
        """Note that an answer was bought and stands under `key`.

        ``same`` is whether the candidate's would have done; None if there was none to compare. A question whose answer
        was known is not kept beside the one that it repeats.
        """
        if look.entry is not None and same is not None and not look.differ:
            verified = self.store.compared(
                look.space,
                look.entry.id,
                look.features,
                same=same,
                middle=middle(look.vector, look.entry.vector),
                expected=look.probability,
            )
            if verified >= look.fit.due_at:
                trials = self.store.trials(look.space)
                fit = learn(trials, wrong=policy.wrong, verified=verified, last=look.fit)
                self.store.keep_fit(look.space, policy.wrong, fit)
        if not same:
            self.store.add(
                look.space,
                key=key,
                question=look.question,
                vector=look.vector,
                signs=signs_of(look.vector),
                most=self._most_entries,
            )

    def gone(self, look: Look) -> None:
        """The candidate's answer is no longer kept: neither is its question."""
        if look.entry is not None:
            self.store.drop((look.entry.id,))

    def found_wrong(self, hit: int) -> bool:
        """Note that the answer given as this hit was wrong: it is not reused again. False if there is no such hit."""
        return self.store.found_wrong(hit)

    def close(self) -> None:
        """Close the file."""
        self.store.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def _promise(look: Look) -> tuple[bool, float]:
    """Which of several candidates to take: the likeliest of those that differ in nothing that matters."""
    return not look.differ, look.probability
