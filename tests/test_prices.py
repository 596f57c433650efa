"""Prices: exact, at least what the provider charges, and never above the bound that was reserved."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from decimal import Decimal
from fractions import Fraction
from math import ceil
from pathlib import Path
from typing import Final

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from agentbudget.errors import InvalidAmount, UnknownPrice
from agentbudget.models.base import Price
from agentbudget.prices import (
    PRICES_VARIABLE,
    ComputePrice,
    InForce,
    PriceSheet,
    Rates,
    ServiceTier,
    TokenPrice,
    context_window_of,
    cost_on,
    price_of,
    service_of,
)
from agentbudget.usage import Usage

CONTEXTS: Final[dict[ServiceTier, dict[str, str]]] = {
    "standard": {},
    "batch": {"processing": "batch"},
    "flex": {"service_tier": "flex"},
    "priority": {"service_tier": "priority"},
    "fast": {"speed": "fast", "service_tier": "fast"},
}
MODELS: Final = (
    ("anthropic", "claude-haiku-4-5"),
    ("anthropic", "claude-sonnet-4-5"),  # dearer above 200k
    ("anthropic", "claude-opus-5-5"),
    ("openai", "gpt-4o-mini"),
    ("openai", "gpt-5.6-sol"),  # cache writes, dearer above 272k
    ("openai", "gpt-4"),  # no cache prices
    ("google", "gemini-2.5-pro"),  # batch leaves the cache at the standard rate
    ("deepseek", "deepseek-chat"),  # another price by night
)
PRICES: Final = {model: TokenPrice.known(provider, model) for provider, model in MODELS}
SURCHARGED_BELOW: Final = TokenPrice(
    (Rates.of(input=3, output=9), Rates.of(input=1, output="0.5", above=1000)), "cheaper when long"
)
MACHINE: Final = ComputePrice(Decimal("0.10"), prefill_tokens_per_s=250.5, decode_tokens_per_s=55.2)

priced = st.sampled_from((*PRICES.values(), SURCHARGED_BELOW))
machines = st.builds(
    ComputePrice,
    st.decimals(min_value="0.0001", max_value="1000", places=4),
    st.floats(min_value=0.5, max_value=1e6),
    st.floats(min_value=0.5, max_value=1e6),
)


@st.composite
def usages(draw: st.DrawFn, most_input: int = 1_000_000, most_output: int = 200_000) -> Usage:
    total = draw(st.integers(0, most_input))
    cached = draw(st.integers(0, total))
    written = draw(st.integers(0, total - cached))
    output = draw(st.integers(0, most_output))
    return Usage(
        total,
        output,
        cached,
        written,
        reasoning_tokens=draw(st.integers(0, output)),
        cache_write_1h_tokens=draw(st.integers(0, written)),
        image_tokens=draw(st.integers(0, total - cached - written)),
    )


@pytest.mark.parametrize("price", [*PRICES.values(), MACHINE], ids=lambda price: str(price.source))
def test_every_price_fits_the_protocol(price: Price) -> None:
    assert price.source
    assert price.cost(Usage()) == 0
    assert price.bound(input_tokens=0, output_tokens=0) == 0
    assert 0 < price.expected(input_tokens=900, output_tokens=9) <= price.bound(input_tokens=900, output_tokens=9)


@given(price=priced, usage=usages())
def test_what_a_settlement_keeps_of_a_price_is_enough_to_compute_it_again(price: TokenPrice, usage: Usage) -> None:
    assert cost_on(json.loads(json.dumps(price.terms)), usage) == price.cost(usage)


@given(price=machines, compute_ns=st.integers(0, 10**13))
def test_the_same_holds_of_a_machine(price: ComputePrice, compute_ns: int) -> None:
    usage = Usage(10, 10, compute_ns=compute_ns)
    assert cost_on(json.loads(json.dumps(price.terms)), usage) == price.cost(usage)


def test_a_rate_that_no_decimal_says_is_kept_exactly() -> None:
    third = Fraction(1, 3)
    price = TokenPrice((Rates(third, third, third, third, third, third, third),), "thirds")
    assert cost_on(price.terms, Usage(1000, 0)) == price.cost(Usage(1000, 0))


@pytest.mark.parametrize(
    "terms",
    [
        {},
        {"source": "x"},
        {"source": "x", "usd_per_mtok": []},
        {"source": "x", "usd_per_mtok": [{"above": 0, "input": "1"}]},
        {
            "source": "x",
            "usd_per_mtok": [{"above": 0, "input": "-1", "output": "1", "cached": "1", "cache_write": "1"}],
        },
        {"source": "x", "usd_per_hour": "0"},
        {"source": "x", "usd_per_hour": "dear"},
    ],
)
def test_terms_that_are_none_are_never_free(terms: dict[str, object]) -> None:
    with pytest.raises(UnknownPrice, match="not the terms of a price"):
        cost_on(terms, Usage(1, 1))


@given(
    model=st.sampled_from(MODELS),
    tier=st.sampled_from([*CONTEXTS.items()]),
    usage=usages(),
    at=st.datetimes(datetime(2024, 1, 1), datetime(2027, 1, 1), timezones=st.just(UTC)),
)
@settings(max_examples=200, deadline=None)
def test_a_known_model_costs_what_genai_prices_says_rounded_up(
    model: tuple[str, str], tier: tuple[ServiceTier, dict[str, str]], usage: Usage, at: datetime
) -> None:
    from genai_prices import Usage as Reported
    from genai_prices import calc_price

    reported = Reported(
        input_tokens=usage.input_tokens,
        output_tokens=usage.output_tokens,
        cache_read_tokens=usage.cached_tokens,
        cache_write_tokens=usage.cache_write_tokens,
        cache_write_1h_tokens=usage.cache_write_1h_tokens,
        output_reasoning_tokens=usage.reasoning_tokens,
        input_image_tokens=usage.image_tokens,
    )
    try:
        price = TokenPrice.known(*model, tier=tier[0], at=at)
    except UnknownPrice:
        assert tier[0] != "standard"
        return
    expected = calc_price(
        reported, model[1], provider_id=model[0], genai_request_timestamp=at, price_context=tier[1]
    ).total_price
    assert price.cost(usage) == ceil(Fraction(expected) * 10**9)


@given(price=priced, usage=usages(), more_input=st.integers(0, 300_000), more_output=st.integers(0, 1000))
@settings(max_examples=300)
def test_no_usage_costs_more_than_the_bound_of_its_size(
    price: TokenPrice, usage: Usage, more_input: int, more_output: int
) -> None:
    bound = price.bound(input_tokens=usage.input_tokens + more_input, output_tokens=usage.output_tokens + more_output)
    assert 0 <= price.cost(usage) <= bound


@given(price=priced, usage=usages(), extra=st.integers(0, 300_000))
def test_a_bound_never_falls_as_the_request_grows(price: TokenPrice, usage: Usage, extra: int) -> None:
    small = price.bound(input_tokens=usage.input_tokens, output_tokens=usage.output_tokens)
    assert small <= price.bound(input_tokens=usage.input_tokens + extra, output_tokens=usage.output_tokens)
    assert small <= price.bound(input_tokens=usage.input_tokens, output_tokens=usage.output_tokens + extra)


@given(price=st.sampled_from(tuple(PRICES.values())), usage=usages(), extra=st.integers(0, 300_000))
def test_a_real_price_never_falls_as_more_is_used(price: TokenPrice, usage: Usage, extra: int) -> None:
    assert price.cost(usage) <= price.cost(usage + Usage(input_tokens=extra))
    assert price.cost(usage) <= price.cost(usage + Usage(output_tokens=extra))


def test_a_long_context_is_charged_at_the_dearer_rate_as_a_whole() -> None:
    price = PRICES["claude-sonnet-4-5"]
    assert price.cost(Usage(input_tokens=200_000)) == 600_000_000
    assert price.cost(Usage(input_tokens=200_001)) == 200_001 * 6000


def test_the_bound_prices_all_input_as_cache_writes_where_these_are_dearer() -> None:
    price = PRICES["claude-haiku-4-5"]
    written = price.cost(Usage(input_tokens=1000, cache_write_tokens=1000, output_tokens=10))
    kept = price.cost(Usage(input_tokens=1000, cache_write_tokens=1000, cache_write_1h_tokens=1000, output_tokens=10))
    assert price.bound(input_tokens=1000, output_tokens=10, cache_1h=False) == written == 1_300_000
    assert price.bound(input_tokens=1000, output_tokens=10) == kept == 2_050_000


def test_cache_tokens_cost_what_input_costs_where_the_list_has_no_price_for_them() -> None:
    price = PRICES["gpt-4"]
    assert price.cost(Usage(100, 0, cached_tokens=60, cache_write_tokens=40)) == price.cost(Usage(100)) == 3_000_000


def test_fractions_of_a_nano_dollar_are_rounded_up_once() -> None:
    price = TokenPrice.custom(input_usd_per_mtok="0.0001", output_usd_per_mtok="0.0001")
    assert price.cost(Usage(1, 1)) == 1
    assert price.cost(Usage(6, 5)) == 2


def test_an_unknown_model_is_refused_and_told_how_to_get_a_price() -> None:
    with pytest.raises(UnknownPrice, match=r"openai:no-such-model.*TokenPrice\.custom.*AGENTBUDGET_PRICES"):
        TokenPrice.known("openai", "no-such-model")


def test_a_model_that_also_charges_by_the_request_is_refused_rather_than_underpriced() -> None:
    with pytest.raises(UnknownPrice, match="requests_kcount"):
        TokenPrice.known("perplexity", "sonar")


def test_a_model_without_a_price_for_its_output_is_refused_unless_it_embeds() -> None:
    with pytest.raises(UnknownPrice, match="no price per token in and out"):
        TokenPrice.known("openai", "text-embedding-3-small")
    assert TokenPrice.known("openai", "text-embedding-3-small", embeds=True).cost(Usage(1000)) == 20_000


# service tiers


@pytest.mark.parametrize(
    ("provider", "model", "tier"),
    [
        ("openai", "gpt-4", "flex"),
        ("anthropic", "claude-haiku-4-5", "priority"),
        ("anthropic", "claude-sonnet-4-5", "fast"),
        ("mistral", "mistral-large-latest", "batch"),
        ("deepseek", "deepseek-chat", "batch"),
    ],
)
def test_a_service_tier_that_nobody_prices_is_refused_and_never_charged_as_standard(
    provider: str, model: str, tier: ServiceTier
) -> None:
    with pytest.raises(UnknownPrice, match=rf"{model} has no price for the service tier '{tier}'.*tier = \"{tier}\""):
        TokenPrice.known(provider, model, tier=tier)


def test_a_word_that_is_no_service_tier_is_refused_with_those_there_are() -> None:
    with pytest.raises(UnknownPrice, match=r"'cheap' is no service tier of openai:gpt-5: name one of standard, batch"):
        TokenPrice.known("openai", "gpt-5", tier="cheap")  # pyright: ignore[reportArgumentType] # that is the test


def test_a_service_tier_is_refused_before_its_price_was_in_force() -> None:
    assert TokenPrice.known("openai", "gpt-5.5", tier="batch", at=datetime(2026, 10, 14, tzinfo=UTC)).tiers
    with pytest.raises(UnknownPrice, match="service tier 'batch'"):
        TokenPrice.known("openai", "gpt-5.5", tier="batch", at=datetime(2026, 10, 13, tzinfo=UTC))


def test_a_model_whose_price_is_known_elsewhere_is_refused_with_the_address_that_has_none() -> None:
    with pytest.raises(UnknownPrice, match=r"openai:gpt-5\.5 has no price at llm\.internal in genai-prices"):
        TokenPrice.known("openai", "gpt-5.5", api_url="http://user:secret@llm.internal:8080/v1")
    with pytest.raises(UnknownPrice, match="openai:nobody has no price in genai-prices"):
        TokenPrice.known("openai", "nobody", api_url="http://llm.internal:8080/v1")


def test_a_model_that_is_only_found_at_another_provider_has_none_of_its_service_tiers() -> None:
    assert TokenPrice.known("azure", "gpt-5.5").tiers == TokenPrice.known("openai", "gpt-5.5").tiers
    with pytest.raises(UnknownPrice, match=r"azure:gpt-5\.5 has no price for the service tier 'flex'"):
        TokenPrice.known("azure", "gpt-5.5", tier="flex")


def test_the_service_tier_stands_in_what_a_settlement_keeps() -> None:
    flex = TokenPrice.known("openai", "gpt-5.5", tier="flex")
    assert service_of(flex.terms) == flex.terms["service"] == "flex"
    assert service_of(TokenPrice.known("openai", "gpt-5.5").terms) == "standard"
    assert service_of(None) == "standard"


# parts of input and output that have a price of their own


def test_a_write_for_an_hour_costs_twice_the_input_where_a_claude_has_only_the_short_write_listed() -> None:
    price = TokenPrice.known("openrouter", "anthropic/claude-opus-4.5")
    assert price.cost(Usage(1000, cache_write_tokens=1000, cache_write_1h_tokens=600)) == 400 * 6250 + 600 * 10_000


def test_reasoning_and_pictures_cost_what_they_are_a_part_of_unless_they_are_priced_apart() -> None:
    usage = Usage(1000, 100, reasoning_tokens=40, image_tokens=300)
    assert TokenPrice.custom(input_usd_per_mtok=1, output_usd_per_mtok=2).cost(usage) == 1_000_000 + 200_000
    apart = TokenPrice.custom(
        input_usd_per_mtok=1, output_usd_per_mtok=2, reasoning_usd_per_mtok=3, image_usd_per_mtok=5
    )
    assert apart.cost(usage) == 700_000 + 300 * 5000 + 60 * 2000 + 40 * 3000
    assert apart.bound(input_tokens=1000, output_tokens=100) == 5_000_000 + 300_000


def test_terms_that_an_earlier_version_kept_are_still_understood() -> None:
    tier = {"above": 0, "input": "3", "output": "15", "cached": "0.3", "cache_write": "3.75"}
    terms = {"source": "genai-prices 0.2.3", "usd_per_mtok": [tier]}
    usage = Usage(1000, 100, cached_tokens=400, cache_write_tokens=100, reasoning_tokens=50)
    assert cost_on(terms, usage) == 500 * 3000 + 400 * 300 + 100 * 3750 + 100 * 15_000
    assert cost_on({"source": "0.1 USD/h", "usd_per_hour": "0.1"}, Usage(compute_ns=36 * 10**9)) == 1_000_000


def test_an_openai_like_server_is_found_by_its_address() -> None:
    assert TokenPrice.known("openai", "llama-3.3-70b-versatile", api_url="https://api.groq.com/openai/v1").cost(
        Usage(1000, 1000)
    )
    with pytest.raises(UnknownPrice, match="openai:gpt-4o "):
        TokenPrice.known("openai", "gpt-4o", api_url="http://127.0.0.1:8080/v1")


def test_the_source_names_the_price_list_and_the_entry_it_took() -> None:
    assert PRICES["gpt-4o-mini"].source.startswith("genai-prices ")
    assert TokenPrice.known("openai", "gpt-5-mini-2025-08-07").source.endswith(": gpt-5-mini")


@pytest.mark.parametrize("wrong", [0.15, -1, "much", "NaN", True])
def test_a_float_or_nonsense_is_not_a_price(wrong: object) -> None:
    with pytest.raises(InvalidAmount):
        TokenPrice.custom(input_usd_per_mtok=wrong, output_usd_per_mtok=1)  # pyright: ignore[reportArgumentType] - on purpose


def test_tiers_that_do_not_start_at_zero_are_refused() -> None:
    with pytest.raises(InvalidAmount, match="ascend"):
        TokenPrice((Rates.of(input=1, output=1, above=5),), "wrong")


# compute


def test_an_hour_of_compute_costs_what_an_hour_costs() -> None:
    assert MACHINE.cost(Usage(compute_ns=3600 * 10**9)) == 100_000_000
    assert MACHINE.cost(Usage(compute_ns=1)) == 1
    assert MACHINE.source == "0.10 USD/h"


@given(price=machines, usd_nano=st.integers(0, 10**12))
@example(price=ComputePrice(Decimal("0.0001"), 1.0, 1.0), usd_nano=235_968_103_935)  # 269 years, in floating point
def test_the_compute_cap_never_costs_more_than_was_paid(price: ComputePrice, usd_nano: int) -> None:
    seconds = price.compute_cap_s(usd_nano)
    assert seconds is not None
    assert seconds >= 0
    assert price.cost(Usage(compute_ns=int(seconds * 10**9))) <= usd_nano


@given(price=machines, tokens_in=st.integers(0, 10**6), tokens_out=st.integers(0, 10**5))
def test_a_bound_buys_the_seconds_that_the_tokens_take_with_room_to_spare(
    price: ComputePrice, tokens_in: int, tokens_out: int
) -> None:
    bound = price.bound(input_tokens=tokens_in, output_tokens=tokens_out)
    seconds = price.compute_cap_s(bound)
    assert seconds is not None
    expected_s = tokens_in / price.prefill_tokens_per_s + tokens_out / price.decode_tokens_per_s
    assert seconds >= expected_s * price.safety * 0.999_999 - 1e-9
    assert price.cost(Usage(compute_ns=int(expected_s * 10**9))) <= bound


@given(price=machines, spent=st.integers(0, 10**15), extra=st.integers(0, 10**12))
def test_compute_never_gets_cheaper_as_it_goes_on(price: ComputePrice, spent: int, extra: int) -> None:
    assert 0 <= price.cost(Usage(compute_ns=spent)) <= price.cost(Usage(compute_ns=spent + extra))


@pytest.mark.parametrize(("rate", "speed"), [("0", 10.0), ("0.1", 0.0)])
def test_a_machine_that_costs_nothing_or_does_nothing_is_refused(rate: str, speed: float) -> None:
    with pytest.raises(InvalidAmount, match="must be more than 0"):
        ComputePrice(Decimal(rate), prefill_tokens_per_s=speed, decode_tokens_per_s=10.0)


def test_energy_is_paid_beside_the_hour() -> None:
    price = ComputePrice(Decimal("0.10"), 100, 10, watts=Decimal(500), usd_per_kwh=Decimal("0.30"))
    hour = Usage(compute_ns=3600 * 10**9)
    assert price.cost(hour) == 100_000_000 + 150_000_000  # 0.5 kW × 1 h × 0.30
    assert price.source == "0.10 USD/h + 500 W × 0.30 USD/kWh"
    assert cost_on(json.loads(json.dumps(price.terms)), hour) == price.cost(hour)
    assert price.expected(input_tokens=100, output_tokens=0) == -(-250_000_000 // 3600)


def test_a_machine_that_is_paid_for_may_cost_its_energy_alone() -> None:
    price = ComputePrice(Decimal(0), 100, 10, watts=Decimal(1000), usd_per_kwh=Decimal("0.36"))
    assert price.cost(Usage(compute_ns=10**9)) == 100_000


def test_energy_without_a_tariff_is_refused() -> None:
    with pytest.raises(InvalidAmount, match="both watts and usd_per_kwh"):
        ComputePrice(Decimal("0.10"), 100, 10, watts=Decimal(500))


# sheets


def _sheet(folder: Path, text: str, name: str = "prices.toml") -> Path:
    path = folder / name
    path.write_text(text, encoding="utf-8")
    return path


def test_a_sheet_prices_a_model_that_nobody_lists(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = _sheet(tmp_path, '["openai:mine"]\ninput = 0.1\noutput = "0.3"\ncached = 0.01\ncontext_window = 4096\n')
    monkeypatch.setenv(PRICES_VARIABLE, str(path))
    price = price_of("openai", "mine")
    assert price.cost(Usage(1000, 1000, cached_tokens=1000)) == 10_000 + 300_000
    assert price.source == "price sheet prices.toml"
    assert context_window_of("openai", "mine") == 4096


def test_a_sheet_goes_before_the_public_list(tmp_path: Path) -> None:
    path = _sheet(tmp_path, '{"openai:gpt-4o": {"input": 1.1, "output": 2}}', "prices.json")
    sheet = PriceSheet.load(path)
    assert price_of("openai", "gpt-4o", sheet=sheet).cost(Usage(10, 10)) == 11_000 + 20_000
    assert price_of("openai", "gpt-4o-mini", sheet=sheet) == PRICES["gpt-4o-mini"]
    assert context_window_of("openai", "gpt-4o", sheet=sheet) == 128_000


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("not toml", "not valid toml"),
        ('["a:b"]\ninput = 1', "output missing"),
        ('["a:b"]\ninput = 1\noutput = "dear"', "not a price"),
        ('["a:b"]\ninput = 1\noutput = 1\nuotput = 2', "unknown uotput"),
        ('["a:b"]\ninput = 1\noutput = 1\ncontext_window = 0', "context_window"),
        ('"a:b" = 3', "must be a table"),
        ('["a:b"]\ninput = 1\noutput = 1\ntier = "cheap"', "tier must be one of standard, batch"),
        ('["a:b"]\ninput = 1\noutput = 1\nfrom = "soon"', "from must be a date such as"),
        ('["a:b"]\ninput = 1\noutput = 1\nfrom = 3', "from must be a date such as"),
        ('["a:b"]\ninput = 1\noutput = 1\nfrom = 2026-05-01\nuntil = 2026-05-01', "until must be later"),
        ('["a:b"]\ninput = 1\noutput = 1\nabove = 100', "must start at 0"),
        ('["a:b"]\ninput = 1\noutput = 1\nfrom = 0001-01-01T00:00:00+14:00', "from is beyond all calendars"),
        ('["b"]\ninput = 1\noutput = 1', "write provider:model"),
        ('[" a:b"]\ninput = 1\noutput = 1', "write provider:model"),
        ('["a:b"]\ninput = 1\noutput = 1\nabove = -1', "above must be a positive integer"),
        ('[["a:b"]]\ninput = 1\noutput = 1\n[["a:b"]]\ninput = 2\noutput = 1', "must start at 0 and ascend"),
        (
            '[["a:b"]]\ninput = 1\noutput = 1\n[["a:b"]]\ninput = 2\noutput = 1\nabove = 9\nuntil = 2026-01-01',
            "must end together",
        ),
    ],
)
def test_a_sheet_with_a_mistake_says_where(tmp_path: Path, text: str, complaint: str) -> None:
    with pytest.raises(UnknownPrice, match=complaint):
        PriceSheet.load(_sheet(tmp_path, text))


def test_json_that_names_a_model_twice_is_refused(tmp_path: Path) -> None:
    text = '{"a:b": {"input": 1, "output": 1}, "a:b": {"input": 9, "output": 9}}'
    with pytest.raises(UnknownPrice, match="'a:b' stands there twice"):
        PriceSheet.load(_sheet(tmp_path, text, "prices.json"))


def test_a_sheet_may_begin_with_a_byte_order_mark(tmp_path: Path) -> None:
    sheet = PriceSheet.load(_sheet(tmp_path, '\ufeff["a:b"]\ninput = 1\noutput = 1'))
    assert price_of("a", "b", sheet=sheet).cost(Usage(1)) == 1000


def test_a_missing_sheet_is_named(tmp_path: Path) -> None:
    with pytest.raises(UnknownPrice, match=r"gone\.toml cannot be read"):
        PriceSheet.load(tmp_path / "gone.toml")


DATED = """
[["openai:mine"]]
input = 1
output = 2
context_window = 4096
[["openai:mine"]]
from = 2026-06-01
until = 2026-07-01
input = 0.5
output = 1
[["openai:mine"]]
from = 2026-06-01
until = 2026-07-01
above = 1000
input = 5
output = 10
[["openai:mine"]]
tier = "batch"
input = 0.25
output = 0.5
"""


@pytest.mark.parametrize(
    ("day", "nano_per_token"),
    [
        (datetime(2026, 5, 31, 23, 59, 59, tzinfo=UTC), 1000),
        (datetime(2026, 6, 1, tzinfo=UTC), 500),
        (datetime(2026, 6, 30, 23, 59, 59, tzinfo=UTC), 500),
        (datetime(2026, 7, 1, tzinfo=UTC), 1000),
    ],
)
def test_a_dated_price_holds_from_its_first_day_until_its_last(
    tmp_path: Path, day: datetime, nano_per_token: int
) -> None:
    sheet = PriceSheet.load(_sheet(tmp_path, DATED))
    assert price_of("openai", "mine", sheet=sheet, at=day).cost(Usage(1)) == nano_per_token
    assert context_window_of("openai", "mine", sheet=sheet) == 4096


def test_a_sheet_may_price_long_inputs_and_service_tiers(tmp_path: Path) -> None:
    sheet = PriceSheet.load(_sheet(tmp_path, DATED))
    june = datetime(2026, 6, 10, tzinfo=UTC)
    assert price_of("openai", "mine", sheet=sheet, at=june).cost(Usage(1001)) == 1001 * 5000
    batch = price_of("openai", "mine", sheet=sheet, at=june, tier="batch")
    assert (batch.cost(Usage(1001)), batch.service) == (1001 * 250, "batch")
    with pytest.raises(UnknownPrice, match=r'no price .* \[\["openai:mine"\]\] with tier = "flex", input and output'):
        price_of("openai", "mine", sheet=sheet, tier="flex")


def test_the_public_list_holds_again_when_a_sheet_no_longer_does(tmp_path: Path) -> None:
    text = '["openai:gpt-4o-mini"]\nuntil = "2026-07-01T12:00:00+02:00"\ninput = 9\noutput = 9\n'
    sheet = PriceSheet.load(_sheet(tmp_path, text))
    before, after = datetime(2026, 7, 1, 9, 59, tzinfo=UTC), datetime(2026, 7, 1, 10, tzinfo=UTC)
    assert price_of("openai", "gpt-4o-mini", sheet=sheet, at=before).cost(Usage(1)) == 9000
    assert price_of("openai", "gpt-4o-mini", sheet=sheet, at=after) == PRICES["gpt-4o-mini"]


def test_every_part_may_be_priced_in_a_sheet(tmp_path: Path) -> None:
    text = (
        '["openai:all"]\ninput = 1\noutput = 10\ncached = 0.1\ncache_write = 1.25\ncache_write_1h = 2\n'
        "reasoning = 20\nimage = 4\n"
    )
    usage = Usage(1000, 100, 100, 200, 40, cache_write_1h_tokens=150, image_tokens=50)
    price = price_of("openai", "all", sheet=PriceSheet.load(_sheet(tmp_path, text)))
    parts = 650 * 1000 + 50 * 4000 + 100 * 100 + 50 * 1250 + 150 * 2000 + 60 * 10_000 + 40 * 20_000
    assert price.cost(usage) == parts


# --- the price in force, for a process that runs for long


@pytest.fixture
def listed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A price sheet that the environment names."""
    path = _sheet(tmp_path, '["openai:mine"]\ninput = 1\noutput = 1')
    monkeypatch.setenv("AGENTBUDGET_PRICES", str(path))
    return path


