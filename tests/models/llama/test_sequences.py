"""Where prompts are cut, and what a slot's content is good for."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from agentbudget.models.llama.library import library, open_model
from agentbudget.models.llama.sequences import Sequences, Slot, cuts, side_by_side


@pytest.mark.parametrize(
    ("tokens", "fixed", "ends"),
    [
        (10, 0, [10]),
        (64, 0, [64]),
        (130, 0, [64, 128, 130]),
        (130, 100, [64, 100, 130]),
        (200, 100, [64, 100, 164, 200]),
        (200, 128, [64, 128, 192, 200]),
        (100, 100, [64, 100]),
    ],
)
def test_a_prompt_is_cut_in_chunks_and_at_the_end_of_its_fixed_part(tokens: int, fixed: int, ends: list[int]) -> None:
    assert cuts(tokens, fixed, 64) == ends


def held(tokens: list[int], ends: list[int]) -> Slot:
    return Slot(0, tokens=tokens, cuts=ends)


def test_a_slot_is_good_for_as_much_as_was_cut_alike() -> None:
    slot = held(list(range(200)), [64, 128, 192, 200])
    assert slot.shares(list(range(300)), [64, 128, 192, 256, 300]) == 192
    assert slot.shares([*range(100), *[7] * 100], [64, 128, 192, 200]) == 64
    assert slot.shares(list(range(300)), [64, 100, 164, 228, 300]) == 64
    assert slot.shares([9] * 200, [64, 128, 192, 200]) == 0


def test_the_last_token_is_always_computed() -> None:
    slot = held(list(range(128)), [64, 128])
    assert slot.shares(list(range(128)), [64, 128]) == 64


def test_what_a_slot_forgets_is_no_cut_any_more() -> None:
    slot = held(list(range(200)), [64, 128, 192, 200])
    slot.keep(128)
    assert (len(slot.tokens), slot.cuts) == (128, [64, 128])


@pytest.fixture
def sequences(smollm2: Path) -> Iterator[Sequences]:
    pytest.importorskip("llama_cpp", reason="llama-cpp-python is not installed")
    model = open_model(smollm2)
    size = library().llama_vocab_n_tokens(library().llama_model_get_vocab(model))
    sequences = Sequences(model, n_ctx=256, slots=4, chunk=64, flash=False, vocabulary_size=size)
    yield sequences
    sequences.close()
    library().llama_model_free(model)


def test_a_slot_between_two_that_compute_stays_as_it_is(sequences: Sequences) -> None:
    prompts = [[first, 10, 11, 12] for first in (5, 6, 7)]
    slots = [sequences.take(prompt, [4]) for prompt in prompts]
    for slot, prompt in zip(slots, prompts, strict=True):
        sequences.evaluate(slot, prompt, cut=True)
    rows = sequences.evaluate_each([(slots[2], 20), (slots[0], 20)])  # in any order
    assert sequences.logits(rows[0]).argmax() >= 0
    assert [len(slot.tokens) for slot in slots] == [5, 4, 5]
    bridged = sequences.logits(sequences.evaluate(slots[1], [20], cut=False)).copy()
    sequences.give_back(slots[1])
    alone = sequences.take([*prompts[1], 20], [4, 5])
    row = sequences.evaluate(alone, [20], cut=False)
    assert (sequences.logits(row) == bridged).all()


def test_each_row_belongs_to_its_sequence_whatever_the_order(sequences: Sequences) -> None:
    slots = [sequences.take([first, 10], [2]) for first in (500, 600, 700)]
    for slot, first in zip(slots, (500, 600, 700), strict=True):
        sequences.evaluate(slot, [first, 10], cut=True)
    rows = sequences.evaluate_each([(slot, 30 + n) for n, slot in enumerate(reversed(slots))])
    together = [sequences.logits(row).copy() for row in rows]
    for n, slot in enumerate(reversed(slots)):
        sequences.give_back(slot)
        again = sequences.take([*slot.tokens[:2], 9], [2, 3])
        assert again is slot
        row = sequences.evaluate(again, [30 + n], cut=False)
        assert abs(sequences.logits(row) - together[n]).max() < 0.5


@pytest.mark.parametrize(
    ("numbers", "number", "most", "group"),
    [
        ({0, 1, 2, 3, 4}, 0, 3, [0, 1, 2]),
        ({0, 1, 2, 3, 4}, 4, 3, [3, 4]),
        ({0, 2, 3, 5}, 3, 3, [2, 3]),
        ({0, 2, 4}, 2, 8, [2]),
        ({6, 7}, 7, 1, [7]),
    ],
)
def test_neighbours_are_taken_in_groups(numbers: set[int], number: int, most: int, group: list[int]) -> None:
    assert side_by_side(numbers, number, most) == group


def test_ends_of_several_lengths_are_evaluated_as_each_would_be_alone(sequences: Sequences) -> None:
    prompts = [[first, *range(10, 10 + length)] for first, length in ((500, 9), (600, 4), (700, 12))]
    slots = [sequences.take(prompt, [2, len(prompt)]) for prompt in prompts]
    for slot, prompt in zip(slots, prompts, strict=True):
        sequences.evaluate(slot, prompt[:2], cut=True)
    order = [2, 0, 1]
    rows = sequences.evaluate_ends([(slots[n], prompts[n][2:]) for n in order])
    together = {n: sequences.logits(row).copy() for n, row in zip(order, rows, strict=True)}
    assert [slot.tokens for slot in slots] == prompts
    assert [slot.cuts for slot in slots] == [[2]] * 3, "what was evaluated beside others is no beginning for later ones"
    after = [sequences.logits(sequences.evaluate(slot, [20], cut=False)).copy() for slot in slots]
    for n, slot in enumerate(slots):
        sequences.give_back(slot)
        again = sequences.take([*prompts[n], 20], [2, len(prompts[n]), len(prompts[n]) + 1])
        assert again is slot
        alone = sequences.logits(sequences.evaluate(again, prompts[n][2:], cut=True)).copy()
        assert abs(alone - together[n]).max() < 0.5
        assert abs(sequences.logits(sequences.evaluate(again, [20], cut=False)) - after[n]).max() < 0.5


def test_a_fourth_prompt_gets_the_slot_that_was_longest_unused(sequences: Sequences) -> None:
    prompts = [[first, *range(10, 100)] for first in (5, 6, 7, 8)]
    for prompt in prompts:
        slot = sequences.take(prompt, [64, 91])
        sequences.evaluate(slot, prompt[:64], cut=True)
        sequences.give_back(slot)
    assert sequences.take([9, 9], [2]).tokens == []
    assert sequences.take(prompts[1], [64, 91]).tokens == prompts[1][:64]
    assert all(slot.tokens[:1] != [5] for slot in sequences.slots)
