"""Embeddings that pay: counted, reserved in batches, and settled."""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable, Generator, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, cast

from langchain_core.embeddings import Embeddings
from langchain_core.runnables.config import ensure_config
from langchain_core.utils.uuid import uuid7
from pydantic import BaseModel

from agentbudget.context.hosted import DIMS
from agentbudget.errors import DataRefused, InvalidOutput, Mistake, ModelError
from agentbudget.langchain.accounts import Accounts, checked, opened, run_of
from agentbudget.langchain.books import Books
from agentbudget.langchain.guarding import book_refusal, guarded_texts, label_said
from agentbudget.langchain.retrying import aretrying, retrying
from agentbudget.ledger import Hold, Ledger
from agentbudget.models.base import Meter, Price
from agentbudget.models.langchain.failures import failure
from agentbudget.models.langchain.known import address_of, stays_here
from agentbudget.models.tokens import Encoding, text_tokens
from agentbudget.money import Amount
from agentbudget.paying import paid
from agentbudget.prices import InForce
from agentbudget.privacy import Destination, Privacy
from agentbudget.usage import Usage

BATCH_TEXTS: Final = 512
BATCH_TOKENS: Final = 100_000
"""What is embedded on one hold: less than every provider takes in a request, so that little is lost when one fails."""

Vector = list[float]


def budgeted_embeddings(
    embeddings: Embeddings,
    *,
    accounts: Accounts,
    ledger: Ledger | str | Path | None = None,
    price: Price | None = None,
    name: str | None = None,
    attempts: int | None = None,
    privacy: Privacy | None = None,
) -> BudgetedEmbeddings:
    """`embeddings`, which from now on reserve on `accounts` before each batch, and settle what it used after it.

    ``accounts`` and ``ledger`` are those of `budgeted`. ``name``, as in ``"openai:text-embedding-3-small"``, and
    ``price`` are found for OpenAI's and given for others: a token price, or a `ComputePrice` for a model on this
    machine, paid for by the seconds that it takes. ``privacy`` are the rules of what may go to the model: the class of
    texts is ``data_class`` in the config of the graph that embeds, else that of a task. Raises `UnknownPrice`,
    `Mistake` if retries cannot be switched off.
    """
    return BudgetedEmbeddings(
        _without_retries(embeddings),
        Books(ledger),
        accounts,
        price=price,
        name=name or _name_of(embeddings),
        attempts=_retries(embeddings) + 1 if attempts is None else attempts,
        privacy=privacy or Privacy(),
    )


