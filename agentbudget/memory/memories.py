"""Remember, recall and forget: what was learned of a user, within a token allowance, for as long as it may be kept."""

from __future__ import annotations

import asyncio
import re
import time
import unicodedata
from collections import Counter
from collections.abc import Callable, Generator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from threading import Lock
from typing import Final
from uuid import UUID

from agentbudget.context.embed import Embedder
from agentbudget.context.hosted import Pay, destination_of, paid_for
from agentbudget.context.readings import says_all
from agentbudget.context.store import Words
from agentbudget.errors import DataRefused, IndexFault, Mistake
from agentbudget.history import facts, words
from agentbudget.memory.record import Memory, Owner, Source, memory_id, now_ns
from agentbudget.memory.store import Point, Store, Stores
from agentbudget.privacy import DataClass, Destination, Label
from agentbudget.privacy.classes import outlives_its_run
from agentbudget.privacy.fence import harmless

ALIKE: Final = 0.9
"""Cosine from which two memories may be the same thing said twice: if the later one has all the words of the other in
their order, and their facts and negations are the same."""

_NEIGHBOURS: Final = 5
_CANDIDATES: Final = 64
_MAX_CHARS: Final = 4000

_NEGATION: Final = re.compile(r"\b(?:no|not|never|none|nor|without|stop|cannot|\w+n['’]t)\b", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class Remembered:
    """What is kept now, and whether it is an earlier memory that was said again."""

    memory: Memory
    merged: bool
    compute_ns: int


@dataclass(frozen=True, slots=True)
class Recalled:
    """What is known that may matter to a question. ``str()`` is ``text``, ready for a prompt: a line each, best first.

    ``tokens`` are counted by the embedding model; ``left_out`` memories did not fit.
    """

    question: str
    memories: tuple[Memory, ...]
    text: str
    tokens: int
    left_out: int
    compute_ns: int

    def __str__(self) -> str:
        return self.text

    @property
    def label(self) -> Label:
        """The narrowest class of these memories."""
        label = Label()
        for memory in self.memories:
            label = label.joined(Label(memory.data_class, (f"memory {memory.id}",)))
        return label


class Memories:
    """The memories of all users, each by their own. Safe to use from several tasks, and from several processes."""

    def __init__(self, stores: Callable[[], Stores], embedder: Embedder, *, clock: Callable[[], int] = now_ns) -> None:
        """`stores` is called when they are first needed: most runs remember nothing."""
        self._opener = stores
        self._embedder = embedder
        self._clock = clock
        self._one_at_a_time = Lock()
        self._words = Words()

    @cached_property
    def _stores(self) -> Stores:
        return self._opener()

    @property
    def location(self) -> str:
        """Where they are kept."""
        return self._stores.location

    @property
    def goes_to(self) -> tuple[Destination, ...]:
        """Where memories and questions go outside this process: to a hosted embedder, to a server that keeps them."""
        return tuple(filter(None, (destination_of(self._embedder), self._stores.destination)))

    async def remember(
        self,
        owner: Owner,
        text: str,
        *,
        source: Source,
        expires_ns: int | None = None,
        data_class: DataClass = "internal",
        pay: Pay | None = None,
    ) -> Remembered:
        """Keep `text`. What says the same as a memory that is there becomes one with it, in the new words.

        Raises `Mistake` for a text that says nothing, or is no memory but a document, `DataRefused` for a class that
        must not outlive its run.
        """
        if not outlives_its_run(data_class):
            raise DataRefused(
                f"what is {data_class} is kept by no memory; leave it out, or say it in words that are not "
                "(ctx.cleared)",
                data_class=data_class,
                destinations=("memory",),
            )
        if not _says_something(text):
            raise Mistake("there is nothing to remember in an empty text; say what was learned in a sentence")
        if len(text) > _MAX_CHARS:
            raise Mistake(
                f"a memory of {len(text):,} characters is a document; say what was learned in a sentence, and index "
                "the document"
            )
        text = unicodedata.normalize("NFC", text).strip()  # said twice is the same, however its letters are written
        memory = Memory(memory_id(owner, text), text, (source,), expires_ns=expires_ns, data_class=data_class)
        return await asyncio.to_thread(self._remember, owner, memory, pay)

    async def recall(self, owner: Owner, question: str, *, tokens: int, pay: Pay | None = None) -> Recalled:
        """The memories that matter most to `question`, within `tokens`: none, if the first does not fit."""
        if not _says_something(question):
            raise Mistake(f"{question!r} is no question; ask for something that may have been learned")
        if not isinstance(tokens, int) or tokens < 1:
            raise Mistake(f"an allowance of {tokens!r} tokens holds nothing; give recall() a hundred")
        return await asyncio.to_thread(self._recall, owner, question, tokens, pay)

    async def all_of(self, owner: Owner) -> tuple[Memory, ...]:
        """Everything that is kept of a user, the latest first, what has expired left out."""
        return await asyncio.to_thread(self._all_of, owner)

    async def owners(self) -> tuple[Owner, ...]:
        """Who has memories here."""
        return tuple(await asyncio.to_thread(self._stores.owners))

    async def forget(self, owner: Owner, ids: Sequence[str]) -> int:
        """Delete memories by their ids, and make sure that they are gone; how many there were.

        Raises `Mistake` for an id that this user has not: nothing is deleted then.
        """
        return await asyncio.to_thread(self._forget, owner, list(ids))

    async def forget_all(self, owner: Owner) -> None:
        """Delete everything of a user, and make sure that it is gone: also what cannot be read any more."""
        await asyncio.to_thread(self._destroy, owner)

    async def forget_everyone(self) -> int:
        """Delete everything of all users; how many they were."""
        owners = await self.owners()
        for owner in owners:
            await self.forget_all(owner)
        return len(owners)

    async def aclose(self) -> None:
        """Let go of connections. What is used after that opens them again."""
        stores = self.__dict__.pop("_stores", None)
        if stores is not None:
            stores.close()

    def _remember(self, owner: Owner, memory: Memory, pay: Pay | None) -> Remembered:
        embedder = paid_for(self._embedder, pay)
        with self._opened(owner) as store:
            self._drop_expired(store)
            started = time.perf_counter_ns()
            (dense,) = embedder.embed([memory.text])
            known = self._known(store, memory, dense)
            kept = memory if known is None else known.said_again(memory)
            store.put([Point(kept, dense, self._words.document(kept.text))])
            return Remembered(kept, known is not None, time.perf_counter_ns() - started)

    def _known(self, store: Store, memory: Memory, dense: list[float]) -> Memory | None:
        """A memory that says the same: word for word, or in words to which these add some, but no fact or denial."""
        same = store.get([memory.id])
        if same:
            return same[0]
        alike = (found for found, cosine in store.nearest(dense, _NEIGHBOURS) if cosine >= ALIKE)
        return next((found for found in alike if _says_as_much(memory.text, found.text)), None)

    def _recall(self, owner: Owner, question: str, tokens: int, pay: Pay | None) -> Recalled:
        embedder = paid_for(self._embedder, pay)
        with self._opened(owner) as store:
            started = time.perf_counter_ns()
            dense, sparse = embedder.embed_query(question), self._words.query(question)
            found = store.search(dense, sparse, _CANDIDATES)
            spent = time.perf_counter_ns() - started
        now = self._clock()
        return _packed(question, [m for m in found if not m.is_expired(now)], tokens, embedder, spent)

    def _all_of(self, owner: Owner) -> tuple[Memory, ...]:
        with self._opened(owner) as store:
            self._drop_expired(store)
            return tuple(sorted(store.every(), key=lambda memory: (-memory.learned_ns, memory.id)))

    def _forget(self, owner: Owner, ids: Sequence[str]) -> int:
        with self._opened(owner) as store:
            there = {memory.id for memory in store.get([given for given in ids if _may_be_id(given)])}
            missing = [given for given in ids if given not in there]
            if missing:
                raise Mistake(f"there is no memory {missing[0]!r} of {owner.user!r}; see `agentbudget memory list`")
            store.delete(list(there))
            _require_gone(store.get(ids))
            return len(there)

    def _destroy(self, owner: Owner) -> None:
        with self._one_at_a_time:
            self._stores.destroy(owner)

    def _drop_expired(self, store: Store) -> None:
        now = self._clock()
        expired = [memory.id for memory in store.every() if memory.is_expired(now)]
        if expired:
            store.delete(expired)

    @contextmanager
    def _opened(self, owner: Owner) -> Generator[Store]:
        with (
            self._one_at_a_time,
            self._stores.open(owner, fingerprint=self._embedder.fingerprint, dim=self._embedder.dim) as store,
        ):
            yield store


def _packed(question: str, found: Sequence[Memory], tokens: int, embedder: Embedder, compute_ns: int) -> Recalled:
    """As many of the best as fit: a shorter one further down may still do."""
    kept: list[Memory] = []
    lines: list[str] = []
    used = 0
    for memory in found:
        line = f"- {' '.join(harmless(memory.text).split())} ({memory.learned_on})"
        size = embedder.count_tokens("\n".join([*lines, line]))
        if size <= tokens:
            kept, lines, used = [*kept, memory], [*lines, line], size
    return Recalled(question, tuple(kept), "\n".join(lines), used, len(found) - len(kept), compute_ns)


def _says_as_much(text: str, known: str) -> bool:
    """Whether nothing is lost if `text` takes the place of `known`: a vector hardly tells a sister from a brother."""
    return says_all(text, known) and _claims(text) == _claims(known)


def _claims(text: str) -> tuple[Counter[str], frozenset[str]]:
    """What tells two memories apart whose words are alike: how often they deny, and their facts."""
    denied = Counter(found.casefold() for found in _NEGATION.findall(text))
    return denied, frozenset(word for _, fact in facts(text) for word in words(fact))


def _may_be_id(given: str) -> bool:
    """Whether a store can be asked for it: memories are called by a UUID, written with hyphens."""
    try:
        return str(UUID(given)) == given
    except ValueError:
        return False


def _require_gone(left: Sequence[Memory]) -> None:
    if left:
        raise IndexFault(f"{len(left)} memories that were deleted are still there; try again, and check the server")


def _says_something(text: str) -> bool:
    try:
        return bool(text.strip() and text.encode())
    except UnicodeEncodeError:  # half a character, as a model may write it
        return False
