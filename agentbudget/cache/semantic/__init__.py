"""Answers to questions that mean the same, reused as long as few are wrong."""

from agentbudget.cache.semantic.answers import SemanticAnswers
from agentbudget.cache.semantic.cache import Look, Place, SemanticCache
from agentbudget.cache.semantic.policy import Same, Semantic, equal_answers

__all__ = ["Look", "Place", "Same", "Semantic", "SemanticAnswers", "SemanticCache", "equal_answers"]
