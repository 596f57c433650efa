"""Where prompts are cut, and what a slot's content is good for."""

from __future__ import annotations

import pytest

from agentbudget.models.llama.sequences import Slot, cuts


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
