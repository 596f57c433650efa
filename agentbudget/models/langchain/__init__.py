"""LangChain's chat models as rungs of the ladder. The one place of `models` that imports langchain_core."""

from agentbudget.models.langchain.rung import LangChainModel

__all__ = ["LangChainModel"]
