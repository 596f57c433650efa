"""Embedding models behind an API: whoever asks for vectors pays for each request."""

from __future__ import annotations

import asyncio
import os
import random
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager
from typing import TYPE_CHECKING, Final, Protocol, Self, runtime_checkable

from pydantic import BaseModel

from agentbudget.context.embed import Embedder, Vector
from agentbudget.errors import ContextTooLong, InvalidOutput, MissingDependency, Mistake, ModelError, UnknownModel
from agentbudget.models.base import Meter, Price
from agentbudget.models.remote import Caller, SdkErrors, checked_address, connected_to, key_from, timeouts
from agentbudget.models.tokens import text_tokens
from agentbudget.prices import InForce
from agentbudget.privacy import Destination
from agentbudget.usage import Usage

if TYPE_CHECKING:
    from openai import AsyncOpenAI

Pay = Callable[[str, Price, Usage], AbstractContextManager[Meter]]
"""Holds what a call of the model of that name costs at most, until it has ended: see `agentbudget.paying.paid`."""

DIMS: Final = {"text-embedding-3-small": 1536, "text-embedding-3-large": 3072, "text-embedding-ada-002": 1536}
"""Numbers in a vector of OpenAI's embedding models, all of which read `cl100k_base`."""

LONGEST_TOKENS: Final = 8191
"""Most tokens of one text: https://developers.openai.com/api/docs/guides/embeddings."""

BATCH_TEXTS: Final = 512
BATCH_TOKENS: Final = 100_000
"""A request takes 2,048 texts and 300,000 tokens: smaller ones lose less when one of them fails."""

ATTEMPTS: Final = 3
BACKOFF_S: Final = 0.5
TIMEOUT_S: Final = 60.0

KEY_VARIABLE: Final = "OPENAI_API_KEY"
ADDRESS_VARIABLE: Final = "OPENAI_BASE_URL"
PUBLIC_ADDRESS: Final = "https://api.openai.com/v1"


@runtime_checkable
class HostedEmbedder(Protocol):
    """An `Embedder` that costs money by the token, and works only for whoever pays."""

    @property
    def name(self) -> str:
        """As prices and rules name it: ``"openai:text-embedding-3-small"``."""
        ...

    @property
    def address(self) -> str:
        """Where it is asked."""
        ...

    @property
    def price(self) -> Price:
        """What a token costs."""
        ...

    def paid_by(self, pay: Pay) -> Embedder:
        """The same embedder, its requests paid for by `pay`."""
        ...


def paid_for(embedder: Embedder, pay: Pay | None) -> Embedder:
    """`embedder` as it may be used by somebody who pays with `pay`: one on this machine is paid for by its seconds."""
    return embedder.paid_by(pay) if pay is not None and isinstance(embedder, HostedEmbedder) else embedder


def destination_of(embedder: Embedder) -> Destination | None:
    """Where texts go to be embedded: whatever has an address is elsewhere. None if they stay in this process."""
    address = getattr(embedder, "address", None)
    if not isinstance(address, str):
        return None
    return Destination.at(str(getattr(embedder, "name", address)), address)


