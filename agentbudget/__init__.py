"""Every step of an agent as a financial transaction: estimate, reserve, run, verify, settle.

Names load when they are first used, so that importing this package does no I/O and takes milliseconds.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from agentbudget.agent import Agent, Run
    from agentbudget.context import Citation, Index, Retrieved, cite, open_index
    from agentbudget.errors import AgentBudgetError, BudgetExceeded, DataRefused, Fault, Mistake, ModelError
    from agentbudget.holding import Fixed, Quantile, WorstCase
    from agentbudget.ledger import Hold, Ledger
    from agentbudget.models import Completion, Ladder, Message, Model, Request, make_model
    from agentbudget.models.base import Image, Tool, ToolCall
    from agentbudget.money import Amount, Budget
    from agentbudget.privacy import DataClass, Privacy
    from agentbudget.settings import Settings
    from agentbudget.skills import Skill, skill
    from agentbudget.statement import Statement
    from agentbudget.step import Context, Event, Reply, ReplyStream, Scope
    from agentbudget.usage import Usage
    from agentbudget.verify import Verdict, cites

__version__ = "0.1.0"

_HOMES: Final = {
    "agentbudget.agent": ("Agent", "Run"),
    "agentbudget.context": ("Citation", "Index", "Retrieved", "cite", "open_index"),
    "agentbudget.errors": ("AgentBudgetError", "BudgetExceeded", "DataRefused", "Fault", "Mistake", "ModelError"),
    "agentbudget.holding": ("Fixed", "Quantile", "WorstCase"),
    "agentbudget.ledger": ("Hold", "Ledger"),
    "agentbudget.models": ("Completion", "Ladder", "Message", "Model", "Request", "make_model"),
    "agentbudget.models.base": ("Image", "Tool", "ToolCall"),
    "agentbudget.money": ("Amount", "Budget"),
    "agentbudget.privacy": ("DataClass", "Privacy"),
    "agentbudget.settings": ("Settings",),
    "agentbudget.skills": ("Skill", "skill"),
    "agentbudget.statement": ("Statement",),
    "agentbudget.step": ("Context", "Event", "Reply", "ReplyStream", "Scope"),
    "agentbudget.usage": ("Usage",),
    "agentbudget.verify": ("Verdict", "cites"),
}
_MODULE_OF: Final = {name: module for module, names in _HOMES.items() for name in names}

__all__ = [
    "Agent",
    "AgentBudgetError",
    "Amount",
    "Budget",
    "BudgetExceeded",
    "Citation",
    "Completion",
    "Context",
    "DataClass",
    "DataRefused",
    "Event",
    "Fault",
    "Fixed",
    "Hold",
    "Image",
    "Index",
    "Ladder",
    "Ledger",
    "Message",
    "Mistake",
    "Model",
    "ModelError",
    "Privacy",
    "Quantile",
    "Reply",
    "ReplyStream",
    "Request",
    "Retrieved",
    "Run",
    "Scope",
    "Settings",
    "Skill",
    "Statement",
    "Tool",
    "ToolCall",
    "Usage",
    "Verdict",
    "WorstCase",
    "__version__",
    "cite",
    "cites",
    "make_model",
    "open_index",
    "skill",
]


def __getattr__(name: str) -> Any:
    module = _MODULE_OF.get(name)
    if module is None:
        raise AttributeError(f"module 'agentbudget' has no attribute {name!r}")
    value = getattr(importlib.import_module(module), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return __all__
