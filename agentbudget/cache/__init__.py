"""Answers already paid for."""

from agentbudget.cache.answers import Answers, CachedAnswer, answer_key

__all__ = ["Answers", "CachedAnswer", "answer_key"]
