"""A step: one skill call as one transaction. `Context` is what a skill sees of it, `Engine` what it runs on."""

from agentbudget.step.context import Context
from agentbudget.step.engine import Engine, Event, Phase, Scope
from agentbudget.step.reply import Reply
from agentbudget.step.streams import ReplyStream
from agentbudget.step.transaction import Step

__all__ = ["Context", "Engine", "Event", "Phase", "Reply", "ReplyStream", "Scope", "Step"]
