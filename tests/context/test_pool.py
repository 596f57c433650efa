"""Embedding in several processes: the same vectors in the same order, or a reason why not."""

from __future__ import annotations

import multiprocessing
import os
from collections.abc import Sequence

import pytest

from agentbudget.context import FastEmbedder, OpenAIEmbedder, pool
from agentbudget.context.embed import Vector
from agentbudget.context.pool import embed_in_order
from agentbudget.errors import IndexFault, Mistake
from agentbudget.prices import TokenPrice
from tests.context.words import WordEmbedder

BATCHES = [[f"text {number} of batch {batch}" for number in range(3)] for batch in range(7)]


@pytest.fixture(autouse=True)
def two_cores(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pool, "processors", lambda: 2)


class Dying(WordEmbedder):
    """An embedding model whose process does not survive it."""

    def embed(self, texts: Sequence[str]) -> list[Vector]:
        if texts != ["ready"]:
            os._exit(9)
        return super().embed(texts)


class Local(WordEmbedder):
    """One that cannot be sent to another process."""

    def __init__(self) -> None:
        super().__init__()
        self.name = lambda: "local"


def test_the_real_model_gives_the_same_bits_in_another_process(minilm: FastEmbedder) -> None:
    batches = [["a kettle"], ["who pays the postage?"], ["thirty days"]]
    assert list(embed_in_order(minilm, batches, processes=2)) == [minilm.embed(batch) for batch in batches]


def test_no_more_workers_than_batches(words: WordEmbedder) -> None:
    assert len(list(embed_in_order(words, BATCHES[:1], processes=8))) == 1
    assert words.embedded == BATCHES[0]


def test_no_more_workers_than_cores(words: WordEmbedder, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pool, "processors", lambda: 1)
    assert len(list(embed_in_order(words, BATCHES, processes=8))) == len(BATCHES)
    assert len(words.embedded) == 21


def test_whoever_stops_asking_leaves_no_worker_behind(words: WordEmbedder) -> None:
    coming = embed_in_order(words, BATCHES, processes=2)
    assert len(next(coming)) == 3
    assert multiprocessing.active_children() != []
    coming.close()
    assert multiprocessing.active_children() == []


def test_a_worker_that_dies_says_that_what_is_done_is_kept() -> None:
    with pytest.raises(IndexFault, match="what was embedded is kept"):
        list(embed_in_order(Dying(), BATCHES, processes=2))


def test_a_model_that_cannot_travel_is_a_mistake() -> None:
    with pytest.raises(Mistake, match=r"cannot be sent to another process \(.*\): leave `processes` out"):
        list(embed_in_order(Local(), BATCHES, processes=2))


def test_a_hosted_model_needs_no_processes() -> None:
    price = TokenPrice.custom(input_usd_per_mtok="1", output_usd_per_mtok="0")
    with pytest.raises(Mistake, match="computes elsewhere"):
        list(embed_in_order(OpenAIEmbedder(price=price, dim=4), BATCHES, processes=2))
