"""A summary pays when what it saves over the turns to come is more than it costs."""

from __future__ import annotations

from decimal import Decimal

from agentbudget.history import worth_of_summary
from agentbudget.prices import ComputePrice
from agentbudget.prices.tokens import TokenPrice

API = TokenPrice.custom(input_usd_per_mtok="2.50", output_usd_per_mtok="10", cached_usd_per_mtok="1.25")
FREE = TokenPrice.custom(input_usd_per_mtok="0", output_usd_per_mtok="0")


def test_without_a_cache_every_token_saved_saves_its_whole_price() -> None:
    worth = worth_of_summary(
        reader=API, writer=FREE, old_tokens=1000, summary_tokens=200, behind_tokens=500, turns=3, cached=False
    )
    assert worth.cost_usd_nano == 0
    assert worth.saved_usd_nano == 3 * 800 * 2500
    assert worth.pays


def test_with_a_cache_a_token_saves_less_and_what_follows_is_read_anew_once() -> None:
    worth = worth_of_summary(
        reader=API, writer=FREE, old_tokens=1000, summary_tokens=200, behind_tokens=500, turns=3, cached=True
    )
    assert worth.cost_usd_nano == (200 + 500) * (2500 - 1250)
    assert worth.saved_usd_nano == 3 * 800 * 1250


def test_a_summary_by_a_dear_model_needs_more_turns_to_pay() -> None:
    def worth(turns: int) -> bool:
        return worth_of_summary(
            reader=API, writer=API, old_tokens=1000, summary_tokens=200, behind_tokens=0, turns=turns, cached=False
        ).pays

    assert [turns for turns in range(1, 5) if worth(turns)] == [3, 4]  # 4.5 m$ once, 2 m$ each


def test_a_local_reader_that_has_the_prompt_in_its_cache_saves_nothing() -> None:
    local = ComputePrice(Decimal("0.10"), prefill_tokens_per_s=100, decode_tokens_per_s=10)
    worth = worth_of_summary(
        reader=local, writer=local, old_tokens=1000, summary_tokens=200, behind_tokens=100, turns=50, cached=True
    )
    assert worth.saved_usd_nano == 0
    assert not worth.pays
