"""LangChain with budgets: a chat model, embeddings and a middleware that reserve before and settle after."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from agentbudget.errors import MissingDependency
from agentbudget.langchain.budgeted import BudgetedChatModel, budgeted
from agentbudget.langchain.chat import ChatModel
from agentbudget.langchain.embeddings import BudgetedEmbeddings, budgeted_embeddings

if TYPE_CHECKING:
    from agentbudget.langchain.history import HistoryMiddleware
    from agentbudget.langchain.middleware import BudgetMiddleware

__all__ = [
    "BudgetMiddleware",
    "BudgetedChatModel",
    "BudgetedEmbeddings",
    "ChatModel",
    "HistoryMiddleware",
    "budgeted",
    "budgeted_embeddings",
]


def __getattr__(name: str) -> Any:
    """The middlewares need langchain itself, which the rest does not."""
    if name not in ("BudgetMiddleware", "HistoryMiddleware"):
        raise AttributeError(f"module 'agentbudget.langchain' has no attribute {name!r}")
    try:
        from agentbudget.langchain.history import HistoryMiddleware
        from agentbudget.langchain.middleware import BudgetMiddleware
    except ImportError as error:
        raise MissingDependency(
            "a middleware of create_agent needs langchain: pip install 'agentbudget-runtime[langchain]'"
        ) from error
    return BudgetMiddleware if name == "BudgetMiddleware" else HistoryMiddleware
