"""Vectors already paid for: a hosted embedding model is asked for no text twice."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from typing import Final, Protocol, Self

from agentbudget.cache.codec import decode_vector, encode_vector
from agentbudget.cache.key import hashed
from agentbudget.cache.label import Label
from agentbudget.cache.store import Item, Row, Store
from agentbudget.context.embed import Embedder, Vector
from agentbudget.context.hosted import HostedEmbedder, Pay, paid_for
from agentbudget.errors import StoreError
from agentbudget.models.base import Price
from agentbudget.tenants import DEFAULT_TENANT
from agentbudget.usage import Usage

_log = logging.getLogger(__name__)

SOUGHT: Final = 500
"""Texts that are looked for at once."""


class Hosted(Embedder, HostedEmbedder, Protocol):
    """An embedding model behind an API."""


class KeptEmbedder:
    """A hosted embedding model in front of which a cache stands. Implements `Embedder` and `HostedEmbedder`.

    What a text's vector is depends on the model and the text alone; tenants are kept apart all the same, for that a
    text is known tells that somebody embedded it.
    """

    def __init__(
        self, inner: Hosted, store: Store, *, tenant: str = DEFAULT_TENANT, asked: Embedder | None = None
    ) -> None:
        self._inner = inner
        self._store = store
        self._tenant = tenant
        self._asked: Embedder = asked or inner
        self._pay: Pay | None = None

    def paid_by(self, pay: Pay) -> Self:
        """The same embedder, its requests paid for by `pay`; hits are booked there, too, at 0."""
        twin = type(self)(self._inner, self._store, tenant=self._tenant, asked=paid_for(self._inner, pay))
        twin._pay = pay
        return twin

    @property
    def name(self) -> str:
        """The model's name."""
        return self._inner.name

    @property
    def address(self) -> str:
        """Where it is asked for what is not known."""
        return self._inner.address

    @property
    def price(self) -> Price:
        """The model's price."""
        return self._inner.price

    @property
    def fingerprint(self) -> str:
        """The model's own: its vectors are the same."""
        return self._inner.fingerprint

    @property
    def dim(self) -> int:
        """Numbers in a vector."""
        return self._inner.dim

    def count_tokens(self, text: str) -> int:
        """See the model."""
        return self._inner.count_tokens(text)

    def embed_query(self, question: str) -> Vector:
        """The vector of a question."""
        return self._each([question], "question", lambda texts: [self._asked.embed_query(texts[0])])[0]

    def embed(self, texts: Sequence[str]) -> list[Vector]:
        """A vector for each text; those that are not known are embedded, and paid for, each once."""
        return self._each(texts, "passage", self._asked.embed)

    def _each(self, texts: Sequence[str], use: str, ask: Callable[[Sequence[str]], list[Vector]]) -> list[Vector]:
        keys = {text: self._key(text, use) for text in texts}
        known, saved = self._found(list(keys.values()))
        new = [text for text, key in keys.items() if key not in known]
        if new:
            made = dict(zip(new, ask(new), strict=True))
            self._keep({keys[text]: (text, vector) for text, vector in made.items()})
            known |= {keys[text]: vector for text, vector in made.items()}
        if len(new) < len(keys) and self._pay is not None:
            with self._pay(self.name, self.price, Usage()) as meter:
                meter.saved_usd_nano = saved
        return [known[keys[text]] for text in texts]

    def _key(self, text: str, use: str) -> str:
        # Some models treat questions and passages differently.
        return hashed(
            {"kind": "embedding", "model": self.fingerprint, "use": use, "text": text, "tenant": self._tenant}
        )

    def _found(self, keys: Sequence[str]) -> tuple[dict[str, Vector], int]:
        """The vectors that are known, and what they cost when they were bought."""
        found: dict[str, Vector] = {}
        saved = 0
        try:
            for start in range(0, len(keys), SOUGHT):
                for row in self._store.find(keys[start : start + SOUGHT]):
                    if (vector := self._read(row)) is not None:
                        found[row.key] = vector
                        saved += row.cost_usd_nano
                        self._store.touch(row.entry)
        except StoreError as error:
            _log.warning("vectors already paid for cannot be read, so these are bought: %s", error)
        return found, saved

    def _read(self, row: Row) -> Vector | None:
        try:
            vector = decode_vector(row.value)
        except ValueError as error:
            _log.warning("a vector in the cache %s cannot be read, and is bought anew: %s", self._store.location, error)
            return None
        return vector if len(vector) == self.dim else None

    def _keep(self, made: dict[str, tuple[str, Vector]]) -> None:
        items = [
            Item({key: None}, encode_vector(vector), self.price.cost(Usage(input_tokens=self.count_tokens(text))))
            for key, (text, vector) in made.items()
        ]
        try:
            self._store.put_all(items, Label("embedding", self._tenant, model=self.name))
        except StoreError as error:
            _log.warning("vectors that were paid for cannot be kept: %s", error)
