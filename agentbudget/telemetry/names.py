"""The names of spans, attributes and metrics: the conventions' where there are some, ours elsewhere."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final, Literal

Value = str | bool | int | float | Sequence[str]
Values = Mapping[str, Value | None]
"""Attributes of a span; those that are None are unknown, and left out."""

Outcome = Literal["granted", "refused", "error", "settled", "presumed", "voided"]
"""What became of a hold, on ``agentbudget.reservations``."""

SCOPE: Final = "agentbudget"
"""The name of the instrumentation scope."""

SEMCONV_VERSION: Final = "1.41.1"
"""The last release of the semantic conventions that defines ``gen_ai.*``; all of it has the status "development"."""

SCHEMA_URL: Final = f"https://opentelemetry.io/schemas/{SEMCONV_VERSION}"


class GenAI:
    """Names that the semantic conventions define."""

    OPERATION: Final = "gen_ai.operation.name"
    PROVIDER: Final = "gen_ai.provider.name"
    AGENT: Final = "gen_ai.agent.name"
    DATA_SOURCE: Final = "gen_ai.data_source.id"
    REQUEST_MODEL: Final = "gen_ai.request.model"
    REQUEST_MAX_TOKENS: Final = "gen_ai.request.max_tokens"
    RESPONSE_MODEL: Final = "gen_ai.response.model"
    FINISH_REASONS: Final = "gen_ai.response.finish_reasons"
    INPUT_TOKENS: Final = "gen_ai.usage.input_tokens"
    OUTPUT_TOKENS: Final = "gen_ai.usage.output_tokens"
    CACHE_READ_TOKENS: Final = "gen_ai.usage.cache_read.input_tokens"
    CACHE_CREATION_TOKENS: Final = "gen_ai.usage.cache_creation.input_tokens"
    REASONING_TOKENS: Final = "gen_ai.usage.reasoning.output_tokens"
    TOKEN_TYPE: Final = "gen_ai.token.type"
    ERROR_TYPE: Final = "error.type"
    EXCEPTION_TYPE: Final = "exception.type"
    USER: Final = "user.id"

    TOKEN_USAGE: Final = "gen_ai.client.token.usage"
    OPERATION_DURATION: Final = "gen_ai.client.operation.duration"


class Ours:
    """Names of what no convention defines: budgets, routing, caches."""

    RUN: Final = "agentbudget.run.id"
    STEP: Final = "agentbudget.step.id"
    HOLD: Final = "agentbudget.hold.id"
    KIND: Final = "agentbudget.hold.kind"
    SKILL: Final = "agentbudget.skill"
    TIER: Final = "agentbudget.tier"
    MODEL: Final = "agentbudget.model"
    RUNG: Final = "agentbudget.rung"
    PURPOSE: Final = "agentbudget.purpose"
    STATUS: Final = "agentbudget.status"
    ESCALATED: Final = "agentbudget.escalated"
    CONFIDENCE: Final = "agentbudget.confidence"
    ACCOUNTS: Final = "agentbudget.accounts"
    OUTCOME: Final = "agentbudget.outcome"
    PRESUMED: Final = "agentbudget.presumed"
    BUDGET: Final = "agentbudget.budget"
    SETTLED: Final = "agentbudget.settled"
    OVERRUN: Final = "agentbudget.overrun"
    REMAINING: Final = "agentbudget.remaining"
    BURN_RATE: Final = "agentbudget.burn_rate.usd_per_minute"
    COST_NANO: Final = "agentbudget.cost.usd_nano"
    REFUSED_BY: Final = "agentbudget.refusal.account"
    REFUSED_UNIT: Final = "agentbudget.refusal.unit"
    NEEDED: Final = "agentbudget.refusal.needed"
    AVAILABLE: Final = "agentbudget.refusal.available"
    INPUT_ESTIMATED: Final = "agentbudget.estimated.input_tokens"
    RESERVATION: Final = "agentbudget.reservation"
    SETTLEMENT: Final = "agentbudget.settlement"
    RESERVE_S: Final = "agentbudget.reserve_s"
    SETTLE_S: Final = "agentbudget.settle_s"
    COMPUTE_S: Final = "agentbudget.compute_s"
    PART: Final = "agentbudget.prompt"
    CACHE_HIT: Final = "agentbudget.cache.hit"
    CACHE_SAVED: Final = "agentbudget.cache.saved.usd_nano"
    CACHE_KIND: Final = "agentbudget.cache.kind"
    CACHE_BECAUSE: Final = "agentbudget.cache.because"
    RETRIEVAL_ALLOWANCE: Final = "agentbudget.retrieval.allowance_tokens"
    RETRIEVAL_TOKENS: Final = "agentbudget.retrieval.tokens"
    PASSAGES: Final = "agentbudget.retrieval.passages"
    DATA_CLASS: Final = "agentbudget.data_class"
    DECISION: Final = "agentbudget.data_class.decision"
    DESTINATION: Final = "agentbudget.data_class.destination"
    FOUND: Final = "agentbudget.data_class.found"

    ESTIMATED_USD: Final = "agentbudget.estimated.usd_nano"
    ESTIMATED_TOKENS: Final = "agentbudget.estimated.tokens"
    HELD_USD: Final = "agentbudget.held.usd_nano"
    HELD_TOKENS: Final = "agentbudget.held.tokens"
    SETTLED_USD: Final = "agentbudget.settled.usd_nano"
    SETTLED_TOKENS: Final = "agentbudget.settled.tokens"
    REMAINING_USD: Final = "agentbudget.remaining.usd_nano"
    REMAINING_TOKENS: Final = "agentbudget.remaining.tokens"

    COST: Final = "agentbudget.cost"
    TOKENS: Final = "agentbudget.tokens"
    RESERVATIONS: Final = "agentbudget.reservations"
    CACHE_HITS: Final = "agentbudget.cache.hits"
    CACHE_SAVINGS: Final = "agentbudget.cache.saved"


TOKEN_BUCKETS: Final = tuple(4**i for i in range(14))
"""Histogram bounds that the conventions give for tokens."""

DURATION_BUCKETS: Final = tuple(0.01 * 2**i for i in range(14))
"""Histogram bounds that the conventions give for seconds."""
