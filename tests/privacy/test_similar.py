"""Answers to similar questions: those about confidential text are found by runs alone that carry such."""

from __future__ import annotations

from agentbudget.cache.semantic import Semantic
from agentbudget.cache.semantic.answers import _place  # pyright: ignore[reportPrivateUsage] # the seam of classes
from agentbudget.ledger import Ledger
from agentbudget.models.base import Message, Request
from agentbudget.privacy import Label
from agentbudget.skills import skill
from agentbudget.step import Context
from agentbudget.step.kept import asked_of
from agentbudget.step.transaction import Step
from agentbudget.testing import ScriptedModel
from tests.privacy.test_steps import context

ALIKE = Semantic(wrong=0.02, across_tenants=True)


@skill(max_output_tokens=20, cache=ALIKE)
async def think(ctx: Context, task: str) -> str:
    """Think."""
    ...


def test_classes_and_tenants_of_confidential_answers_do_not_meet() -> None:
    request, model = Request((Message("user", "what does the stoker earn?"),), 20), ScriptedModel(())
    with Ledger.open("memory:") as ledger:
        ctx = context(ledger, model)
        step = Step(ctx, think, {"task": "pay?"})
        internal = asked_of(step, model, request)
        assert internal.label.tenant == "", "what is internal may be shared between tenants, as the skill says"
        ctx.saw(Label("confidential", ("hr/pay.md",)))
        confidential = asked_of(step, model, request)
        assert confidential.label.tenant == "default"
        assert _place(confidential, ALIKE) != _place(internal, ALIKE)
        assert confidential.shared != internal.shared
        ctx.saw(Label("restricted", ("keys.md",)))
        assert asked_of(step, model, request).shared is None
