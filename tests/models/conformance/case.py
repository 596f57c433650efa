"""What a model's conformance is judged by: the model, and what it claims."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

from agentbudget.models.base import Model, Request, ToolChoice
from agentbudget.usage import Usage
from tests.models.conformance.requests import LONG, ask


@dataclass(frozen=True, slots=True)
class Case:
    """A model under test and its claims. What it does not support, it must refuse clearly, before anything is sent.

    ``images`` is None where only the server knows whether its model can see.
    ``tool_choice`` is how the model is brought to call a tool: weak models must be made to, and some models cannot be.
    ``seeded``: the same seed gives the same answer. ``secret`` must not be shown anywhere. ``billed`` says what the
    provider's own books hold of the last call, where a test can see them. ``refused`` is the same model with a wrong
    key, ``unknown`` one that the provider does not have. ``long`` asks for more than any cap of the
    suite allows: where a real model answers, a schema sees to it.
    """

    model: Model
    schemas: bool = True
    stops: bool = True
    tools: bool = True
    tool_choice: ToolChoice = "required"
    images: bool | None = True
    seeded: bool = False
    secret: str | None = None
    billed: Callable[[], Usage] | None = None
    refused: Model | None = None
    unknown: Model | None = None
    long: Request = field(default_factory=lambda: ask(LONG))
