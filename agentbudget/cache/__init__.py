"""What was paid for already: answers, plans, embeddings and retrievals, kept by everything that changes them."""

from agentbudget.cache.answers import EXACT, AnswerCache, Answers, Asked, CachedAnswer, Trust
from agentbudget.cache.flight import Flight, Flights
from agentbudget.cache.key import answer_key, hashed
from agentbudget.cache.label import Kind, Label, Source, Which
from agentbudget.cache.policy import Cache, Caching, Exact, Off, caching
from agentbudget.cache.semantic.policy import Semantic
from agentbudget.cache.store import Item, Kept, Limits, Row, Store

__all__ = [
    "EXACT",
    "AnswerCache",
    "Answers",
    "Asked",
    "Cache",
    "CachedAnswer",
    "Caching",
    "Exact",
    "Flight",
    "Flights",
    "Item",
    "Kept",
    "Kind",
    "Label",
    "Limits",
    "Off",
    "Row",
    "Semantic",
    "Source",
    "Store",
    "Trust",
    "Which",
    "answer_key",
    "caching",
    "hashed",
]
