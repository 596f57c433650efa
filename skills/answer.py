"""Answer a question from passages, on the strength of a sentence copied from them."""

from __future__ import annotations

from agentbudget import Context, skill
from skills.verify import Finding, verify


@skill(tier="local", escalate="frontier", max_output_tokens=240, accept=verify)
async def answer(ctx: Context, passages: str, question: str) -> Finding:
    """Answer the question from the passages alone.

    "quote": copy the sentence of the passages that answers the question, word for word. "answer": what follows
    from it for the question, in one short sentence with the exact figures.
    """
    ...
