"""Answers to questions that mean the same, for a step: found, compared with what is bought, and found wrong."""

from __future__ import annotations

import asyncio
import logging
import random
import threading
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Final

from agentbudget.cache.answers import Answers, Asked, CachedAnswer, Trust
from agentbudget.cache.key import answer_key
from agentbudget.cache.semantic.cache import Look, Place, SemanticCache
from agentbudget.cache.semantic.policy import Semantic
from agentbudget.cache.semantic.store import unknown_hit
from agentbudget.context.embed import Embedder, FastEmbedder
from agentbudget.errors import StoreError
from agentbudget.models.base import Completion, Request

_log = logging.getLogger(__name__)

MOST_TOKENS: Final = 254
"""What the embedding model reads of a question: what follows would not be compared."""

_OPEN_LOOKS: Final = 4096
"""So many questions may be being bought at once; what came of older ones is not learned."""


class SemanticAnswers:
    """Finds answers to similar questions among `answers`. It is opened when it is first needed, and so is the embedder.

    Where its file fails a saving is lost, and nothing else: that is logged, and the answer bought. ``draw`` gives a
    random number from 0 to 1.
    """

    def __init__(
        self,
        path: Path | None,
        answers: Answers,
        *,
        embedder: Embedder | None = None,
        draw: Callable[[], float] = random.random,
    ) -> None:
        self._path = path
        self._answers = answers
        self._embedder = embedder or FastEmbedder(threads=1)
        self._draw = draw
        self._lock = threading.Lock()
        self._cache: SemanticCache | None = None
        self._looks: OrderedDict[str, Look] = OrderedDict()

    @property
    def cache(self) -> SemanticCache:
        """What is known of similar questions. Raises `StoreError` where its file cannot be used."""
        with self._lock:
            if self._cache is None:
                self._cache = SemanticCache(self._path, self._embedder, draw=self._draw)
            return self._cache

    async def find(self, asked: Asked) -> CachedAnswer | None:
        """See `AnswerCache.find`: the answer to a question that means the same, unless it is bought to check it."""
        question = question_of(asked.request)
        if not isinstance(asked.caching, Semantic) or asked.shared is None or question is None:
            return None
        try:
            return await asyncio.to_thread(self._find, asked, asked.caching, question)
        except StoreError as error:
            _log.warning("similar questions cannot be looked up, so this answer is bought: %s", error)
            return None

    def _find(self, asked: Asked, policy: Semantic, question: str) -> CachedAnswer | None:
        if self._embedder.count_tokens(question) > MOST_TOKENS:
            return None
        look = self.cache.look(_place(asked, policy), question, policy)
        found = self._answer(look, asked)
        if look.entry is not None and found is None:
            if not self._answers.store.find((look.entry.key,)):
                self.cache.gone(look)
            look = replace(look, entry=None, decision="buy")
        if look.decision == "reuse" and found is not None:
            self._answers.reused(found)
            return replace(found, trust=_trust(look, self.cache.reused(look), policy))
        self._looks[asked.own] = look
        while len(self._looks) > _OPEN_LOOKS:
            self._looks.popitem(last=False)
        return None

    def _answer(self, look: Look, asked: Asked) -> CachedAnswer | None:
        """The candidate's answer, if the exact cache still has it and it is not too old."""
        if look.entry is None:
            return None
        found = self._answers.get(look.entry.key, max_output_tokens=asked.request.max_output_tokens)
        return found if found is not None and self._answers.is_fresh(found, asked.ttl_s) else None

    async def bought(self, asked: Asked, completion: Completion) -> None:
        """See `AnswerCache.bought`: compare it with the answer that was known, and learn from that."""
        look = self._looks.pop(asked.own, None)
        if look is None or not isinstance(asked.caching, Semantic) or completion.finish != "stop":
            return
        try:
            await asyncio.to_thread(self._bought, look, asked, asked.caching, completion)
        except StoreError as error:
            _log.warning("what came of buying an answer is not learned: %s", error)

    def _bought(self, look: Look, asked: Asked, policy: Semantic, completion: Completion) -> None:
        assert asked.shared is not None, "only what is shared was looked up"
        if not self._answers.store.find((asked.shared,)):
            return  # it was no answer worth keeping
        known = self._answer(look, asked)
        same = None if known is None else bool(policy.same(known.completion.text, completion.text))
        self.cache.bought(look, key=asked.shared, same=same, policy=policy)

    def found_wrong(self, hit: int) -> None:
        """The answer that was given as this hit (it stands in the statement) was wrong. Raises `UnknownHit`."""
        if not self.cache.found_wrong(hit):
            raise unknown_hit(hit)

    def close(self) -> None:
        """Close the file, if it was opened."""
        with self._lock:
            if self._cache is not None:
                self._cache.close()
                self._cache = None


def question_of(request: Request) -> str | None:
    """What a request asks, apart from what is the same in all that its skill asks: its only message of a user.

    None where there is more to it: images, tools, a conversation, or no words at all.
    """
    asked = [message for message in request.messages if message.role == "user"]
    plain = len(asked) == 1 and asked[0] is request.messages[-1] and not asked[0].images and not request.tools
    return asked[0].text if plain and asked[0].text.strip() else None


def _place(asked: Asked, policy: Semantic) -> Place:
    """All that changes the answer but the question."""
    *before, last = asked.request.messages
    form = answer_key(
        replace(asked.request, messages=(*before, replace(last, text=""))),
        asked.model,
        tenant=None if policy.across_tenants else asked.label.tenant,
        skill_version=asked.label.skill_version + asked.apart,
        sample=asked.sample,
    )
    return Place(asked.label.tenant, asked.label.skill, form)


def _trust(look: Look, hit: int, policy: Semantic) -> Trust:
    assert look.entry is not None
    bound = look.fit.bound
    return Trust(
        "semantic",
        {
            "hit": hit,
            "entry": look.entry.id,
            "similarity": round(look.similarity, 4),
            "probability": round(look.probability, 4),
            "wrong_allowed": policy.wrong,
            "wrong_expected": round(bound.wrong, 4),
            "risk": round(bound.risk, 4),
            "evidence": bound.verified,
            "entry_right": look.entry.record.right,
            "entry_wrong": look.entry.record.wrong,
        },
    )
