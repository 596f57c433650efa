"""Triage: which team a message belongs to."""

from __future__ import annotations

from typing import Literal

from agentbudget import Context, skill


@skill(max_output_tokens=8)
async def triage(ctx: Context, message: str) -> Literal["billing", "technical", "shipping", "other"]:
    """Say which team should handle this customer's message.

    billing: money, invoices, refunds. technical: something does not work. shipping: delivery, parcels,
    addresses. other: everything else.
    """
    ...
