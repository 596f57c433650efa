"""LangChain with budgets: a chat model, embeddings and a middleware that reserve before and settle after."""

from agentbudget.langchain.budgeted import BudgetedChatModel, budgeted
from agentbudget.langchain.chat import ChatModel

__all__ = ["BudgetedChatModel", "ChatModel", "budgeted"]
