"""Answers to questions that mean the same, reused as long as few are wrong."""

from agentbudget.cache.semantic.policy import Semantic, equal_answers

__all__ = ["Semantic", "equal_answers"]