class BudgetedEmbeddings(Embeddings):
    """What `budgeted_embeddings` makes.

    LangChain's embeddings do not say what they used. A model with a public vocabulary (OpenAI's, there or at Azure) is
    charged by exactly the tokens of its texts, which are counted here; any other is booked at a bound of them, marked
    as presumed.
    """

    def __init__(
        self,
        inner: Embeddings,
        books: Books,
        accounts: Accounts,
        *,
        price: Price | None,
        name: str,
        attempts: int,
        privacy: Privacy,
    ) -> None:
        self.inner = inner
        self.books = books
        self.name = name
        self._accounts = checked(accounts)
        self._attempts = attempts
        self._privacy = privacy
        provider, _, model = name.partition(":")
        address = address_of(inner, provider)
        self._price: Callable[[], Price] = (
            (lambda: price) if price is not None else InForce(provider, model, api_url=address, embeds=True)
        )
        # Behind another address the name says little: llama-server and others answer to any.
        is_openais = provider == "openai" and model in DIMS and (address is None or hasattr(inner, "azure_endpoint"))
        self._encoding: Encoding | None = "cl100k_base" if is_openais else None
        self._by_the_second = self.price.compute_cap_s(1) is not None
        here = self._by_the_second if address is None else stays_here(inner, address)
        self.destination = Destination(name, address, here)

    @property
    def price(self) -> Price:
        """The price that was given, else the one that the lists state now."""
        return self._price()

    def embed_documents(self, texts: list[str]) -> list[Vector]:
        """A vector for each text. Raises `BudgetExceeded` before the first batch that does not fit, `DataRefused`."""
        batches = self._batches(self._admitted(texts))
        return [vector for batch in batches for vector in self._tried(self.inner.embed_documents, batch)]

    def embed_query(self, text: str) -> Vector:
        """The vector of a question. Raises `BudgetExceeded`, with nothing sent, if it does not fit, `DataRefused`."""
        return self._tried(lambda batch: [self.inner.embed_query(batch[0])], self._admitted([text]))[0]

    async def aembed_documents(self, texts: list[str]) -> list[Vector]:
        """See `embed_documents`."""
        found: list[Vector] = []
        for batch in self._batches(self._admitted(texts)):
            found += await self._atried(self.inner.aembed_documents, batch)
        return found

    async def aembed_query(self, text: str) -> Vector:
        """See `embed_query`."""

        async def ask(batch: list[str]) -> list[Vector]:
            return [await self.inner.aembed_query(batch[0])]

        return (await self._atried(ask, self._admitted([text])))[0]

    def _admitted(self, texts: list[str]) -> list[str]:
        """The texts as they may be sent, before anything is counted or held. Raises `DataRefused`, and books that."""
        config = ensure_config()
        label = label_said(config, self._privacy)
        try:
            return guarded_texts(texts, label, self.destination, self._privacy, what="what is to be embedded")
        except DataRefused as refused:
            accounts = opened(self.books.ledger, self._accounts, config)
            hold_id = f"{run_of(accounts)}/embed.{uuid7()}/refusal"
            book_refusal(self.books.ledger, hold_id, accounts, label, self.destination, refused.found)
            raise

    def _tried(self, ask: Callable[[list[str]], list[Vector]], batch: list[str]) -> list[Vector]:
        """One batch by attempts, each with its own hold."""
        for attempt in retrying(self._attempts):
            with attempt, self._paid(batch) as meter:
                vectors = ask(batch)
                self._count(meter, batch)
                return self._whole(vectors, batch)
        raise AssertionError("unreachable: the loop above returns or raises")

    async def _atried(self, ask: Callable[[list[str]], Awaitable[list[Vector]]], batch: list[str]) -> list[Vector]:
        async for attempt in aretrying(self._attempts):
            with attempt, self._paid(batch) as meter:
                vectors = await ask(batch)
                self._count(meter, batch)
                return self._whole(vectors, batch)
        raise AssertionError("unreachable: the loop above returns or raises")

    def _batches(self, texts: Sequence[str]) -> Iterator[list[str]]:
        batch: list[str] = []
        tokens = 0
        for text in texts:
            more = text_tokens(self._encoding, text)
            if batch and (len(batch) == BATCH_TEXTS or tokens + more > BATCH_TOKENS):
                yield batch
                batch, tokens = [], 0
            batch.append(text)
            tokens += more
        if batch:
            yield batch

    @contextmanager
    def _paid(self, batch: Sequence[str]) -> Generator[_Metered]:
        """Hold what a batch costs at most, on the accounts of this call."""
        most, price = Usage(input_tokens=self._tokens(batch)), self.price
        if self._by_the_second:
            bound = price.bound(input_tokens=most.input_tokens, output_tokens=0)
            most = Usage(most.input_tokens, compute_ns=int((price.compute_cap_s(bound) or 0) * 1e9))
        with paid(self._reserve, name=self.name, price=price, most=most) as meter:
            meter.leaving()  # what embeds says nothing of when a request leaves
            try:
                yield _Metered(meter, time.perf_counter_ns())
            except Exception as error:
                told = failure(error, model=self.name)
                if isinstance(told, ModelError):
                    meter.sent = told.sent
                    if told.usage is not None:
                        meter.used(told.usage)
                raise

    def _count(self, metered: _Metered, batch: Sequence[str]) -> None:
        """What a batch used: its tokens where they can be told, the seconds where these are paid for."""
        usage = Usage(self._tokens(batch))
        if self._by_the_second:
            usage = Usage(usage.input_tokens, compute_ns=time.perf_counter_ns() - metered.started_ns)
        if self._by_the_second or self._encoding is not None:
            metered.meter.used(usage)
        else:
            metered.meter.presumed = usage

    def _whole(self, vectors: list[Vector], batch: Sequence[str]) -> list[Vector]:
        """The vectors, one for each text: those of the next batch would stand for the wrong ones."""
        if len(vectors) != len(batch):
            fact = f"{self.name} gave {len(vectors)} vectors for {len(batch)} texts"
            raise InvalidOutput(fact, model=self.name)
        return vectors

    def _tokens(self, batch: Sequence[str]) -> int:
        return sum(text_tokens(self._encoding, text) for text in batch)

    def _reserve(self, amount: Amount, meta: Mapping[str, Any]) -> Hold:
        config = ensure_config()  # embeddings take no config: a graph's own is that of the node which calls them
        accounts = opened(self.books.ledger, self._accounts, config)
        hold_id = f"{run_of(accounts)}/embed.{uuid7()}"
        return self.books.reserve(hold_id, amount, accounts=accounts, tag=f"{self.name}|embedding", meta=meta)


@dataclass(frozen=True, slots=True)
class _Metered:
    """A batch under way."""

    meter: Meter
    started_ns: int


def _name_of(embeddings: Embeddings) -> str:
    """OpenAI's provider and model; another integration's class and model, which have no price by themselves."""
    module = type(embeddings).__module__
    provider = "openai" if module.startswith("langchain_openai") else type(embeddings).__name__.lower()
    model: object = getattr(embeddings, "model", None) or getattr(embeddings, "model_name", None)
    return f"{provider}:{model or 'unknown'}"


def _retries(embeddings: Embeddings) -> int:
    said: object = getattr(embeddings, "max_retries", 0)
    return said if isinstance(said, int) and said > 0 else 0


def _without_retries(embeddings: Embeddings) -> Embeddings:
    """The same embeddings, which try once. Raises `Mistake` for an integration that cannot be told so."""
    retries = _retries(embeddings)
    if not retries:
        return embeddings
    clients = {name: getattr(getattr(embeddings, name, None), "_client", None) for name in ("client", "async_client")}
    if not all(hasattr(client, "with_options") for client in clients.values()) or not isinstance(embeddings, BaseModel):
        raise Mistake(
            f"{type(embeddings).__name__} tries again by itself (max_retries={retries}), and every try may be billed: "
            "make it with max_retries=0; attempts are made here, each with its own hold"
        )
    once = {name: cast("Any", client).with_options(max_retries=0).embeddings for name, client in clients.items()}
    return cast("Embeddings", embeddings.model_copy(update={"max_retries": 0, **once}))
