"""What a call will use before it runs: input counted or bounded, output capped and learned."""

from __future__ import annotations

from agentbudget.estimate.conformal import conformal_upper
from agentbudget.estimate.estimator import CallEstimate, Estimator, tag
from agentbudget.estimate.lengths import ENOUGH

__all__ = ["ENOUGH", "CallEstimate", "Estimator", "conformal_upper", "tag"]
