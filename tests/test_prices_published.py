"""Prices as the providers publish them: what a call costs, computed by hand from the page that states the rates.

Each case has the arithmetic as one writes it on paper (tokens × dollars per million, summed), its result in dollars,
and the page with a day on which it stated these rates. A price that changes later does not matter: a case has its day.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import UTC, datetime
from fractions import Fraction
from typing import Final

import pytest

from agentbudget.errors import UnknownPrice
from agentbudget.prices import ServiceTier, TokenPrice
from agentbudget.usage import Usage

OPENAI: Final = "developers.openai.com/api/docs/pricing, as of 2026-11-05"
OPENAI_PRIORITY: Final = "openai.com/api-priority-processing, as of 2026-10-12"
OPENAI_FLEX: Final = "developers.openai.com/api/docs/pricing (flex), as of 2026-10-12"
OPENAI_BATCH: Final = "developers.openai.com/api/docs/pricing (batch), as of 2026-10-14"
OPENAI_O3_CUT: Final = "community.openai.com, announcement of 2025-06-10: o3 80 % cheaper, from 10/40 to 2/8"
ANTHROPIC: Final = "platform.claude.com/docs/en/about-claude/pricing (model pricing), as of 2026-10-14"
ANTHROPIC_BATCH: Final = "platform.claude.com/docs/en/about-claude/pricing (batch processing: half), as of 2026-10-14"
ANTHROPIC_LONG: Final = "platform.claude.com/docs/en/about-claude/pricing (long context, above 200k), as of 2025-10-01"
ANTHROPIC_FAST: Final = "platform.claude.com/docs/en/about-claude/pricing (fast mode), as of 2026-10-14"
GOOGLE: Final = "ai.google.dev/gemini-api/docs/pricing (standard), as of 2026-10-14"
GOOGLE_BATCH: Final = "ai.google.dev/gemini-api/docs/pricing (batch), as of 2026-10-14"
MISTRAL: Final = "mistral.ai/pricing (API), as of 2026-10-14"
DEEPSEEK: Final = "api-docs.deepseek.com/quick_start/pricing, as of 2026-10-27"
DEEPSEEK_2025: Final = "api-docs.deepseek.com/quick_start/pricing-details-usd (hours in UTC), as of 2025-03-01"
XAI: Final = "docs.x.ai/docs/models, as of 2026-10-14"
GROQ: Final = "groq.com/pricing, as of 2026-10-14"
COHERE: Final = "cohere.com/pricing, as of 2026-10-14"

AUTUMN: Final = datetime(2026, 11, 20, 12, 0, tzinfo=UTC)


@dataclass(frozen=True)
class Case:
    """A call of ``provider:model`` and what it costs in dollars, with the arithmetic that leads there."""

    model: str
    usage: Usage
    how: str
    usd: str
    page: str
    tier: ServiceTier = "standard"
    at: datetime = AUTUMN

    def __str__(self) -> str:
        return f"{self.model} {self.tier} {self.how}"


def used(
    input_tokens: int, output_tokens: int = 0, *, cached: int = 0, written: int = 0, hour: int = 0, thought: int = 0
) -> Usage:
    """Usage as the providers bill it; ``written`` is for five minutes, ``hour`` for an hour."""
    return Usage(
        input_tokens,
        output_tokens,
        cached,
        written + hour,
        reasoning_tokens=thought,
        cache_write_1h_tokens=hour,
    )


def on(year: int, month: int, day: int, hour: int = 12, minute: int = 0) -> datetime:
    return datetime(year, month, day, hour, minute, tzinfo=UTC)


CASES: Final = (
    # --- OpenAI: input, cached input, output; reasoning is output
    Case("openai:gpt-4o", used(10_000, 1_000), "10000 × 2.50 + 1000 × 10", "0.035", OPENAI),
    Case("openai:gpt-4o", used(10_000, 1_000, cached=8_000), "2000 × 2.50 + 8000 × 1.25 + 1000 × 10", "0.025", OPENAI),
    Case("openai:gpt-4o-mini", used(1_000, 100), "1000 × 0.15 + 100 × 0.60", "0.00021", OPENAI),
    Case("openai:gpt-4o-mini", used(1, 0, cached=1), "1 × 0.075", "0.000000075", OPENAI),
    Case("openai:gpt-4.1", used(50_000, 2_000, cached=40_000), "10000 × 2 + 40000 × 0.50 + 2000 × 8", "0.056", OPENAI),
    Case("openai:gpt-4.1-mini", used(1_000_000, 10_000), "1000000 × 0.40 + 10000 × 1.60", "0.416", OPENAI),
    Case(
        "openai:gpt-4.1-nano",
        used(3_000, 30, cached=1_024),
        "1976 × 0.10 + 1024 × 0.025 + 30 × 0.40",
        "0.0002352",
        OPENAI,
    ),
    Case("openai:gpt-4", used(1_000, 1_000), "1000 × 30 + 1000 × 60", "0.09", OPENAI),
    Case(
        "openai:o1",
        used(2_000, 5_000, cached=1_000, thought=4_500),
        "1000 × 15 + 1000 × 7.50 + 5000 × 60",
        "0.3225",
        OPENAI,
    ),
    Case("openai:o3-mini", used(1_000, 800, thought=600), "1000 × 1.10 + 800 × 4.40", "0.00462", OPENAI),
    Case(
        "openai:gpt-5",
        used(4_000, 1_000, cached=3_000, thought=900),
        "1000 × 1.25 + 3000 × 0.125 + 1000 × 10",
        "0.011625",
        OPENAI,
    ),
    Case("openai:gpt-5-mini", used(100_000, 5_000), "100000 × 0.25 + 5000 × 2", "0.035", OPENAI),
    Case("openai:gpt-5-nano", used(7, 3), "7 × 0.05 + 3 × 0.40", "0.00000155", OPENAI),
    # --- OpenAI: o3 before and after it became cheaper
    Case("openai:o3", used(1_000, 1_000), "1000 × 10 + 1000 × 40", "0.05", OPENAI_O3_CUT, at=on(2025, 6, 9)),
    Case("openai:o3", used(1_000, 1_000), "1000 × 2 + 1000 × 8", "0.01", OPENAI_O3_CUT, at=on(2025, 6, 10)),
    # --- OpenAI: cliffs of long inputs, on the whole request
    Case("openai:gpt-5.5", used(272_000, 1_000), "272000 × 5 + 1000 × 30", "1.39", OPENAI),
    Case("openai:gpt-5.5", used(272_001, 1_000), "272001 × 10 + 1000 × 45", "2.76501", OPENAI),
    Case("openai:gpt-5.5", used(300_000, 0, cached=300_000), "300000 × 1", "0.3", OPENAI),
    # --- OpenAI: cache writes at 1.25 × input
    Case(
        "openai:gpt-5.6-sol",
        used(10_000, 100, cached=2_000, written=6_000),
        "2000 × 4 + 2000 × 0.40 + 6000 × 5 + 100 × 20",
        "0.0408",
        OPENAI,
    ),
    Case(
        "openai:gpt-5.6-sol",
        used(300_000, 1_000, written=100_000),
        "200000 × 8 + 100000 × 10 + 1000 × 30",
        "2.63",
        OPENAI,
    ),
    # --- OpenAI: batch, flex, priority
    Case("openai:gpt-4o", used(10_000, 1_000), "10000 × 1.25 + 1000 × 5", "0.0175", OPENAI_BATCH, "batch"),
    Case(
        "openai:gpt-4o", used(10_000, 1_000, cached=10_000), "10000 × 1.25 + 1000 × 5", "0.0175", OPENAI_BATCH, "batch"
    ),
    Case(
        "openai:gpt-5",
        used(8_000, 500, cached=4_000),
        "4000 × 0.625 + 4000 × 0.0625 + 500 × 5",
        "0.00525",
        OPENAI_BATCH,
        "batch",
    ),
    Case("openai:o3", used(1_000, 1_000), "1000 × 1 + 1000 × 4", "0.005", OPENAI_BATCH, "batch"),
    Case(
        "openai:gpt-5",
        used(8_000, 500, cached=4_000),
        "4000 × 0.625 + 4000 × 0.0625 + 500 × 5",
        "0.00525",
        OPENAI_FLEX,
        "flex",
    ),
    Case(
        "openai:gpt-5-nano", used(1_000, 1, cached=1_000), "1000 × 0.0025 + 1 × 0.20", "0.0000027", OPENAI_FLEX, "flex"
    ),
    Case("openai:o4-mini", used(2_000, 200), "2000 × 0.55 + 200 × 2.20", "0.00154", OPENAI_FLEX, "flex"),
    Case("openai:gpt-5.5", used(280_000, 100), "280000 × 5 + 100 × 22.50", "1.40225", OPENAI_FLEX, "flex"),
    Case(
        "openai:gpt-5",
        used(8_000, 500, cached=4_000),
        "4000 × 2.50 + 4000 × 0.25 + 500 × 20",
        "0.021",
        OPENAI_PRIORITY,
        "priority",
    ),
    Case("openai:gpt-5-mini", used(8_000, 500), "8000 × 0.45 + 500 × 3.60", "0.0054", OPENAI_PRIORITY, "priority"),
    Case(
        "openai:gpt-4.1",
        used(8_000, 500, cached=1_000),
        "7000 × 3.50 + 1000 × 0.875 + 500 × 14",
        "0.032375",
        OPENAI_PRIORITY,
        "priority",
    ),
    Case("openai:gpt-5.5", used(8_000, 500), "8000 × 12.50 + 500 × 75", "0.1375", OPENAI_PRIORITY, "priority"),
    # --- Anthropic: reads 0.1 ×, writes 1.25 × (five minutes) and 2 × (an hour) the input
    Case("anthropic:claude-haiku-4-5", used(10_000, 500), "10000 × 1 + 500 × 5", "0.0125", ANTHROPIC),
    Case(
        "anthropic:claude-haiku-4-5",
        used(10_000, 500, written=9_000),
        "1000 × 1 + 9000 × 1.25 + 500 × 5",
        "0.01475",
        ANTHROPIC,
    ),
    Case(
        "anthropic:claude-haiku-4-5",
        used(10_000, 500, hour=9_000),
        "1000 × 1 + 9000 × 2 + 500 × 5",
        "0.0215",
        ANTHROPIC,
    ),
    Case(
        "anthropic:claude-haiku-4-5",
        used(10_000, 500, cached=9_000),
        "1000 × 1 + 9000 × 0.10 + 500 × 5",
        "0.0044",
        ANTHROPIC,
    ),
    Case(
        "anthropic:claude-opus-4-5",
        used(20_000, 1_000, cached=10_000, written=4_000, hour=5_000),
        "1000 × 5 + 10000 × 0.50 + 4000 × 6.25 + 5000 × 10 + 1000 × 25",
        "0.11",
        ANTHROPIC,
    ),
    Case(
        "anthropic:claude-opus-4-1",
        used(1_000, 1_000, hour=500),
        "500 × 15 + 500 × 30 + 1000 × 75",
        "0.0975",
        ANTHROPIC,
    ),
    Case(
        "anthropic:claude-3-5-haiku-20241022",
        used(1_000, 1_000, written=1_000),
        "1000 × 1 + 1000 × 4",
        "0.005",
        ANTHROPIC,
    ),
    Case(
        "anthropic:claude-3-haiku-20240307",
        used(1_000, 1_000, written=500),
        "500 × 0.25 + 500 × 0.30 + 1000 × 1.25",
        "0.001525",
        ANTHROPIC,
    ),
    Case(
        "anthropic:claude-sonnet-5-5",
        used(30_000, 700, cached=28_000),
        "2000 × 2 + 28000 × 0.10 + 700 × 10",
        "0.0138",
        ANTHROPIC,
    ),
    Case(
        "anthropic:claude-opus-5-5",
        used(30_000, 700, cached=28_000, hour=2_000),
        "28000 × 0.20 + 2000 × 8 + 700 × 20",
        "0.0356",
        ANTHROPIC,
    ),
    # --- Anthropic: the cliff at 200k counts reads and writes as input
    Case("anthropic:claude-sonnet-4-5", used(200_000, 1_000), "200000 × 3 + 1000 × 15", "0.615", ANTHROPIC_LONG),
    Case("anthropic:claude-sonnet-4-5", used(200_001, 1_000), "200001 × 6 + 1000 × 22.50", "1.222506", ANTHROPIC_LONG),
    Case(
        "anthropic:claude-sonnet-4-5",
        used(250_000, 0, cached=249_000, hour=1_000),
        "249000 × 0.60 + 1000 × 12",
        "0.1614",
        ANTHROPIC_LONG,
    ),
    Case("anthropic:claude-haiku-5-5", used(100_000, 100), "100000 × 0.10 + 100 × 0.50", "0.01005", ANTHROPIC),
    Case("anthropic:claude-haiku-5-5", used(100_001, 100), "100001 × 0.50 + 100 × 2.50", "0.0502505", ANTHROPIC),
    # --- Anthropic: batch halves everything, the cache too; fast mode
    Case(
        "anthropic:claude-haiku-4-5",
        used(10_000, 500, hour=8_000),
        "2000 × 0.50 + 8000 × 1 + 500 × 2.50",
        "0.01025",
        ANTHROPIC_BATCH,
        "batch",
    ),
    Case(
        "anthropic:claude-opus-5-5",
        used(10_000, 500, cached=10_000),
        "10000 × 0.10 + 500 × 10",
        "0.006",
        ANTHROPIC_BATCH,
        "batch",
    ),
    Case(
        "anthropic:claude-opus-5-5",
        used(10_000, 500, written=1_000),
        "9000 × 8 + 1000 × 10 + 500 × 40",
        "0.102",
        ANTHROPIC_FAST,
        "fast",
    ),
    # --- Google: thinking is output; the cliff at 200k; batch leaves the cache at its standard rate
    Case("google:gemini-2.5-pro", used(200_000, 1_000, thought=800), "200000 × 1.25 + 1000 × 10", "0.26", GOOGLE),
    Case("google:gemini-2.5-pro", used(200_001, 1_000), "200001 × 2.50 + 1000 × 15", "0.5150025", GOOGLE),
    Case("google:gemini-2.5-pro", used(100_000, 0, cached=60_000), "40000 × 1.25 + 60000 × 0.125", "0.0575", GOOGLE),
    Case("google:gemini-2.5-flash", used(10_000, 1_000), "10000 × 0.30 + 1000 × 2.50", "0.0055", GOOGLE),
    Case(
        "google:gemini-2.5-flash-lite",
        used(10_000, 1_000, cached=5_000),
        "5000 × 0.10 + 5000 × 0.01 + 1000 × 0.40",
        "0.00095",
        GOOGLE,
    ),
    Case("google:gemini-2.0-flash", used(10_000, 1_000), "10000 × 0.10 + 1000 × 0.40", "0.0014", GOOGLE),
    Case(
        "google:gemini-2.5-pro",
        used(100_000, 1_000, cached=60_000),
        "40000 × 0.625 + 60000 × 0.125 + 1000 × 5",
        "0.0375",
        GOOGLE_BATCH,
        "batch",
    ),
    Case(
        "google:gemini-2.5-flash", used(10_000, 1_000), "10000 × 0.15 + 1000 × 1.25", "0.00275", GOOGLE_BATCH, "batch"
    ),
    Case(
        "google:gemini-3.8-flash",
        used(10_000, 1_000),
        "10000 × 0.75 + 1000 × 3.75",
        "0.01125",
        GOOGLE,
        at=on(2026, 12, 31),
    ),
    Case(
        "google:gemini-3.8-flash",
        used(10_000, 1_000),
        "10000 × 1.50 + 1000 × 7.50",
        "0.0225",
        GOOGLE,
        at=on(2027, 1, 1),
    ),
    # --- Mistral
    Case("mistral:mistral-large-2411", used(1_000, 1_000), "1000 × 2 + 1000 × 6", "0.008", MISTRAL),
    Case(
        "mistral:mistral-large-2512",
        used(1_000, 1_000, cached=400),
        "600 × 0.50 + 400 × 0.05 + 1000 × 1.50",
        "0.00182",
        MISTRAL,
    ),
    Case("mistral:codestral-2508", used(5_000, 1_000), "5000 × 0.30 + 1000 × 0.90", "0.0024", MISTRAL),
    Case("mistral:codestral-2508", used(5_000, 1_000), "5000 × 0.15 + 1000 × 0.45", "0.0012", MISTRAL, "batch"),
    # --- DeepSeek: cheaper by night, and dearer at the peaks since 2026
    Case(
        "deepseek:deepseek-chat",
        used(1_000, 1_000, cached=500),
        "500 × 0.27 + 500 × 0.07 + 1000 × 1.10",
        "0.00127",
        DEEPSEEK_2025,
        at=on(2025, 3, 1, 16, 29),
    ),
    Case(
        "deepseek:deepseek-chat",
        used(1_000, 1_000, cached=500),
        "500 × 0.135 + 500 × 0.035 + 1000 × 0.55",
        "0.000635",
        DEEPSEEK_2025,
        at=on(2025, 3, 1, 16, 30),
    ),
    Case(
        "deepseek:deepseek-v4-pro",
        used(10_000, 1_000, cached=9_000),
        "1000 × 0.66 + 9000 × 0.022 + 1000 × 1.98",
        "0.002838",
        DEEPSEEK,
    ),
    Case(
        "deepseek:deepseek-v4-pro",
        used(10_000, 1_000, cached=9_000),
        "1000 × 1.32 + 9000 × 0.044 + 1000 × 3.96",
        "0.005676",
        DEEPSEEK,
        at=on(2026, 11, 20, 9),
    ),
    # --- others
    Case("x-ai:grok-4-0709", used(10_000, 1_000, cached=4_000), "6000 × 3 + 4000 × 0.75 + 1000 × 15", "0.036", XAI),
    Case("x-ai:grok-3-mini", used(10_000, 1_000), "10000 × 0.30 + 1000 × 0.50", "0.0035", XAI),
    Case("groq:llama-3.3-70b-versatile", used(10_000, 1_000), "10000 × 0.59 + 1000 × 0.79", "0.00669", GROQ),
    Case("groq:llama-3.1-8b-instant", used(10_000, 1_000), "10000 × 0.05 + 1000 × 0.08", "0.00058", GROQ),
    Case("cohere:command-r-plus", used(10_000, 1_000), "10000 × 2.50 + 1000 × 10", "0.035", COHERE),
    Case("cohere:command-r", used(10_000, 1_000), "10000 × 0.15 + 1000 × 0.60", "0.0021", COHERE),
)


def price_of(case: Case) -> TokenPrice:
    provider, _, model = case.model.partition(":")
    return TokenPrice.known(provider, model, tier=case.tier, at=case.at)


@pytest.mark.parametrize("case", CASES, ids=str)
def test_a_call_costs_what_the_provider_publishes(case: Case) -> None:
    assert price_of(case).cost(case.usage) == Fraction(case.usd) * 10**9


@pytest.mark.parametrize("case", CASES, ids=str)
def test_what_was_reserved_for_a_call_covers_it(case: Case) -> None:
    bound = price_of(case).bound(input_tokens=case.usage.input_tokens, output_tokens=case.usage.output_tokens)
    assert bound >= Fraction(case.usd) * 10**9


@pytest.mark.parametrize("case", CASES, ids=str)
def test_the_arithmetic_of_a_case_leads_to_its_result(case: Case) -> None:
    terms = [re.fullmatch(r"(\d+) × ([\d.]+)", term) for term in case.how.split(" + ")]
    assert None not in terms
    assert sum(Fraction(term[1]) * Fraction(term[2]) for term in terms if term) / 10**6 == Fraction(case.usd)


def test_there_are_many_cases_of_every_kind() -> None:
    assert len(CASES) >= 60
    assert {case.tier for case in CASES} == {"standard", "batch", "flex", "priority", "fast"}
    assert len({case.model.partition(":")[0] for case in CASES}) >= 8


@pytest.mark.parametrize(
    ("model", "tier"),
    [
        ("google:gemini-2.5-pro", "flex"),
        ("google:gemini-3-pro-preview", "batch"),
        ("groq:llama-3.1-8b-instant", "priority"),
        ("openai:o1", "flex"),
        ("anthropic:claude-opus-4-1", "batch"),
    ],
)
def test_a_tier_that_the_list_does_not_state_is_refused(model: str, tier: ServiceTier) -> None:
    provider, _, name = model.partition(":")
    with pytest.raises(UnknownPrice, match=f"no price for the service tier '{tier}'"):
        TokenPrice.known(provider, name, tier=tier, at=AUTUMN)