class OpenAIEmbedder:
    """One of OpenAI's embedding models, or one behind a server that speaks its API. Implements `Embedder`.

    Needs ``dim`` and ``price`` where neither this module nor genai-prices knows them. Every request is counted,
    reserved, sent once and settled at what the API says; without `paid_by` it refuses to embed anything.
    Raises `UnknownModel`, `UnknownPrice`.
    """

    def __init__(
        self,
        model_id: str = "text-embedding-3-small",
        *,
        base_url: str | None = None,
        api_key: str | None = None,
        price: Price | None = None,
        dim: int | None = None,
    ) -> None:
        self.model_id = model_id
        self.name = f"openai:{model_id}"
        self._base_url = base_url or os.environ.get(ADDRESS_VARIABLE) or PUBLIC_ADDRESS
        self.address = checked_address(self._base_url)
        self._api_key = api_key
        official = self.address == PUBLIC_ADDRESS
        address = None if official else self.address
        self._price: Callable[[], Price] = (
            (lambda: price) if price is not None else InForce("openai", model_id, api_url=address, embeds=True)
        )
        found = dim or DIMS.get(model_id)
        if found is None:
            raise UnknownModel(f"nobody states how long the vectors of {self.name} are: pass dim=…")
        self._dim = found
        self._encoding: Final = "cl100k_base" if model_id in DIMS else None
        self._pay: Pay | None = None

    @property
    def price(self) -> Price:
        """The price that was given, else the one that the lists state now."""
        return self._price()

    def paid_by(self, pay: Pay) -> Self:
        """The same embedder, its requests paid for by `pay`."""
        twin = type(self)(
            self.model_id, base_url=self._base_url, api_key=self._api_key, price=self.price, dim=self._dim
        )
        twin._price, twin._pay = self._price, pay
        return twin

    @property
    def fingerprint(self) -> str:
        """The API's address, the model and the vectors' length."""
        return f"{self.name}@{self.address}:{self._dim}"

    @property
    def dim(self) -> int:
        """Numbers in a vector."""
        return self._dim

    def count_tokens(self, text: str) -> int:
        """Tokens of `text` by the model's vocabulary; the most that it may have where that is not known."""
        return text_tokens(self._encoding, text)

    def embed(self, texts: Sequence[str]) -> list[Vector]:
        """A vector for each text, in batches, each paid for by itself.

        Raises `BudgetExceeded` before the first batch that does not fit, `ContextTooLong`, and the `ModelError` tree.
        """
        return [vector for batch in self._batches(texts) for vector in self._attempts(batch)]

    def embed_query(self, question: str) -> Vector:
        """The vector of a question, made as a passage's is."""
        return self.embed([question])[0]

    def _batches(self, texts: Sequence[str]) -> Iterator[_Batch]:
        batch = _Batch([], 0)
        for text in texts:
            tokens = self.count_tokens(text)
            if tokens > LONGEST_TOKENS and self._encoding is not None:
                raise ContextTooLong(
                    f"{self.name} takes {LONGEST_TOKENS:,} tokens; a text has {tokens:,}: cut it",
                    input_tokens=tokens,
                    output_tokens=0,
                    window=LONGEST_TOKENS,
                )
            if batch.texts and (len(batch.texts) == BATCH_TEXTS or batch.tokens + tokens > BATCH_TOKENS):
                yield batch
                batch = _Batch([], 0)
            batch.texts.append(text)
            batch.tokens += tokens
        if batch.texts:
            yield batch

    def _attempts(self, batch: _Batch) -> list[Vector]:
        """One batch: what may pass is tried again, and every try has its own hold."""
        for number in range(1, ATTEMPTS + 1):
            try:
                return self._paid(batch)
            except ModelError as error:
                if not error.passes_soon or number == ATTEMPTS:
                    raise
                time.sleep(error.retry_after_s or BACKOFF_S * 2 ** (number - 1) * (1 + random.random()))
        raise AssertionError("unreachable: the loop above returns or raises")

    def _paid(self, batch: _Batch) -> list[Vector]:
        if self._pay is None:
            raise Mistake(f"nobody pays for {self.name}: use it in an agent's run, or as embedder.paid_by(…)")
        with self._pay(self.name, self.price, Usage(input_tokens=batch.tokens)) as meter:
            answer = asyncio.run(self._ask(batch.texts, meter))
            if (tokens := answer.tokens) is not None:
                meter.used(Usage(input_tokens=tokens))
            if fact := self._wrong(answer, batch):
                raise InvalidOutput(f"{self.name} gave {fact}", model=self.name, usage=meter.usage)
            return [item.embedding for item in sorted(answer.data, key=lambda item: item.index)]

    def _wrong(self, answer: _Answer, batch: _Batch) -> str | None:
        """What there is in place of a vector of the right length for each text."""
        if len(answer.data) != len(batch.texts):
            return f"{len(answer.data)} vectors for {len(batch.texts)} texts"
        lengths = {len(item.embedding) for item in answer.data} - {self._dim}
        return f"vectors of {min(lengths)} numbers, not of {self._dim}: pass dim={min(lengths)}" if lengths else None

    async def _ask(self, texts: Sequence[str], meter: Meter) -> _Answer:
        """One request. Its client lives as long: embedding happens in threads, each with its own loop."""
        sdk = _sdk()
        key = key_from(self._api_key, KEY_VARIABLE, address=self.address, model=self.name)
        errors = SdkErrors(sdk.APIStatusError, sdk.APIConnectionError, sdk.OpenAIError)
        caller = Caller(self.name, KEY_VARIABLE, self.address, errors, key)
        client: AsyncOpenAI
        http = sdk.DefaultAsyncHttpxClient(**connected_to(self.address))
        async with sdk.AsyncOpenAI(api_key=key, base_url=self._base_url, max_retries=0, http_client=http) as client:

            async def request() -> _Answer:
                raw = await client.embeddings.with_raw_response.create(
                    model=self.model_id, input=list(texts), encoding_format="float", timeout=timeouts(TIMEOUT_S)
                )
                return _Answer.model_validate_json(raw.content)

            return await caller.send(request, meter, timeout_s=TIMEOUT_S)


class _Batch:
    """Texts that go in one request, and their tokens."""

    def __init__(self, texts: list[str], tokens: int) -> None:
        self.texts = texts
        self.tokens = tokens


class _Item(BaseModel):
    index: int
    embedding: list[float]


class _Used(BaseModel):
    prompt_tokens: int | None = None


class _Answer(BaseModel):
    data: list[_Item]
    usage: _Used | None = None

    @property
    def tokens(self) -> int | None:
        """What it says that the texts had; None where it does not: servers that do not count say 0."""
        said = None if self.usage is None else self.usage.prompt_tokens
        return said if said is not None and said > 0 else None


def _sdk():
    try:
        import openai
    except ImportError as error:
        raise MissingDependency(
            "embedding by OpenAI needs its SDK: pip install 'agentbudget-runtime[openai]'"
        ) from error
    return openai
