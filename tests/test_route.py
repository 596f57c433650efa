from __future__ import annotations

import pytest

from agentbudget.errors import UnknownModel
from agentbudget.models.base import Finish
from agentbudget.models.ladder import Ladder
from agentbudget.route import Move, Progress, next_move
from agentbudget.testing import ScriptedModel


@pytest.mark.parametrize(
    ("passed", "finish", "rung", "retries", "move"),
    [
        (True, "stop", 0, 0, "accept"),
        (False, "length", 0, 0, "retry"),
        (False, "budget", 0, 0, "retry"),
        (False, "length", 0, 1, "escalate"),
        (False, "stop", 0, 0, "escalate"),
        (False, "stop", 1, 0, "stop"),
        (False, "refused", 1, 0, "stop"),
    ],
)
def test_the_next_move_follows_from_what_is_known(
    passed: bool, finish: Finish, rung: int, retries: int, move: Move
) -> None:
    assert next_move(Progress(rung=rung, top=1, finish=finish, passed=passed, retries=retries)) == move


def test_a_ladder_knows_its_tiers_and_refuses_others() -> None:
    a, b, c = (ScriptedModel([], name=f"scripted:{n}") for n in "abc")
    ladder = Ladder((a, b, c))
    assert (ladder.at("local"), ladder.at("frontier"), ladder.at("scripted:b")) == (a, c, b)
    assert list(ladder.climb("local", "frontier")) == [a, b, c]
    assert list(ladder.climb("local", None)) == [a]
    assert list(ladder.climb("frontier", "local")) == [c]
    with pytest.raises(UnknownModel, match="scripted:a, scripted:b"):
        ladder.at("middle")
