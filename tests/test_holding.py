"""How much calls hold: what a policy may be given."""

from __future__ import annotations

from typing import Any

import pytest

from agentbudget.errors import SkillError
from agentbudget.holding import Fixed, Quantile, holding


@pytest.mark.parametrize(
    ("made", "said", "why"),
    [
        (Quantile, {"level": "0.9"}, "level of a quantile must be from 0.5 to below 1, not '0.9'"),
        (Quantile, {"level": 0.3}, "from 0.5 to below 1"),
        (Quantile, {"start_tokens": "64"}, "start_tokens must be a whole number of at least 1, not '64'"),
        (Quantile, {"start_tokens": 0}, "at least 1"),
        (Fixed, {"budget": "0.05"}, r"Fixed\(Budget\(usd='0.05'\)\), not '0.05'"),
        (holding, {"said": "fixed"}, "hold must be 'worst', 'quantile', 'grow'"),
    ],
)
def test_what_is_no_policy_is_refused_when_the_skill_is_declared(made: Any, said: dict[str, Any], why: str) -> None:
    with pytest.raises(SkillError, match=why):
        made(**said)
