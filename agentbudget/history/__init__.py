"""What a prompt is made of, and conversations in fewer tokens."""

from __future__ import annotations

from agentbudget.history.compact import (
    Compacted,
    Counter,
    Entry,
    Policy,
    approximate,
    candidates,
    compact,
    fit,
    too_long,
)
from agentbudget.history.facts import facts, stands_in, words
from agentbudget.history.parts import Breakdown, InputParts, Part, PartName, SystemCounts, breakdown, input_parts, total
from agentbudget.history.prefix import kept_prefix
from agentbudget.history.rules import Rule
from agentbudget.history.worth import Worth, worth_of_summary

__all__ = [
    "Breakdown",
    "Compacted",
    "Counter",
    "Entry",
    "InputParts",
    "Part",
    "PartName",
    "Policy",
    "Rule",
    "SystemCounts",
    "Worth",
    "approximate",
    "breakdown",
    "candidates",
    "compact",
    "facts",
    "fit",
    "input_parts",
    "kept_prefix",
    "stands_in",
    "too_long",
    "total",
    "words",
    "worth_of_summary",
]