def test_a_price_in_force_follows_the_sheet_when_its_file_changes(listed: Path) -> None:
    price = InForce("openai", "mine")
    assert price().cost(Usage(10)) == 10_000
    listed.write_text('["openai:mine"]\ninput = 20\noutput = 1', encoding="utf-8")
    assert price().cost(Usage(10)) == 200_000


def test_a_price_in_force_turns_at_the_moment_that_the_sheet_states(listed: Path) -> None:
    later = '[["openai:mine"]]\ninput = 1\noutput = 1\n[["openai:mine"]]\ninput = 3\noutput = 1\nfrom = 2026-06-01'
    listed.write_text(later, encoding="utf-8")
    now = datetime(2026, 5, 31, 23, 59, 59, 900_000, tzinfo=UTC)
    price = InForce("openai", "mine", clock=lambda: now)
    assert price().cost(Usage(10)) == 10_000
    now = datetime(2026, 6, 1, tzinfo=UTC)
    assert price().cost(Usage(10)) == 30_000


def test_what_genai_prices_states_by_the_hour_is_asked_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("AGENTBUDGET_PRICES", raising=False)
    now = datetime(2025, 3, 1, 16, 29, tzinfo=UTC)
    price = InForce("deepseek", "deepseek-chat", clock=lambda: now)
    before = price()
    now = datetime(2025, 3, 1, 16, 31, tzinfo=UTC)
    assert price().cost(Usage(1_000_000)) < before.cost(Usage(1_000_000))


def test_a_sheet_that_cannot_be_read_any_more_leaves_the_last_price_and_says_so(
    listed: Path, caplog: pytest.LogCaptureFixture
) -> None:
    price = InForce("openai", "mine")
    listed.write_text('["openai:mine"]\ninput = ', encoding="utf-8")
    assert price().cost(Usage(10)) == 10_000
    assert "the last price of openai:mine stays" in caplog.text
    listed.write_text('["openai:mine"]\ninput = 7\noutput = 1', encoding="utf-8")
    assert price().cost(Usage(10)) == 70_000


def test_a_model_that_the_sheet_has_no_more_is_refused(listed: Path) -> None:
    price = InForce("openai", "mine")
    listed.write_text('["openai:another"]\ninput = 1\noutput = 1', encoding="utf-8")
    with pytest.raises(UnknownPrice):
        price()
